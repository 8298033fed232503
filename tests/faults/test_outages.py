"""Every part and every service is killed while events flow; afterwards nothing is lost, doubled or different.

One flow over all tests of this module, in their order: each kills something in the middle of it, and the last ones ask
what became of everything. 500 events or more; with SOAK=1, 10,000.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.faults.flow import SERVICES, SOAK, Flow, make_code, until

from ai_infra.client import Client
from ai_infra.devstack import Stack
from ai_infra.settings import Settings

EVENTS = 10_000 if SOAK else 500
SHARE = (230, 150) if SOAK else (9, 6)  # evaluations and promotions while one thing is being killed


@pytest.fixture(scope="module")
def flow(stack: Stack, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flow]:
    with Client(settings) as client:
        flow = Flow(stack, settings, client, make_code(tmp_path_factory.mktemp("code") / "training"))
        try:
            flow.start(*((service, replica) for service in SERVICES for replica in (0, 1)))
            jobs = [flow.train(model) for model in flow.models]
            for job in jobs:
                flow.registered(job)
            flow.ask(len(flow.models), 0)
            yield flow
        finally:
            flow.stop()


@contextmanager
def flowing(flow: Flow) -> Iterator[None]:
    """Events flow while the block runs; it begins once they do."""
    failed: list[BaseException] = []
    before = len(flow.asked)

    def ask() -> None:
        try:
            flow.ask(*SHARE)
        except BaseException as error:  # noqa: BLE001 - raised below, in the thread of the test
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: len(flow.asked) > before + 2 or failed, "events flow")
    yield
    asking.join()
    assert not failed, failed[0]


def test_a_third_replica_of_each_service_comes_and_goes(flow: Flow) -> None:
    with flowing(flow):
        flow.start(*((service, 2) for service in SERVICES))
    with flowing(flow):
        for service in SERVICES:
            assert flow.stack.stop_service(service, 2), f"{service} had to be killed"


@pytest.mark.parametrize("service", [service for service in SERVICES if service != "trainer"])
def test_a_service_is_killed_in_the_middle_of_work(flow: Flow, service: str) -> None:
    job = flow.train(flow.models[SERVICES.index(service) % len(flow.models)])
    with flowing(flow):
        flow.stack.kill_service(service, 0)
        flow.start((service, 0))
    flow.registered(job)


def test_the_trainer_that_runs_a_training_is_killed_and_another_begins_it_again(flow: Flow) -> None:
    for wait in (4.0, 16.0):  # on a busy machine the first may have ended before it is known who runs it
        job = flow.train(flow.models[0], wait=wait)
        with flowing(flow):
            replica = flow.replica_that_runs(job)
            flow.stack.kill_service("trainer", replica)
            flow.start(("trainer", replica))
        flow.registered(job)
        if flow.statuses(job)[-1].attempt > 1:
            return
    pytest.fail("no training was killed in the middle")


@pytest.mark.parametrize("part", ["s3", "postgres", "kafka"])
def test_a_part_is_killed_and_comes_back(flow: Flow, part: str) -> None:
    job = flow.train(flow.models[0])
    with flowing(flow):
        flow.stack.kill(part)
        flow.stack.start(part)
    flow.registered(job)
    assert not flow.ended()  # an outage of a part ends no service


def test_afterwards_everything_has_exactly_one_result_and_the_log_is_whole(flow: Flow) -> None:
    flow.settle()
    flow.check_answers()
    flow.check_log()
    said = len(flow.entries())
    assert said >= EVENTS


def test_afterwards_chains_and_trees_verify_and_the_rebuilt_registry_is_the_live_one(flow: Flow) -> None:
    flow.check_by_command()


def test_an_older_backup_of_postgres_sequences_no_history_twice(
    flow: Flow, tmp_path_factory: pytest.TempPathFactory, restore: Callable[[str], None]
) -> None:
    restore("keep")
    flow.ask(*SHARE)
    flow.settle()
    before = flow.entries()
    restore("bring back")
    flow.ask(*SHARE)
    flow.settle()
    after = {(e["lane"], e["position"]): (e["id"], e["hash"]) for e in flow.entries()}
    assert len(after) > len(before)
    assert [after[(e["lane"], e["position"])] for e in before] == [(e["id"], e["hash"]) for e in before]
    flow.check_answers()
    flow.check_log()
    flow.check_by_command()


@pytest.fixture
def restore(flow: Flow, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], None]:
    """`keep` a backup of Postgres, or `bring back` what was kept: its files, while it is down."""
    import shutil
    import subprocess

    data = flow.stack.directory / "postgres" / "data"
    kept = data.with_name("backup")

    def act(what: str) -> None:
        flow.stack.stop("postgres")
        if what == "bring back":
            shutil.rmtree(data)
        source, target = (data, kept) if what == "keep" else (kept, data)
        subprocess.run(["cp", "-a", str(source), str(target)], check=True)  # with their owner
        flow.stack.start("postgres")

    return act
