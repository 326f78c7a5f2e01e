"""Which MLflow run a folder belongs to: a small file in the folder, an entry for each store."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ecgadv.tracking.content import read_json
from ecgadv.tracking.uris import hide_password, sqlite_file

RUN_FILE = "mlflow_run.json"
"""In a run's folder: address of a store -> run id, experiment id, what was uploaded."""

PARENT_FILE = "mlflow_parent.json"
"""In a sweep's folder: address of a store -> the parent run's id and experiment id."""


def recall(file: Path, uri: str) -> dict[str, Any]:
    """What was kept about a store; {} if nothing.

    A database that was moved with its project is still known by the address that it had.
    """
    kept = read_json(file)
    found = kept.get(hide_password(uri))
    if found is None and sqlite_file(uri) is not None:
        gone = (k for k in kept if (old := sqlite_file(k)) is not None and not old.exists())
        found = kept.get(next(gone, ""))
        if isinstance(found, dict):
            # Another database that took its place has none of it.
            found = {key: value for key, value in found.items() if key != "uploaded"}
    return found if isinstance(found, dict) else {}


def remember(file: Path, uri: str, **values: Any) -> None:
    """Add values to what is kept about a store; the file is replaced atomically."""
    content = read_json(file)
    content[hide_password(uri)] = {**recall(file, uri), **values}
    scratch = file.with_name(f".{file.name}.{os.getpid()}")
    scratch.write_text(json.dumps(content, indent=1), encoding="utf-8")
    scratch.replace(file)


def parent_of(folder: Path, uri: str) -> str | None:
    """The parent run of a sweep's job: its file lies one to three folders up."""
    for above in list(folder.resolve().parents)[:3]:
        run_id = recall(above / PARENT_FILE, uri).get("run_id")
        if run_id:
            return str(run_id)
    return None


def sweep_of(folder: Path, uri: str) -> str:
    """Name of the sweep that a job belongs to; "" where it belongs to none."""
    for above in list(folder.resolve().parents)[:3]:
        if recall(above / PARENT_FILE, uri).get("run_id"):
            return above.name
    return ""
