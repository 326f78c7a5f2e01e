"""The sizes of perturbations that are reported: how each is called, and its values.

What a metric is called in tables, figures and MLflow comes from the metric itself. Some have a
column in every run; another one adds its own to its runs, and ``summary.json`` keeps how it is
called for whoever reads the run later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ecgadv.threat.metrics import METRICS, Quadratic


@dataclass(frozen=True)
class Distance:
    """How the size that a metric measures is called.

    Attributes:
        metric: name of the metric.
        column: of ``cases.csv``, and in names of MLflow's metrics.
        label: in figures and tables for people.
        help: what it is, in a line.
    """

    metric: str
    column: str
    label: str
    help: str

    @classmethod
    def of(cls, metric: Quadratic) -> Distance:
        """That of a metric."""
        return cls(metric.name, metric.column, metric.label, metric.help)

    def told(self) -> dict[str, str]:
        """For ``summary.json``."""
        return asdict(self)


_USUAL = [kind() for kind in METRICS.values() if kind.in_every_run]  # type: ignore[call-arg]

USUAL = tuple(Distance.of(metric) for metric in _USUAL)
"""Those of the metrics that are reported in every run."""

COLUMNS = tuple(d.column for d in USUAL)


def known(summary: Mapping[str, Any]) -> dict[str, Distance]:
    """Column -> how it is called, of a run with such a ``summary.json``: the run's own comes last.

    Summaries of earlier versions name no distance; their metrics were the package's.
    """
    found = {d.column: d for d in USUAL}
    own = own_distance(summary)
    return found if own is None else found | {own.column: found.get(own.column, own)}


def own_distance(summary: Mapping[str, Any]) -> Distance | None:
    """The one that the attack of a run made small; None where the summary tells none."""
    told = summary.get("distance")
    if isinstance(told, Mapping):
        try:
            return Distance(**{key: str(value) for key, value in told.items()})
        except TypeError:
            return None
    return next((d for d in USUAL if d.metric == summary.get("metric")), None)


def sizes(
    delta: np.ndarray, x: np.ndarray, lengths: np.ndarray, leads: int = 1,
    own: Quadratic | None = None,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Every size of the contract, in float64.

    Args:
        delta: (B, leads·n) perturbations in standardised units, lead after lead.
        x: (B, leads·n) standardised, zero-padded records.
        lengths: (B,) own samples; SNR and PRD compare δ with the record's own span.
        leads: of a record; distances add up over them.
        own: the metric of the run, as it measures so many leads.

    Returns:
        Column name -> (B,): those of :data:`COLUMNS`, ``l2_norm``, ``linf`` (all in standardised
        units), ``snr_db``, ``prd_percent``, and the column of ``own`` where it is another one.
    """
    d = np.asarray(delta, dtype=np.float64)
    n = d.shape[1] // leads
    inside = np.tile(np.arange(n)[None, :] < np.asarray(lengths)[:, None], (1, leads))
    signal = np.where(inside, x.astype(np.float64), 0.0)
    ratio = (np.where(inside, d, 0.0) ** 2).sum(1) / np.maximum((signal**2).sum(1), 1e-300)
    with np.errstate(divide="ignore"):
        snr = -10.0 * np.log10(ratio)
    found = {metric.column: np.asarray(metric.over(leads).value(d)) for metric in _USUAL}
    found |= {
        "l2_norm": np.sqrt((d**2).sum(1)),
        "linf": np.abs(d).max(1),
        "snr_db": snr,
        "prd_percent": 100.0 * np.sqrt(ratio),
    }
    if own is not None and own.column not in found:
        found[own.column] = np.asarray(own.value(d), dtype=np.float64)
    return found
