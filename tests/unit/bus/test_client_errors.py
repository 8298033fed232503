"""What the Kafka client reports on the side."""

from __future__ import annotations

import secrets

from confluent_kafka import KafkaError
from structlog.testing import capture_logs

from ai_infra.bus.kafka.config import on_client_error


def test_a_broker_that_is_away_is_reported_once_however_often_it_is_tried() -> None:
    broker = f"{secrets.token_hex(4)}:9092/bootstrap: Connect failed: Connection refused"
    with capture_logs() as said:
        for milliseconds in range(20):
            on_client_error(KafkaError(KafkaError._TRANSPORT, f"{broker} (after {milliseconds}ms in state CONNECT)"))
        on_client_error(KafkaError(KafkaError._TRANSPORT, f"another {broker}"))
    assert [line["detail"].startswith("another") for line in said] == [False, True]
