"""Writes `ai_infra.events.generated` from `schemas/`: one class a record, one module a topic, the schemas' text inside.

    python -m ai_infra.events.generate             # write what is stale
    python -m ai_infra.events.generate --check     # exit 1 where something is stale
    python -m ai_infra.events.generate --release   # also remember the present schemas as shipped

Runs where the repository is, never at run time. It must never give a meaning to a field: the schema is the only source.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ai_infra.events.generation.modules import render
from ai_infra.events.generation.sources import Sources, load, release

GENERATED = Path(__file__).parent / "generated"


def stale(sources: Sources) -> dict[Path, str | None]:
    """Files whose content differs from what the schemas say; None where a file should not be there."""
    wanted = {GENERATED / name: text for name, text in render(sources).items()}
    there = set(GENERATED.glob("*.py"))
    differing: dict[Path, str | None] = {
        path: text for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }
    differing.update(dict.fromkeys(there - wanted.keys()))
    return differing


def write(differing: dict[Path, str | None]) -> None:
    """Brings the generated package up to date."""
    GENERATED.mkdir(exist_ok=True)
    for path, text in differing.items():
        if text is None:
            path.unlink()
        else:
            path.write_text(text, encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """Entry point of `python -m ai_infra.events.generate`."""
    parser = argparse.ArgumentParser(description="Generate the typed bodies from schemas/.")
    parser.add_argument("--check", action="store_true", help="only say what is stale; exit 1 if anything is")
    parser.add_argument("--release", action="store_true", help="remember the present schemas under schemas/released/")
    options = parser.parse_args(arguments)
    if options.release:
        for path in release():
            print(f"released {path}")
    differing = stale(load())
    if options.check:
        for path in sorted(differing):
            print(f"stale: {path.name}; run python -m ai_infra.events.generate", file=sys.stderr)
        return 1 if differing else 0
    write(differing)
    print(f"{len(differing)} files written to {GENERATED.name}/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
