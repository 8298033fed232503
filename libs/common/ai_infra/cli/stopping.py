"""How a process is asked to stop: the first SIGTERM or SIGINT sets a flag, the second ends it at once.

SIGUSR1 writes the stacks of all threads to stderr, and so does a stop that takes too long.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

STOP_SECONDS: Final = 20.0  # a graceful stop that takes longer shows where it is stuck


@contextmanager
def stop_on_signal(*, slow: float = STOP_SECONDS) -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets. The second signal ends the process; `slow` seconds after the first the
    stacks of all threads go to stderr. SIGUSR1 shows them at any time."""
    stop = threading.Event()
    tells, hears = socket.socketpair()
    tells.setblocking(False)

    def listen() -> None:
        asked = False
        while number := int.from_bytes(hears.recv(1)):  # none once `tells` is closed
            if number in before:
                if asked:
                    os._exit(128 + number)
                asked = True
                faulthandler.dump_traceback_later(slow, exit=False)
                stop.set()

    # Not in the handlers: the main thread runs them, and it may be within a library's call, just about to begin a long
    # wait, or within a wait for this very event, whose lock it holds.
    told_before = signal.set_wakeup_fd(tells.fileno(), warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    faulthandler.enable()  # a crash in a library's own code would else leave no word
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(told_before)
        tells.close()
        listener.join()
        hears.close()
        faulthandler.cancel_dump_traceback_later()
        faulthandler.unregister(signal.SIGUSR1)
