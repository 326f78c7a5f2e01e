"""The Type II protocol: random onsets, the device's filters, records seen and unseen.

Paper, section "Type II evaluation".

On the record that a perturbation was made from the rate is its shift-robustness, on other records
its universality. A reading counts as a hit of the class with the largest logit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgadv.evaluate.cases import ANY, CaseSpec
from ecgadv.evaluate.statistics import wilson
from ecgadv.evaluate.verification import SUCCESS_RATE, Verdict, judge
from ecgadv.records.base import CLASSES, RecordSet, class_name
from ecgadv.threat.objectives import UNTARGETED
from ecgadv.threat.transforms import FrontEnd, onset_count, shift_array
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import standardise_array


def trial_columns(classes: Sequence[str] = CLASSES) -> tuple[str, ...]:
    """Columns of ``evaluation.csv``, one of hits for each of the victim's classes.

    ``source`` is the class of ``victim_record``, ``made_from`` that of the records that the
    perturbation was made from, ``any`` where these are of several.
    """
    return (
        "perturbation_case", "victim_record", "source", "target", "same_record", "n_shifts",
        *(f"hits_{class_name(c)}" for c in classes), "success_rate", "made_from",
    )  # fmt: skip


SHIFT_COLUMNS = (
    "perturbation_case", "victim_record", "source", "target", "onset", "predicted",
)  # fmt: skip

ORDERS = ("shift_filter", "filter_shift")

BOOTSTRAP_DRAWS = 1000


@dataclass(frozen=True)
class Protocol:
    """How perturbations are tried.

    Attributes:
        device: the front end that really is there.
        window: samples that a perturbation lasts.
        shifts: random onsets on each record.
        order: ``shift_filter``, what a device does, or ``filter_shift``, the released code's order.
        max_records: other records of each class; None for all.
    """

    device: FrontEnd
    window: int
    shifts: int = 100
    order: str = "shift_filter"
    max_records: int | None = 20

    def arriving(self, p: np.ndarray, onsets: np.ndarray) -> np.ndarray:
        """What reaches the recording, (n,) and (K,) -> (K, n), in the unit of ``p``."""
        if self.order == "filter_shift":
            return shift_array(self.device.array(p), onsets)
        return self.device.array(shift_array(p, onsets))

    def onsets(self, seed: Sequence[int], n: int) -> np.ndarray:
        """(shifts,) uniform onsets, of a stream that no attack draws from."""
        rng = np.random.default_rng(np.random.SeedSequence(list(seed)))
        return rng.integers(0, onset_count(self.window, n), self.shifts)

    def logits(self, victim: Victim, x: np.ndarray, p: np.ndarray, onsets: np.ndarray) -> Any:
        """Read one record with one perturbation at several onsets: (n,), (n,), (K,) -> (K, C)."""
        signal = x.astype(np.float64) + self.arriving(p.astype(np.float64), onsets)
        return victim.logits(standardise_array(signal, np.full(len(onsets), len(x))))


def evaluation_row(
    victim: Victim, spec: CaseSpec, record: str, source: str, same: bool, hits: np.ndarray
) -> dict[str, Any]:
    """A row of ``evaluation.csv`` from the number of readings of each class, (C,)."""
    total = int(hits.sum())
    if spec.target == ANY:
        won = total - int(hits[victim.classes.index(source)])
    else:
        won = int(hits[victim.classes.index(spec.target)])
    return {
        "perturbation_case": spec.case_id,
        "victim_record": record,
        "source": source,
        "target": spec.target,
        "same_record": same,
        "n_shifts": total,
        **{f"hits_{class_name(c)}": int(k) for c, k in zip(victim.classes, hits, strict=True)},
        "success_rate": won / total,
        "made_from": spec.source,
    }


def try_records(
    victim: Victim,
    protocol: Protocol,
    spec: CaseSpec,
    p: np.ndarray,
    records: RecordSet,
    positions: Iterable[int],
    seed: int,
) -> tuple[list[dict[str, Any]], np.ndarray, list[np.ndarray]]:
    """One perturbation on some records, each at onsets of its own.

    Returns:
        Rows of ``evaluation.csv``; (records, shifts, C) logits; the onsets of each record.
    """
    rows, readings, drawn = [], [], []
    target = UNTARGETED if spec.target == ANY else victim.classes.index(spec.target)
    for position in positions:
        batch = records.batch([position], victim.n)
        stream = [seed, spec.position, target + 1, 2, int(position)]
        onsets = protocol.onsets(stream, victim.n)
        logits = protocol.logits(victim, batch.x[0], p, onsets)
        hits = np.bincount(logits.argmax(1), minlength=len(victim.classes))
        same = int(position) == spec.position and not spec.universal
        source = str(records.labels[position])
        rows.append(evaluation_row(victim, spec, batch.ids[0], source, same, hits))
        readings.append(logits)
        drawn.append(onsets)
    return rows, np.array(readings), drawn


def verdict_of_logits(logits: np.ndarray, source: int, target: int) -> dict[str, Any]:
    """What the readings of a case say together, (K, C): majority class, rate, mean margin."""
    count = len(logits)
    single = judge(logits, np.full(count, source), np.full(count, target))
    hit = single.predicted != source if target == UNTARGETED else single.predicted == target
    readings = single.hits.sum(0)
    return {
        "predicted": int(readings.argmax()),
        "success": bool(hit.mean() >= SUCCESS_RATE),
        "p_target": float(single.p_target.mean()),
        "margin": float(single.margin.mean()),
        "rate": float(hit.mean()),
        "hits": readings,
    }


def verdict_of(victim: Victim, spec: CaseSpec, logits: np.ndarray) -> dict[str, Any]:
    """:func:`verdict_of_logits` of a case."""
    target = UNTARGETED if spec.target == ANY else victim.classes.index(spec.target)
    source = 0 if spec.source == ANY else victim.classes.index(spec.source)
    return verdict_of_logits(logits, source, target)


def stack_verdicts(parts: Sequence[Mapping[str, Any]]) -> Verdict:
    """A :class:`Verdict` of several cases."""
    return Verdict(**{key: np.array([part[key] for part in parts]) for key in parts[0]})


# --- rates with their uncertainty ---------------------------------------------------------------


def _units(names: Sequence[str]) -> tuple[np.ndarray, int]:
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names]), len(known)


def bootstrap_interval(
    rows: Sequence[Mapping[str, Any]], seed: int = 0, draws: int = BOOTSTRAP_DRAWS
) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean rate, over records and over perturbations.

    Shifts of one record are not independent trials. Perturbations and records are drawn anew with
    replacement, each on its own (Owen AB. The pigeonhole bootstrap. Ann Appl Stat 2007); on the
    records that perturbations were made from the two are one unit.
    """
    rates = np.array([row["success_rate"] for row in rows], dtype=np.float64)
    case, n_cases = _units([row["perturbation_case"] for row in rows])
    record, n_records = _units([row["victim_record"] for row in rows])
    paired = all(row["same_record"] for row in rows)
    rng = np.random.default_rng([seed, 3])
    means = np.full(draws, np.nan)
    for draw in range(draws):
        weight = rng.multinomial(n_cases, np.full(n_cases, 1 / n_cases))[case].astype(float)
        if not paired:
            weight *= rng.multinomial(n_records, np.full(n_records, 1 / n_records))[record]
        total = weight.sum()
        if total:
            means[draw] = float(weight @ rates) / total
    low, high = np.nanpercentile(means, [2.5, 97.5])
    return float(low), float(high)


def rates(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Rate of some rows of ``evaluation.csv`` with both intervals."""
    trials = sum(int(row["n_shifts"]) for row in rows)
    hits = round(sum(float(row["success_rate"]) * int(row["n_shifts"]) for row in rows))
    return {
        "n_perturbations": len({row["perturbation_case"] for row in rows}),
        "n_records": len({row["victim_record"] for row in rows}),
        "n_trials": trials,
        "n_hits": hits,
        "success_rate": hits / trials,
        "ci95_trials": [round(v, 6) for v in wilson(hits, trials)],
        "ci95_records": [round(v, 6) for v in bootstrap_interval(rows, seed)],
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
