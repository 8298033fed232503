"""Events of a signer with a valid key that are made to stop or to slow down everybody else."""

from __future__ import annotations

from tests.system.town import Town

from ai_infra.events.compose import uuid7
from ai_infra.events.event import Cause
from ai_infra.readmodel import ReadModel, connect
from ai_infra_indexer.history import NAMED


def test_a_cause_that_is_missing_and_named_twice_does_not_stop_the_lane(town: Town) -> None:
    world = town.world("named-twice")
    nobody = Cause(uuid7(), world.lane)
    event = world.say("orchestrator", world.queued(), causes=[nobody, nobody])
    town.send(event)
    town.await_final(event)


def test_json_deeper_than_postgres_reads_costs_an_event_its_rows_and_the_lane_nothing(town: Town) -> None:
    world = town.world("deep")
    deep = world.say("orchestrator", world.queued(hyperparams_json="[" * 23_000 + "]" * 23_000))
    long = world.say("orchestrator", world.queued("job-2", hyperparams_json="[" + ",".join(["1e131071"] * 1_000) + "]"))
    after = world.say("orchestrator", world.queued("job-3"))
    town.send(deep, long, after)
    town.await_final(deep, long, after)
    with ReadModel(town.settings.database.url) as model:
        assert [job.job_id for job in model.jobs(model=world.model)] == ["job-3"]


def test_causes_that_never_come_cost_the_log_a_few_findings_and_the_events_their_order_only(town: Town) -> None:
    world = town.world("never-comes")
    late = world.say("orchestrator", world.queued("late"))
    late_id = dict(late.headers)["ce_id"].decode()
    nobody = [Cause(uuid7(), world.lane) for _ in range(31)]
    flood = [
        world.say("orchestrator", world.queued(f"job-{n}"), causes=[Cause(late_id, world.lane), *nobody])
        for n in range(20)
    ]
    town.send(*flood)
    town.await_final(*flood)
    town.send(late)
    town.await_final(late)
    with connect(town.settings.database.url, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT kind, count(*) FROM findings JOIN entries USING (lane, position) WHERE model = %s GROUP BY kind",
            (world.model,),
        ).fetchall()
    assert dict(rows) == {"missing_cause": 20 * NAMED, "late_cause": NAMED}
