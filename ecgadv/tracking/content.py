"""What is logged about a run, read from its folder: parameters, tags, metrics, a description.

Nothing here knows MLflow's client, so it costs no import and can be tested alone.
"""

from __future__ import annotations

import csv
import functools
import getpass
import importlib.metadata
import json
import math
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.evaluate.distances import COLUMNS, known
from ecgadv.evaluate.perceptibility import PERCEPTIBILITY_COLUMNS
from ecgadv.records.base import class_name
from ecgadv.signature import NOT_IN_SIGNATURE
from ecgadv.tracking.uris import hide_password

MAX_PARAM = 6000
"""Longest parameter value that MLflow stores."""

SEEN = ("snr_db", "prd_percent", *PERCEPTIBILITY_COLUMNS)
"""Columns of ``cases.csv`` whose median is a metric."""

_NOT_IN_A_NAME = re.compile(r"[^\w\-. /:]")
_BACKENDS = {
    "tensorflow": ("tensorflow", "tensorflow-cpu"),
    "jax": ("jax",),
    "torch": ("torch",),
}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; {} where the file is missing or damaged."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def safe_name(name: str) -> str:
    """A name MLflow accepts: ``~`` is spelled ``noise``, other odd characters become ``_``."""
    return _NOT_IN_A_NAME.sub("_", name.replace("~", "noise"))


def pair_name(source: str, target: str) -> str:
    """``A_to_noise`` for source ``A`` and target ``~``."""
    return f"{class_name(source)}_to_{class_name(target)}"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_text(v) for v in value) + "]"
    return str(value)


