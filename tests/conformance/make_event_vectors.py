"""Writes tests/conformance/vectors/event/: records that every reader of docs/event-format.md must take or refuse.

    python -m tests.conformance.make_event_vectors             # write
    python -m tests.conformance.make_event_vectors --check     # exit 1 where a file is stale

A changed file means a changed format: think before you write.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.conformance.event_must_fail import must_fail
from tests.conformance.event_must_pass import must_pass

VECTORS = Path(__file__).parent / "vectors" / "event"


def stale() -> dict[str, str | None]:
    """Files that are not what they should be, with what they should be; None: not there."""
    wanted = {
        f"{made['name']}.json": json.dumps(made, indent=1, ensure_ascii=False) + "\n"
        for made in (*must_pass(), *must_fail())
    }
    differing: dict[str, str | None] = {
        name: text
        for name, text in wanted.items()
        if not (VECTORS / name).exists() or (VECTORS / name).read_text(encoding="utf-8") != text
    }
    differing.update(dict.fromkeys({path.name for path in VECTORS.glob("*.json")} - wanted.keys()))
    return differing


def main() -> int:
    differing = stale()
    if "--check" in sys.argv:
        for name in sorted(differing):
            print(f"stale: {name}", file=sys.stderr)
        return 1 if differing else 0
    VECTORS.mkdir(parents=True, exist_ok=True)
    for name, text in differing.items():
        if text is None:
            (VECTORS / name).unlink()
        else:
            (VECTORS / name).write_text(text, encoding="utf-8")
    print(f"{len(differing)} files written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
