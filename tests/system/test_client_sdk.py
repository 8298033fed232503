"""The SDK on a real broker, with nobody else there: saying, listening, and everything that can go wrong with that."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from confluent_kafka import Producer

from ai_infra.bus.kafka.config import producer_config
from ai_infra.bus.kafka.consume import PositionGoneError
from ai_infra.client import (
    AnswerTimeout,
    Client,
    ClientClosed,
    NotAcknowledged,
    Subscription,
)
from ai_infra.errors import ConfigurationError
from ai_infra.events.exceptions import BodyTooLarge, EventError
from ai_infra.events.generated import JobCancelRequested, JobQueued
from ai_infra.events.lanes import lane_of
from ai_infra.settings import Settings
from ai_infra.trust.exceptions import NotAllowed
from ai_infra.trust.signers import LocalSigner

CODE = "git+https://example.org/repo@" + "0" * 40


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def model() -> str:
    return f"client-{secrets.token_hex(4)}"


def submit(client: Client, model: str, **more: Any) -> Any:
    return client.submit_job(model=model, code_ref=CODE, training_cmd=["python", "train.py"], **more)


def test_ten_lines_publish_a_job_and_a_subscriber_gets_it_verified_and_typed(settings: Settings, model: str) -> None:
    with Client(settings) as client, client.subscribe(JobQueued, model=model, from_="latest") as jobs:
        job = submit(client, model, hyperparams={"C": 0.5, "depth": 3}, seed=7)
        event = next(jobs)
    assert job.published is not None
    assert (event.id, event.hash, event.lane) == (job.published.id, job.published.hash, job.published.lane)
    assert (event.principal, event.model, event.subject) == ("orchestrator", model, job.job_id)
    assert event.body.hyperparams_json == '{"C":0.5,"depth":3}'
    assert event.body.requested_by == "orchestrator"
    assert event.attributes.traceparent
    assert event.producer is None


def test_a_wait_without_an_answer_ends_in_time_and_says_what_is_known(client: Client, model: str) -> None:
    job = submit(client, model)
    began = datetime.now(UTC)
    with pytest.raises(AnswerTimeout, match="nothing was said about it yet"):
        client.wait(job, timeout=1)
    assert datetime.now(UTC) - began < timedelta(seconds=5)


def test_an_answer_that_came_before_anybody_waited_is_found(client: Client, model: str) -> None:
    job = submit(client, model)
    assert job.published is not None
    cancel = client.cancel_job(job, reason="changed my mind")
    found = client.wait_for(
        job.published, lambda e: e if e.id == cancel.id else None, types=[JobCancelRequested], timeout=10
    )
    assert found.body.reason == "changed my mind"


def test_what_a_principal_may_not_say_is_refused_before_it_is_sent(client: Client, settings: Settings) -> None:
    with pytest.raises(NotAllowed, match=r"orchestrator may not say artifact\.revoked"):
        client.revoke_artifact(model="m", artifact_id="a", reason="r")
    with Client(settings, key_id="approver-2") as approver, pytest.raises(NotAllowed, match="approver-2 may not say"):
        submit(approver, "m")
    with Client(settings, speaking="artifact.revoked") as operator:
        assert operator.principal == "operator"


def test_what_no_reader_would_take_is_refused_before_it_is_sent(client: Client, model: str) -> None:
    with pytest.raises(BodyTooLarge):
        client.cancel_job(client.job("00000000-0000-4000-8000-000000000000", model=model), reason="x" * 50_000)
    with pytest.raises(EventError):
        client.cancel_job(client.job("00000000-0000-4000-8000-000000000000", model=model), reason="a\x00b")
    with pytest.raises(EventError):
        submit(client, "not a model's name")


def test_an_event_that_was_not_acknowledged_in_time_is_sent_again_as_the_same_bytes(client: Client, model: str) -> None:
    body = JobCancelRequested(job_id="j", model=model, reason="r", requested_by="orchestrator")
    with pytest.raises(NotAcknowledged) as caught:
        client.publish(body, timeout=0)
    published = caught.value.published
    client.resend(published)
    found = client.history(JobCancelRequested, model=model)
    assert {e.hash for e in found} == {published.hash}
    assert {e.record.value for e in found} == {published.record.value}


def test_many_events_are_said_at_once_in_their_order_and_each_can_be_waited_for(client: Client, model: str) -> None:
    bodies = [
        JobCancelRequested(job_id=f"j{number}", model=model, reason="r", requested_by="orchestrator")
        for number in range(300)
    ]
    published = client.publish_many(bodies)
    heard = client.history(JobCancelRequested, model=model)
    assert [e.body.job_id for e in heard] == [body.job_id for body in bodies]
    assert [e.hash for e in heard] == [one.hash for one in published]
    found = client.wait_for(published[7], lambda e: e.hash == published[7].hash and e, types=JobCancelRequested)
    assert found.body.job_id == "j7"
    assert client.publish_many([]) == []


def test_of_many_events_none_is_said_where_one_is_refused(client: Client, model: str) -> None:
    sound = JobCancelRequested(job_id="j", model=model, reason="r", requested_by="orchestrator")
    for refused in (replace(sound, reason="x" * 50_000), replace(sound, model="no model's name")):
        with pytest.raises(EventError):
            client.publish_many([sound, refused])
    assert client.history(JobCancelRequested, model=model) == []


def test_of_many_events_those_that_were_not_acknowledged_are_named_and_can_be_sent_again(
    client: Client, model: str
) -> None:
    bodies = [
        JobCancelRequested(job_id=f"j{number}", model=model, reason="r", requested_by="orchestrator")
        for number in range(3)
    ]
    with pytest.raises(NotAcknowledged, match="and 2 more not acknowledged") as caught:
        client.publish_many(bodies, timeout=0)
    client.resend(*caught.value.waiting)
    assert {e.hash for e in client.history(JobCancelRequested, model=model)} == {o.hash for o in caught.value.waiting}


def test_listening_begins_where_it_is_told_to(client: Client, model: str) -> None:
    first = submit(client, model)
    (event,) = client.history(JobQueued, model=model)
    between = event.append_time + timedelta(milliseconds=1)
    while datetime.now(UTC) <= between:
        pass
    second = submit(client, model)

    def heard(from_: Any) -> list[str]:
        with client.subscribe("job.queued", model=model, from_=from_) as jobs:
            found = []
            while (event := jobs.poll(2)) is not None:
                found.append(event.body.job_id)
            return found

    assert heard("earliest") == [first.job_id, second.job_id]
    assert heard(between) == [second.job_id]
    assert heard("latest") == []


def test_a_listener_whose_events_are_no_longer_there_is_told_so_and_not_to_place_a_group(
    client: Client, model: str, settings: Settings
) -> None:
    """As after retention, or when the topics were made anew."""
    lane = lane_of(model, settings.log.lanes)
    reader = client._reader({("job.queued", lane): 10**9})
    with (
        Subscription(reader, None, lambda: client._end(reader)) as jobs,
        pytest.raises(PositionGoneError, match="begin again, from what there is"),
    ):
        jobs.poll(30)


def test_one_subscription_hears_several_types_of_all_models(client: Client) -> None:
    models = [f"many-{secrets.token_hex(4)}" for _ in range(6)]
    with client.subscribe([JobQueued, "job.cancel_requested"]) as events:
        for name in models:
            client.cancel_job(submit(client, name), reason="no")
        heard = [next(events) for _ in range(2 * len(models))]
    assert {(e.type, e.model) for e in heard} == {
        (t, m) for t in ("job.queued", "job.cancel_requested") for m in models
    }
    assert len({e.lane for e in heard}) > 1


@pytest.mark.parametrize("types", ["no.such.type", [], ["job.queued", "nothing"]])
def test_a_type_that_there_is_not_is_an_error_and_not_silence(client: Client, types: Any) -> None:
    with pytest.raises(ConfigurationError, match="no such event type"):
        client.subscribe(types)


def test_what_does_not_verify_never_reaches_the_listener(client: Client, settings: Settings, model: str) -> None:
    job = submit(client, model)
    assert job.published is not None
    record = job.published.record
    producer = Producer(producer_config(settings, "test"))
    forged = [
        (record.value[:-1] + bytes([record.value[-1] ^ 1]), record.headers),
        (record.value, [(n, bytes(64) if n == "signature" else v) for n, v in record.headers]),
        (record.value, [*record.headers, ("ce_id", b"another")]),
        (b"\xff\x00junk", []),
        (None, []),
    ]
    with client.subscribe(JobQueued, model=model, from_="earliest") as jobs:
        for value, headers in forged:
            producer.produce(
                "job.queued", partition=lane_of(model, 4), key=model.encode(), value=value, headers=headers
            )
        assert producer.flush(10) == 0
        last = submit(client, model)
        heard = [next(jobs).body.job_id for _ in range(2)]
        assert heard == [job.job_id, last.job_id]
        assert jobs.refused >= len(forged)


def test_closing_the_client_ends_waits_and_subscriptions_of_other_threads(settings: Settings, model: str) -> None:
    client = Client(settings)
    job = submit(client, model)
    ended: list[str] = []
    ready = threading.Barrier(3)

    def wait() -> None:
        ready.wait()
        try:
            client.wait(job, timeout=60)
        except ClientClosed:
            ended.append("wait")

    def listen(subscription: Subscription) -> None:
        ready.wait()
        for _ in subscription:
            pass
        ended.append("listen")

    threads = [
        threading.Thread(target=wait),
        threading.Thread(target=listen, args=(client.subscribe("job.status", model=model),)),
    ]
    for thread in threads:
        thread.start()
    ready.wait()
    client.close()
    client.close()
    for thread in threads:
        thread.join(10)
    assert sorted(ended) == ["listen", "wait"]
    with pytest.raises(ClientClosed):
        submit(client, model)


def test_several_threads_publish_through_one_client(client: Client, model: str) -> None:
    jobs: list[str] = []
    threads = [
        threading.Thread(target=lambda: jobs.extend(submit(client, model).job_id for _ in range(10))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(e.body.job_id for e in client.history(JobQueued, model=model)) == sorted(jobs)
    assert len(jobs) == 40


def test_a_client_with_another_number_of_lanes_than_the_log_does_not_start(settings: Settings) -> None:
    wrong = settings.model_copy(update={"log": settings.log.model_copy(update={"lanes": 3})})
    with pytest.raises(ConfigurationError, match="the log has 4 lanes"):
        Client(wrong)


def test_a_key_that_the_keyring_does_not_know_is_an_error_at_once(settings: Settings, stack: Any) -> None:
    import base64

    from ai_infra.trust.ed25519 import new_seed

    seed = base64.b64encode(new_seed()).decode()
    stranger = stack.settings(AI_INFRA_SIGNER_KEY_B64=seed, AI_INFRA_SIGNER_ID="stranger-1")
    with pytest.raises(ConfigurationError, match="stranger-1 is not in the keyring"):
        Client(stranger)


def test_a_forged_delegation_is_not_believed(settings: Settings, client: Client, model: str) -> None:
    """Somebody with a key of his own under the orchestrator's name."""
    with client.subscribe(JobQueued, model=model, from_="latest") as jobs:
        with Client(settings) as thief:
            session = thief._publisher._session  # the seam: everything else is as it is
            session._signer = LocalSigner.fresh("orchestrator-1")
            session._current = session._delegate(datetime.now(UTC))
            submit(thief, model)
        honest = submit(client, model)
        assert next(jobs).body.job_id == honest.job_id
        assert jobs.refused == 1


def test_a_published_event_can_be_kept_and_sent_by_another_client(
    settings: Settings, client: Client, model: str
) -> None:
    import pickle

    job = submit(client, model)
    again = pickle.loads(pickle.dumps(job))
    with Client(settings) as other:
        other.resend(again.published)
        assert len(other.history(JobQueued, model=model)) == 2
    assert replace(again) == job
