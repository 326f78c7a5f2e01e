"""Upload results that lie on disk: of untracked runs, or of runs whose store was out of reach."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ecgadv.errors import ConfigError
from ecgadv.store import FolderLock
from ecgadv.tracking import content, memory
from ecgadv.tracking.sweep import finish_parent, start_parent
from ecgadv.tracking.tracker import Tracker
from ecgadv.tracking.uris import artifact_root, resolve_uri

_STILL_RUNNING_SECONDS = 600.0  # a run that wrote a file this recently may be alive

_STATUS = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED", "running": "KILLED"}


@dataclass
class Uploaded:
    """What :func:`upload` did, by folder."""

    uploaded: list[Path] = field(default_factory=list)
    unchanged: list[Path] = field(default_factory=list)
    running: list[Path] = field(default_factory=list)
    failed: list[Path] = field(default_factory=list)


def upload(
    folder: Path, settings: Mapping[str, Any], *, root: Path, leave_out: Sequence[Path] = ()
) -> Uploaded:
    """Upload every run at or below a folder that the store lacks, or that changed since.

    Doing it again uploads nothing. Jobs of a sweep come under one parent run.

    Args:
        folder: a run's folder, a sweep's, or any folder above them.
        settings: ``cfg["tracking"]``.
        root: ``paths.root``.
        leave_out: folders that are no results, such as the caller's own.

    Raises:
        ConfigError: ``tracking=none``, or no run lies there.
    """
    if settings.get("name", "mlflow") != "mlflow":
        raise ConfigError(f"task=track needs tracking=mlflow, not tracking={settings.get('name')}")
    folder = folder.resolve()
    skip = {path.resolve() for path in leave_out}
    runs = [
        run
        for run in content.run_folders(folder)
        if run not in skip and content.job_status(run) != "skipped"
    ]
    if not runs:
        raise ConfigError(
            f"{folder}: no run lies there (no status.json, cases.csv or summary.json)"
        )
    uri = resolve_uri(settings.get("uri"), root)
    done = Uploaded()
    sweeps: dict[Path, bool] = {}
    for run in runs:
        if content.job_status(run) == "running" and _is_fresh(run):
            done.running.append(run)
            continue
        known = memory.recall(run / memory.RUN_FILE, uri)
        if known.get("uploaded") == content.fingerprint(run):
            done.unchanged.append(run)
            continue
        sweep = _sweep_of(run)
        if sweep is not None and sweep not in sweeps:
            sweeps[sweep] = _try_parent(settings, sweep, root)
        ok = _upload_run(run, uri, settings, root)
        (done.uploaded if ok else done.failed).append(run)
        if not ok and not done.uploaded:
            # The store does not answer: do not wait for it once more for every folder.
            done.failed.extend(runs[runs.index(run) + 1 :])
            break
    for sweep, has_parent in sweeps.items():
        if has_parent:
            finish_parent(settings, sweep, root)
    return done


def is_uploaded(settings: Mapping[str, Any], folder: Path, root: Path) -> bool:
    """Whether the store has the run's results as they lie in its folder, or there is no store."""
    if settings.get("name", "mlflow") != "mlflow":
        return True
    known = memory.recall(folder / memory.RUN_FILE, resolve_uri(settings.get("uri"), root))
    return known.get("uploaded") == content.fingerprint(folder)


def _upload_run(run: Path, uri: str, settings: Mapping[str, Any], root: Path) -> bool:
    summary = content.read_json(run / "summary.json")
    tracker = Tracker(
        uri,
        str(settings.get("experiment") or "ecgadv"),
        content.read_json(run / "config.json"),
        run,
        artifact_root(root),
        signature=str(summary.get("config_signature") or ""),
    )
    data = summary.get("data")
    tracker.start(data if isinstance(data, Mapping) else None)
    if tracker.run_id is None:
        return False
    tracker.finish(_STATUS.get(content.job_status(run), "FAILED"), with_results=True)
    return not tracker.failed


def _is_fresh(run: Path) -> bool:
    """Whether a process works on a run: its lock tells, or else how new its files are."""
    lock = FolderLock(run)
    if (run / lock.name).is_file():
        return lock.is_taken()
    newest = max((p.stat().st_mtime for p in run.iterdir() if p.is_file()), default=0.0)
    # A clock that was set back makes files of the future.
    return abs(time.time() - newest) < _STILL_RUNNING_SECONDS


def _sweep_of(run: Path) -> Path | None:
    """The sweep's folder of a job: Hydra leaves ``multirun.yaml`` there."""
    for above in list(run.parents)[:3]:
        if (above / "multirun.yaml").is_file() or (above / memory.PARENT_FILE).is_file():
            return above
    return None


def _try_parent(settings: Mapping[str, Any], sweep: Path, root: Path) -> bool:
    try:
        start_parent(settings, sweep, root)
    except Exception:  # the first run of the sweep meets the same error and says it
        return False
    return True
