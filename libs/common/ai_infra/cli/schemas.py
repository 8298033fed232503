"""`ai-infra schemas`: are the schemas sound, compatible with all that shipped, and is what comes from them up to date?

For developers, in a checkout of the repository; a service never needs it. `register` is for operators: it tells a
schema registry the schemas of this program and needs no checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ai_infra.bus.kafka.schema_registry import register_all, schema_registry, subject_of
from ai_infra.cli.output import Json, fail, note, progress, rows, show
from ai_infra.errors import ConfigurationError
from ai_infra.events import catalogue, generate
from ai_infra.events.generation import sources
from ai_infra.events.generation.compatibility import incompatibilities
from ai_infra.settings import load_settings

app = typer.Typer(no_args_is_help=True, help="Check schemas against what has shipped; generate types; register them.")


@app.command()
def check(json: Json = False) -> None:
    """Rules of the house, compatibility with every released version in both directions, stale generated files."""
    with progress("comparing every version with every other"):
        read = sources.load()
        problems = incompatibilities(read)
        problems += [f"stale: {path.name}; run: ai-infra schemas generate" for path in sorted(generate.stale(read))]
        if catalogue.stale(read):
            problems.append("stale: docs/topics.md; run: ai-infra schemas generate")
        unreleased = sorted(
            topic
            for topic, one in read.topics.items()
            if one.sha256 not in {version.sha256 for version in read.released[topic]}
        )
    state = {
        topic: {
            "sha256": one.sha256,
            "crc64": one.crc64.hex(),
            "released_versions": len(read.released[topic]),
            "released": topic not in unreleased,
        }
        for topic, one in read.topics.items()
    }
    if not problems or json:
        show(
            {"topics": state, "problems": problems},
            json=json,
            table=lambda: rows(
                ("topic", "schema", "released versions", "present one released"),
                [
                    (topic, one.sha256[:12], len(read.released[topic]), topic not in unreleased)
                    for topic, one in read.topics.items()
                ],
            ),
        )
    if problems:
        for problem in problems:
            note(problem)
        fail(f"{len(problems)} problems with the schemas", code="schemas_unsound")


@app.command("generate")
def generate_all(
    release: Annotated[
        bool, typer.Option("--release", help="Also remember the present schemas as shipped; they never change again.")
    ] = False,
    json: Json = False,
) -> None:
    """Write the typed classes and docs/topics.md from schemas/."""
    released = sources.release() if release else []
    read = sources.load()
    stale = generate.stale(read)
    generate.write(stale)
    written = sorted(stale)
    if catalogue.stale(read):
        catalogue.write(read)
        written.append(catalogue.PAGE)
    show(
        {"written": _shown(written), "released": _shown(released)},
        json=json,
        table=lambda: (
            "\n".join([f"wrote {name}" for name in _shown(written)] + [f"released {name}" for name in _shown(released)])
            or "everything is up to date"
        ),
    )


@app.command()
def register(json: Json = False) -> None:
    """Register all schemas with the schema registry at SCHEMA_REGISTRY_URL. What is there already stays as it is."""
    registry = schema_registry(load_settings())
    if registry is None:
        raise ConfigurationError("Set SCHEMA_REGISTRY_URL to the address of the schema registry.")
    with progress("registering the schemas"):
        ids = register_all(registry)
    show(
        {"ids": ids},
        json=json,
        table=lambda: rows(
            ("subject", "schema", "id"),
            [(subject_of(topic), sha256[:12], number) for topic, of in ids.items() for sha256, number in of.items()],
        ),
    )


def _shown(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(sources.REPOSITORY)) for path in paths]
