"""Rates and quantiles with their uncertainty."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

FEWEST_RECORDS = 3
"""Records below which nothing is said about others: there is no interval."""

DRAWS = 2000
"""Draws of a bootstrap."""

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution

_BLOCK = 2_000_000
"""Numbers held at once while drawing."""

Interval = tuple[float, float]


def wilson(k: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of k successes in n trials (scipy); (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(int(k), int(n)).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def wilson_band(successes: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """95 % Wilson score intervals of many counts at once, (K,) -> (K,), (K,).

    Counts need not be whole: a rate over n records may be that of several cases each.

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


def units(names: Sequence[Hashable]) -> tuple[np.ndarray, int]:
    """Each name's number in order of appearance, and how many there are."""
    known = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return np.array([known[name] for name in names], dtype=np.int64), len(known)


def drawn(count: int, draws: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """(draws, count): how often each unit is drawn with replacement.

    Without a generator the same at every call.
    """
    rng = rng or np.random.default_rng([0, 3])
    return rng.multinomial(count, np.full(count, 1.0 / count), size=draws).astype(np.float64)


def record_interval(
    hits: Sequence[float] | np.ndarray,
    trials: Sequence[float] | np.ndarray,
    records: Sequence[Hashable],
    signals: Sequence[Hashable] | None = None,
    seed: int = 0,
) -> Interval | None:
    """95 % interval of Σhits/Σtrials where rows share records: a bootstrap over records.

    Rows of one record are not independent trials, so whole records are drawn anew with replacement
    (percentile interval, :data:`DRAWS` draws, the same for the same seed). Where ``signals`` are
    tried on many records each, signals and records are drawn anew, each on its own (Owen AB. The
    pigeonhole bootstrap. Ann Appl Stat 2007).

    Where no draw differs from another, as where all rows are hits, the bootstrap knows no spread
    though there is one: then it is Wilson's interval with as many trials as there are records. That
    takes the rows of a record for one, which is the worst that they can be (compare the rule of
    three, whose n counts independent trials only): 72 of 72 from eight records is 67.6 to 100 %.

    Args:
        hits: (R,) successes of each row.
        trials: (R,) trials of each row; rows without any do not count.
        records: (R,) names.
        signals: (R,) names of what was tried; None where each belongs to its record.
        seed: of the draws.

    Returns:
        Lower and upper end; None with fewer than :data:`FEWEST_RECORDS` records.
    """
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    kept = np.flatnonzero(n > 0).tolist()
    record, n_records = units([records[row] for row in kept])
    if n_records < FEWEST_RECORDS:
        return None
    names = [0] * len(kept) if signals is None else [signals[row] for row in kept]
    signal, n_signals = units(names)
    won, tried = np.zeros((n_signals, n_records)), np.zeros((n_signals, n_records))
    np.add.at(won, (signal, record), k[kept])
    np.add.at(tried, (signal, record), n[kept])
    rate = float(won.sum() / tried.sum())
    rng = np.random.default_rng([seed, 3])
    means, left = [], DRAWS
    while left:
        block = min(left, max(1, _BLOCK // max(n_records, n_signals)))
        weights, of_signals = drawn(n_records, block, rng), np.ones((block, 1))
        if n_signals > 1:
            of_signals = drawn(n_signals, block, rng)
        top, below = (((of_signals @ part) * weights).sum(1) for part in (won, tried))
        means.append(top[below > 0] / below[below > 0])
        left -= block
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    if high - low <= 1e-12:
        ends = wilson_band(np.array([rate * n_records]), n_records)
        return float(ends[0][0]), float(ends[1][0])
    return float(low), float(high)


def record_of(row: Mapping[str, Any]) -> str | None:
    """The record of a row of ``cases.csv`` or ``evaluation.csv``; None where it names none."""
    name = row.get("record", row.get("victim_record"))
    return None if name in (None, "") else str(name)


def case_interval(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> Interval | None:
    """:func:`record_interval` of the ``success`` of cases; None also where rows name no record."""
    names = [record_of(row) for row in rows]
    if None in names:
        return None
    hits = [float(bool(row["success"])) for row in rows]
    return record_interval(hits, [1.0] * len(rows), names, seed=seed)


def quartiles(values: np.ndarray) -> dict[str, float | None]:
    """Median and quartiles; None where there is nothing finite."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return {"median": None, "q25": None, "q75": None}
    low, middle, high = np.percentile(finite, [25, 50, 75])
    return {"median": float(middle), "q25": float(low), "q75": float(high)}
