"""What the MLflow UI shows of a sweep at one click: links, and a comparison laid out beforehand.

Charts that somebody arranges in the UI are kept as tags of the experiment (``Share`` writes one).
The comparison of a sweep is such a tag: its jobs side by side, parallel coordinates of what was
swept against the results, and bars. A UI that does not know the tag ignores it. Nothing here
imports MLflow.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

TAG = "mlflow.sharedViewState."
"""Start of the tag's key; the view's own name follows."""

MOST_COMPARED = 20
"""Runs that a link to the table of differences names."""

_PLACES = ("paths.", "tracking", "sweep", "resume", "data.root")


def results(distances: Sequence[str]) -> list[str]:
    """Metrics that a comparison shows, where the jobs have them."""
    return ["success_rate", *(f"{name}/median" for name in distances), "gradients_per_case"]


def swept(params: Sequence[Mapping[str, str]], most: int = 4) -> list[str]:
    """Parameters in which jobs differ, groups (``metric``) before keys (``metric.ridge``).

    A key that only some jobs have comes with its group, so it is left out.
    """
    shared = set(params[0]).intersection(*params[1:]) if params else set()
    found = [
        key
        for key in shared
        if not key.startswith(_PLACES) and len({job[key] for job in params}) > 1
    ]
    return sorted(found, key=lambda key: (key.count("."), key))[:most]


def view(parent: str, parameters: Sequence[str], metrics: Sequence[str]) -> str:
    """The value of the tag: a sweep's comparison.

    Args:
        parent: id of the sweep's run.
        parameters: that were swept.
        metrics: to be shown.
    """
    card = {"metricSectionId": parent, "deleted": False, "isGenerated": False}
    charts: list[dict[str, Any]] = []
    if parameters and len(metrics) > 1:
        charts.append(
            {
                "uuid": f"{parent}-parallel", "type": "PARALLEL", "runsCountToCompare": 100,
                "displayName": "what was swept, and what came of it", "showAllRuns": True,
                "selectedParams": list(parameters), "selectedMetrics": list(metrics[:3]), **card,
            }
        )  # fmt: skip
    charts += [
        {
            "uuid": f"{parent}-{name}", "type": "BAR", "runsCountToCompare": 100,
            "displayName": name, "metricKey": name, **card,
        }
        for name in metrics
    ]  # fmt: skip
    section = {
        "uuid": parent, "name": "the jobs of the sweep", "display": True, "isReordered": False,
        "deleted": False, "isGenerated": False, "columns": 2, "cardHeight": 360,
    }  # fmt: skip
    columns = [f"params.`{name}`" for name in parameters]
    columns += [f"metrics.`{name}`" for name in metrics]
    state = {
        "searchFilter": f"tags.mlflow.parentRunId = '{parent}'",
        # Any other order than by time of creation shows the jobs without their parent.
        "orderByKey": f"params.`{parameters[0] if parameters else 'metric'}`",
        "orderByAsc": True,
        "startTime": "ALL", "lifecycleFilter": "Active", "datasetsFilter": [],
        "modelVersionFilter": "All Runs", "selectedColumns": columns, "columnOrder": [],
        "columnWidths": {}, "runsExpanded": {}, "runsPinned": [], "runsHidden": [],
        "runsVisibilityMap": {}, "runsHiddenMode": "SHOWALL", "compareRunCharts": charts,
        "compareRunSections": [section], "viewMaximized": False, "runListHidden": False,
        "isAccordionReordered": True, "groupBy": None, "groupsExpanded": {},
        "autoRefreshEnabled": False,
    }  # fmt: skip
    packed = zlib.compress(json.dumps(state, separators=(",", ":")).encode(), 9)
    return "deflate;" + base64.b64encode(packed).decode()


def links(experiment: str, parent: str, jobs: Sequence[str]) -> str:
    """Markdown links of a sweep's description: charts, table of its jobs, differences."""
    runs = f"#/experiments/{experiment}/runs?"
    key = {"workflowType": "machine_learning", "viewStateShareKey": parent}
    found = [
        f"[charts of the jobs]({runs}{urlencode({'compareRunsMode': 'CHART', **key})})",
        f"[table of the jobs]({runs}{urlencode(key)})",
    ]
    if 1 < len(jobs) <= MOST_COMPARED:
        named = quote(json.dumps(list(jobs), separators=(",", ":")))
        where = quote(json.dumps([experiment]))
        compare = f"#/compare-runs?runs={named}&experiments={where}&workflowType=machine_learning"
        found.append(f"[their differences]({compare})")
    return " · ".join(found)
