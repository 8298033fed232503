"""Kafka is deleted with everything in it, once with Postgres too; the services go back to work from the log.

On a stack of its own: for every other test a topic that loses its records is what must never happen.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.conftest import IN_DOCKER, ROOT, SESSION_MS
from tests.faults.flow import DATASET, SECONDS, SERVICES, SMALL, SOAK, Flow, make_code, until

from ai_infra.bus.announce import publish_policy
from ai_infra.bus.kafka.topics import create_topics
from ai_infra.client import Client, Job, Promotion, PromotionRejectedError, Published
from ai_infra.devstack import Stack, claimed_name
from ai_infra.events.event import Event
from ai_infra.events.generated import (
    ArtifactRegistered,
    DeploymentChanged,
    JobStatusKind,
    PromotionDecided,
    PromotionStatus,
)
from ai_infra.objects.reader import open_store
from ai_infra_indexer.archived import ArchivedLane

pytestmark = pytest.mark.skipif(IN_DOCKER, reason="deletes the broker's data directory")

LANES = 2
POLICY = json.dumps({"promotion": {"wait_for_facts_s": 600}})


class Town(Flow):
    """A flow on a stack whose broker may be deleted."""

    def stand_still(self, last: Callable[[], Published] | None = None) -> None:
        """Until the log has, in the archive, all that Kafka has; then nobody runs any more. What `last` says gets into
        Postgres, and not into the archive."""
        for service in SERVICES[:-1]:
            self.stack.stop_service(service)
        self.settle_log()
        if last is None:
            self.stack.stop_service("indexer")
            return
        self.stack.kill("s3", signal.SIGKILL)
        said = last()
        until(lambda: said.id in {e["id"] for e in self.entries()}, "it is in Postgres")
        self.stack.kill_service("indexer", 0, signal.SIGKILL)
        self.stack.start("s3")

    def settle_log(self) -> None:
        said = {event.id for model in self.models for event in self.history(model)}
        until(lambda: said <= {e["id"] for e in self.entries()}, "the log holds all that was said")
        until(lambda: all(self._covered(lane) >= size for lane, size in self._ends().items()), "the archive covers it")

    def _covered(self, lane: int) -> int:
        reader = open_store(f"s3://{self.settings.objects.archive_bucket}", self.settings)
        archived = ArchivedLane(reader, self.settings.log.origin, lane)
        note = archived.note()
        return archived.claimed_size(note) if note is not None else 0

    def lose_kafka(self) -> None:
        self.client.close()
        self.stack.kill("kafka", signal.SIGKILL)
        shutil.rmtree(self.stack.directory / "kafka" / "data")
        self.stack.start("kafka")
        create_topics(self.settings)

    def lose_postgres(self) -> None:
        url = self.settings.database.url
        with psycopg.connect(url.rpartition("/")[0] + "/postgres", autocommit=True) as connection:
            connection.execute("DROP DATABASE ai_infra WITH (FORCE)")
            connection.execute("CREATE DATABASE ai_infra")

    def restore(self, *services: str) -> dict[str, Any]:
        chosen = [word for service in services for word in ("--service", service)]
        done = self.cli("restore-bus", "--reason", "the cluster is gone", "--json", *chosen)
        assert done.stdout, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        assert done.returncode == bool(found["left"]), done.stderr
        return found

    def restored(self) -> list[dict[str, Any]]:
        """As an operator does it: the bus, then the trainer with its own settings."""
        self.told = self.restore()
        assert list(self.told["left"]) == ["trainer"]
        repository = self.code.partition("@")[0]
        env = {"AI_INFRA_RUNNER": "true", "AI_INFRA_ALLOWED_REPOSITORIES": repository}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in env.items():
                patch.setenv(name, value)
            self.trainers = self.restore("trainer")
        return [*self.told["services"], *self.trainers["services"]]

    def go_on(self) -> None:
        self.client = Client(self.settings)
        self.start(*((service, 0) for service in SERVICES))

    def train_to(self, model: str, content: str) -> Job:
        """A training whose artifact is told beforehand."""
        return self.client.submit_job(
            model=model,
            code_ref=self.code,
            training_cmd=["python", "train.py"],
            hyperparams={"wait": 0.0, "content": content},
            resources=SMALL,
            time_limit_s=60,
        )

    def await_step(self, promotion: Promotion, status: PromotionStatus) -> PromotionDecided:
        def look() -> PromotionDecided | None:
            told = self.client.history([PromotionDecided], model=promotion.model)
            mine = [e.body for e in told if e.body.promotion_id == promotion.promotion_id and e.body.status == status]
            return mine[-1] if mine else None

        found: PromotionDecided = until(look, f"{promotion.promotion_id} is {status.value}")
        return found

    def evaluate(self, model: str, artifact: str) -> Published:
        return self.client.record_evaluation(model=model, artifact_id=artifact, dataset_ref=DATASET, score=0.97)

    def promote(self, model: str, artifact: str, expected: str) -> Promotion:
        return self.client.request_promotion(
            model=model, artifact_id=artifact, env="prod", reason="better", expected_current_artifact_id=expected
        )

    def check_after(self, model: str) -> None:
        """The log verifies and is complete, the rebuilt registry is the live one, every decision is by the rules."""
        self.settle_log()
        self.check_by_command()
        complete = self.cli("audit", "complete", "--json")
        assert complete.returncode == 0, complete.stdout[-3000:]
        replayed = json.loads(self.cli("audit", "replay", "--json").stdout)
        differences = [d for s in replayed["services"] for d in s["differences"] if d["model"] == model]
        assert differences == []


def registered(client: Client, model: str) -> list[Event[ArtifactRegistered]]:
    return list(client.history([ArtifactRegistered], model=model))


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    with claimed_name(ROOT, "test") as name:
        stack = Stack(name, ROOT, lanes=LANES, fsync=False, session_ms=SESSION_MS)
        stack.reset()
        try:
            stack.up()
            settings = stack.settings()
            code = make_code(tmp_path_factory.mktemp("code") / "training")
            town = Town(stack, settings, Client(settings), code)
            town.start(*((service, 0) for service in SERVICES))
            yield town
            town.stop()
        finally:
            stack.down()


def test_a_deleted_kafka_is_survived_and_every_service_goes_on_where_it_was(town: Town) -> None:
    model = town.models[0]
    publish_policy(town.settings, POLICY, "pending promotions wait for long")
    new_key = ["keys", "new", "somebody-1", "--principal", "somebody", "--kind", "orchestrator", "--role", "registry"]
    assert town.cli(*new_key).returncode == 0
    first, second = town.train_to(model, "one"), town.train(model)
    town.registered(first)
    town.registered(second)
    a, b = town.artifacts[model]
    versions = {e.body.artifact_id: e.body.version for e in registered(town.client, model)}
    town.evaluate(model, a)
    town.client.wait(town.promote(model, a, ""), timeout=SECONDS)
    waits = town.promote(model, b, a)  # for its evaluation
    town.await_step(waits, PromotionStatus.PENDING)
    running = town.train(model, wait=10.0)
    until(lambda: [s for s in town.statuses(running) if s.status is JobStatusKind.RUNNING], "the training runs")
    town.stack.kill_service("trainer", 0, signal.SIGKILL)
    town.stack.stop_service("promoter")
    stale = town.promote(model, a, "another")  # nobody hears it before the end
    epochs = {(e["producer"], e["epoch"]) for e in town.entries() if e["producer"]}
    town.stand_still(lambda: town.evaluate(model, b))

    town.lose_kafka()
    services = town.restored()
    assert town.told["lanes"][0]["size"] > town.told["lanes"][0]["archived"]
    assert (town.told["told"]["keyring"], town.told["told"]["policy"]) == (2, 1)
    lanes = {(s["service"], lane["lane"]): lane for s in services for lane in s["lanes"]}
    trainer, promoter = lanes["trainer", 0], lanes["promoter", 0]
    assert trainer["pending"] == [f"prepare/{running.job_id}.1"]
    assert {waits.published.id, stale.published.id} <= set(promoter["again"])  # type: ignore[union-attr]
    assert lanes["registry", 0]["again"] == lanes["canary", 0]["again"] == []
    for (service, lane), restored in lanes.items():
        assert restored["epoch"] > max([e for p, e in epochs if p == f"{service}/{lane}"], default=0)
    again = town.restore()
    assert [s["lanes"] for s in again["services"]] == [[], [], []], "done once, it isn't done a second time"

    town.go_on()
    town.await_step(waits, PromotionStatus.APPLIED)
    town.await_step(stale, PromotionStatus.REJECTED)
    ended = until(
        lambda: [s for s in town.statuses(running) if s.status is JobStatusKind.COMPLETED], "the training ends"
    )
    assert ended[-1].job_id == running.job_id
    until(lambda: registered(town.client, model), "what it made is registered")
    (third,) = registered(town.client, model)
    assert (third.body.version, third.body.new_version) == (3, True)
    town.registered(town.train_to(model, "one"))
    again_made = registered(town.client, model)[-1].body
    assert (again_made.artifact_id, again_made.version, again_made.new_version) == (a, versions[a], False)
    with pytest.raises(PromotionRejectedError) as late:
        town.client.wait(town.promote(model, a, a), timeout=SECONDS)
    assert late.value.code == "stale"
    (changed,) = town.client.history([DeploymentChanged], model=model)
    assert (changed.body.revision, changed.body.previous_stable_artifact_id) == (2, a)
    town.check_after(model)


@pytest.mark.skipif(not SOAK, reason="the same again, with an empty database: in `make soak`")
def test_with_postgres_gone_too_the_archive_alone_brings_everything_back(town: Town) -> None:
    model = town.models[0]
    if not town.artifacts:  # alone, without the test before
        publish_policy(town.settings, POLICY, "pending promotions wait for long")
        town.registered(town.train(model))
        town.evaluate(model, town.artifacts[model][0])
        town.client.wait(town.promote(model, town.artifacts[model][0], ""), timeout=SECONDS)
    [(serves, revision)] = [
        (e.body.stable_artifact_id, e.body.revision) for e in town.client.history([DeploymentChanged], model=model)
    ]
    town.stand_still()
    town.lose_kafka()
    town.lose_postgres()
    town.restored()
    assert {lane["filled_up"] == lane["size"] > 0 for lane in town.told["lanes"]} == {True}
    town.go_on()
    made = town.train(model)
    town.registered(made)
    newest = town.artifacts[model][-1]
    town.evaluate(model, newest)
    town.client.wait(town.promote(model, newest, serves or ""), timeout=SECONDS)
    (changed,) = town.client.history([DeploymentChanged], model=model)
    assert (changed.body.revision, changed.body.previous_stable_artifact_id) == (revision + 1, serves)
    town.check_after(model)
