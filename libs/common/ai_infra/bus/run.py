"""Runs a deciding service: its runtime on its process, until it is told to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime

import structlog

from ai_infra.bus.judge import Judge
from ai_infra.bus.kafka.config import group_config
from ai_infra.bus.kafka.topics import group_of
from ai_infra.bus.lane import Lane
from ai_infra.bus.process import CATCH_UP_SECONDS, ServiceProcess, keep_running
from ai_infra.bus.restore import Restorer
from ai_infra.bus.runtime import Runtime, utc_now
from ai_infra.bus.service import Service
from ai_infra.bus.speech import Speech
from ai_infra.bus.transactions import TransactionalProducer
from ai_infra.bus.voice import Surroundings
from ai_infra.settings import Settings

log = structlog.get_logger(__name__)


def run_service(service: Service, settings: Settings, stop: threading.Event) -> int:
    """Runs a service until `stop` is set; returns its exit code. Raises what a new start cannot mend."""

    def serve(process: ServiceProcess, stop: threading.Event) -> None:
        runtime = build_runtime(service, process)
        process.keys_open = True
        process.liveness["loop"] = runtime.check_alive
        process.serving(
            {
                "loop": runtime.check_loop,
                "lanes": runtime.check_lanes,
                "halts": runtime.check_halts,
                "transactions": runtime.check_transactions,
                **service.checks,
            }
        )
        log.info("service up", service=service.name, listens=[t.TOPIC for t in service.listens])  # type: ignore[attr-defined]
        runtime.run(stop)

    return keep_running(service.name, service.says, settings, stop, serve)


def build_runtime(
    service: Service,
    process: ServiceProcess,
    *,
    clock: Callable[[], datetime] = utc_now,
    producer: TransactionalProducer | None = None,
) -> Runtime:
    """The runtime of one service in one process, ready to run. `producer`: another than the usual, to inject faults."""
    settings = process.settings
    if service.learn_keyrings is not None:
        service.learn_keyrings(process.keyrings)
    surroundings = Surroundings(
        service=service,
        speech=Speech(service.name, process.session, process.frame),
        clock=clock,
        keyring_version=process.keyring_version,
        policy=lambda: process.broadcast.policy,
    )
    producer = producer or TransactionalProducer(settings, service=service.name)
    try:
        producer.initialise()
    except BaseException:
        producer.close()  # who starts anew, and again, must leave no thread behind each time
        raise
    return Runtime(
        service,
        consumer_config=group_config(settings, group_of(service.name)),
        producer=producer,
        restorer=Restorer(
            settings,
            service=service.name,
            verifier=process.verifier,
            make_lane=lambda number: Lane(number, surroundings),
            catch_up=lambda: process.broadcast.catch_up(CATCH_UP_SECONDS),
        ),
        judge=Judge(service.name, process.verifier, process.broadcast, settings.log.lanes),
        surroundings=surroundings,
        each_turn=process.turn,
    )
