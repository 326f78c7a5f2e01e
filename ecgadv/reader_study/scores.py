"""Scores of a reading study: what readers notice, by metric, with intervals.

Two questions are asked. *Which of the two was altered?* is a forced choice between two, so readers
who notice nothing are right half of the time, whatever their habits (Green DM, Swets JA. Signal
Detection Theory and Psychophysics. 1966). *Which looks most like the original?* is a forced choice
between the metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from ecgadv.errors import StoreError
from ecgadv.evaluate.statistics import wilson

DRAWS = 2000


def _weights(names: Sequence[str], draws: int, rng: np.random.Generator) -> np.ndarray:
    """(draws, rows) how often each row's reader or record is drawn; 1 where there is only one."""
    known = {name: k for k, name in enumerate(dict.fromkeys(names))}
    place = np.array([known[name] for name in names])
    if len(known) == 1:
        return np.ones((draws, len(place)))
    drawn = rng.multinomial(len(known), np.full(len(known), 1 / len(known)), size=draws)
    return drawn[:, place].astype(np.float64)


def resampled_shares(
    rows: Sequence[Mapping[str, Any]], hits: Mapping[str, np.ndarray], seed: int, draws: int = DRAWS
) -> dict[str, np.ndarray]:
    """Shares of several kinds of hits, readers and records drawn anew with replacement.

    Answers of one reader are not independent, and neither are answers about one recording. Both are
    drawn, each on its own (Owen AB. The pigeonhole bootstrap. Ann Appl Stat 2007). With a single
    reader only recordings are drawn, and the intervals say nothing of other readers.

    Args:
        rows: joined answers.
        hits: name -> (rows,) 1, 0, or NaN where the row does not count for that name.
        seed: of the draws.
        draws: how many.

    Returns:
        Name -> (draws,) shares, NaN where a draw holds no row of that name.
    """
    rng = np.random.default_rng([seed, 7])
    weight = _weights([str(r["reader"]) for r in rows], draws, rng)
    weight *= _weights([str(r["record"]) for r in rows], draws, rng)
    shares = {}
    for name, values in hits.items():
        counts = weight[:, np.isfinite(values)]
        total = counts.sum(1)
        good = counts @ values[np.isfinite(values)]
        shares[name] = np.divide(good, total, out=np.full(draws, np.nan), where=total > 0)
    return shares


def _interval(values: np.ndarray) -> list[float | None]:
    known = values[np.isfinite(values)]
    if not known.size:
        return [None, None]
    return [round(float(v), 6) for v in np.percentile(known, [2.5, 97.5])]


def d_prime(correct: int, n: int) -> float:
    """Sensitivity of a choice between two, √2·Φ⁻¹(share); all right or wrong counts half a case."""
    from scipy.special import ndtri

    share = min(max(correct / n, 0.5 / n), 1 - 0.5 / n)
    return float(np.sqrt(2.0) * ndtri(share))


def score(rows: Sequence[Mapping[str, Any]], seed: int = 0) -> dict[str, Any]:
    """Which metric readers find least noticeable.

    Args:
        rows: joined answers (:func:`ecgadv.reader_study.answers.join`).
        seed: of the bootstrap.

    Returns:
        ``n_readers``, ``n_records``, ``n_answers``; ``detect``, metric -> ``n``, ``n_correct``,
        ``share`` (0.5 by chance), ``ci95`` (Wilson's, answers taken for independent),
        ``ci95_readers_records`` (bootstrap), ``d_prime``, ``median_seconds``, ``mean_confidence``;
        ``closest``, metric -> ``n``, ``n_chosen``, ``share`` (1 over the number of metrics by
        chance) and both intervals; ``differences``, a row a pair of metrics and question with the
        bootstrap's interval; ``least_noticeable``, question -> ``metric`` and whether it is
        ``separate`` from every other one (no interval of a difference holds 0).

    Raises:
        StoreError: there is no answer.
    """
    if not rows:
        raise StoreError("the files hold no answer")
    result: dict[str, Any] = {
        "n_readers": len({r["reader"] for r in rows}),
        "n_records": len({r["record"] for r in rows}),
        "n_answers": len(rows),
        "differences": [],
        "least_noticeable": {},
    }
    for kind in ("detect", "closest"):
        mine = [r for r in rows if r["kind"] == kind]
        if not mine:
            continue
        result[kind], differences = _of_kind(mine, kind, seed)
        result["differences"] += differences
        # The least detected, or the most often taken for the original.
        sign = 1 if kind == "detect" else -1
        best = min(result[kind], key=lambda m: sign * result[kind][m]["share"])
        touching = [
            d
            for d in differences
            if best in (d["metric"], d["other"])
            and (d["ci95"][0] is None or d["ci95"][0] <= 0 <= d["ci95"][1])
        ]
        separate = len(result[kind]) > 1 and not touching
        result["least_noticeable"][kind] = {"metric": best, "separate": separate}
    return result


def _of_kind(
    rows: Sequence[Mapping[str, Any]], kind: str, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    names = sorted({name for r in rows for name in r["offered"]})
    metric = np.array([str(r["metric"]) for r in rows])
    if kind == "detect":
        right = np.array([float(r["correct"]) for r in rows])
        hits = {name: np.where(metric == name, right, np.nan) for name in names}
    else:
        hits = {name: (metric == name).astype(np.float64) for name in names}
    shares = resampled_shares(rows, hits, seed)
    found: dict[str, Any] = {}
    for name in names:
        values = hits[name][np.isfinite(hits[name])]
        n, k = len(values), int(values.sum())
        found[name] = {
            "n": n,
            "n_correct" if kind == "detect" else "n_chosen": k,
            "share": k / n,
            "ci95": [round(v, 6) for v in wilson(k, n)],
            "ci95_readers_records": _interval(shares[name]),
        }
        if kind == "detect":
            own = [r for r in rows if r["metric"] == name]
            found[name] |= {
                "d_prime": d_prime(k, n),
                "median_seconds": float(np.median([r["milliseconds"] for r in own])) / 1000,
                "mean_confidence": float(np.mean([r["confidence"] for r in own])),
            }
    differences = [
        {
            "question": kind,
            "metric": a,
            "other": b,
            "difference": found[a]["share"] - found[b]["share"],
            "ci95": _interval(shares[a] - shares[b]),
        }
        for a, b in combinations(names, 2)
    ]
    return found, differences
