"""What looks at the lanes beside the loop goes on through outages, and ends with it."""

from __future__ import annotations

import threading

from ai_infra.errors import UnavailableError
from ai_infra_indexer.looking import Looked, looking


def test_what_is_away_is_asked_again_until_the_loop_ends() -> None:
    stop, seen = threading.Event(), threading.Event()
    answers = iter([UnavailableError("away"), UnavailableError("still away"), None])

    def look() -> None:
        if (error := next(answers, None)) is not None:
            raise error
        seen.set()

    with looking(stop, Looked("something", look, 0.01)):
        assert seen.wait(120)
    assert stop.is_set()
