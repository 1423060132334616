"""The document that dbt writes of a project, as far as oploop asks. See `oploop.project.dbt`, which imports it where it reads one."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, model_validator

#: What models are: what a sync may name.
KINDS = ("model", "snapshot", "seed")


class Metadata(BaseModel):
    """`dbt_schema_version` ends in `manifest/v12.json`."""

    adapter_type: str
    project_name: str | None = None
    dbt_version: str = ""
    dbt_schema_version: str = ""


class Config(BaseModel):
    enabled: bool | None = None
    materialized: str | None = None


class Column(BaseModel):
    name: str | None = None
    data_type: str | None = None


class DependsOn(BaseModel):
    nodes: list[str] | None = None


class TestMetadata(BaseModel):
    """What a generic test is called."""

    name: str


class Node(BaseModel):
    """A model, snapshot, seed, test ..., under dbt's id of it."""

    resource_type: str
    name: str
    package_name: str = ""
    original_file_path: str = ""
    schema_: str | None = None
    alias: str | None = None
    version: str | int | float | None = None
    description: str | None = None
    config: Config | None = None
    columns: dict[str, Column] | None = None
    depends_on: DependsOn | None = None
    attached_node: str | None = None
    test_metadata: TestMetadata | None = None
    column_name: str | None = None

    model_config = {"alias_generator": lambda name: name.rstrip("_")}

    @property
    def kind(self) -> str:
        """As what it stands in the warehouse."""
        return (self.config and self.config.materialized) or self.resource_type

    @model_validator(mode="after")
    def _stands_somewhere(self) -> Self:
        if self.resource_type in KINDS and self.kind != "ephemeral" and self.schema_ is None:
            raise ValueError("has no schema")
        return self


class Source(BaseModel):
    """One table of a source."""

    source_name: str
    name: str
    schema_: str
    identifier: str | None = None
    loaded_at_field: str | None = None

    model_config = Node.model_config


class Document(BaseModel):
    metadata: Metadata
    nodes: dict[str, Node]
    unit_tests: dict[str, Node] | None = None
    sources: dict[str, Source] | None = None
