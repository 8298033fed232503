"""What surrounds the lanes of one process."""

from __future__ import annotations

from typing import Any, cast

from ai_infra.bus.broadcast import Broadcast
from ai_infra.settings import load_settings
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
