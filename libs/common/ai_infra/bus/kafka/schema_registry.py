"""The schema registry at SCHEMA_REGISTRY_URL: ids for what we say, schemas that are newer than this program.

Where it is set, bodies leave in its framing (0x00 and the id that their schema has there), so that stock Avro readers
find the schema. A reader of ours takes both framings with or without it: which schema a body has is in the signed
header. Only an event of a recognised signer that names a schema which is not known here makes it ask, and what it is
given is taken only where its SHA-256 is the signed one; so neither junk nor the registry can make it read anything
differently. Ids never change, so they are asked for once.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import structlog
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from ai_infra.errors import AiInfraError, ConfigurationError, UnavailableError
from ai_infra.events.body import Body
from ai_infra.events.codec import registry_framing
from ai_infra.events.compose import Frame
from ai_infra.events.exceptions import UnknownSchema
from ai_infra.events.fingerprint import schema_sha256
from ai_infra.events.generated import BODIES, SCHEMAS, TOPIC_OF
from ai_infra.events.schemas import MAX_SCHEMA_BYTES, learn
from ai_infra.settings import Settings
from ai_infra.telemetry import metrics
from ai_infra.trust.keyrings import Keyrings
from ai_infra.trust.verify import Verifier

if TYPE_CHECKING:
    import httpx  # loaded by who has a registry: it takes a sixth of what loading the SDK takes

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 3
TIMEOUT_SECONDS: Final = 5.0  # with all attempts well below the 60 s after which a loop counts as stuck
# What a recognised signer can make us ask: a few schemas at an upgrade, never a flood.
ASKS_AT_ONCE: Final = 20
ASKS_PER_SECOND: Final = 0.5
FORGET_UNKNOWN_SECONDS: Final = 60.0  # a registry's replica may learn an id later than its first user
REMEMBERED: Final = 1_024
_MAX_ANSWER_BYTES: Final = 2 * MAX_SCHEMA_BYTES + 4_096  # the schema's text, escaped in JSON
_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_NO_SUCH_ID: Final = frozenset({400, 422})  # what some answer for a number that none of their ids could be
_PASSING: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


class RegistryUnavailable(UnavailableError):
    """The schema registry does not answer, or not now."""

    code = "schema_registry_unavailable"


class RegistryRefused(AiInfraError):
    """The schema registry refuses: credentials, a schema that is not compatible with what it has, not a registry."""

    code = "schema_registry_refused"


class _NotThere(AiInfraError):
    """404: no such schema, subject or id."""

    code = "schema_not_registered"


@dataclass(slots=True)
class _Allowance:
    """So many asks at once, so many a second after that."""

    left: float = ASKS_AT_ONCE
    at: float = 0.0

    def take(self, now: float) -> bool:
        self.left = min(ASKS_AT_ONCE, self.left + (now - self.at) * ASKS_PER_SECOND) if self.at else self.left
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class SchemaRegistry:
    """One schema registry, by its HTTP API. Safe to use from several threads."""

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        encrypted_credentials: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`url` may hold user and password (basic authentication); with `encrypted_credentials` they need https."""
        import httpx

        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL:
            parsed = httpx.URL("")
        if parsed.scheme not in {"http", "https"} or not parsed.host or "," in parsed.host:
            raise ConfigurationError("SCHEMA_REGISTRY_URL must be one http:// or https:// address.")
        if parsed.username and parsed.scheme == "http" and encrypted_credentials:
            raise ConfigurationError(
                "SCHEMA_REGISTRY_URL has a password and is not https; production does not send passwords in the clear."
            )
        auth = httpx.BasicAuth(parsed.username, parsed.password) if parsed.username else None
        self._url = str(parsed.copy_with(userinfo=b"")).rstrip("/")
        self._client = httpx.Client(
            auth=auth,
            headers={"accept": f"{_MEDIA_TYPE}, application/json", "content-type": _MEDIA_TYPE},
            timeout=TIMEOUT_SECONDS,
            verify=_tls(ca) if parsed.scheme == "https" else False,
            follow_redirects=False,
            trust_env=False,
        )
        self._clock = clock
        self._lock = threading.RLock()
        self._framings: dict[type[Body], bytes] = {}
        self._named: OrderedDict[int, tuple[str, float]] = OrderedDict()
        self._allowance = _Allowance()
        self.before_learning: Callable[[str, str], None] = lambda _sha256, _text: None
        """Called with a schema before it is learned: for who must keep it first. What it raises is passed on."""

    # --- speaking -------------------------------------------------------------------------------------------------

    def frame(self, cls: type[Body]) -> bytes:
        """The framing of bodies of this class: asks once, and registers the schema where it is not there yet.

        Raises RegistryUnavailable, RegistryRefused.
        """
        framing = self._framings.get(cls)
        if framing is None:
            with self._lock:
                framing = self._framings.get(cls)
                if framing is None:
                    schema_id = self.register(cls.TOPIC, SCHEMAS[cls.SCHEMA_SHA256])
                    framing = self._framings[cls] = registry_framing(schema_id)
        return framing

    def prepare(self, classes: Iterable[type[Body]]) -> None:
        """Ask for all of them now, so that nobody waits for it later."""
        for cls in classes:
            self.frame(cls)

    def register(self, topic: str, text: str) -> int:
        """The id of a schema under its topic's subject, which it gets where it has none. The registry must keep the
        text as it is: readers know it by the hash of the whole."""
        path = f"/subjects/{quote(subject_of(topic), safe='')}"
        schema = {"schema": text}
        try:
            answer = self._call("POST", path, schema)
        except _NotThere:
            answer = self._call("POST", f"{path}/versions", schema)
            log.info("schema registered", subject=subject_of(topic), id=answer.get("id"))
        schema_id = answer.get("id")
        if not isinstance(schema_id, int) or not 0 <= schema_id < 2**32:
            raise RegistryRefused(f"The schema registry {self._url} gives no id for a schema of {topic}.")
        if _sha256(self._text(schema_id)) != _sha256(text):
            raise RegistryRefused(
                f"The schema registry {self._url} keeps the schema of {topic} (id {schema_id}) in other words than it "
                "was given; it must keep doc strings and all attributes. Switch its normalisation off."
            )
        return schema_id

    # --- reading --------------------------------------------------------------------------------------------------

    def learn(self, topic: str, schema_id: int, sha256: str) -> None:
        """Make a schema known that a recognised signer has named. Raises UnknownSchema, RegistryUnavailable."""
        with self._lock:
            now = self._clock()
            known = self._named.get(schema_id)
            found, text = known[0] if known is not None else "", ""
            if known is not None and (found or now < known[1]) and found != sha256:
                pass  # the answer is known: ids never change, and what is not there is not asked for again at once
            elif not self._allowance.take(now):
                raise UnknownSchema(
                    f"schema {sha256} of {topic} is not known, and the schema registry has been asked for too many: "
                    "redrive the event later"
                )
            else:
                found, text = self._look_up(schema_id, now)
        if found != sha256:
            raise UnknownSchema(
                f"schema {sha256} of {topic} is not known; the schema registry has "
                f"{found or 'none'} under id {schema_id}"
            )
        self.before_learning(sha256, text)
        learn(topic, text)
        log.info("schema learned", topic=topic, sha256=sha256, id=schema_id)

    def _look_up(self, schema_id: int, now: float) -> tuple[str, str]:
        try:
            text = self._text(schema_id)
            found = _sha256(text)
        except _NotThere:
            found, text = "", ""
        self._named[schema_id] = (found, now + FORGET_UNKNOWN_SECONDS)
        if len(self._named) > REMEMBERED:
            self._named.popitem(last=False)
        return found, text

    def _text(self, schema_id: int) -> str:
        text = self._call("GET", f"/schemas/ids/{schema_id}").get("schema")
        if not isinstance(text, str):
            raise RegistryRefused(f"The schema registry {self._url} answers without a schema for id {schema_id}.")
        return text

    # --- the wire -------------------------------------------------------------------------------------------------

    def _call(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        for attempt in Retrying(
            retry=retry_if_exception_type(RegistryUnavailable),
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.1, max=1.0),
            reraise=True,
        ):
            with attempt:
                return self._call_once(method, path, body)
        raise AssertionError("unreachable: Retrying ends by returning or raising")

    def _call_once(self, method: str, path: str, body: dict[str, str] | None) -> dict[str, Any]:
        import httpx

        began, outcome = time.monotonic(), "unavailable"
        try:
            response = self._client.request(method, f"{self._url}{path}", json=body)
            outcome = _outcome(method, response.status_code)
        except httpx.HTTPError as error:
            raise RegistryUnavailable(
                f"The schema registry {self._url} does not answer ({type(error).__name__})."
            ) from None
        finally:
            metrics.BUS_SCHEMA_REGISTRY.labels(outcome).observe(time.monotonic() - began)
        if outcome == "unavailable":
            raise RegistryUnavailable(f"The schema registry {self._url} answers {response.status_code}.")
        if outcome == "not_found":
            raise _NotThere(f"The schema registry {self._url} has nothing at {path}.")
        answer = _json(response)
        if outcome != "ok":
            said = str(answer.get("message", ""))[:300] if answer else ""
            raise RegistryRefused(
                f"The schema registry {self._url} refuses {method} {path} with status {response.status_code}"
                + (f": {said}" if said else ".")
            )
        if answer is None:
            raise RegistryRefused(f"The schema registry {self._url} answers something that is not a JSON object.")
        return answer


