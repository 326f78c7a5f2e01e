"""A memory-mapped copy of a parsed data source, built once and atomically, keyed by content."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ecgadv.errors import DataError
from ecgadv.records.base import RecordSet, label_array
from ecgadv.records.files import reader_version

_LAYOUT = 2
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
        notes=tuple(meta["notes"]),
    )


def save(records: RecordSet, folder: Path) -> None:
    """Write a record set so that ``folder`` appears complete or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Not by tempfile, whose folders only their owner can read: a cache may serve several people.
    scratch = folder.with_name(f".{folder.name}-{os.getpid()}-{secrets.token_hex(4)}")
    scratch.mkdir()
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
            "notes": records.notes,
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
    places = entries(cache_root() / f"{name}-v{_LAYOUT}-{reader_version()}-{key[:20]}")
    for place in places:
        try:
            return load(place)
        except (OSError, EOFError, ValueError, KeyError, TypeError, DataError):
            # A whole copy appears at once, so one that cannot be read is damaged, or another's.
            shutil.rmtree(place, ignore_errors=True)
    records = build()
    for place in places:
        if os.path.lexists(place):
            continue  # Another person's, closed to this one.
        try:
            save(records, place)
            return load(place)
        except PermissionError:
            continue
        except OSError:
            break
    return records


def entries(path: Path) -> tuple[Path, Path]:
    """The places of an entry: that of everybody, and this person's own where that is closed."""
    user = os.getuid() if hasattr(os, "getuid") else os.environ.get("USERNAME", "")
    return path, path.with_name(f"{path.stem}-of-{user}{path.suffix}")


def is_writable() -> bool:
    """Whether something can be kept in the cache."""
    place = cache_root().absolute()
    while not os.path.lexists(place):
        place = place.parent
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
