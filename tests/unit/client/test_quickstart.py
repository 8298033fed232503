"""What the quickstart shows must exist: its code compiles, and names what the SDK really has."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

from ai_infra.client import Client

TEXT = (Path(__file__).parents[3] / "docs" / "quickstart.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_of_the_quickstart_compiles_and_uses_what_there_is(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert all(hasattr(module, alias.name) for alias in node.names)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "client":
            assert hasattr(Client, node.attr), node.attr


def test_every_method_and_error_that_the_quickstart_mentions_exists() -> None:
    import ai_infra.client

    assert BLOCKS
    for name in re.findall(r"client\.(\w+)\(", TEXT):
        assert hasattr(Client, name), name
    for name in re.findall(r"`(\w+Error|AnswerTimeout|NotAcknowledged)`", TEXT):
        assert hasattr(ai_infra.client, name), name


def test_the_ten_lines_are_ten() -> None:
    assert len([line for line in BLOCKS[0].splitlines() if line.strip()]) == 10