def subject_of(topic: str) -> str:
    """The subject of a topic's bodies (TopicNameStrategy, the default of every client)."""
    return f"{topic}-value"


def schema_registry(settings: Settings) -> SchemaRegistry | None:
    """The schema registry that these settings name, one for the whole process; None where they name none."""
    url = settings.kafka.schema_registry_url
    if url is None:
        return None
    return _opened(url.get_secret_value(), settings.kafka.schema_registry_ca, settings.guards.production)


def framing(settings: Settings) -> Frame | None:
    """How bodies are framed: `compose(frame=...)`."""
    registry = schema_registry(settings)
    return registry.frame if registry is not None else None


def verifier_for(settings: Settings, keyrings: Keyrings) -> Verifier:
    """A verifier that asks the schema registry, where there is one, for schemas that are newer than this program."""
    registry = schema_registry(settings)
    return Verifier(keyrings, settings.log.lanes, learn=registry.learn if registry is not None else None)


def register_all(registry: SchemaRegistry) -> dict[str, dict[str, int]]:
    """Registers every schema of ours; ids by topic and SHA-256. Released versions come before the present one."""
    ids: dict[str, dict[str, int]] = {}
    for topic, body in BODIES.items():
        older = [sha256 for sha256, of in TOPIC_OF.items() if of == topic and sha256 != body.SCHEMA_SHA256]
        ids[topic] = {sha256: registry.register(topic, SCHEMAS[sha256]) for sha256 in (*older, body.SCHEMA_SHA256)}
    return ids


@lru_cache(maxsize=8)
def _opened(url: str, ca: Path | None, production: bool) -> SchemaRegistry:
    return SchemaRegistry(url, ca=ca, encrypted_credentials=production)


def _outcome(method: str, status: int) -> str:
    if status in _PASSING:
        return "unavailable"
    if status == 404 or (method == "GET" and status in _NO_SUCH_ID):
        return "not_found"
    return "ok" if status == 200 else "refused"


def _json(response: httpx.Response) -> dict[str, Any] | None:
    try:
        answer = response.json() if len(response.content) <= _MAX_ANSWER_BYTES else None
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _sha256(text: str) -> str:
    """SHA-256 of a schema's text, whatever its spaces and order; empty for what is no schema."""
    try:
        return schema_sha256(json.loads(text))
    except (AiInfraError, ValueError, TypeError, RecursionError):
        return ""


def _tls(ca: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca is not None else None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            "The authority of the schema registry's certificate cannot be read (AI_INFRA_SCHEMA_REGISTRY_CA): "
            f"{error.strerror or type(error).__name__}."
        ) from None
    return context
