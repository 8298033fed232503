"""Structured logs: one JSON object a line for machines, aligned text for a person at a terminal, always on stderr.

A line says what happened (`event`) and names things by fixed words: `service`, `replica`, `lane`, `topic`, `event_id`,
`code`. It must never hold a key, a password or a token: values under such names, and passwords inside URLs, are
replaced before a line is written, as a last guard against a mistake elsewhere.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TextIO

import structlog

if TYPE_CHECKING:
    from ai_infra.settings import Settings

_REPLACEMENT: Final = "[removed]"
# Parts of a field's name that make its value a secret. `key_id` and `public_key` are names of keys, not keys.
_SECRET_NAME: Final = re.compile(
    r"(passw(or)?d|secret|token|authorization|private_key|signer_key_b64|credential|seed_b64)", re.IGNORECASE
)
_URL_PASSWORD: Final = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)@")
_PRIVATE_KEY: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL
)
# `password=…` of a connection string or an address's query.
_ASSIGNED: Final = re.compile(r"(?i)\b(passw(?:or)?d|sslpassword|secret|token)=('[^']*'|[^\s&;,'\"]+)")
_BEARER: Final = re.compile(r"(?i)\b(bearer|basic)\s+[a-z0-9._~+/=-]{8,}")


def without_secrets(value: Any, name: str = "") -> Any:
    """`value` with whatever looks like a secret replaced, by the name it goes under and by its form."""
    if name and _SECRET_NAME.search(name) and value is not None and not isinstance(value, bool):
        return _REPLACEMENT
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        value = _BEARER.sub(rf"\1 {_REPLACEMENT}", _URL_PASSWORD.sub(rf"\1:{_REPLACEMENT}@", value))
        return _ASSIGNED.sub(rf"\1={_REPLACEMENT}", _PRIVATE_KEY.sub(_REPLACEMENT, value))
    if isinstance(value, Mapping):
        return {k: without_secrets(v, str(k)) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(v) for v in value]
    return value


def _remove_secrets(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in line.items():
        line[name] = without_secrets(value, name)
    return line


def configure_logging(settings: Settings, service: str, *, stream: TextIO | None = None) -> None:
    """Set up structlog and the standard library's logging, once a process. `service` goes into each line.

    Format: `settings.telemetry.log_format` (`json`, `text`, or `auto`: text on a terminal, else JSON); level:
    `settings.telemetry.log_level`. Lines of libraries that use the standard library's logging come out the same way.
    """
    stream = sys.stderr if stream is None else stream
    form = settings.telemetry.log_format
    as_json = form == "json" or (form == "auto" and not stream.isatty())
    level = logging.getLevelNamesMapping()[settings.telemetry.log_level.upper()]
    replica = settings.service.replica

    def name_process(_: Any, __: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        # Not by context variables: a thread starts without those of the thread that started it.
        line.setdefault("service", service)
        line.setdefault("replica", replica)
        return line

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        name_process,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.UnicodeDecoder(),
    ]
    # A traceback is text before secrets are looked for: an error of somebody else's may quote a whole address.
    last: list[structlog.typing.Processor] = [
        structlog.processors.format_exc_info,
        _remove_secrets,
        structlog.processors.JSONRenderer(default=str) if as_json else _console(stream),
    ]
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
        )
    )
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    # Request lines of these libraries name URLs with signatures in them; their warnings are enough.
    for noisy in ("httpx", "httpcore", "botocore", "boto3", "urllib3", "s3transfer"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


def log_as_a_library() -> None:
    """Where the program has not configured structlog: our lines go to the standard library's logging.

    So a program that uses the SDK sees warnings on its stderr, as of any library, and never a line on its stdout,
    where structlog by itself would write all of them.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            _remove_secrets,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )


def _console(stream: TextIO) -> structlog.dev.ConsoleRenderer:
    # Plain: the rich traceback that structlog prefers shows local variables, and one of them could be a key.
    return structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
