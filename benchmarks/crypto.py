"""The limit that no implementation of signed events can pass on one core: Ed25519 signatures and verifications.

PyNaCl (libsodium) on one thread, over a message of the length that a signed event has.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from nacl.bindings import crypto_sign, crypto_sign_open

from ai_infra.trust.ed25519 import new_seed, public_of, secret_of
from benchmarks.figure import Span

MESSAGE = bytes(range(256)) * 4  # the statement of a counted event with one cause has about 1,000 bytes


def signatures(seconds: float = 0.5) -> Span:
    """How many signatures one core makes."""
    secret = secret_of(new_seed())
    return _repeat(lambda: crypto_sign(MESSAGE, secret), seconds)


def verifications(seconds: float = 0.5) -> Span:
    """How many signatures one core verifies."""
    seed = new_seed()
    signed, public = crypto_sign(MESSAGE, secret_of(seed)), public_of(seed)
    return _repeat(lambda: crypto_sign_open(signed, public), seconds)


def _repeat(step: Callable[[], object], seconds: float) -> Span:
    done, began, cpu = 0, time.perf_counter(), time.thread_time()
    while (passed := time.perf_counter() - began) < seconds:
        for _ in range(100):
            step()
        done += 100
    return Span(done, passed, time.thread_time() - cpu)
