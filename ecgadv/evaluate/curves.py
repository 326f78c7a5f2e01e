"""Robustness of a victim from minimum-norm attacks: success as a function of the budget.

Where an attack looks for the smallest perturbation of every case, one run answers all budgets at
once: within a budget b an attacker succeeds on exactly the cases whose distance is at most b. That
is the empirical distribution function of the distances, with failures at infinity. Found distances
are upper bounds of the smallest ones, so the curve is a lower bound of what an attacker can do.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgadv.evaluate import statistics
from ecgadv.evaluate.distances import Distance
from ecgadv.evaluate.statistics import wilson_band
from ecgadv.evaluate.tables import Table

CURVES = Table(
    {
        "pair": str, "budget": float, "n": int, "n_success": int, "success_rate": float,
        "ci_low": float, "ci_high": float, "wilson_low": float, "wilson_high": float,
    },
    empty=frozenset({"ci_low", "ci_high"}),
)  # fmt: skip
"""``robustness.csv``; the interval over records is empty where there are too few."""

BAND_DRAWS = 500
"""Draws of a band: every one is a curve of its own."""

ALL = "all"
"""Name of the curve over all pairs."""


@dataclass(frozen=True)
class Curve:
    """Success as a function of the budget: a step function, right-continuous.

    Attributes:
        budget: (K,) distances at which it rises, increasing, in the units of the metric.
        successes: (K,) cases that a budget of so much reaches.
        n: cases in all, failures included.
        low: (K,) lower end of the 95 % band, NaN where there is none.
        high: (K,) its upper end. The band is an interval at each budget by itself (pointwise): each
            single rate is covered with 95 %, not the whole curve at once. It is a bootstrap over
            records, see :func:`success_curve`.
        zero: upper end of the band below the first budget, where the rate is 0.
    """

    budget: np.ndarray
    successes: np.ndarray
    n: int
    low: np.ndarray
    high: np.ndarray
    zero: float = 1.0

    @property
    def wilson(self) -> tuple[np.ndarray, np.ndarray]:
        """(K,), (K,): Wilson's intervals, which take the cases for independent."""
        return wilson_band(self.successes, self.n)

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


def success_curve(distances: np.ndarray, records: Sequence[Hashable] | None = None) -> Curve:
    """The exact curve of (n,) distances; failures are infinite and count as cases.

    Args:
        distances: of each case.
        records: (n,) its record: cases of one record are drawn together for the band, see
            :func:`ecgadv.evaluate.statistics.record_interval`. None: every case has its own.
    """
    values = np.asarray(distances, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    finite = values[order][np.isfinite(values[order])]
    budget, counts = np.unique(finite, return_counts=True)
    successes = np.cumsum(counts)
    names = range(len(values)) if records is None else records
    record, count = statistics.units(list(names))
    if count < statistics.FEWEST_RECORDS:
        none = np.full(len(budget), np.nan)
        return Curve(budget, successes, len(values), none, none, math.nan)
    weights = statistics.drawn(count, BAND_DRAWS)[:, record[order]]
    reached = np.cumsum(weights, axis=1)
    rates = reached[:, successes - 1] / reached[:, -1:]
    low, high = np.percentile(rates, [2.5, 97.5], axis=0) if len(budget) else (budget, budget)
    # Where no draw differs there is as much to say as there are records.
    same = high - low <= 1e-12
    ends = wilson_band(successes / max(1, len(values)) * count, count)
    low, high = np.where(same, ends[0], low), np.where(same, ends[1], high)
    zero = float(wilson_band(np.zeros(1), count)[1][0])
    return Curve(budget, successes, len(values), low, high, zero)


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


def median_over_records(
    distances: np.ndarray, records: Sequence[Hashable] | None
) -> tuple[float, float] | None:
    """95 % bootstrap of the median over records, whose cases are drawn together.

    Args:
        distances: (n,), failures infinite.
        records: (n,) record of each; None: every case has its own.

    Returns:
        Lower and upper end, infinite where half the cases of a draw failed; None with too few
        records.
    """
    values = np.asarray(distances, dtype=np.float64)
    names = range(len(values)) if records is None else records
    record, count = statistics.units(list(names))
    if count < statistics.FEWEST_RECORDS:
        return None
    order = np.argsort(values, kind="stable")
    below = np.cumsum(statistics.drawn(count, BAND_DRAWS)[:, record[order]], axis=1)
    half = below[:, -1:] / 2
    # The middle one, or the mean of the middle two, of what was drawn.
    first, last = (below < half).sum(1), (below <= half).sum(1)
    middle = 0.5 * (values[order][first] + values[order][last])
    # Between two ranks there may be an infinity, so none is interpolated.
    low = np.percentile(middle, 2.5, method="lower")
    high = np.percentile(middle, 97.5, method="higher")
    return float(low), float(high)


def record_names(rows: Sequence[Mapping[str, Any]]) -> list[Hashable] | None:
    """Records of the cases that :func:`minimal_distances` counts; None where rows name none."""
    named = [statistics.record_of(row) for row in rows if row["status"] != "skipped"]
    return None if None in named else list(named)


def robustness(rows: Sequence[Mapping[str, Any]], distance: Distance) -> dict[str, Any]:
    """A victim's robustness in one number: the median minimal distance, for ``summary.json``.

    Args:
        rows: rows of ``cases.csv`` of a minimum-norm attack.
        distance: that the attack made small.

    Returns:
        ``metric``, ``column``, ``n``, ``median_distance``, ``ci95_records`` (bootstrap over
        records, None with too few) and ``ci95`` (order statistics, cases taken for independent);
        None stands for infinite, where half the cases or more failed.
    """
    distances = minimal_distances(rows, distance.column)
    over = median_over_records(distances, record_names(rows))
    middle, low, high = median_with_interval(distances)

    def plain(value: float) -> float | None:
        return value if math.isfinite(value) else None

    return {
        "metric": distance.metric,
        "column": distance.column,
        "n": len(distances),
        "median_distance": plain(middle),
        "ci95_records": None if over is None else [plain(end) for end in over],
        "ci95": [plain(low), plain(high)],
    }


def pair_curves(rows: Sequence[Mapping[str, Any]], column: str) -> dict[str, Curve]:
    """Curves over all cases (:data:`ALL`) and of every pair ``A>N``, in order of appearance."""
    groups: dict[str, list[Mapping[str, Any]]] = {ALL: []}
    for row in rows:
        if row["status"] != "skipped":
            groups[ALL].append(row)
            groups.setdefault(f"{row['source']}>{row['target']}", []).append(row)
    return {
        pair: success_curve(minimal_distances(group, column), record_names(group))
        for pair, group in groups.items()
    }


def curve_rows(curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """Rows of ``robustness.csv``: every step of every curve, nothing rounded away."""
    return [
        {
            "pair": pair,
            "budget": float(curve.budget[k]),
            "n": curve.n,
            "n_success": int(curve.successes[k]),
            "success_rate": float(curve.rate[k]),
            "ci_low": float(curve.low[k]) if math.isfinite(curve.low[k]) else None,
            "ci_high": float(curve.high[k]) if math.isfinite(curve.high[k]) else None,
            "wilson_low": float(low),
            "wilson_high": float(high),
        }
        for pair, curve in curves.items()
        for k, (low, high) in enumerate(zip(*curve.wilson, strict=True))
    ]
