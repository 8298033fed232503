"""The last number that a producer has used, so that a withheld last event shows.

Generated from schemas/ by `python -m ai_infra.events.generate`: change the schema, not this file.
"""

from __future__ import annotations

from typing import Any, ClassVar

from ai_infra.events.avro import Reader, Writer
from ai_infra.events.body import Body
from ai_infra.events.values import value


@value(kw_only=True)
class ProducerHeartbeat(Body):
    """The last number that a producer has used, so that a withheld last event shows."""

    TOPIC: ClassVar[str] = "producer.heartbeat"
    SCHEMA_SHA256: ClassVar[str] = "32020c257a352c0e2f665d14f0ee68b513e58801634b16f2df4befca0b9aeda2"
    CRC64: ClassVar[bytes] = bytes.fromhex("19e83bde9c0117d2")

    producer: str
    """<service>/<lane>."""
    epoch: int
    """Epoch of the producer's counter."""
    seq: int
    """Number of the last event said before this one."""
    event_hash: str
    """event_hash of that event, 64 hex digits."""

    def write(self, out: Writer) -> None:
        """Appends the bare Avro encoding."""
        out.text(self.producer)
        out.int64(self.epoch)
        out.int64(self.seq)
        out.text(self.event_hash)

    @classmethod
    def read(cls, data: Reader) -> ProducerHeartbeat:
        """Reads one datum written with this very schema."""
        return cls(
            producer=data.text(),
            epoch=data.int64(),
            seq=data.int64(),
            event_hash=data.text(),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready form."""
        return {
            "producer": self.producer,
            "epoch": self.epoch,
            "seq": self.seq,
            "event_hash": self.event_hash,
        }
