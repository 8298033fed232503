"""A lane's state: typed records in memory, with the changes of the open batch kept apart until it is committed.

A record is stored under `<TypeName>/<id>` as JSON `{"v": 1, "r": {...}}`. The room never touches Kafka: reading and
writing the compacted topic is `restore.py` and `runtime.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeVar, cast

import msgspec

from ai_infra.errors import AiInfraError

R = TypeVar("R")

STATE_FORMAT: Final = 1
# What a record may have, bytes of key and value: its topic takes 1 MiB with signed headers and framing. One that the
# broker refuses would abort its transaction, and the next, for ever.
MAX_RECORD_BYTES: Final = 960 * 1024
_MISSING: Final = object()


class StateError(AiInfraError):
    """A state record cannot be read: the service must not go on without it."""

    code = "bad_state"


class StateTooLargeError(AiInfraError):
    """A state record is larger than its topic takes."""

    code = "state_too_large"


class LaneState:
    """Records by type and id. Implements `StateView`; reads see the open batch, `commit` and `rollback` end it."""

    def __init__(self, types: tuple[type, ...]) -> None:
        self._types: dict[str, type] = {record_name(t): t for t in types}
        self._names: dict[type, str] = {t: name for name, t in self._types.items()}
        self._committed: dict[str, dict[str, Any]] = {name: {} for name in self._types}
        self._open: dict[tuple[str, str], Any] = {}  # None: deleted
        self._encoded: dict[tuple[str, str], bytes] = {}  # of the open batch, where it was needed already
        self._undo: list[tuple[tuple[str, str], Any]] = []  # what the changes since the savepoint replaced
        self.counter = 0  # number of the last record that was loaded: new ones go on behind it

    def get(self, record_type: type[R], record_id: str, /) -> R | None:
        name = self._known(record_type)
        found = self._open.get((name, record_id), _MISSING)
        if found is _MISSING:
            found = self._committed[name].get(record_id)
        return cast("R | None", found)

    def all(self, record_type: type[R], /) -> Iterator[tuple[str, R]]:
        name = self._known(record_type)
        committed = self._committed[name]
        opened = {i: r for (n, i), r in self._open.items() if n == name}
        for record_id in sorted(committed.keys() | opened.keys()):
            record = opened.get(record_id, _MISSING)
            if record is _MISSING:
                record = committed[record_id]
            if record is not None:
                yield record_id, cast("R", record)

    def put(self, record_id: str, record: Any) -> None:
        self._change((self._known(type(record)), record_id), record)

    def put_fitting(self, record_id: str, record: Any) -> None:
        """Puts a record. Raises StateTooLargeError for one that the state topic would not take."""
        name, encoded = self._known(type(record)), encode_record(record)
        size = len(record_id.encode()) + len(encoded)
        if size > MAX_RECORD_BYTES:
            raise StateTooLargeError(
                f"the state record {name}/{record_id[:100]} has {size} bytes, {MAX_RECORD_BYTES} at most: keep large "
                "things in the object store, and long lists in records of their own"
            )
        self._change((name, record_id), record)
        self._encoded[(name, record_id)] = encoded

    def delete(self, record_type: type, record_id: str) -> None:
        name = self._known(record_type)
        if record_id in self._committed[name]:
            self._change((name, record_id), None)
        elif (name, record_id) in self._open:
            self._change((name, record_id), _MISSING)

    def savepoint(self) -> None:
        """Before a trigger: `restore_savepoint` undoes what was changed since. Only the latest one counts."""
        # Undone step by step: a copy of the open batch for each trigger would cost its length, and in all its square.
        self._undo.clear()

    def restore_savepoint(self) -> None:
        """Undoes the changes since the latest `savepoint`: of a trigger that failed nothing is left."""
        while self._undo:
            place, before = self._undo.pop()
            self._set(place, before)

    def changes(self) -> Iterator[tuple[str, bytes | None]]:
        """(key, encoded record or None for a deletion) of the open batch, unchanged records left out."""
        for (name, record_id), record in self._open.items():
            if record is None:
                yield f"{name}/{record_id}", None
            elif self._committed[name].get(record_id) != record:
                yield f"{name}/{record_id}", self._encoded.get((name, record_id)) or encode_record(record)

    @property
    def changed(self) -> bool:
        return bool(self._open)

    def commit(self) -> None:
        for (name, record_id), record in self._open.items():
            if record is None:
                self._committed[name].pop(record_id, None)
            else:
                self._committed[name][record_id] = record
        self.rollback()

    def rollback(self) -> None:
        self._open.clear()
        self._encoded.clear()
        self._undo.clear()

    def load(self, key: str, value: bytes | None) -> None:
        """Takes one record of the compacted topic into the committed state. Raises `StateError`."""
        name, _, record_id = key.partition("/")
        record_type = self._types.get(name)
        if record_type is None:
            raise StateError(
                f"state record {key!r} is of type {name!r}, which this version of the service does not know "
                f"(it knows {sorted(self._types)}); run the version that wrote it"
            )
        if value is None:
            self._committed[name].pop(record_id, None)
        else:
            self._committed[name][record_id] = decode_record(record_type, key, value)

    def _change(self, place: tuple[str, str], record: Any) -> None:
        self._undo.append((place, self._open.get(place, _MISSING)))
        self._set(place, record)

    def _set(self, place: tuple[str, str], record: Any) -> None:
        self._encoded.pop(place, None)
        if record is _MISSING:
            self._open.pop(place, None)
        else:
            self._open[place] = record

    def _known(self, record_type: type) -> str:
        name = self._names.get(record_type)
        if name is None:
            raise StateError(
                f"{record_type.__name__} is not among the state records of this service: {sorted(self._types)}"
            )
        return name

    def __len__(self) -> int:
        return sum(len(records) for records in self._committed.values())


def record_name(record_type: type) -> str:
    """Name of a record type in state keys: its class's name, or `STATE_NAME` where it has one."""
    return cast("str", getattr(record_type, "STATE_NAME", record_type.__name__))


def encode_record(record: Any) -> bytes:
    return msgspec.json.encode({"v": STATE_FORMAT, "r": record})


def decode_record(record_type: type, key: str, value: bytes) -> Any:
    try:
        wrapper = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
        version = msgspec.json.decode(wrapper["v"], type=int)
        if version != STATE_FORMAT:
            raise StateError(f"state record {key!r} has format {version}; this version reads {STATE_FORMAT}")
        return msgspec.json.decode(wrapper["r"], type=record_type)
    except (msgspec.MsgspecError, KeyError, ValueError) as error:
        raise StateError(f"state record {key!r} is not a readable {record_type.__name__}: {error}") from error
