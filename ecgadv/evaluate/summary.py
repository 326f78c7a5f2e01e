"""``summary.json``: rates with intervals, distances by pair, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgadv.evaluate.distances import COLUMNS
from ecgadv.evaluate.perceptibility import PERCEPTIBILITY_COLUMNS
from ecgadv.evaluate.statistics import case_interval, quartiles, record_of, wilson

SUMMARISED = (*COLUMNS, "l2_norm", "snr_db")


def rate(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count, successes, rate and 95 % intervals of attacked cases.

    ``ci95_records`` is a bootstrap over records, None with too few of them or where rows name none;
    ``ci95`` is Wilson's, which takes the cases for independent.
    """
    n = len(rows)
    k = sum(bool(row["success"]) for row in rows)
    names = {record_of(row) for row in rows}
    whole = case_interval(rows)
    return {
        "n": n,
        "n_success": k,
        "n_records": None if None in names else len(names),
        "success_rate": k / n if n else None,
        "ci95_records": None if whole is None else [round(end, 6) for end in whole],
        "ci95": [round(end, 6) for end in wilson(k, n)],
    }


def spread(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    """Median and quartiles of each distance over the successful cases."""
    won = [row for row in rows if row["success"]]
    values = {name: np.array([row.get(name) for row in won], np.float64) for name in columns}
    return {name: quartiles(mine) for name, mine in values.items()}


def seen(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median and quartiles of what a reader might notice, over the successful cases.

    Runs stored by an earlier version have no such columns: None.
    """
    won = [row for row in rows if row["success"]]
    columns = {
        name: np.array([row.get(name) for row in won], dtype=np.float64)
        for name in PERCEPTIBILITY_COLUMNS
    }
    return {name: quartiles(values) for name, values in columns.items()}


def summarise(
    rows: Sequence[Mapping[str, Any]],
    pairs: Mapping[str, Sequence[Mapping[str, Any]]],
    own: str = COLUMNS[0],
) -> dict[str, Any]:
    """The counted part of ``summary.json``.

    Args:
        rows: all rows of ``cases.csv``; skipped ones do not count as cases, ``n_skipped`` does.
        pairs: attacked rows by ``A>N``.
        own: column of the distance of the run's metric, which comes after the usual ones.
    """
    columns = tuple(dict.fromkeys((*SUMMARISED, own)))
    attacked = [row for row in rows if row["status"] != "skipped"]
    done = [row for row in attacked if row["status"] == "ok"]
    seconds = float(sum(row["seconds"] for row in done))
    overall = rate(attacked)
    return {
        "n_cases": overall["n"],
        "n_success": overall["n_success"],
        "n_records": overall["n_records"],
        "success_rate": overall["success_rate"],
        "ci95_records": overall["ci95_records"],
        "ci95": overall["ci95"],
        "n_failed": len(attacked) - len(done),
        "n_skipped": len(rows) - len(attacked),
        "distances": spread(attacked, columns),
        "perceptibility": seen(attacked),
        "pairs": {pair: rate(group) | spread(group, columns) for pair, group in pairs.items()},
        "gradients_per_case": float(np.mean([r["n_gradients"] for r in done])) if done else None,
        "seconds": round(seconds, 3),
        "cases_per_second": round(len(done) / seconds, 4) if seconds else None,
    }
