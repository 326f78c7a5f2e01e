"""Rates with their uncertainty, and distances of perturbations."""

from __future__ import annotations

import numpy as np

from ecgadv.threat import metrics

DISTANCE_COLUMNS = ("d_l2", "d_smooth", "d_smooth_l2", "l2_norm", "linf", "snr_db", "prd_percent")


def wilson(k: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of k successes in n trials (scipy); (0, 1) where n is 0."""
    if n == 0:
        return 0.0, 1.0
    from scipy.stats import binomtest

    interval = binomtest(int(k), int(n)).proportion_ci(confidence_level=0.95, method="wilson")
    return float(interval.low), float(interval.high)


def distances(
    delta: np.ndarray, x: np.ndarray, lengths: np.ndarray, leads: int = 1
) -> dict[str, np.ndarray]:
    """Every distance of the contract, in float64.

    Args:
        delta: (B, leads·n) perturbations in standardised units, lead after lead.
        x: (B, leads·n) standardised, zero-padded records.
        lengths: (B,) own samples; SNR and PRD compare δ with the record's own span.
        leads: of a record; distances add up over them.

    Returns:
        Column name -> (B,): ``d_l2``, ``d_smooth``, ``d_smooth_l2`` (= d_smooth + 0.01·d_l2),
        ``l2_norm``, ``linf`` (all in standardised units), ``snr_db``, ``prd_percent``.
    """
    d = np.asarray(delta, dtype=np.float64)
    n = d.shape[1] // leads
    own = np.tile(np.arange(n)[None, :] < np.asarray(lengths)[:, None], (1, leads))
    energy = metrics.d_l2(d)
    smooth = metrics.d_smooth(d.reshape(len(d), leads, n)).sum(-1)
    signal = np.where(own, x.astype(np.float64), 0.0)
    ratio = (np.where(own, d, 0.0) ** 2).sum(1) / np.maximum((signal**2).sum(1), 1e-300)
    with np.errstate(divide="ignore"):
        snr = -10.0 * np.log10(ratio)
    return {
        "d_l2": energy,
        "d_smooth": smooth,
        "d_smooth_l2": smooth + metrics.ENERGY_SHARE * energy,
        "l2_norm": np.sqrt(energy),
        "linf": np.abs(d).max(1),
        "snr_db": snr,
        "prd_percent": 100.0 * np.sqrt(ratio),
    }


def quartiles(values: np.ndarray) -> dict[str, float | None]:
    """Median and quartiles; None where there is nothing finite."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not finite.size:
        return {"median": None, "q25": None, "q75": None}
    low, middle, high = np.percentile(finite, [25, 50, 75])
    return {"median": float(middle), "q25": float(low), "q75": float(high)}
