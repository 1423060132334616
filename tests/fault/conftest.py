"""The desk of the flow tests, for faults."""

from tests.flow.conftest import desk, desks, make_desk

__all__ = ["desk", "desks", "make_desk"]
