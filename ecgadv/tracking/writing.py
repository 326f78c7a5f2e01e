"""What is written to MLflow: metrics, parameters and tags in batches, and tables."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ecgadv.store.columns import CASES
from ecgadv.tracking import content

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_JOB_TEXTS = ("job", "overrides")


def next_step(api: MlflowClient, run_id: str, metric: str) -> int:
    """A step after all of a metric: MLflow shows the value of the highest, whatever the clock."""
    points = api.get_metric_history(run_id, metric)
    return max((point.step for point in points), default=-1) + 1


def log_batch(
    api: MlflowClient,
    run_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
    step: int = 0,
) -> None:
    """Log any number of metrics, parameters and tags in as few requests as MLflow allows."""
    from mlflow.entities import Metric, Param, RunTag

    now = int(time.time() * 1000)
    points = [Metric(content.safe_name(k), float(v), now, step) for k, v in (metrics or {}).items()]
    entries = [Param(k, v) for k, v in (params or {}).items()]
    labels = [RunTag(k, v) for k, v in (tags or {}).items()]
    for start in range(0, max(len(points), len(entries), len(labels)), 100):
        part = slice(start, start + 100)
        api.log_batch(run_id, points[part], entries[part], labels[part])


def log_table(
    api: MlflowClient, run_id: str, rows: list[dict[str, Any]], artifact_file: str
) -> None:
    """Log a table of equal rows, with every digit; one that is there is replaced."""
    texts = {*CASES.texts, *_JOB_TEXTS}
    columns = {
        key: [row.get(key) if key in texts else _cell(row.get(key))
              for row in rows]
        for key in rows[0]
    }  # fmt: skip
    if not any(item.path == artifact_file for item in api.list_artifacts(run_id)):
        # MLflow rounds to ten decimals and appends, but marks the file as a table for its UI.
        api.log_table(run_id, {key: cells[:1] for key, cells in columns.items()}, artifact_file)
    data = [list(row) for row in zip(*columns.values(), strict=True)]
    text = json.dumps({"columns": list(columns), "data": data})
    api.log_text(run_id, text, artifact_file)


def _cell(value: Any) -> Any:
    """A CSV cell as the number or truth value that it spells, so that the UI sorts it as one."""
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        number = float(value)
    except ValueError:
        return value
    if number != number or number in (float("inf"), float("-inf")):
        return None
    return int(value) if value.lstrip("-").isdigit() else number
