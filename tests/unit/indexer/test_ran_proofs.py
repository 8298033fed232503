"""What served at a time is proven by a file, and nothing can be left out of it or changed in it unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from tests.unit.indexer.test_proofs import LANES, ORIGIN, opened, write_archive

from ai_infra.errors import AiInfraError
from ai_infra.events.event import Event
from ai_infra.events.generated import DeploymentCause, Environment, JobStatusKind
from ai_infra.tlog.exceptions import BadProof
from ai_infra.tlog.proof_file import LogProof
from ai_infra_indexer.archived import ArchivedLane
from ai_infra_indexer.proofs import ran
from ai_infra_indexer.proofs.checking import ProvenEvent, check_event_proof
from ai_infra_indexer.proofs.entries import NotProven
from ai_infra_indexer.proofs.evidence import Evidence, Ran
from ai_infra_indexer.proofs.making import find_keyrings, prove_event
from ai_infra_indexer.sequence import Head, sequence

FIRST, DEV, SECOND, LAST = 8, 150, 300, 350  # positions: prod revision 1, dev revision 1, prod revision 2, the end


class Log:
    """A lane in which one artifact served in prod, then another."""

    def __init__(self, root: Path, world: Any) -> None:
        self.world = world
        records = [world.keyring_record(), *world.story()]
        while len(records) <= LAST:
            if len(records) == DEV:
                said = ("canary", world.deployed(env=Environment.DEV, stable_artifact_id="art-2"))
            elif len(records) == SECOND:
                said = ("canary", world.deployed(2, stable_artifact_id="art-2", cause=DeploymentCause.ROLLBACK))
            else:
                said = ("trainer", world.status(JobStatusKind.RUNNING, attempt=len(records)))
            records.append(world.say(*said))
        verifier = world.verifier()
        self.events: list[Event[Any]] = [verifier.verify(record) for record in records]
        lines, _ = sequence(Head(world.lane, f"{ORIGIN}/lanes/{world.lane}"), self.events, world.chain())
        self.raws = [line.raw for line in lines]
        self.archived: ArchivedLane = write_archive(root, world, self.raws)

    def time(self, position: int) -> datetime:
        return self.events[position].append_time

    def prove(self, position: int, at: datetime, following: int | None = None) -> bytes:
        checkpoint = opened(self.archived, self.world)
        keyrings = find_keyrings(self.archived, len(self.raws))
        return prove_event(self.archived, checkpoint, position, keyrings, lanes=LANES, ran=at, following=following)

    def check(self, data: bytes) -> ProvenEvent:
        return check_event_proof(data, self.world.roots, log_origin=ORIGIN)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory, make_world: Callable[[], Any]) -> Log:
    return Log(tmp_path_factory.mktemp("ran"), make_world())


def changed(data: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    """The file with another `ran`."""
    proof = LogProof.parse(data)
    said = orjson.loads(proof.extra or b"")
    change(said["ran"])
    return replace(proof, extra=orjson.dumps(said, option=orjson.OPT_SORT_KEYS)).to_bytes()


@pytest.mark.parametrize(
    "changes",
    [{"between": []}, {"between": 5}, {"at": 2**63 - 1}, {"at": -(2**62)}, {"at": 253_402_300_800_000}],
    ids=str,
)
def test_what_is_no_time_and_no_evidence_is_a_bad_proof(log: Log, changes: dict[str, Any]) -> None:
    data = changed(log.prove(FIRST, log.time(FIRST)), lambda ran: ran.update({"between": None} | changes))
    with pytest.raises(BadProof):
        log.check(data)


@pytest.mark.parametrize("at", [FIRST, FIRST + 1, DEV, SECOND - 1])
def test_a_change_that_was_the_newest_is_shown_by_every_entry_up_to_the_time(log: Log, at: int) -> None:
    data = log.prove(FIRST, log.time(at))
    found = log.check(data).ran
    assert found is not None
    assert (found.model, found.env, found.revision, found.stable_artifact_id) == ("digits", "prod", 1, "art-1")
    assert (found.shown_by, found.at, found.since) == ("every_entry", log.time(at), log.events[FIRST].time)
    assert any("without a gap" in line for line in found.proven)
    assert not any("checkpoint's last entry" in line for line in found.not_proven)
    between = Evidence.parse(LogProof.parse(data).extra).ran.between  # type: ignore[union-attr]  # it has one
    assert between is not None
    assert between.entries == tuple(log.raws[FIRST + 1 : at + 2])
    assert found.until == (log.events[SECOND].time if at == SECOND - 1 else None)


def test_of_what_serves_still_the_file_says_up_to_when_it_knows(log: Log) -> None:
    found = log.check(log.prove(SECOND, log.time(LAST) + timedelta(days=1))).ran
    assert found is not None
    assert (found.revision, found.shown_by, found.until) == (2, "every_entry", None)
    assert any("the checkpoint's last entry was appended" in line for line in found.not_proven)
    alone = log.check(log.prove(LAST - 50, log.time(LAST)))
    assert alone.ran is not None


def test_where_too_much_lies_between_the_next_revision_shows_it_and_the_file_says_what_that_leaves_open(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ran.make_ran, "__kwdefaults__", {"max_bytes": 20_000})
    found = log.check(log.prove(FIRST, log.time(SECOND - 1), SECOND)).ran
    assert found is not None
    assert (found.shown_by, found.revision, found.until) == ("next_revision", 1, log.events[SECOND].time)
    assert any("numbers 1 and 2" in line for line in found.not_proven)
    bare = log.check(log.prove(FIRST, log.time(SECOND - 1))).ran
    assert bare is not None
    assert (bare.shown_by, bare.until) == ("nothing", None)
    assert any("too many for a file" in line for line in bare.not_proven)
    for wrong in (DEV, SECOND + 1):
        with pytest.raises(NotProven):
            log.check(log.prove(FIRST, log.time(SECOND - 1), wrong))


def test_a_change_that_was_not_the_newest_any_more_or_not_yet_is_not_proven(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in (SECOND, LAST):
        with pytest.raises(NotProven) as error:
            log.check(log.prove(FIRST, log.time(at)))
        assert error.value.code == "superseded"
    with pytest.raises(NotProven) as error:
        log.check(log.prove(SECOND, log.time(SECOND - 1)))
    assert error.value.code == "superseded"
    with pytest.raises(NotProven, match=r"told by a deployment\.changed"):
        log.check(log.prove(FIRST + 1, log.time(LAST)))
    monkeypatch.setattr(ran.make_ran, "__kwdefaults__", {"max_bytes": 0})
    with pytest.raises(NotProven) as error:
        log.check(log.prove(FIRST, log.time(LAST), SECOND))
    assert error.value.code == "superseded"


def test_whoever_leaves_an_entry_out_or_changes_one_or_moves_the_time_proves_nothing(log: Log) -> None:
    data = log.prove(FIRST, log.time(SECOND - 1))

    def late(said: dict[str, Any]) -> None:
        said["at"] += 60_000

    def dropped(said: dict[str, Any]) -> None:
        del said["between"]["entries"][200]

    def shortened(said: dict[str, Any]) -> None:
        del said["between"]["entries"][-1]

    def swapped(said: dict[str, Any]) -> None:
        entries = said["between"]["entries"]
        entries[3], entries[4] = entries[4], entries[3]

    def other_frontier(said: dict[str, Any]) -> None:
        said["between"]["frontier"] = said["between"]["consistency"][:1]

    def both(said: dict[str, Any]) -> None:
        said["next"] = {"entry": said["between"]["entries"][0], "proof": []}

    def more(said: dict[str, Any]) -> None:
        said["between"]["more"] = []

    for change in (late, dropped, shortened, swapped, other_frontier, both, more):
        with pytest.raises(AiInfraError):
            log.check(changed(data, change))


def test_the_part_about_the_time_is_written_as_it_is_read(log: Log) -> None:
    for following in (None, SECOND):
        evidence = Evidence.parse(LogProof.parse(log.prove(FIRST, log.time(DEV), following)).extra)
        assert isinstance(evidence.ran, Ran)
        assert Evidence.parse(evidence.to_bytes()) == evidence
