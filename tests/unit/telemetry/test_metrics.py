"""The table of metrics."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, Counter, Gauge, Histogram, generate_latest

from ai_infra.telemetry import metrics

ROOT = Path(__file__).resolve().parents[3]
SOURCES = [p for room in ("libs/common", "services") for p in sorted((ROOT / room).rglob("*.py"))]
DEFINED = sorted(name for name, value in vars(metrics).items() if isinstance(value, Counter | Gauge | Histogram))
# Promised to the seeds' dashboards; moved by what is not built yet, as docs/names.md says of each.
TO_COME = {
    "CANARY_ROLLBACKS",
    "DRIFT_SUGGESTIONS",
    "SENTINELNET_LATENCY",
    "MODEL_INFERENCE_LATENCY",
    "MODEL_INFERENCE_TIME_MS",
    "MODEL_INFERENCE_ERROR_RATE",
    "MODEL_PREDICTION_QUALITY",
    "MODEL_DRIFT_SCORE",
}

PROMISED = {
    "ai_infra_training_job_duration_seconds",
    "ai_infra_training_job_startup_seconds",
    "ai_infra_artifact_registration_latency_seconds",
    "ai_infra_promotion_latency_seconds",
    "ai_infra_canary_rollbacks_total",
    "ai_infra_drift_suggestions_total",
    "ai_infra_sign_errors_total",
    "ai_infra_sentinelnet_latency_seconds",
    "ai_infra_queue_depth",
    "kafka_consumer_lag",
    "http_request_duration_seconds",
    "model_inference_latency_seconds",
    "model_inference_time_ms",
    "model_inference_error_rate",
    "model_prediction_quality",
    "model_drift_score",
}
ROOMS = {"bus", "trust", "objects", "indexer"}


def test_each_promised_name_is_exported() -> None:
    assert PROMISED - metrics.exported_names() == set()


def test_our_own_names_say_room_what_and_unit() -> None:
    for name in metrics.exported_names() - PROMISED:
        assert re.fullmatch(rf"ai_infra_({'|'.join(sorted(ROOMS))})_[a-z0-9_]+", name), name


def test_nothing_exports_a_sample_before_anything_has_happened() -> None:
    # A zero that nobody set would say "all is well" about something that this process doesn't do.
    text = generate_latest(REGISTRY).decode()
    ours = [line for line in text.splitlines() if line.startswith(("ai_infra_", "kafka_", "model_", "http_"))]
    untouched = [line for line in ours if "{" not in line]
    assert untouched == []


def used_in(path: Path) -> set[str]:
    """Metrics that a module uses: `metrics.NAME`, or a NAME that it imports from the table."""
    text = path.read_text()
    if "metrics" not in text:
        return set()  # it can't name the table
    used = set[str]()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ImportFrom(module=metrics.__name__, names=names):
                used |= {alias.name for alias in names}
            case ast.Attribute(value=ast.Name(id="metrics"), attr=name):
                used.add(name)
    return used


def test_each_metric_is_moved_somewhere_and_what_is_to_come_is_not_moved_yet() -> None:
    moved = set().union(*(used_in(path) for path in SOURCES if path != Path(metrics.__file__)))
    assert set(DEFINED) - moved == TO_COME


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_each_metric_that_a_page_names_is_exported(page: Path) -> None:
    exported = metrics.exported_names()
    named = set(
        re.findall(
            r"`((?:ai_infra|kafka|model|http)_[a-z0-9_]+_(?:seconds|total|ratio|info|records|bytes|lag|depth|ms|count|bucket|sum))",
            page.read_text(),
        )
    )
    families = {re.sub(r"_(count|bucket|sum)$", "", name) for name in named}
    assert families - exported == set()


def test_what_is_to_come_is_said_to_be_so() -> None:
    page = (ROOT / "docs" / "names.md").read_text()
    for name in TO_COME:
        [family] = getattr(metrics, name).describe()
        full = f"{family.name}_total" if isinstance(getattr(metrics, name), Counter) else family.name
        [row] = [line for line in page.splitlines() if line.startswith("|") and f"`{full}`" in line]
        assert re.search(r"to come|; by serving", row), row
