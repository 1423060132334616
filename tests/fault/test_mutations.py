"""The simulation sees when the engine is wrong: each mutation, with the seed that finds it; `tests/fault/mutations.py` finds others."""

from __future__ import annotations

import pytest

from tests.fault.mutations import DIRECTED, MUTATIONS, PAGE, Mutation, noted, page_with, play

#: Seeds that are tried besides the noted one, which a change of the worlds may have moved.
OTHERS = 60


@pytest.mark.parametrize("mutation", [m for m in MUTATIONS if m.name in noted()], ids=lambda m: m.name)
def test_a_broken_engine_is_found(mutation: Mutation) -> None:
    known = noted()[mutation.name]
    first = [known.seed] if isinstance(known.seed, int) else []
    found = play(mutation, [*first, *range(mutation.start, mutation.start + OTHERS)])
    assert found is not None, f"{mutation.name} is not seen any more: python -m tests.fault.mutations --write"


def test_the_page_has_them_all() -> None:
    text = PAGE.read_text()
    assert page_with(text, noted()) == text, "python -m tests.fault.mutations --write"


def test_each_schedule_written_by_hand_is_of_a_mutation_that_there_is() -> None:
    assert set(DIRECTED) <= {m.name for m in MUTATIONS}
