"""The suite that every app must pass, ours or yours: subclass `AppSuite` in a test module, and let pytest find it.

    class TestBookshop(AppSuite):
        app_class = BookshopApp
        wrong_credentials = {"token": "nonsense"}
        streams = [StreamCase("books", kind="books", record=lambda i: {"id": i, "title": f"Büch {i}"}, ...)]
        objects = [ObjectCase("books", ...)]

        def sandbox(self, runtime):
            return BookshopSandbox(runtime=runtime)

It needs pytest and nothing else: each test makes its own sandbox on loopback and its own event loop. What an app does not
declare is not asked of it. The docs page "Adding an app" has a whole example.
"""

from __future__ import annotations

from oploop.apps.conformance.cases import Bench, ObjectCase, Raw, StreamCase
from oploop.apps.conformance.checking import Checking
from oploop.apps.conformance.reading import Reading
from oploop.apps.conformance.writing import Writing


class AppSuite(Checking, Reading, Writing):
    """All tests of an app: credentials and declarations, reading, writing."""


__all__ = ["AppSuite", "Bench", "ObjectCase", "Raw", "StreamCase"]
