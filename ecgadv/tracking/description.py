"""The result of a run in Markdown, as MLflow's description of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgadv.tracking.content import (
    case_metrics,
    distances,
    is_success,
    metrics,
    percent,
    range_words,
    read_cases,
    read_json,
)


def _over_records(tried: list[dict[str, str]]) -> tuple[float, float] | None:
    """95 % interval of the success rate, a bootstrap over recordings; None with too few."""
    from ecgadv.evaluate.statistics import record_interval

    records = [row.get("record") or row.get("case_id", "") for row in tried]
    hits = [float(is_success(row)) for row in tried]
    return record_interval(hits, [1.0] * len(tried), records)


_TRIED_ON = {
    "same_record": "their own recording",
    "other_records": "other recordings",
    "other_classes": "recordings of other classes",
}


def _injection_lines(summary: Mapping[str, Any]) -> list[str]:
    """Injected signals: a line for each kind of recording that they were tried on."""
    lines = []
    for kind, parts in (summary.get("evaluation") or {}).items():
        whole = parts.get("all") if isinstance(parts, Mapping) else None
        if isinstance(whole, Mapping):
            lines.append(
                f"- on {_TRIED_ON.get(kind, kind)}: {percent(whole.get('success_rate'))} of "
                f"{whole.get('n_trials')} readings at random onsets reach the target, 95 % over "
                f"recordings {range_words(whole.get('ci95_records'))}"
            )
    return [*lines, ""] if lines else []


def description(folder: Path) -> str:
    """The result of a run in Markdown, for MLflow's description of it; "" without a result."""
    summary, rows = read_json(folder / "summary.json"), read_cases(folder)
    known = metrics(folder)
    if not rows or "success_rate" not in known:
        return ""
    head = f"**{int(known['n_success'])} of {int(known['n_cases'])} cases successful"
    lines = [f"{head} ({percent(known['success_rate'])})**", ""]
    tried = [row for row in rows if row.get("status") in ("ok", "failed")]
    lines[0] += f", 95 % interval over recordings {range_words(_over_records(tried))}"
    if summary.get("ci95"):
        lines[0] += f" (Wilson's over cases {range_words(summary['ci95'])})"
    skipped = sum(row.get("status") == "skipped" for row in rows)
    if skipped:
        lines += [f"{skipped} skipped: they count in no rate.", ""]
    lines += _injection_lines(summary)
    columns = distances(folder)
    heads = " | ".join(f"{column} median" for column in columns)
    lines += [f"| source | target | cases | success | {heads} | 95 % |"]
    lines += ["|---|---|---:|---:|" + "---:|" * (len(columns) + 1)]
    for source, target in sorted({(row["source"], row["target"]) for row in tried}):
        mine = [row for row in tried if (row["source"], row["target"]) == (source, target)]
        of_pair = case_metrics(mine, columns)
        medians = [of_pair.get(f"{column}/median") for column in columns]
        cells = " | ".join("–" if m is None else f"{m:.3g}" for m in medians)
        lines.append(
            f"| {source} | {target} | {len(mine)} | {percent(of_pair['success_rate'])} "
            f"| {cells} | {range_words(_over_records(mine))} |"
        )
    lines += ["", "Distances are medians over the successful cases, in standardised units."]
    return "\n".join(lines)
