"""Robustness of a victim from minimum-norm attacks: success as a function of the budget.

Where an attack looks for the smallest perturbation of every case, one run answers all budgets at
once: within a budget b an attacker succeeds on exactly the cases whose distance is at most b. That
is the empirical distribution function of the distances, with failures at infinity. Found distances
are upper bounds of the smallest ones, so the curve is a lower bound of what an attacker can do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

COLUMN_OF_METRIC = {"l2": "d_l2", "diff": "d_smooth", "diffl2": "d_smooth_l2"}
"""The column of ``cases.csv`` that an attack under a metric makes small."""

CURVE_COLUMNS = ("pair", "budget", "n", "n_success", "success_rate", "ci_low", "ci_high")
"""Columns of ``robustness.csv``."""

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution

ALL = "all"
"""Name of the curve over all pairs."""


@dataclass(frozen=True)
class Curve:
    """Success as a function of the budget: a step function, right-continuous.

    Attributes:
        budget: (K,) distances at which it rises, increasing, in the units of the metric.
        successes: (K,) cases that a budget of so much reaches.
        n: cases in all, failures included.
        low: (K,) lower end of the 95 % band.
        high: (K,) its upper end. The band is that of Wilson's score interval at each budget by
            itself (pointwise): each single rate is covered with 95 %, not the whole curve at once.
    """

    budget: np.ndarray
    successes: np.ndarray
    n: int
    low: np.ndarray
    high: np.ndarray

    @property
    def rate(self) -> np.ndarray:
        """(K,) success rate."""
        return self.successes / max(1, self.n)

    def at(self, budget: float) -> float:
        """Success rate within a budget; NaN where there is no case."""
        if not self.n:
            return math.nan
        count = int(np.searchsorted(self.budget, budget, side="right"))
        return float(self.successes[count - 1] / self.n) if count else 0.0


def wilson_band(successes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % Wilson score intervals of many counts at once, (K,) -> (K,), (K,).

    Wilson EB. Probable inference, the law of succession, and statistical inference. JASA 1927.
    """
    k = np.asarray(successes, dtype=np.float64)
    if n == 0:
        return np.zeros_like(k), np.ones_like(k)
    rate, square = k / n, _Z**2 / n
    middle = (rate + 0.5 * square) / (1.0 + square)
    half = _Z * np.sqrt(rate * (1.0 - rate) / n + 0.25 * square / n) / (1.0 + square)
    # At the ends the interval closes exactly, which rounding must not undo.
    low = np.where(k == 0, 0.0, np.clip(middle - half, 0.0, 1.0))
    return low, np.where(k == n, 1.0, np.clip(middle + half, 0.0, 1.0))


def minimal_distances(rows: Sequence[Mapping[str, Any]], column: str) -> np.ndarray:
    """Distance of every attacked case, infinite where the attack did not succeed.

    Args:
        rows: rows of ``cases.csv``; skipped ones are no cases.
        column: ``d_l2``, ``d_smooth``, ``d_smooth_l2``, or another column of distances.
    """
    attacked = [row for row in rows if row["status"] != "skipped"]
    return np.array(
        [float(row[column]) if row["success"] else math.inf for row in attacked], dtype=np.float64
    )


def success_curve(distances: np.ndarray) -> Curve:
    """The exact curve of (n,) distances; failures are infinite and count as cases."""
    values = np.sort(np.asarray(distances, dtype=np.float64))
    finite = values[np.isfinite(values)]
    budget, counts = np.unique(finite, return_counts=True)
    successes = np.cumsum(counts)
    low, high = wilson_band(successes, len(values))
    return Curve(budget, successes, len(values), low, high)


def median_with_interval(distances: np.ndarray) -> tuple[float, float, float]:
    """Median of (n,) distances, failures infinite, and its 95 % interval.

    The interval is the exact one between order statistics (no assumption on the distribution): the
    ranks j and n + 1 - j with the largest j for which P(Binomial(n, ½) < j) <= 2.5 %. With fewer
    than six cases there is none: it is then 0 to infinity. With an even number of cases the median
    is the mean of the middle two, infinite where one of them is.

    Returns:
        Median, lower and upper end; NaN, 0 and infinity for no case.
    """
    values = np.sort(np.asarray(distances, dtype=np.float64))
    n = len(values)
    if not n:
        return math.nan, 0.0, math.inf
    middle = 0.5 * (values[(n - 1) // 2] + values[n // 2])
    from scipy.stats import binom

    rank = int(binom.ppf(0.025, n, 0.5))
    if rank < 1:
        return float(middle), 0.0, math.inf
    return float(middle), float(values[rank - 1]), float(values[n - rank])


def robustness(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, Any]:
    """A victim's robustness in one number: the median minimal distance, for ``summary.json``.

    Args:
        rows: rows of ``cases.csv`` of a minimum-norm attack.
        column: the distance that the attack made small.

    Returns:
        ``metric``, ``column``, ``n``, ``median_distance`` and ``ci95`` (95 %, order statistics);
        None stands for infinite, where half the cases or more failed.
    """
    distances = minimal_distances(rows, column)
    middle, low, high = median_with_interval(distances)

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    names = [metric for metric, own in COLUMN_OF_METRIC.items() if own == column]
    return {
        "metric": names[0] if names else column,
        "column": column,
        "n": len(distances),
        "median_distance": plain(middle),
        "ci95": [plain(low), plain(high)],
    }


def pair_curves(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, Curve]:
    """Curves over all cases (:data:`ALL`) and of every pair ``A>N``, in order of appearance."""
    groups: dict[str, list[Mapping[str, Any]]] = {ALL: []}
    for row in rows:
        if row["status"] != "skipped":
            groups[ALL].append(row)
            groups.setdefault(f"{row['source']}>{row['target']}", []).append(row)
    return {pair: success_curve(minimal_distances(group, column)) for pair, group in groups.items()}


def curve_rows(curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """Rows of ``robustness.csv``: every step of every curve, nothing rounded away."""
    return [
        {
            "pair": pair,
            "budget": float(curve.budget[k]),
            "n": curve.n,
            "n_success": int(curve.successes[k]),
            "success_rate": float(curve.rate[k]),
            "ci_low": float(curve.low[k]),
            "ci_high": float(curve.high[k]),
        }
        for pair, curve in curves.items()
        for k in range(len(curve.budget))
    ]