def flatten(cfg: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as MLflow parameters, spelled as on the command line.

    ``{"metric": {"name": "l2"}}`` gives ``metric=l2``, so that the UI groups by ``metric``; other
    nested keys are joined by dots. ``_target_`` is left out beside a ``name``. Values longer than
    :data:`MAX_PARAM` are cut (the whole configuration is an artifact), passwords are hidden.
    """
    flat: dict[str, str] = {}

    def walk(prefix: str, node: Mapping[str, Any]) -> None:
        for key, value in node.items():
            if prefix and key == "name" and not isinstance(value, Mapping):
                name = prefix
            elif key == "_target_" and "name" in node:
                continue
            else:
                name = f"{prefix}.{key}" if prefix else str(key)
            if isinstance(value, Mapping):
                walk(name, value)
                continue
            text = hide_password(_text(value))
            flat[safe_name(name)[:250]] = (
                text if len(text) <= MAX_PARAM else f"{text[: MAX_PARAM - 1]}…"
            )

    walk("", cfg)
    return flat


def _version(names: Iterable[str]) -> str | None:
    for name in names:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


@functools.cache
def git_commit() -> str:
    """Commit of this package's source, ``-dirty`` after it where edited; "" outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *args], capture_output=True, text=True, timeout=5
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An environment inside somebody else's checkout is not ours: ask for a tracked file first.
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return ""
    commit = git("rev-parse", "HEAD") or ""
    dirty = git("status", "--porcelain", "--untracked-files=no", ":/")
    return f"{commit}-dirty" if commit and dirty else commit


def tags(cfg: Mapping[str, Any], folder: Path, signature: str = "") -> dict[str, str]:
    """Tags of a run: commit, versions, signature, where its results lie."""
    backend = str(cfg.get("backend") or "tensorflow")
    found = {
        "mlflow.runName": folder.name,
        "mlflow.source.name": Path(sys.argv[0]).name or "ecgadv",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": git_commit().removesuffix("-dirty"),
        "mlflow.user": _user(),
        "git_commit": git_commit(),
        "signature": signature,
        "task": str(cfg.get("task", "")),
        "folder": str(folder),
        "version.python": platform.python_version(),
        "version.ecgadv": _version(["ecgadv"]) or "",
        "version.numpy": _version(["numpy"]) or "",
        "version.keras": _version(["keras"]) or "",
        f"version.{backend}": _version(_BACKENDS.get(backend, (backend,))) or "",
    }
    return {key: value for key, value in found.items() if value}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        return ""


def read_cases(folder: Path) -> list[dict[str, str]]:
    """Rows of ``cases.csv``; [] where there is none."""
    try:
        with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def is_success(row: Mapping[str, str]) -> bool:
    """Whether a row of ``cases.csv`` was attacked to its end, and with success."""
    return row.get("status") == "ok" and row.get("success", "").lower() == "true"


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def distances(folder: Path) -> list[str]:
    """Columns of a run's ``cases.csv`` whose median and quartiles are metrics."""
    return list(known(read_json(folder / "summary.json")))


def case_metrics(rows: list[dict[str, str]], columns: Iterable[str] = COLUMNS) -> dict[str, float]:
    """Success rates and distances of cases.

    A rate is over the cases that were attempted (status ``ok`` or ``failed``; a record that could
    not be used is no attempt), a distance is summarised over the successful ones.

    Args:
        rows: of ``cases.csv``.
        columns: the distances among its columns.
    """
    tried = [row for row in rows if row.get("status") in ("ok", "failed")]
    won = [row for row in tried if is_success(row)]
    metrics: dict[str, float] = {"n_cases": len(tried), "n_success": len(won)}
    if tried:
        metrics["success_rate"] = len(won) / len(tried)
    for pair in sorted({(row["source"], row["target"]) for row in tried}):
        mine = [row for row in tried if (row["source"], row["target"]) == pair]
        metrics[f"success_rate/{pair_name(*pair)}"] = sum(map(is_success, mine)) / len(mine)
    for column in columns:
        values = [v for row in won if (v := _number(row.get(column))) is not None]
        if values:
            q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
            metrics |= {
                f"{column}/q25": float(q25),
                f"{column}/median": float(median),
                f"{column}/q75": float(q75),
            }
    for column in SEEN:
        values = [v for row in won if (v := _number(row.get(column))) is not None]
        if values:
            metrics[f"{column}/median"] = float(np.median(values))
    return metrics


def leaves(prefix: str, node: Any) -> dict[str, float]:
    """Numbers of a nested mapping, keys joined by ``/``; everything else is dropped."""
    if isinstance(node, Mapping):
        found: dict[str, float] = {}
        for key, value in node.items():
            found |= leaves(f"{prefix}/{key}" if prefix else str(key), value)
        return found
    if isinstance(node, (int, float)) and not isinstance(node, bool) and math.isfinite(node):
        return {safe_name(prefix): float(node)}
    return {}


def metrics(folder: Path) -> dict[str, float]:
    """Every metric of a run's folder: of its cases, its summary, and a trained victim's scores."""
    summary = read_json(folder / "summary.json")
    found: dict[str, float] = {}
    rows = read_cases(folder)
    if rows:
        found |= case_metrics(rows, distances(folder))
    # The run's own summary has the last word where both know a number.
    found |= {key: v for key, value in summary.items() if (v := _scalar(value)) is not None}
    for name, pair in (summary.get("pairs") or {}).items():
        source, _, target = str(name).partition(">")
        rate = _number(pair.get("success_rate")) if isinstance(pair, Mapping) else None
        if rate is not None and target:
            found[f"success_rate/{pair_name(source, target)}"] = rate
        if target and isinstance(pair, Mapping):
            name = f"success_rate_ci95_records/{pair_name(source, target)}"
            found |= _ends(name, pair.get("ci95_records"))
    found |= _ends("success_rate_ci95_records", summary.get("ci95_records"))
    found |= _ends("success_rate_ci95", summary.get("ci95"))
    found |= injection_metrics(summary)
    card = read_json(folder / "victim.json")
    found |= leaves("scores", card.get("heldout_scores"))
    # The UI begins its plots with the first metric that was logged.
    first = ("success_rate", *(f"{column}/median" for column in distances(folder)))
    return {k: found[k] for k in first if k in found} | found


def _ends(name: str, interval: Any) -> dict[str, float]:
    """``NAME/low`` and ``NAME/high`` of an interval; {} where there is none."""
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        return {}
    low, high = _number(interval[0]), _number(interval[1])
    return {} if low is None or high is None else {f"{name}/low": low, f"{name}/high": high}


def injection_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Rates of signals tried at random onsets, of all cases and by pair, with their intervals.

    ``target_rate/same_record`` (shift-robustness), ``…/other_records`` (universality) and
    ``…/other_classes``, each with ``/A_to_N`` below it, and each of these with ``/hits`` of
    ``/readings``, ``/low`` and ``/high`` (bootstrap over records; absent with fewer than three) and
    ``/wilson_low`` and ``/wilson_high`` (over readings).
    """
    found: dict[str, float] = {}
    for kind, parts in (summary.get("evaluation") or {}).items():
        for pair, part in parts.items() if isinstance(parts, Mapping) else ():
            if not isinstance(part, Mapping):
                continue
            source, _, target = str(pair).partition(">")
            name = f"target_rate/{kind}" + (f"/{pair_name(source, target)}" if target else "")
            values: dict[str, Any] = {name: part.get("success_rate")}
            values |= {f"{name}/hits": part.get("n_hits"), f"{name}/readings": part.get("n_trials")}
            for key, low, high in (
                ("ci95_records", "low", "high"),
                ("ci95_trials", "wilson_low", "wilson_high"),
            ):
                edges = part.get(key)
                if isinstance(edges, (list, tuple)) and len(edges) == 2:
                    values |= {f"{name}/{low}": edges[0], f"{name}/{high}": edges[1]}
            found |= {safe_name(k): v for k, w in values.items() if (v := _number(w)) is not None}
    return found


def _scalar(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return _number(value)


def percent(rate: Any) -> str:
    """A rate for a person; – where there is none."""
    number = _number(rate)
    return "–" if number is None else f"{100 * number:.1f} %"


def range_words(interval: Any) -> str:
    """An interval of a rate for a person; – where there is none, or no end of it."""
    if not isinstance(interval, (list, tuple)) or len(interval) != 2:
        return "–"
    ends = [_number(end) for end in interval]
    return "–" if None in ends else f"{percent(ends[0])} to {percent(ends[1])}"


_ARTIFACTS = (
    "cases.csv",
    "perturbations.npz",
    "summary.json",
    "config.json",
    "evaluation.csv",
    "shifts.csv",
    "history.csv",
    "predictions.csv",
    "class_frequencies.csv",
    "victim.json",
    "history.json",
    "report.html",
)


def artifacts(folder: Path) -> list[tuple[Path, str]]:
    """The files of a run that are kept as artifacts, each with its folder among them."""
    found = [(folder / name, "") for name in _ARTIFACTS if (folder / name).is_file()]
    for inner, kept in (("figures", "figures"), (".hydra", "hydra")):
        files = sorted(path for path in (folder / inner).glob("*") if path.is_file())
        found += [(path, kept) for path in files]
    return found


def fingerprint(folder: Path) -> str:
    """Changes whenever a file that would be logged does (by size and modification time)."""
    rows = []
    for path, kept in artifacts(folder):
        stat = path.stat()
        # Hydra writes its own files anew whenever a run is started.
        when = 0 if kept == "hydra" else stat.st_mtime_ns
        rows.append(f"{path.relative_to(folder)}:{stat.st_size}:{when}")
    return json.dumps(rows)


def run_folders(folder: Path) -> list[Path]:
    """Folders of runs at or below ``folder``, in natural order of their names (2 before 10)."""
    found = []
    for here, below, files in os.walk(folder):
        if not _MARKS.isdisjoint(files):
            found.append(Path(here))
            below.clear()
        # MLflow's copies of the same files, and shares of a run, are no runs.
        below[:] = [name for name in below if name not in _NOT_RUNS and not name.startswith(".")]
    return sorted(found, key=natural_key)


_MARKS = {"status.json", "cases.csv", "summary.json"}
_NOT_RUNS = {"mlartifacts", "mlruns", "node_modules", "shards"}


def natural_key(path: Path) -> list[tuple[int, str]]:
    """Sorts ``job2`` before ``job10``."""
    parts = re.split(r"(\d+)", str(path))
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def job_status(folder: Path) -> str:
    """``finished``, ``failed``, ``killed`` or ``running`` of a run's folder."""
    status = str(read_json(folder / "status.json").get("status", ""))
    if status:
        return status
    return "finished" if (folder / "summary.json").is_file() else "running"


def settings(folder: Path) -> list[str]:
    """:func:`overrides` less those that only say where results go."""
    given = overrides(folder)
    return [o for o in given if o.partition("=")[0].partition(".")[0] not in NOT_IN_SIGNATURE]


def overrides(folder: Path) -> list[str]:
    """What was set on the command line for this run; [] where unknown."""
    import yaml

    try:
        found = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return []
    return [str(item) for item in found] if isinstance(found, list) else []
