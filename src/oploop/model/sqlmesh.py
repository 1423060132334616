"""SQLMesh behind the Modeler protocol. Importing this module takes 2.5 s: only `make_modeler` does, when it must."""

from __future__ import annotations

from oploop.model import sqlmesh_import  # noqa: F401  # before anything that imports SQLMesh itself
from oploop.model.sqlmesh_modeler import SqlmeshModeler

__all__ = ["SqlmeshModeler"]
