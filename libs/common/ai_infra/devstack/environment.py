"""The variables by which programs find a stack: for the caller (an orchestrator) and for each service.

They are made from the stack's state alone; nothing here reads the caller's environment, except to pass on to a service
what does not point to some other broker, store or key.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ai_infra.devstack.ports import HOST
from ai_infra.devstack.postgres import DATABASE, USER
from ai_infra.devstack.s3 import REGION
from ai_infra.devstack.state import StackState

ORCHESTRATOR: Final = "orchestrator-1"
BUCKETS: Final = {
    "MODEL_REGISTRY_S3_BUCKET": "ai-infra-models",
    "AI_INFRA_ARCHIVE_BUCKET": "ai-infra-archive",
    "DRIFT_S3_BUCKET": "ai-infra-drift",
}
# Preferred over the names above, or meant for somebody else's account: not passed on to services.
_ELSEWHERE: Final = (
    "AI_INFRA_MODELS_BUCKET",
    "AI_INFRA_DRIFT_BUCKET",
    "AI_INFRA_SIGNER_KEY_B64",
    "AI_INFRA_SIGNER_ID",
    "AI_INFRA_SERVICE_KEY",
    "AI_INFRA_SERVICE_KEY_ID",
)


def stack_environment(name: str, directory: Path, state: StackState) -> dict[str, str]:
    """What both sides need: where everything is, and under which name the log goes. Holds passwords."""
    ports, credentials = state.ports, state.credentials
    return {
        "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{ports.get('kafka')}",
        "AI_INFRA_DATABASE_URL": (
            f"postgresql://{USER}:{credentials.get('postgres')}@{HOST}:{ports.get('postgres')}/{DATABASE}"
        ),
        "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{ports.get('s3')}",
        "AWS_ACCESS_KEY_ID": credentials.get("s3_access", ""),
        "AWS_SECRET_ACCESS_KEY": credentials.get("s3_secret", ""),
        "AWS_REGION": REGION,
        **BUCKETS,
        "AI_INFRA_KEYS_DIR": str(directory / "keys"),
        "AI_INFRA_TRUST_ROOTS": str(directory / "keys" / "roots.json"),
        "AI_INFRA_LOG_ORIGIN": f"ai-infra.localhost/{name}",
        "AI_INFRA_LANES": str(state.lanes),
    }


def orchestrator_environment(directory: Path) -> dict[str, str]:
    """The key of the dev orchestrator, where `keys init` has made one."""
    key = directory / "keys" / "private" / f"{ORCHESTRATOR}.key"
    if not key.exists():
        return {}
    return {"AI_INFRA_SIGNER_KEY_B64": key.read_text().strip(), "AI_INFRA_SIGNER_ID": ORCHESTRATOR}


def service_environment(service: str, directory: Path, stack: Mapping[str, str]) -> dict[str, str]:
    """The whole environment of a service beside the stack: its own key, never the orchestrator's."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in _ELSEWHERE and not name.startswith(("KAFKA_", "AWS_"))
    }
    own = {
        "AI_INFRA_SERVICE_KEY": f"file:{directory / 'keys' / 'private' / f'{service}-1.key'}",
        "AI_INFRA_SERVICE_KEY_ID": f"{service}-1",
    }
    if service == "trainer":  # on a developer's machine it runs what is in the developer's own clone
        root = directory.parent.parent.resolve()
        own["AI_INFRA_RUNNER"] = inherited.get("AI_INFRA_RUNNER", "true")
        own["AI_INFRA_ALLOWED_REPOSITORIES"] = inherited.get("AI_INFRA_ALLOWED_REPOSITORIES", f"git+file://{root}")
    return {**inherited, **stack, **own}


def as_dotenv(env: Mapping[str, str]) -> str:
    """As a `.env` file."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in env.items())


def as_exports(env: Mapping[str, str]) -> str:
    """As lines for `eval "$(ai-infra dev env)"`."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items())
