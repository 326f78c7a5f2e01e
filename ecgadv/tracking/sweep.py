"""The parent run of a sweep: made before its jobs, completed after them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgadv.tracking import content, database, memory, views
from ecgadv.tracking.uris import artifact_root, resolve_uri
from ecgadv.tracking.writing import log_batch, log_table, next_step

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def start_parent(settings: Mapping[str, Any], sweep: Path, root: Path) -> str:
    """Make the store ready and create the sweep's parent run, or find the one it already has.

    Args:
        settings: ``cfg["tracking"]``.
        sweep: the sweep's folder; ``mlflow_parent.json`` is written there for its jobs to find.
        root: ``paths.root``.

    Returns:
        The parent's run id.
    """
    from mlflow.exceptions import MlflowException

    uri = resolve_uri(settings.get("uri"), root)
    experiment = str(settings.get("experiment") or "ecgadv")
    experiment_id = database.prepare(uri, experiment, artifact_root(root))
    api = database.client(uri)
    file = sweep / memory.PARENT_FILE
    run_id = memory.recall(file, uri).get("run_id")
    if run_id:
        try:
            info = api.get_run(run_id).info
            if info.lifecycle_stage == "active" and info.experiment_id == experiment_id:
                api.update_run(run_id, status="RUNNING")
                return str(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    tags = {k: v for k, v in content.tags({}, sweep).items() if not k.startswith("version.")}
    run = api.create_run(experiment_id, run_name=sweep.name, tags=tags | {"kind": "sweep"})
    sweep.mkdir(parents=True, exist_ok=True)
    memory.remember(file, uri, run_id=run.info.run_id, experiment_id=experiment_id)
    return str(run.info.run_id)


def distances(sweep: Path) -> list[str]:
    """Columns of the distances of a sweep's jobs, each once."""
    folders = content.run_folders(sweep)
    return list(dict.fromkeys(name for folder in folders for name in content.distances(folder)))


def jobs_table(sweep: Path) -> list[dict[str, Any]]:
    """A row for each job of a sweep: its overrides, status, success rate and median distances."""
    rows, columns = [], distances(sweep)
    for folder in content.run_folders(sweep):
        known = content.metrics(folder)
        rows.append(
            {
                "job": str(folder.relative_to(sweep)),
                "overrides": " ".join(content.overrides(folder)),
                "status": content.job_status(folder),
                "n_cases": known.get("n_cases"),
                "n_success": known.get("n_success"),
                "success_rate": known.get("success_rate"),
                "ci95_records_low": known.get("success_rate_ci95_records/low"),
                "ci95_records_high": known.get("success_rate_ci95_records/high"),
                "n_skipped": known.get("n_skipped"),
                **{f"{d}_median": known.get(f"{d}/median") for d in columns},
                "gradients_per_case": known.get("gradients_per_case"),
                "seconds": known.get("seconds"),
            }
        )
    return rows


def parent_status(rows: list[dict[str, Any]], clean: bool) -> str:
    """FINISHED if every job is and the sweep ended by itself; KILLED if a job was cut off.

    A job that had nothing to do counts as finished.
    """
    statuses = {row["status"] for row in rows}
    if statuses & {"killed", "running"}:
        return "KILLED"
    return "FINISHED" if clean and statuses <= {"finished", "skipped"} else "FAILED"


def finish_parent(
    settings: Mapping[str, Any], sweep: Path, root: Path, *, clean: bool = True
) -> str:
    """Log the table of jobs, best and mean success rate to the parent, and end it.

    Args:
        settings: ``cfg["tracking"]``.
        sweep: the sweep's folder.
        root: ``paths.root``.
        clean: the sweep came to its own end; otherwise the parent is not FINISHED.

    Returns:
        The status that it was given; "" where the sweep has no parent run in this store.
    """
    uri = resolve_uri(settings.get("uri"), root)
    run_id = memory.recall(sweep / memory.PARENT_FILE, uri).get("run_id")
    if not run_id:
        return ""
    api = database.client(uri)
    rows = jobs_table(sweep)
    rates = [row["success_rate"] for row in rows if row["success_rate"] is not None]
    metrics = {
        "n_jobs": len(rows),
        "n_jobs_finished": sum(row["status"] == "finished" for row in rows),
    }
    if rates:
        metrics |= {"best_success_rate": max(rates), "mean_success_rate": statistics.fmean(rates)}
    tags = {}
    if rows:
        shown = _prepare_view(api, run_id, distances(sweep))
        tags["mlflow.note.content"] = markdown(rows, shown)
    log_batch(api, run_id, metrics=metrics, tags=tags, step=next_step(api, run_id, "n_jobs"))
    if rows:
        log_table(api, run_id, rows, "jobs.json")
    status = parent_status(rows, clean)
    api.set_terminated(run_id, status)
    return status


def _prepare_view(api: MlflowClient, run_id: str, columns: Sequence[str]) -> str:
    """Lay out the comparison of the jobs in the UI; returns Markdown links to it."""
    experiment = str(api.get_run(run_id).info.experiment_id)
    found = api.search_runs([experiment], f"tags.mlflow.parentRunId = '{run_id}'", max_results=500)
    jobs = sorted(found, key=lambda job: content.natural_key(Path(job.info.run_name)))
    known = set().union(*(job.data.metrics for job in jobs))
    metrics = [name for name in views.results(columns) if name in known]
    tag = views.view(run_id, views.swept([job.data.params for job in jobs]), metrics)
    api.set_experiment_tag(experiment, f"{views.TAG}{run_id}", tag)
    return views.links(experiment, run_id, [job.info.run_id for job in jobs])


def _told(overrides: str) -> list[str]:
    """Overrides but for where things lie."""
    return [w for w in overrides.split() if not w.startswith(("paths.", "tracking.uri="))]


def markdown(rows: list[dict[str, Any]], links: str = "") -> str:
    """The table of jobs for MLflow's description of the parent (cut at what it stores)."""
    lines = [links, ""] if links else []
    ending = "_median"
    columns = [key for key in rows[0] if key.endswith(ending)]
    heads = " | ".join(key.removesuffix(ending) for key in columns)
    lines += [f"| job | overrides | status | cases | success | 95 % | {heads} |"]
    lines += ["|---|---|---|---:|---:|---:|" + "---:|" * len(columns)]
    for row in rows:
        rate = row["success_rate"]
        cells = [
            str(row["job"]).replace("|", "\\|"),
            " ".join(_told(str(row["overrides"]))).replace("|", "\\|"),
            row["status"],
            "–" if row["n_cases"] is None else str(int(row["n_cases"])),
            "–" if rate is None else f"{100 * rate:.1f} %",
            content.range_words([row.get("ci95_records_low"), row.get("ci95_records_high")]),
            *("–" if (v := row[key]) is None else f"{v:.3g}" for key in columns),
        ]
        line = "| " + " | ".join(cells) + " |"
        if sum(map(len, lines)) + len(line) > 7500:  # a tag holds 8,000 characters
            shown = len(lines) - (4 if links else 2)
            lines.append(f"\n… and {len(rows) - shown} more: see jobs.json")
            break
        lines.append(line)
    return "\n".join(lines)
