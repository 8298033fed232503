"""Writes docs/configuration.md from the settings themselves: `python -m ai_infra.settings.document [--check]`.

The tables come from the sections, so a name, its meaning and its default are said once. What surrounds them is below.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

from pydantic_core import PydanticUndefined

from ai_infra.settings.load import Settings
from ai_infra.settings.variables import Bound, bound_fields

TARGET: Final = Path("docs") / "configuration.md"

_HEAD: Final = """\
# Configuration

Everything that this system reads from the environment. This page is written by `python -m ai_infra.settings.document`
from the settings in `libs/common/ai_infra/settings/`; a test fails where it is stale.

## Precedence

The first of these that has a value counts; an empty value counts as not set.

1. the command line
2. the environment of the process
3. `.env` in the working directory
4. `.ai-infra/dev.env`, which `ai-infra dev up` writes; never read in production
5. the default

Where a setting has several names, the names count in the order of the tables: `AI_INFRA_*` before any other.

An `AI_INFRA_*` name that is not on this page is an error, in the environment as in the files: a typo must not become a
default. Secrets never appear in logs, errors or events.

Where the object store's address comes from `.ai-infra/dev.env`, all `AWS_*` do: credentials for another account are of
no use there.

## Where it runs

| name | meaning |
|---|---|
| `AI_INFRA_ENV`, `ENV`, `NODE_ENV` | Environment of this installation: `dev` (`development`, `test`), `staging`, `prod` (`production`). It fills `${ENV}` in bucket names. As soon as **any** of the three says production, the guards of production are on. An `ENV` with another value (shells use that name) is passed over. Default `dev`. |

Guards, all at the start of a process:

- production with `DEV_ALLOW_EPHEMERAL=true` refuses to start, and so does production without `AI_INFRA_LOG_ORIGIN`;
- in production no private key is read from the keys directory, `.ai-infra/dev.env` is not read, signing services must
  be https, and `keys init` and `keys new` make no private keys (`keys init --production` makes root keys alone);
- `REQUIRE_KMS=true` refuses every local key (`env:`, `file:`, `AI_INFRA_SIGNER_KEY_B64`, the keys directory) and has
  each key sign once before the process starts, so a KMS that does not answer is noticed then;
- `REQUIRE_MTLS=true` refuses signing, policy and Kernel services that are not https or for which there is no client
  certificate.
"""  # noqa: E501 - a row of a Markdown table is one line

_KAFKA: Final = """\
Every other setting of the Kafka client is `KAFKA_` and its name in librdkafka, in capitals and with underscores for
dots: `KAFKA_SECURITY_PROTOCOL=SASL_SSL`, `KAFKA_SASL_MECHANISM=OAUTHBEARER`, `KAFKA_SSL_CA_LOCATION=/etc/ca.pem`,
`KAFKA_ENABLE_SSL_CERTIFICATE_VERIFICATION=true`. So MSK, Redpanda and Confluent work as their own documents say. What
correctness rests on (transactions, commits, isolation) can't be changed from here. Names that Kafka's own scripts
(`KAFKA_HOME`, `KAFKA_OPTS`, ...) or Kubernetes (`KAFKA_SERVICE_HOST`, `KAFKA_PORT`, ...) set are passed over.
"""

_KEYS: Final = """\
A key is a URI:

| URI | key |
|---|---|
| `env:NAME` | private key in the variable `NAME`: base64 of 32 bytes (the seed) or 64 (seed and public key), or PEM |
| `file:/path` | the same in a file, which others must not be able to read |
| `https+sign://host/path` | HTTP signing adapter: `POST https://host/path/sign {"payload_b64"}` -> `{"signature_b64", "signer_id"}` |
| `kernel-kms:ID` | the Kernel's KMS at `KMS_ENDPOINT`: `POST /signData`, `/publicKey` |
| `awskms:ARN` (or id, or alias) | AWS KMS, key spec `ECC_NIST_EDWARDS25519`; a bare ARN means the same |
| `wrapped:/path` | private key in a file that only the audit key's KMS opens, into memory: for the chain key |

A value that is no URI is a key of AWS where it looks like one (a UUID, `mrk-...`, `alias/...`), else of the Kernel's
KMS where `KMS_ENDPOINT` is set, else of the adapter at `AI_INFRA_KMS_ENDPOINT`. Each signature that comes back is
verified against the public key in the keyring before it is used; services have three attempts.

A service signs with the first of: `AI_INFRA_SERVICE_KEY`; the adapter at `AI_INFRA_KMS_ENDPOINT`; its newest private
key in the keys directory (not in production); `AI_INFRA_SIGNER_KEY_B64`. An orchestrator or a person signs with the
first of: `AI_INFRA_SIGNER_KEY_B64`; `AI_INFRA_SERVICE_KEY`; the adapter; the keys directory (not in production).
"""  # noqa: E501 - a row of a Markdown table is one line

_TAIL: Final = """\
## Reserved

`AI_INFRA_ADDR`, `AI_INFRA_ALLOW_DEBUG_TOKEN` and `AI_INFRA_DEBUG_TOKEN` belong to the gateway (later): they are known,
and have no effect yet.

## Trainings

A training reads `AI_INFRA_DATASETS_DIR`, `AI_INFRA_HYPERPARAMS`, `AI_INFRA_OUTPUT_DIR` and `AI_INFRA_SEED`, which the
runner sets for it; nobody else does. None of the variables above reaches it.
"""

_NOTES: Final = {"kafka": _KAFKA, "keys": _KEYS}
_TITLES: Final = {
    "guards": "Guards",
    "kafka": "Kafka",
    "database": "Postgres",
    "objects": "Object store",
    "log": "The log",
    "keys": "Keys",
    "kms": "Signing services",
    "policy": "Policy",
    "runner": "Trainings' runner",
    "service": "A service's process",
    "telemetry": "Telemetry",
    "serving": "Serving (later)",
}


def configuration_page() -> str:
    """The page's text."""
    sections: dict[str, list[Bound]] = {}
    for bound in bound_fields(Settings):
        sections.setdefault(bound.section, []).append(bound)
    parts = [_HEAD]
    for section, fields in sections.items():
        rows = "\n".join(_row(bound) for bound in fields)
        table = f"## {_TITLES.get(section, section)}\n\n| name | meaning | default |\n|---|---|---|\n{rows}\n"
        parts += [table, _NOTES[section]] if section in _NOTES else [table]
    return "\n".join([*parts, _TAIL])


def _row(bound: Bound) -> str:
    names = ", ".join(f"`{name}`" for name in bound.names)
    return f"| {names} | {bound.info.description or ''} | {_default(bound.info.default)} |"


def _default(value: Any) -> str:
    if value is None or value is PydanticUndefined or value in ("", ()):
        return ""
    if isinstance(value, bool):
        return "`true`" if value else "`false`"
    return f"`{','.join(value)}`" if isinstance(value, tuple) else f"`{value}`"


def main(arguments: list[str]) -> int:
    """Writes the page, or with `--check` says whether it is current."""
    text = configuration_page()
    if "--check" in arguments:
        if TARGET.is_file() and TARGET.read_text() == text:
            return 0
        print(f"{TARGET} is stale: run python -m ai_infra.settings.document", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
