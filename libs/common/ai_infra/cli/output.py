"""How every command speaks: a table or text for people, JSON for programs, one clear line when something is wrong.

Results go to standard output, all else (progress, notes, errors) to standard error, so that a result can be piped.
Nothing here decides what is shown.
"""

from __future__ import annotations

import dataclasses
import io
import json as jsonlib
import os
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer

from ai_infra.errors import AiInfraError

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
Reason = Annotated[str, typer.Option("--reason", help="Why; it is written into the log.")]

_PIPE_WIDTH: Final = 10_000  # in a file or a pipe each row is a line, for grep and awk; COLUMNS says otherwise
_GAP: Final = 2  # blanks between two columns
_TALL: Final = 5  # lines of one cell, beyond which a table is harder to read than a record for each row
_QUIET_SECONDS: Final = 2.0  # what takes longer says what it's doing

Renderable = Any  # what rich can print; rich itself is imported only when something is shown


def show(data: Any, *, json: bool, table: Renderable | Callable[[], Renderable] | None = None) -> None:
    """Prints a result: `data` as JSON, or else `table` (anything rich prints, or a function that makes it).

    Dataclasses, datetimes (RFC 3339, UTC), enums, paths and bytes (base64) may be anywhere in `data`.
    """
    if json or table is None:
        sys.stdout.write(jsonlib.dumps(plain(data), indent=2, ensure_ascii=False) + "\n")
        return
    rendered = table() if callable(table) else table
    if isinstance(rendered, str):
        sys.stdout.write(rendered.rstrip("\n") + "\n")
        return
    if sys.stdout.isatty():
        _console(sys.stdout).print(rendered)
        return
    text = io.StringIO()
    _console(text).print(rendered)
    sys.stdout.writelines(line.rstrip() + "\n" for line in text.getvalue().splitlines())


def show_line(data: Any, *, json: bool, text: str) -> None:
    """Prints one of many results as it comes: a line of JSON, or a line of text. Flushed, for who follows a pipe."""
    line = jsonlib.dumps(plain(data), ensure_ascii=False, separators=(",", ":")) if json else text
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def rows(columns: Sequence[str], content: Iterable[Sequence[Any]], *, title: str | None = None) -> Renderable:
    """A table with headings. Cells are shown as text: None as nothing, times in RFC 3339, UTC; markup in
    them is left alone.

    Where it's too narrow for a table that breaks no word, which an id is, each row is shown as a record of its own.
    """
    from rich.text import Text

    cells = [tuple(cell if isinstance(cell, Text) else Text(cell_text(cell)) for cell in row) for row in content]
    return _Rows(tuple(columns), cells, title)


class _Rows:
    """A table for whatever width it is shown in."""

    def __init__(self, columns: tuple[str, ...], cells: list[tuple[Any, ...]], title: str | None) -> None:
        self._columns, self._cells, self._title = columns, cells, title

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        if self._title:
            yield styled(self._title, "bold")
        widths = self._widths(options.max_width)
        if widths is not None:
            yield self._table(widths)
            return
        for number, row in enumerate(self._cells):
            if number:
                yield ""
            yield record({name: cell for name, cell in zip(self._columns, row, strict=True) if cell.plain})

    def _widths(self, width: int) -> list[int] | None:
        """How wide each column is; None where words would have to be broken, or columns be narrow and long."""
        columns = [[name, *(row[i].plain for row in self._cells)] for i, name in enumerate(self._columns)]
        least = [max(_longest(text.split()) for text in column) for column in columns]
        whole = [max(_longest(text.splitlines()) for text in column) for column in columns]
        spare = width - _GAP * (len(columns) - 1) - sum(least)
        if spare < 0:
            return None
        # What there is to spare goes to those that want little first: one long text must not wrap all the others.
        for wanting, (_, i) in enumerate(sorted((whole[i] - least[i], i) for i in range(len(columns)))):
            more = min(whole[i] - least[i], spare // (len(columns) - wanting))
            least[i] += more
            spare -= more
        return least if all(w <= _TALL * n for w, n in zip(whole, least, strict=True)) else None

    def _table(self, widths: Sequence[int]) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
        for column, width in zip(self._columns, widths, strict=True):
            table.add_column(column, width=width, overflow="fold")
        for row in self._cells:
            table.add_row(*row)
        return table


def _longest(texts: Sequence[str]) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, texts), default=0)


def record(fields: Mapping[str, Any], *, title: str | None = None) -> Renderable:
    """One thing with its properties, a line each."""
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in fields.items():
        table.add_row(name, value if isinstance(value, Text) else Text(cell_text(value)))
    return table


def stack(*parts: Renderable) -> Renderable:
    """Several things below each other, an empty line between them."""
    from rich.console import Group
    from rich.text import Text

    spaced: list[Any] = []
    for part in parts:
        plain_part = Text(part) if isinstance(part, str) else part  # a string would be read as markup
        spaced += [plain_part] if not spaced else ["", plain_part]
    return Group(*spaced)


def styled(text: str, style: str) -> Renderable:
    """Text in a style ("red", "green", "bold"); never the only bearer of a meaning."""
    from rich.text import Text

    return Text(text, style=style)


def cell_text(value: Any) -> str:  # noqa: PLR0911 - one line a type
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if isinstance(value, timedelta):
        return duration(value.total_seconds())
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {cell_text(v)}" for name, v in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return ", ".join(cell_text(v) for v in value)
    return str(value)


def duration(seconds: float) -> str:
    """Seconds as people say them: `0.4 s`, `12 s`, `5 min`, `3 h`, `2 d`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172_800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def plain(value: Any) -> Any:  # noqa: PLR0911 - one line a type
    """A value as JSON has it."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return b64encode(value).decode()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, Path):
        return [plain(v) for v in value]
    return str(value)


def note(text: str) -> None:
    """A line for people beside the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


@contextmanager
def progress(text: str) -> Iterator[Callable[[str], None]]:
    """Says on stderr what is being done: a moving line on a terminal, else plain lines once two seconds have passed.

    Yields a function that changes the text.
    """
    if sys.stderr.isatty():
        from rich.text import Text

        with _console(sys.stderr).status(Text(text)) as status:
            yield lambda now: status.update(Text(now))
        return
    state = {"text": text, "late": False}
    lock = threading.Lock()

    def late() -> None:
        with lock:
            state["late"] = True
            note(f"… {state['text']}")

    def say(now: str) -> None:
        with lock:
            changed, state["text"] = state["text"] != now, now
            if state["late"] and changed:
                note(f"… {now}")

    timer = threading.Timer(_QUIET_SECONDS, late)
    timer.daemon = True
    timer.start()
    try:
        yield say
    finally:
        timer.cancel()


def print_error(error: BaseException, *, json: bool) -> None:
    """One line on stderr for a failure: `error: …`, or with --json an object with `code` and `message`."""
    code = error.code if isinstance(error, AiInfraError) else "internal"
    message = str(error) if isinstance(error, AiInfraError) else f"{type(error).__name__}: {error}"
    if json:
        note(jsonlib.dumps({"error": {"code": code, "message": message}}, ensure_ascii=False))
    else:
        note(f"error: {' '.join(message.split())}")


def fail(message: str, *, code: str = "failed") -> NoReturn:
    """Ends the command with an error of that text."""
    raise AiInfraError(message, code=code)


def _console(stream: Any) -> Any:
    from rich.console import Console

    width = None if stream.isatty() or os.environ.get("COLUMNS", "").isdigit() else _PIPE_WIDTH
    return Console(file=stream, width=width, highlight=False, soft_wrap=False)
