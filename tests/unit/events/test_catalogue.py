"""docs/topics.md says what the schemas say."""

from __future__ import annotations

from ai_infra.events.catalogue import PAGE, render
from ai_infra.events.generation.sources import load


def test_the_topic_catalogue_is_not_stale() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(load()), "run python -m ai_infra.events.catalogue"


def test_the_catalogue_names_every_topic_and_every_field() -> None:
    sources = load()
    text = render(sources)
    for topic, one in sources.topics.items():
        section = text.split(f"\n## {topic}\n")[1].split("\n## ")[0]
        for field in one.schema["fields"]:
            assert f"| `{field['name']}` |" in section
