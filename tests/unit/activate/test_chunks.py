"""Changes read for sending: as JSON text of columns they say the same as one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
import pytest

from oploop.activate import ledger
from oploop.activate import plan as planning
from oploop.activate.chunks import read_chunks
from oploop.apps.http.templates import Filling, maker, texts_maker
from oploop.apps.jsonvalues import plain
from oploop.project import Mode
from oploop.records import FieldType, Op, Operation, Replay
from tests.unit.activate.engine import Engine, a_field, a_sync, an_object, at

SAFE = Operation(batch=2, replay=Replay.SAFE)
PLAIN = {"id": "$key.email", "...": "$record"}


def chunks(engine: Engine, operations: Mapping[Op, Operation], mode: Mode) -> list[Any]:
    """Two new people, and three of whom some fields differ."""
    types = {"email": "VARCHAR", "tier": "VARCHAR", "score": "BIGINT", "tags": "VARCHAR"}
    engine.model(types, [(f"p{i}@x", f'say "{i}"' if i % 2 else "é", i, '["a"]') for i in range(5)])
    held = [(f"r{i}", f"p{i}@x", "é", i if i < 3 else 9, '["a"]', 0, at(0), False) for i in range(2, 5)]
    engine.records(types, held)
    tags = a_field("tags", FieldType.LIST)
    obj = an_object(a_field("tier"), a_field("score", FieldType.INTEGER), tags, operations=operations)
    bound = engine.bind(a_sync("tier", "score", "tags", mode=mode), obj)
    found = planning.make_plan(engine.diff(bound), engine.warehouse, budget=None, call_seconds=None, allow={"first"})
    table = ledger.keep_plan(found, engine.warehouse, "r1", at(0))
    return list(read_chunks(bound, engine.warehouse, table, lambda op, n: 100))


@pytest.mark.parametrize("template", ["$record", PLAIN, {"x": "$id", "...": "$record"}, {"k": "$key.email"}])
@pytest.mark.parametrize(
    ("operations", "mode"),
    [
        ({Op.CREATE: SAFE, Op.UPDATE: SAFE}, Mode.UPSERT),
        ({Op.UPSERT: SAFE}, Mode.UPSERT),
        ({Op.UPDATE: SAFE}, Mode.UPDATE),
    ],
)
def test_the_text_of_many_is_what_is_made_of_each(engine: Engine, template: Any, operations: Any, mode: Mode) -> None:
    made = chunks(engine, operations, mode)
    assert made
    texts = 0
    for _, changes in made:
        text = texts_maker(template)(changes, False)
        each = [maker(template)(Filling(c.fields, c.key, c.remote_id, "s")) for c in changes]
        if text is not None:
            texts += 1
            assert orjson.loads(orjson.dumps(text)) == orjson.loads(orjson.dumps(each, default=plain))
            assert orjson.loads(orjson.dumps(texts_maker(template)(changes[1:], False))) == orjson.loads(
                orjson.dumps(each[1:], default=plain)
            )
    if template == PLAIN:  # new records and others in one chunk are unlike
        assert texts == (0 if Op.UPSERT in operations else len(made))


def test_what_is_too_unusual_is_left_to_the_other_way(engine: Engine) -> None:
    [(_, changes)] = chunks(engine, {Op.UPDATE: SAFE}, Mode.UPDATE)
    for template in ({"n": "$field.tier"}, {"id": "$id", "in": {"a": "$id"}}, {"tier": "$key.email", "...": "$record"}):
        assert texts_maker(template)(changes, False) is None
    assert texts_maker({"id": "$id"})(changes, True) is None, "ids that are whole numbers"
