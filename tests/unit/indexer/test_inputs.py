"""What surrounds the lanes of one process."""

from __future__ import annotations

from typing import Any, cast

import pytest
import structlog.testing

from ai_infra.bus.broadcast import Broadcast
from ai_infra.bus.kafka.config import KafkaUnavailableError
from ai_infra.events.event import Record
from ai_infra.settings import load_settings
from ai_infra.trust.exceptions import TrustError
from ai_infra_indexer.inputs import Around


class Looks:
    """Counts how often the broadcast topics are read to their ends."""

    count = 0

    def catch_up(self, _timeout: float) -> None:
        self.count += 1


def test_one_look_for_a_newer_keyring_serves_all_records_that_were_read_before_it() -> None:
    looks: Any = Looks()
    settings = load_settings(environ={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    around = Around(settings, cast(Broadcast, looks))
    around.turn()
    for _ in range(300):
        around.catch_up()
    assert looks.count == 1
    around.turn()
    around.catch_up()
    assert looks.count == 2


def test_junk_beyond_what_is_kept_of_it_writes_no_line_each() -> None:
    settings = load_settings(environ={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    around = Around(settings, cast(Broadcast, Looks()))
    junk = Record("job.queued", 0, 0, 0, b"k", b"v", ())
    with structlog.testing.capture_logs() as lines:
        for _ in range(2_000):
            around.dead_letter(junk, TrustError("junk", code="malformed_event"))
    assert 200 <= len(lines) < 1_500


def test_a_dead_letter_that_can_t_be_written_stops_its_own_lane_and_is_not_used_up_by_another() -> None:
    settings = load_settings(environ={"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    around = Around(settings, cast(Broadcast, Looks()))
    around._delivered(1, "too large", cast(Any, None))
    around.flush_dead_letters(0)
    with pytest.raises(KafkaUnavailableError, match="too large"):
        around.flush_dead_letters(1)
    around.flush_dead_letters(1)
