"""Lanes of one process, worked together: what each of them asks next of Postgres is asked for all of them at once.

A turn of a lane is two ways to Postgres, what its history knows and the transaction, and each of these is a dozen more
on the wire. With eight lanes that have six new events each, eight times that took most of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ai_infra.errors import UnavailableError
from ai_infra.telemetry import metrics
from ai_infra_indexer.appending import Appended, Batch, append_all
from ai_infra_indexer.exceptions import LaneLost
from ai_infra_indexer.history import Known
from ai_infra_indexer.lane import Lane, Recall, Steps
from ai_infra_indexer.store import POSTGRES_AWAY, Connection, read_all_known

# What costs a lane its turn, and not the process: it is taken anew.
FAILS: Final = (LaneLost, UnavailableError, *POSTGRES_AWAY)

Turns = dict[int, Steps[int]]
Outcome = int | Exception
"""Entries, or why the lane can't go on."""


def work(connection: Connection, lanes: Mapping[int, Lane]) -> dict[int, Outcome]:
    """A turn of each of these lanes, by number. Raises what no lane is to blame for."""
    outcomes: dict[int, Outcome] = {}
    turns: Turns = {number: lanes[number].turn() for number in sorted(lanes)}
    answers: Mapping[int, Known | Appended | Exception | None] = dict.fromkeys(turns)
    waiting: dict[int, Recall | Batch] = {}
    while True:
        for number, answer in answers.items():
            try:
                waiting[number] = _next(turns[number], answer)
            except StopIteration as ended:
                outcomes[number] = ended.value
            except FAILS as error:
                outcomes[number] = error
        if not waiting:
            return outcomes
        answers = _answers(connection, waiting)
        for number in answers:
            del waiting[number]


def _next(turn: Steps[int], answer: Known | Appended | Exception | None) -> Recall | Batch:
    if answer is None:
        return next(turn)
    return turn.throw(answer) if isinstance(answer, Exception) else turn.send(answer)


def _answers(connection: Connection, asked: Mapping[int, Recall | Batch]) -> Mapping[int, Known | Appended | Exception]:
    """To all that recall something; where none does, to all that append."""
    recalls = {number: step for number, step in asked.items() if isinstance(step, Recall)}
    if recalls:
        return _recall(connection, recalls)
    # In the order of the lanes, whoever enters them: so two processes never wait for each other.
    return _append(connection, {number: step for number, step in sorted(asked.items()) if isinstance(step, Batch)})


def _recall(connection: Connection, recalls: Mapping[int, Recall]) -> Mapping[int, Known | Exception]:
    try:
        known = read_all_known(connection, [(recall.lane, recall.events) for recall in recalls.values()])
    except FAILS as error:
        return dict.fromkeys(recalls, error)
    return dict(zip(recalls, known, strict=True))


def _append(connection: Connection, batches: Mapping[int, Batch]) -> Mapping[int, Appended | Exception]:
    try:
        with metrics.INDEXER_STAGE.labels("project").time():
            done = append_all(connection, list(batches.values()))
    except FAILS as error:
        if len(batches) == 1 or connection.closed:
            return dict.fromkeys(batches, error)
        # One of them is lost, or its row is held: the others shall not stand still for it.
        alone = (_append(connection, {number: batch}) for number, batch in batches.items())
        return {number: answer for found in alone for number, answer in found.items()}
    return dict(zip(batches, done, strict=True))
