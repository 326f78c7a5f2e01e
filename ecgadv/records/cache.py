"""A memory-mapped copy of a parsed data source, built once and atomically, keyed by content."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ecgadv.errors import DataError
from ecgadv.records.base import RecordSet, label_array

_LAYOUT = 1
"""Part of every key, so that a change of the layout below never reads an older cache."""


def cache_root() -> Path:
    """``ECGADV_CACHE``, else ``$XDG_CACHE_HOME/ecgadv``, else ``~/.cache/ecgadv``.

    For a user without a home it is a place that cannot be: nothing is kept then.
    """
    named = os.environ.get("ECGADV_CACHE")
    try:
        if named:
            return Path(named).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ecgadv"
    except RuntimeError:
        return Path(os.devnull) / "ecgadv"


def load(folder: Path) -> RecordSet:
    """Read a cached record set; samples stay on disk (``mmap_mode="r"``)."""
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return RecordSet(
        meta["name"],
        meta["ids"],
        label_array(meta["labels"]),
        np.load(folder / "samples.npy", mmap_mode="r", allow_pickle=False),
        np.load(folder / "offsets.npy", allow_pickle=False),
        gain=meta["gain"],
        fs=meta["fs"],
        digest=meta["digest"],
        skipped=meta["skipped"],
    )


def save(records: RecordSet, folder: Path) -> None:
    """Write a record set so that ``folder`` appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        np.save(scratch / "samples.npy", records.samples, allow_pickle=False)
        np.save(scratch / "offsets.npy", records.offsets, allow_pickle=False)
        meta = {
            "name": records.name,
            "ids": records.ids,
            "labels": [str(label) for label in records.labels],
            "gain": records.gain,
            "fs": records.fs,
            "digest": records.digest,
            "skipped": records.skipped,
        }
        (scratch / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
        try:
            scratch.rename(folder)
        except OSError:
            # Another process built the same content first; its copy is as good as ours.
            if not (folder / "meta.json").is_file():
                raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def cached(name: str, key: str, build: Callable[[], RecordSet]) -> RecordSet:
    """The record set under ``key``, from the cache where it is there, else built and kept.

    A cache that cannot be written (read-only home, full disk) costs time, never a result.
    """
    folder = cache_root() / f"{name}-v{_LAYOUT}-{key[:20]}"
    if (folder / "meta.json").is_file():
        try:
            return load(folder)
        except (OSError, EOFError, ValueError, KeyError, TypeError, DataError):
            pass
    # A whole copy appears at once, so a folder that cannot be read is damaged, not half-built.
    shutil.rmtree(folder, ignore_errors=True)
    records = build()
    try:
        save(records, folder)
    except OSError:
        return records
    return load(folder)
