"""The parent run of a sweep: made before its jobs, completed after them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgadv.tracking import content, database, memory
from ecgadv.tracking.tracker import log_batch, log_table
from ecgadv.tracking.uris import artifact_root, resolve_uri


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


def jobs_table(sweep: Path) -> list[dict[str, Any]]:
    """A row for each job of a sweep: its overrides, status, success rate and median distances."""
    rows = []
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
                **{f"{d}_median": known.get(f"{d}/median") for d in content.DISTANCES},
                "gradients_per_case": known.get("gradients_per_case"),
                "seconds": known.get("seconds"),
            }
        )
    return rows


def parent_status(rows: list[dict[str, Any]], clean: bool) -> str:
    """FINISHED if every job is and the sweep ended by itself; KILLED if a job was cut off."""
    statuses = {row["status"] for row in rows}
    if statuses & {"killed", "running"}:
        return "KILLED"
    return "FINISHED" if clean and statuses <= {"finished"} else "FAILED"


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
    tags = {"mlflow.note.content": markdown(rows)} if rows else {}
    log_batch(api, run_id, metrics=metrics, tags=tags, step=int(time.time()))
    if rows:
        log_table(api, run_id, rows, "jobs.json")
    status = parent_status(rows, clean)
    api.set_terminated(run_id, status)
    return status


def markdown(rows: list[dict[str, Any]]) -> str:
    """The table of jobs for MLflow's description of the parent (cut at what it stores)."""
    lines = ["| job | overrides | status | cases | success | d_l2 | d_smooth |"]
    lines += ["|---|---|---|---:|---:|---:|---:|"]
    for row in rows:
        rate = row["success_rate"]
        cells = [
            str(row["job"]).replace("|", "\\|"),
            str(row["overrides"]).replace("|", "\\|"),
            row["status"],
            "–" if row["n_cases"] is None else str(int(row["n_cases"])),
            "–" if rate is None else f"{100 * rate:.1f} %",
            *(
                "–" if (v := row[f"{d}_median"]) is None else f"{v:.3g}"
                for d in ("d_l2", "d_smooth")
            ),
        ]
        line = "| " + " | ".join(cells) + " |"
        if sum(map(len, lines)) + len(line) > 7500:  # a tag holds 8,000 characters
            lines.append(f"\n… and {len(rows) - len(lines) + 2} more: see jobs.json")
            break
        lines.append(line)
    return "\n".join(lines)
