"""Whose results a folder holds, told without writing anything.

A run's results belong to one configuration, one data set, one victim and one version of the attack.
Whoever is about to write into a folder asks here first, so that a refused command changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgadv.errors import RefusedError, StoreError
from ecgadv.signature import signature
from ecgadv.store.files import read_object

SHARDS = "shards"
"""Folder of the shares of a split run, each named like ``1-of-4``."""

IDENTITY = "identity.json"
"""Identity of a run that has no ``plan.json`` (all tasks but ``attack``)."""

SWEEP_MARK = "multirun.yaml"
"""What Hydra leaves in the folder of a sweep."""

PARTS = {
    "signature": "the configuration differs",
    "attack_version": "the version of the attack differs",
    "data": "the data differ: the recordings have changed since",
    "victim": "the victim differs: its weights have changed since",
    "victim_file": "the victim differs: its file has changed since",
}
"""Part of an identity -> what is said where it differs."""

LASTING = (
    "plan.json", "summary.json", "cases.csv", "perturbations.npz", "evaluation.csv", "shifts.csv",
    "robustness.csv", "history.csv", "history.json", "checkpoint.keras", "victim.keras",
    "victim.json", "benchmark.json", "benchmark.md", SWEEP_MARK,
)  # fmt: skip
"""Files that some task writes and no other may replace."""

RESULTS = (*LASTING, "config.json", "predictions.csv", "class_frequencies.csv", IDENTITY)
"""With those that a run writes before it has results: its own may be replaced, others' not."""


def holds_results(folder: Path) -> bool:
    """Whether a file lies there that a run must not replace unasked."""
    if _lasts(folder):
        return True
    return any((folder / name).is_file() for name in RESULTS) and not _is_ours(folder)


def _lasts(folder: Path) -> bool:
    found = any((folder / name).is_file() for name in LASTING) or _has_parts(folder)
    # What only these tasks write is told by the identity that they write before it.
    more = ("rows", "study_answers.csv")
    return found or (
        (folder / IDENTITY).is_file() and any((folder / name).exists() for name in more)
    )


def _is_ours(folder: Path) -> bool:
    """Whether a run has begun there: it leaves its configuration or its identity."""
    return bool(_tolerant(folder / IDENTITY).get("signature")) or _is_run(
        _tolerant(folder / "config.json")
    )


def _is_run(config: Mapping[str, Any]) -> bool:
    return "task" in config and "paths" in config


def _has_parts(folder: Path) -> bool:
    return any((folder / "parts").glob("part-*.npz"))


def stored_identity(folder: Path) -> dict[str, Any]:
    """Identity of the results in a folder: any of :data:`PARTS`; {} where it holds none.

    Raises:
        RefusedError: it holds files of names that runs write, and they are not of a run.
        StoreError: a file that says it is damaged.
    """
    plan = read_object(folder / "plan.json")
    if isinstance(plan.get("identity"), dict):
        return {**plan["identity"], "victim_file": plan.get("victim_file")}
    if not holds_results(folder):
        return {}
    kept = read_object(folder / IDENTITY)
    if kept:
        return kept
    if (folder / SWEEP_MARK).is_file():
        raise RefusedError(f"{folder}: holds a sweep; use another folder")
    summary, config = _tolerant(folder / "summary.json"), _tolerant(folder / "config.json")
    if summary.get("config_signature"):
        data, victim = summary.get("data"), summary.get("victim")
        return {
            "signature": summary["config_signature"],
            "data": data.get("digest") if isinstance(data, dict) else None,
            "victim": victim.get("sha256") if isinstance(victim, dict) else None,
        }
    if _is_run(config):
        return {"signature": signature(config)}
    if _has_parts(folder):
        # A plan cut anew shows by their cases whether the parts belong to it.
        return {}
    found = next(name for name in RESULTS if (folder / name).is_file())
    raise RefusedError(f"{folder}: holds a {found} that no run made; use another folder")


def _tolerant(file: Path) -> dict[str, Any]:
    try:
        return read_object(file)
    except StoreError:
        return {}


def differing(stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first part in which two identities differ, "" where none does; unknown parts agree."""
    for part in PARTS:
        if stored.get(part) and wanted.get(part) and stored[part] != wanted[part]:
            return part
    return ""


def refuse_other(folder: Path, detail: str = "", **wanted: Any) -> None:
    """Raise where a folder holds results that are not those that are about to be made there.

    Of a split run, the folders of all shares are looked at.

    Args:
        folder: of a run, or of a share of one.
        detail: how the configurations differ, for the message.
        **wanted: the parts of the identity that are known by now.

    Raises:
        RefusedError: it holds others; the message names the part that differs and the remedy.
    """
    places = [folder, *sorted((folder / SHARDS).glob("*-of-*"))]
    if folder.parent.name == SHARDS:
        places.append(folder.parent.parent)
    for place in places:
        stored = stored_identity(place)
        part = differing(stored, wanted)
        if part:
            if part == "attack_version":
                detail = f"{stored[part]}, not {wanted[part]}"
            elif part != "signature":
                detail = ""
            raise RefusedError(message(place, part, detail))


def message(folder: Path, part: str, detail: str = "") -> str:
    """One line that says whose results a folder holds, and the remedy."""
    return (
        f"{folder}: holds results of another configuration, data set, victim or version "
        f"({PARTS[part]}{f': {detail}' if detail else ''}); use resume=false or another folder"
    )
