"""The desk of the flow tests, for faults."""

from tests.flow.conftest import desk, make_desk

__all__ = ["desk", "make_desk"]
