"""What a benchmark's measurements say, method against method on the same cases."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv.attacks.registry import attack_kinds
from ecgadv.evaluate.statistics import record_interval, wilson


@dataclass(frozen=True)
class Row:
    """One method on one set of cases under one metric, as it is stored.

    Attributes:
        metric: name of the metric.
        method: name of the method.
        case_id: names of the cases.
        success: verdict of the deployed pipeline on each.
        distance: the metric's value of each perturbation, successful or not.
        d_l2: squared Euclidean norm of each.
        gradients: gradient evaluations of each.
        forwards: forward evaluations without a gradient of each.
        seconds: wall time of the attack, compiling included, verification not.
        peak_mb: largest resident memory of the process meanwhile, in MB.
        growth_mb: by how much that exceeds the memory before.
        identity: what was measured; another identity is another measurement.
        origin: ``measured``, ``resumed`` (after a kill: compiling counts more than once) or
            ``imported``.
        machine: processor, cores and versions.
        cpu_seconds: processor time of the attack over all threads: where other work shares the
            machine, the fairer figure of the two.
    """

    metric: str
    method: str
    case_id: list[str]
    success: list[bool]
    distance: list[float]
    d_l2: list[float]
    gradients: list[int]
    forwards: list[int]
    seconds: float
    peak_mb: float | None
    growth_mb: float | None
    identity: dict[str, Any]
    origin: str
    machine: dict[str, Any]
    cpu_seconds: float | None = None

    def reached(self) -> np.ndarray:
        """(n,) distances, infinite where the pipeline saw no success."""
        return np.where(self.success, np.asarray(self.distance, dtype=np.float64), np.inf)


def best_known(rows: Iterable[Row]) -> dict[tuple[str, str], float]:
    """The smallest distance at which any row succeeded, by metric and case."""
    best: dict[tuple[str, str], float] = {}
    for row in rows:
        for case, distance in zip(row.case_id, row.reached(), strict=True):
            key = (row.metric, case)
            best[key] = min(best.get(key, math.inf), float(distance))
    return best


def optimality(row: Row, best: Mapping[tuple[str, str], float]) -> float:
    """Mean of best known distance over own, a failure counting 0 (after AttackBench).

    Cinà AE et al. AttackBench: evaluating gradient-based attacks for adversarial examples. AAAI
    2025. Cases in which no method succeeded are left out; NaN where none is left.
    """
    shares = []
    for case, own in zip(row.case_id, row.reached(), strict=True):
        known = best[row.metric, case]
        if math.isfinite(known):
            # A distance of 0 cannot be beaten.
            shares.append(1.0 if own == known else known / own)
    return float(np.mean(shares)) if shares else math.nan


def paired_ratios(row: Row, baseline: Row) -> np.ndarray:
    """Own distance over the baseline's on the cases in which that one succeeded.

    Returns:
        (m,), infinite where the method failed.
    """
    other = dict(zip(baseline.case_id, baseline.reached(), strict=True))
    own = dict(zip(row.case_id, row.reached(), strict=True))
    pairs = [(float(own[c]), float(d)) for c, d in other.items() if c in own and np.isfinite(d)]
    # Where both are 0 they are equal.
    return np.array([1.0 if a == b else (a / b if b else math.inf) for a, b in pairs])


def percentile(values: Sequence[float] | np.ndarray, q: float) -> float:
    """Percentile of values that may be infinite, linear between ranks; NaN of nothing."""
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered):
        return math.nan
    place = q / 100.0 * (len(ordered) - 1)
    below, above = ordered[math.floor(place)], ordered[math.ceil(place)]
    if below == above or place == math.floor(place):
        return float(below)
    return float(below + (place - math.floor(place)) * (above - below))


def records_of(row: Row) -> list[str]:
    """The record of each case, from its name ``RECORD_A_to_N``; of any other name, all of it."""
    found = []
    for case in row.case_id:
        head, middle, _ = case.rpartition("_to_")
        found.append(head.rpartition("_")[0] if middle and "_" in head else case)
    return found


@dataclass(frozen=True)
class Compared:
    """Figures of a row of the benchmark's table; NaN where there is nothing to tell, infinite where
    half of the cases or more failed.

    Attributes:
        metric, method, seconds, cpu_seconds, peak_mb, growth_mb, origin: see :class:`Row`.
        n, n_success: cases, and successes by the deployed pipeline.
        ci95_records, ci95: intervals of the rate, over records and Wilson's.
        median, p90: distance, a failure counting as infinite.
        median_d_l2: squared Euclidean norm of the successes.
        ratio_median, ratio_p95: distance over the baseline's, case by case.
        optimality: see :func:`optimality`.
        gradients, forwards: of a case.
        cases_per_second: by wall time.
    """

    metric: str
    method: str
    n: int
    n_success: int
    ci95_records: tuple[float, float] | None
    ci95: tuple[float, float]
    median: float
    p90: float
    median_d_l2: float
    ratio_median: float
    ratio_p95: float
    optimality: float
    gradients: float
    forwards: float
    seconds: float
    cpu_seconds: float | None
    cases_per_second: float
    peak_mb: float | None
    growth_mb: float | None
    origin: str


def compare(rows: Sequence[Row], everything: Sequence[Row] | None = None) -> list[Compared]:
    """Figures of every row, as the benchmark's table shows them.

    Args:
        rows: rows on the same cases, of one metric or several.
        everything: further rows that know distances of the same cases; default ``rows``.
    """
    best = best_known(everything if everything is not None else rows)
    # With the steps of its definition or with others.
    referred = [name for name, kind in attack_kinds().items() if kind.baseline]
    baselines: dict[str, Row] = {}
    for row in rows:
        if any(re.fullmatch(rf"{name}(_\d+)?", row.method) for name in referred):
            baselines.setdefault(row.metric, row)
    table = []
    for row in rows:
        n = len(row.case_id)
        reached = row.reached()
        ratios = np.zeros(0)
        if row.metric in baselines:
            ratios = paired_ratios(row, baselines[row.metric])
        won = np.asarray(row.d_l2)[np.asarray(row.success, dtype=bool)]
        table.append(
            Compared(
                metric=row.metric,
                method=row.method,
                n=n,
                n_success=sum(row.success),
                ci95_records=record_interval(row.success, np.ones(n), records_of(row)),
                ci95=wilson(sum(row.success), n),
                median=percentile(reached, 50),
                p90=percentile(reached, 90),
                median_d_l2=percentile(won, 50),
                ratio_median=percentile(ratios, 50),
                ratio_p95=percentile(ratios, 95),
                optimality=optimality(row, best),
                gradients=float(np.mean(row.gradients)) if n else math.nan,
                forwards=float(np.mean(row.forwards)) if n else math.nan,
                seconds=row.seconds,
                cpu_seconds=row.cpu_seconds,
                cases_per_second=n / row.seconds if row.seconds else math.nan,
                peak_mb=row.peak_mb,
                growth_mb=row.growth_mb,
                origin=row.origin,
            )
        )
    return table


def read_row(file: Path) -> Row | None:
    """A stored row; None where there is none, or it cannot be read."""
    try:
        return Row(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def stored_rows(folder: Path) -> list[Row]:
    """Every readable row of a folder."""
    rows = [read_row(file) for file in sorted(folder.glob("*.json"))]
    return [row for row in rows if row is not None]
