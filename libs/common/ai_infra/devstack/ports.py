"""Which TCP ports a stack listens on: the well-known ones when they are free, else others.

Other ports come from below the range that the kernel hands out to outgoing connections: a client that keeps knocking at
the port of a killed broker could otherwise be given that very port as its own end, and hold it.
"""

from __future__ import annotations

import random
import socket
from typing import Final

from ai_infra.devstack.exceptions import StackError

HOST: Final = "127.0.0.1"
USUAL: Final = {"kafka": 9092, "kafka_controller": 9093, "postgres": 5432, "s3": 7070}
LOWEST: Final = 20000
HIGHEST: Final = 32000  # Linux hands out 32768 and up, macOS and BSD 49152 and up


def is_free(port: int) -> bool:
    """Whether nobody listens on `port` of this machine (connections in TIME_WAIT do not count)."""
    for address in (HOST, "0.0.0.0"):  # noqa: S104 - only to see whether somebody listens on all of them
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def answers(port: int) -> bool:
    """Whether something accepts connections on `port`."""
    try:
        with socket.create_connection((HOST, port), timeout=1):
            return True
    except OSError:
        return False


def free_port(taken: set[int], usual: int | None = None) -> int:
    """A port that is free and not in `taken`: the usual one if it can be had."""
    if usual is not None and usual not in taken and is_free(usual):
        return usual
    for _ in range(1000):
        port = random.randint(LOWEST, HIGHEST)  # noqa: S311 - no secret
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free TCP port found between {LOWEST} and {HIGHEST}: see what listens there with `ss -ltn`")
