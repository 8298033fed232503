"""A lane's state in memory: what a failed trigger leaves (nothing), and what a batch writes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ai_infra.bus.state import LaneState, encode_record

from .lane_bench import Bench, Counted, Errand, make_event, make_service

IDS = st.sampled_from(["a", "b", "c"])
TYPES = st.sampled_from([Counted, Errand])
CHANGES = st.lists(st.tuples(st.sampled_from(["put", "fit", "delete"]), TYPES, IDS, st.integers(0, 5)), max_size=12)


def change(state: LaneState, changes: list[tuple[str, type, str, int]]) -> None:
    for what, record_type, record_id, number in changes:
        if what == "delete":
            state.delete(record_type, record_id)
        else:
            put = state.put if what == "put" else state.put_fitting
            put(record_id, Counted(number) if record_type is Counted else Errand(str(number)))


def everything(state: LaneState) -> tuple[dict[tuple[str, str], object], dict[str, bytes | None]]:
    """What `decide` would read, and what a commit would write."""
    read = {(t.__name__, i): r for t in (Counted, Errand) for i, r in state.all(t)}
    written = dict(state.changes())
    for key, value in written.items():
        name, _, record_id = key.partition("/")
        record = next((r for (n, i), r in read.items() if (n, i) == (name, record_id)), None)
        assert value == (None if record is None else encode_record(record))
    return read, written


@given(committed=CHANGES, earlier=CHANGES, failed=CHANGES, later=CHANGES)
def test_a_trigger_that_fails_leaves_nothing_of_its_changes(
    committed: list[tuple[str, type, str, int]],
    earlier: list[tuple[str, type, str, int]],
    failed: list[tuple[str, type, str, int]],
    later: list[tuple[str, type, str, int]],
) -> None:
    states = [LaneState((Counted, Errand)) for _ in range(2)]
    for state in states:
        change(state, committed)
        state.commit()
        state.savepoint()
        change(state, earlier)
    tried, spared = states
    tried.savepoint()
    change(tried, failed)
    tried.restore_savepoint()
    assert everything(tried) == everything(spared)
    for state in states:
        state.savepoint()
        change(state, later)
        state.commit()
    assert everything(tried) == everything(spared)
    assert everything(tried)[1] == {}


@dataclass
class RunningClock:
    """A clock that goes on whenever it is read, as a real one does."""

    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    readings: list[datetime] = field(default_factory=list)

    def __call__(self) -> datetime:
        self.now += timedelta(milliseconds=7)
        self.readings.append(self.now)
        return self.now


def test_what_a_trigger_says_carries_the_time_at_which_it_was_decided() -> None:
    clock, told = RunningClock(), list[datetime]()
    service = make_service()
    bench = Bench(service)
    object.__setattr__(bench.surroundings, "clock", clock)
    decide: Callable[..., object] = service.decide

    def noting(state: object, trigger: object, context: object) -> object:
        told.append(context.now)  # type: ignore[attr-defined]  # a Context
        return decide(state, trigger, context)

    object.__setattr__(service, "decide", noting)
    for _ in range(3):
        bench.lane.event(make_event("count"), bench.batch)
    said = [dict(o.headers)["ce_time"].decode() for o in bench.batch.outgoing]
    assert [datetime.fromisoformat(text) for text in said] == told
    assert told == sorted(set(told))
