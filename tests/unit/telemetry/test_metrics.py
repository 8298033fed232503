"""The table of metrics."""

from __future__ import annotations

import re

from prometheus_client import REGISTRY, generate_latest

from ai_infra.telemetry import metrics

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
