"""What Postgres says that a lane has heard, against its entries: it follows from them, row by row.

Whoever takes a row of this memory away has an event sequenced twice when it comes again; whoever changes a verdict has
an entry projected, or not, against what the log says.
"""

from __future__ import annotations

from typing import Final

from ai_infra_indexer.audit.report import LaneReport
from ai_infra_indexer.store import Connection

# Of an event that was heard below the low water only the memory is left, and that is not looked at.
_IDS: Final = """
WITH said AS (
    SELECT DISTINCT ON (event_id) event_id, position, event_hash FROM entries
    WHERE lane = %(lane)s ORDER BY event_id, position
), heard AS (SELECT event_id, position, event_hash FROM event_ids WHERE lane = %(lane)s)
SELECT 'event_ids', event_id::text, said.position, heard.position FROM said FULL JOIN heard USING (event_id)
WHERE (said.position, said.event_hash) IS DISTINCT FROM (heard.position, heard.event_hash)
  AND coalesce(heard.position, %(low)s) >= %(low)s
"""
_NUMBERS: Final = """
WITH said AS (
    SELECT DISTINCT ON (producer, epoch, seq) producer, epoch, seq, position, event_hash FROM entries
    WHERE lane = %(lane)s AND producer IS NOT NULL ORDER BY producer, epoch, seq, position
), heard AS (SELECT producer, epoch, seq, position, event_hash FROM producer_events WHERE lane = %(lane)s)
SELECT 'producer_events', format('%%s epoch %%s seq %%s', producer, epoch, seq), said.position, heard.position
FROM said FULL JOIN heard USING (producer, epoch, seq)
WHERE (said.position, said.event_hash) IS DISTINCT FROM (heard.position, heard.event_hash)
  AND coalesce(heard.position, %(low)s) >= %(low)s
"""
# Whether the projection's tables take an entry is not asked anew here: `rebuild --parity` does.
_VERDICTS: Final = """
WITH judged AS (
    SELECT e.position, e.verdict, CASE
        WHEN n.position < e.position THEN ARRAY['equivocation']
        WHEN i.position < e.position THEN ARRAY['repeated']
        ELSE ARRAY['projected', 'refused'] END AS right_ones
    FROM entries e
    LEFT JOIN event_ids i ON i.lane = e.lane AND i.event_id = e.event_id
    LEFT JOIN producer_events n
        ON n.lane = e.lane AND n.producer = e.producer AND n.epoch = e.epoch AND n.seq = e.seq
    WHERE e.lane = %(lane)s
)
SELECT position, verdict, right_ones FROM judged WHERE verdict <> ALL (right_ones)
"""


def check_heard(connection: Connection, lane: int, low: int, report: LaneReport) -> None:
    """Name each row that does not follow from the entries from `low` on, in the transaction that is open."""
    place = {"lane": lane, "low": low}
    for query in (_IDS, _NUMBERS):
        for table, about, said, heard in connection.execute(query.encode(), place):
            found = f"{about} first stands at {_at(said)}; {table} has it at {_at(heard)}"
            report.add(said if said is not None else heard, "wrong_history", found)
    for position, verdict, right_ones in connection.execute(_VERDICTS.encode(), place):
        expected = " or ".join(right_ones)
        report.add(position, "changed_row", f"entries.verdict is {verdict}; what is before it makes it {expected}")


def _at(position: int | None) -> str:
    return "no position" if position is None else f"position {position}"
