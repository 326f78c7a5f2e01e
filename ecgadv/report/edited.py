"""Rates of edited recordings (Type I) that were read at random onsets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def _rates(cases: Sequence[Mapping[str, Any]], shifts: int) -> dict[str, Any]:
    """Rates of edited recordings over onsets, as ``summary.json`` has those of injected signals.

    Onsets at which the unperturbed recording is not read as its source do not count, where a run
    tells them (``n_clean``).
    """
    from ecgadv.evaluate.statistics import record_interval, wilson

    trials, hits = [], []
    for case in cases:
        clean = case.get("n_clean", shifts)
        trials.append(int(shifts if clean != clean else clean))
        hits.append(round(float(case["target_rate"]) * trials[-1]))
    records, total, won = [str(case["record"]) for case in cases], sum(trials), sum(hits)
    return {
        "n_perturbations": len(cases),
        "n_records": len(set(records)),
        "n_trials": total,
        "n_hits": won,
        "success_rate": won / total if total else None,
        "ci95_records": record_interval(hits, trials, records),
        "ci95_trials": wilson(won, total),
    }


def pairs(cases: pd.DataFrame, shifts: int) -> dict[str, dict[str, Any]]:
    """Pair ``A>N`` -> rates over onsets, ``all`` first; {} where no case was read at any."""
    done = cases[cases["status"].eq("ok") & cases["target_rate"].notna()]
    if not len(done):
        return {}
    found = {"all": _rates(done.to_dict("records"), shifts)}
    for (source, target), mine in done.groupby(["source", "target"], sort=False):
        found[f"{source}>{target}"] = _rates(mine.to_dict("records"), shifts)
    return found
