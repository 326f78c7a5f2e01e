"""Rows of ``evaluation.csv``: perturbations tried on recordings, seen and unseen, and their rates.

Paper, section "Type II evaluation". On the record that a perturbation was made from the rate is its
shift-robustness, on other records its universality.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgadv.evaluate.statistics import wilson
from ecgadv.records.base import CLASSES, class_name
from ecgadv.study.cases import ANY, CaseSpec
from ecgadv.study.judge import Trial

BOOTSTRAP_DRAWS = 1000

SHIFT_COLUMNS = (
    "perturbation_case", "victim_record", "source", "target", "onset", "predicted",
)  # fmt: skip


def trial_columns(classes: Sequence[str] = CLASSES) -> tuple[str, ...]:
    """Columns of ``evaluation.csv``, one of hits for each of the victim's classes.

    ``source`` is the class of ``victim_record``, ``made_from`` that of the records that the
    perturbation was made from, ``any`` where these are of several. ``n_clean`` counts the onsets
    at which the unperturbed recording is read as its source, ``n_success`` those of them at which
    the target is reached by the definition of success; ``success_rate`` is their quotient.
    """
    return (
        "perturbation_case", "victim_record", "source", "target", "same_record", "n_shifts",
        *(f"hits_{class_name(c)}" for c in classes), "success_rate", "made_from", "n_clean",
        "n_success",
    )  # fmt: skip


def trial_row(
    classes: Sequence[str], spec: CaseSpec, record: str, source: str, same: bool, trial: Trial
) -> dict[str, Any]:
    """A row of ``evaluation.csv``."""
    hits = zip(classes, trial.hits, strict=True)
    return {
        "perturbation_case": spec.case_id,
        "victim_record": record,
        "source": source,
        "target": spec.target,
        "same_record": same,
        "n_shifts": trial.n_shifts,
        **{f"hits_{class_name(c)}": int(k) for c, k in hits},
        "success_rate": trial.rate if trial.n_clean else None,
        "made_from": spec.source,
        "n_clean": trial.n_clean,
        "n_success": trial.n_success,
    }


def shift_rows(
    classes: Sequence[str], spec: CaseSpec, record: str, trial: Trial
) -> list[dict[str, Any]]:
    """Rows of ``shifts.csv``: the class read at every onset of one recording."""
    return [
        {
            "perturbation_case": spec.case_id,
            "victim_record": record,
            "source": spec.source,
            "target": spec.target,
            "onset": int(onset),
            "predicted": classes[int(k)],
        }
        for onset, k in zip(trial.onsets, trial.read, strict=True)
    ]


def _units(names: Sequence[str]) -> tuple[np.ndarray, int]:
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names]), len(known)


def counted(row: Mapping[str, Any]) -> tuple[int, int]:
    """Successes and onsets that count of a row; runs of earlier versions counted every onset."""
    if row.get("n_clean") not in (None, ""):
        return int(row["n_success"]), int(row["n_clean"])
    trials = int(row["n_shifts"])
    return round(float(row["success_rate"]) * trials), trials


def bootstrap_interval(
    rows: Sequence[Mapping[str, Any]], seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean rate, over records and over perturbations.

    Shifts of one record are not independent trials. Perturbations and records are drawn anew with
    replacement, each on its own (Owen AB. The pigeonhole bootstrap. Ann Appl Stat 2007); on the
    records that perturbations were made from the two are one unit.
    """
    hits, trials = (np.array(part, np.float64) for part in zip(*map(counted, rows), strict=True))
    case, n_cases = _units([row["perturbation_case"] for row in rows])
    record, n_records = _units([row["victim_record"] for row in rows])
    paired = all(row["same_record"] for row in rows)
    rng = np.random.default_rng([seed, 3])
    means = np.full(draws, np.nan)
    for draw in range(draws):
        weight = rng.multinomial(n_cases, np.full(n_cases, 1 / n_cases))[case].astype(float)
        if not paired:
            weight *= rng.multinomial(n_records, np.full(n_records, 1 / n_records))[record]
        total = float(weight @ trials)
        if total:
            means[draw] = float(weight @ hits) / total
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)


def rates(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Rate of some rows of ``evaluation.csv`` with both intervals; rows without an onset that
    counts are left out.
    """
    used = [row for row in rows if counted(row)[1]]
    hits = sum(counted(row)[0] for row in used)
    trials = sum(counted(row)[1] for row in used)
    return {
        "n_perturbations": len({row["perturbation_case"] for row in used}),
        "n_records": len({row["victim_record"] for row in used}),
        "n_trials": trials,
        "n_hits": hits,
        "success_rate": hits / trials if trials else None,
        "ci95_trials": [round(v, 6) for v in wilson(hits, trials)],
        "ci95_records": [round(v, 6) for v in bootstrap_interval(used, seed)] if used else None,
    }


def summarise_evaluation(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """``evaluation`` of ``summary.json``.

    Args:
        rows: rows of ``evaluation.csv``, typed.
        seed: of the bootstrap.

    Returns:
        ``same_record`` (shift-robustness), ``other_records`` (universality within the class) and
        ``other_classes``, each where there is such a row: :func:`rates` of all under ``all``, and
        of each ``A>N``.
    """
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["same_record"]:
            kind = "same_record"
        else:
            kin = row["made_from"] in (row["source"], ANY)
            kind = "other_records" if kin else "other_classes"
        kinds.setdefault(kind, []).append(row)
    result: dict[str, Any] = {}
    for kind, mine in kinds.items():
        pairs: dict[str, list[Mapping[str, Any]]] = {}
        for row in mine:
            pairs.setdefault(f"{row['source']}>{row['target']}", []).append(row)
        result[kind] = {"all": rates(mine, seed)}
        result[kind] |= {pair: rates(group, seed) for pair, group in pairs.items()}
    return result
