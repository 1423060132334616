"""Names that an engine cannot keep whole: of syncs, of fields, of objects."""

from __future__ import annotations

from dataclasses import replace

from oploop.activate import diff as diffing
from oploop.activate import folding, ledger
from oploop.activate.plan import make_plan
from oploop.project import FieldMapping
from oploop.records import Op, Outcome
from oploop.state import JournalStep
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at

LONG = "what the account's managers say, in their own words, about "


def test_long_names_that_begin_alike_are_delivered_and_known_apart(engine: Engine) -> None:
    engine.model({"email": "VARCHAR", "a": "VARCHAR", "b": "VARCHAR"}, [("x", "1", "2")])
    engine.records(
        {"email": "VARCHAR", f"{LONG}A": "VARCHAR", f"{LONG}B": "VARCHAR"}, [("r", "x", "0", "0", 0, at(0), False)]
    )
    fields = tuple(FieldMapping(f"{LONG}{n.upper()}", column=n) for n in "ab")
    obj = replace(an_object(a_field(f"{LONG}A"), a_field(f"{LONG}B")), name="people" * 12)
    sync = replace(a_sync(*fields, name="accounts_" * 9), object=obj.name)
    bound = engine.bind(sync, obj)
    engine.raw = "raw_crm.people__all"
    found = diffing.diff(
        bound, engine.warehouse, table=diffing.plan_table_name(bound.name, "01JD8ABCDEFGHJKMNPQRSTVWXY")
    )
    assert found.counts == {"update": 1}
    plan = make_plan(found, engine.warehouse, budget=None, call_seconds=None)
    table = ledger.keep_plan(plan, engine.warehouse, "r1", at(1))
    (begun,) = ledger.unfolded(engine.warehouse)
    assert begun.plan_table == table
    done = JournalStep("r1", bound.name, "s", 1, 1, 1, Op.UPDATE, at(2), at(2), Outcome.OK)
    folding.fold(engine.warehouse, begun, [done], at(3))
    assert diffing.look(bound, engine.warehouse).state_fields == {f"{LONG}A", f"{LONG}B"}
    again = diffing.diff(bound, engine.warehouse, table="again")
    assert again.counts == {}
    engine.model({"email": "VARCHAR", "a": "VARCHAR", "b": "VARCHAR"}, [("x", "1", "3")])
    (change,) = engine.changes(diffing.diff(bound, engine.warehouse, table="moved"))
    assert change.fields == {f"{LONG}B": "3"}
