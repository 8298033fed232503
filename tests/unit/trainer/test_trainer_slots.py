"""A job that is said to be running does not stand in a queue."""

from __future__ import annotations

import threading

from ai_infra_trainer.slots import Slots

NEVER = threading.Event()


def cancelled() -> threading.Event:
    event = threading.Event()
    event.set()
    return event


def test_a_place_is_kept_from_preparation_to_training() -> None:
    slots = Slots(1)
    assert slots.acquire("a", NEVER)
    slots.reserve("a")
    assert not slots.acquire("b", cancelled())
    assert slots.acquire("a", NEVER)
    assert slots.used == 1


def test_who_waits_gets_the_place_that_is_given_back() -> None:
    slots = Slots(1)
    slots.acquire("a", NEVER)
    got = threading.Event()

    def wait() -> None:
        if slots.acquire("b", NEVER):
            got.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    assert not got.is_set()
    slots.release("a")
    waiter.join(5)
    assert got.is_set()


def test_a_place_that_is_not_taken_up_is_free_again_after_a_while() -> None:
    now, expired = [0.0], list[str]()
    slots = Slots(1, clock=lambda: now[0], on_expire=expired.append)
    slots.acquire("a", NEVER)
    slots.reserve("a")
    now[0] = 10  # the lane has moved: jobs of others must not wait for a training that begins elsewhere
    assert slots.acquire("b", NEVER)
    assert expired == ["a"]


def test_a_place_in_use_never_expires() -> None:
    now = [0.0]
    slots = Slots(1, patience=60, clock=lambda: now[0])
    slots.acquire("a", NEVER)
    now[0] = 10_000
    waiting = threading.Event()
    threading.Timer(0.3, waiting.set).start()
    assert not slots.acquire("b", waiting)
