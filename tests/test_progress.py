from __future__ import annotations

from collections.abc import Iterator

import pytest

from planner.measuring.progress import PART_S, WHOLE, Outlook, remaining_s
from planner.measuring.records import Phase
from planner.measuring.store import Store


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store() -> Iterator[Store]:
    with Store(None) as opened:
        yield opened


def test_open_parts_last_as_long_as_those_of_their_phase_did() -> None:
    done = Phase(model="a", phase="losses", done=4, total=4, reused=2, seconds=6.0)
    assert remaining_s([done, Phase(model="a", phase="timing", total=2)]) == 2 * PART_S
    assert remaining_s([done, Phase(model="b", phase="losses", total=2)]) == 6.0
    slower = Phase(model="b", phase="losses", done=1, total=1, seconds=10.0)
    assert remaining_s([Phase(model="b", phase="losses", total=2)], [slower, done]) == 20.0


def test_what_was_there_before_does_not_count_as_fast(store: Store) -> None:
    clock, told = Clock(), []
    outlook = Outlook(store, {("a", "losses"): 10}, lambda *what: told.append(what), clock)
    for done in (7, 8):
        clock.now += 3.0
        outlook("a: losses", done, 10)
    assert outlook.phases["a", "losses"].reused == 6
    assert outlook.phases["a", "losses"].part_s == 3.0
    assert told[-1] == (WHOLE, 6, 13)


def test_the_whole_counts_phases_that_are_still_to_come(store: Store) -> None:
    clock, told = Clock(), []
    expected = {("a", "losses"): 2, ("a", "timing builds"): 4, ("b", "losses"): 2, ("b", "timing builds"): 4}
    outlook = Outlook(store, expected, lambda *what: told.append(what), clock)
    for what, done, total, seconds in (("losses", 1, 2, 5), ("losses", 2, 2, 5), ("timing 3 builds", 1, 4, 1)):
        clock.now += seconds
        outlook(f"a: {what}", done, total)
    assert told[-1] == (WHOLE, 11, 11 + 3 + 10 + 4 + 1)
    assert [p for p in told if p[0] != WHOLE] == [
        ("a: losses", 1, 2),
        ("a: losses", 2, 2),
        ("a: timing 3 builds", 1, 4),
    ]


def test_a_phase_that_tells_of_a_part_before_it_is_whole_once_another_begins(store: Store) -> None:
    clock = Clock()
    outlook = Outlook(store, {}, lambda *_: None, clock)
    for done in range(3):
        outlook("a: building", done, 3)
        clock.now += 2.0
    clock.now += 1.0
    outlook("a: timing", 1, 1)
    outlook.end()
    (run,) = store.phases().values()
    assert [(p.phase, p.done, p.total, p.seconds) for p in run] == [("building", 3, 3, 7.0), ("timing", 1, 1, 0.0)]


def test_a_phase_that_had_nothing_to_do_is_not_left_open_at_the_end(store: Store) -> None:
    told = []
    outlook = Outlook(store, {("a", "losses"): 5}, lambda *what: told.append(what), Clock())
    outlook.end()
    (run,) = store.phases().values()
    assert [phase.open for phase in run] == [0]
    assert told == [(WHOLE, 1, 1)]
