"""Rows of ``evaluation.csv``: perturbations tried on recordings, seen and unseen, and their rates.

Paper, section "Type II evaluation". On the record that a perturbation was made from the rate is its
shift-robustness, on other records its universality.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ecgadv.evaluate.statistics import record_interval, wilson
from ecgadv.evaluate.tables import Row, Table
from ecgadv.records.base import CLASSES, class_name
from ecgadv.study.cases import ANY, CaseSpec
from ecgadv.study.judge import Trial

SHIFTS = Table(
    {
        "perturbation_case": str, "victim_record": str, "source": str, "target": str, "onset": int,
        "predicted": str, "counts": bool,
    }
)  # fmt: skip
"""``shifts.csv``: what is read at every onset of one recording."""

HISTORY = Table({"case_id": str, "iteration": int, "loss": float})
"""``history.csv``: the loss curve of every injected signal."""


def trial_table(classes: Sequence[str] = CLASSES) -> Table:
    """``evaluation.csv``, with a column of hits for each of the victim's classes.

    ``source`` is the class of ``victim_record``, ``made_from`` that of the records that the
    perturbation was made from, ``any`` where these are of several. ``n_clean`` counts the onsets
    at which the unperturbed recording is read as its source, ``n_success`` those of them at which
    the target is reached by the definition of success; ``success_rate`` is their quotient, empty
    where no onset counts.
    """
    return Table(
        {
            "perturbation_case": str, "victim_record": str, "source": str, "target": str,
            "same_record": bool, "n_shifts": int,
            **{f"hits_{class_name(c)}": int for c in classes},
            "success_rate": float, "made_from": str, "n_clean": int, "n_success": int,
        },
        empty=frozenset({"success_rate"}),
    )  # fmt: skip


@dataclass(frozen=True)
class Beside:
    """Rows of the tables that lie beside ``cases.csv``: those of some cases, in their order."""

    evaluation: list[Row] = field(default_factory=list)
    shifts: list[Row] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)

    @classmethod
    def joined(cls, parts: Iterable[Beside]) -> Beside:
        """The rows of several, one after the other."""
        whole = cls()
        for part in parts:
            whole.evaluation.extend(part.evaluation)
            whole.shifts.extend(part.shifts)
            whole.history.extend(part.history)
        return whole


def trial_row(
    classes: Sequence[str], spec: CaseSpec, record: str, source: str, same: bool, trial: Trial
) -> Row:
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


def verdict_row(spec: CaseSpec, trial: Trial, shifts: int) -> Row:
    """What came of a stored perturbation that was judged again, as rates count it."""
    return {
        "case_id": spec.case_id, "record": spec.record, "source": spec.source,
        "target": spec.target, "success": trial.success,
        "status": "ok" if trial.exists else "skipped", "success_rate": trial.rate,
        "n_shifts": shifts,
    }  # fmt: skip


def shift_rows(classes: Sequence[str], spec: CaseSpec, record: str, trial: Trial) -> list[Row]:
    """Rows of ``shifts.csv``: the class read at every onset of one recording.

    ``counts`` says where the unperturbed recording is read as its source.
    """
    return [
        {
            "perturbation_case": spec.case_id,
            "victim_record": record,
            "source": spec.source,
            "target": spec.target,
            "onset": int(onset),
            "predicted": classes[int(k)],
            "counts": bool(counts),
        }
        for onset, k, counts in zip(trial.onsets, trial.read, trial.counts, strict=True)
    ]


def counted(row: Mapping[str, Any]) -> tuple[int, int]:
    """Successes and onsets that count of a row; runs of earlier versions counted every onset."""
    if row.get("n_clean") not in (None, ""):
        return int(row["n_success"]), int(row["n_clean"])
    trials = int(row["n_shifts"])
    return round(float(row["success_rate"]) * trials), trials


def rates(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Rate of some rows of ``evaluation.csv`` with both intervals; rows without an onset that
    counts are left out.
    """
    used = [row for row in rows if counted(row)[1]]
    each = [counted(row) for row in used]
    hits, trials = sum(k for k, _ in each), sum(n for _, n in each)
    own = all(row["same_record"] for row in used)
    interval = record_interval(
        [k for k, _ in each], [n for _, n in each], [row["victim_record"] for row in used],
        None if own else [row["perturbation_case"] for row in used], seed,
    )  # fmt: skip
    return {
        "n_perturbations": len({row["perturbation_case"] for row in used}),
        "n_records": len({row["victim_record"] for row in used}),
        "n_trials": trials,
        "n_hits": hits,
        "success_rate": hits / trials if trials else None,
        "ci95_trials": [round(v, 6) for v in wilson(hits, trials)],
        "ci95_records": interval and [round(v, 6) for v in interval],
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
