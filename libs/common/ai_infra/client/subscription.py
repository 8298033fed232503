"""Listening: verified, typed events of some types, as they are committed, for as long as one likes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Self

from ai_infra.bus.kafka.admin import KafkaAdmin
from ai_infra.client.exceptions import ClientClosed
from ai_infra.client.reading import Reader, ends, starts
from ai_infra.errors import ConfigurationError
from ai_infra.events.event import Event
from ai_infra.events.generated import BODIES
from ai_infra.events.keys import BROADCAST_TOPICS
from ai_infra.events.lanes import lane_of

From = Literal["latest", "earliest"] | datetime
_FOREVER = 3600.0


class Subscription(Iterator[Event[Any]]):
    """An iterator of events; in order within a lane and type. Use from one thread, `close` from any.

    `refused` counts records that did not verify and were passed over.
    """

    def __init__(self, reader: Reader, model: str | None, end: Callable[[], None]) -> None:
        self._reader = reader
        self._model = model
        self._end = end
        self._ready: deque[Event[Any]] = deque()

    @property
    def refused(self) -> int:
        """Records passed over because they did not verify."""
        return self._reader.refused

    def poll(self, timeout: float) -> Event[Any] | None:
        """The next event, or None after `timeout` seconds. Raises ClientClosed after `close`."""
        if not self._ready:
            self._ready.extend(e for e in self._reader.poll(timeout) if self._model in {None, e.model})
        return self._ready.popleft() if self._ready else None

    def __next__(self) -> Event[Any]:
        """The next event; waits for it. Ends when the subscription or its client is closed."""
        try:
            while (event := self.poll(_FOREVER)) is None:
                pass
        except ClientClosed:
            raise StopIteration from None
        return event

    def close(self) -> None:
        """Ends it."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def event_types(types: Any) -> tuple[str, ...]:
    """Names of event types, from names or body classes. Raises ConfigurationError for what is none."""
    given = (types,) if isinstance(types, str | type) else tuple(types)
    names = tuple(dict.fromkeys(t if isinstance(t, str) else getattr(t, "TOPIC", t.__name__) for t in given))
    unknown = [name for name in names if name not in BODIES]
    if unknown or not names:
        raise ConfigurationError(
            f"no such event type: {', '.join(unknown) or 'none given'}; there are {', '.join(sorted(BODIES))}"
        )
    return names


def offsets_from(
    admin: KafkaAdmin, types: tuple[str, ...], model: str | None, lanes: int, where: From
) -> dict[tuple[str, int], int]:
    """Partitions to read, and where to begin in each."""
    chosen = range(lanes) if model is None else (lane_of(model, lanes),)
    partitions = [(t, p) for t in types for p in ((0,) if t in BROADCAST_TOPICS else chosen)]
    if isinstance(where, datetime):
        return admin.offsets_at(partitions, int(where.timestamp() * 1000))
    if where == "earliest":
        return starts(admin, partitions)
    if where == "latest":
        return ends(admin, partitions)
    raise ConfigurationError(f"from_ is 'latest', 'earliest' or a time with a zone, not {where!r}")
