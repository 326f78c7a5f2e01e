"""From a recording in any unit to the classifier's input (paper, section "Data processing")."""

from __future__ import annotations

import numpy as np

from ecgadv.errors import RecordError

N_SAMPLES = 9000
"""Samples of a classifier input: 30 s at 300 Hz."""

FS = 300
"""Sampling rate of a classifier input, in Hz."""


MAX_MISSING = 0.5
"""Largest share of missing samples of a lead that is still used."""


def fill_missing(values: np.ndarray) -> np.ndarray:
    """Missing samples (NaN, infinities) by the mean of the others, along the first axis.

    Standardised, that is 0, whatever the recording's offset.

    Args:
        values: (samples,) or (samples, leads) float64; each lead has its own mean.

    Returns:
        The same shape; a lead without any sample becomes 0.
    """
    known = np.isfinite(values)
    if known.all():
        return values
    count = known.sum(axis=0, keepdims=True)
    total = np.where(known, values, 0.0).sum(axis=0, keepdims=True)
    return np.where(known, values, total / np.maximum(count, 1))


def clean(signal: np.ndarray, n: int = N_SAMPLES, leads: int = 1) -> np.ndarray:
    """First ``n`` samples of a recording, missing ones (NaN, infinities) by the mean of the others.

    Args:
        signal: (samples,) recording in any unit; of several leads (samples, leads).
        n: largest number of samples kept.
        leads: of the recording.

    Returns:
        (min(samples, n),) or (min(samples, n), leads) float64.

    Raises:
        RecordError: the signal is not one-dimensional (or has not that many leads), empty, or more
            than half of what is read of a lead is missing.
    """
    values = np.asarray(signal, dtype=np.float64)
    if leads > 1 and (values.ndim != 2 or values.shape[1] != leads):
        raise RecordError(
            f"a recording of {leads} leads must be (samples, {leads}), this one has shape "
            f"{values.shape}"
        )
    if leads == 1 and values.ndim != 1:
        raise RecordError(f"a recording must be one-dimensional, this one has shape {values.shape}")
    if values.size == 0:
        raise RecordError("the recording holds no samples")
    values = values[:n]
    missing = np.atleast_1d((~np.isfinite(values)).mean(axis=0))
    if missing.max() > MAX_MISSING:
        worst = int(missing.argmax())
        where = f" of lead {worst + 1} of {leads}" if leads > 1 else ""
        raise RecordError(f"{missing[worst]:.0%} of the samples read{where} are missing (NaN)")
    return fill_missing(values)


def prepare(
    signal: np.ndarray, n: int = N_SAMPLES, leads: int = 1, standardise: str = "lead"
) -> tuple[np.ndarray, int, np.ndarray]:
    """Standardise a recording over its own samples and zero-pad it at the end to ``n``.

    Args:
        signal: (samples,) recording at the classifier's rate, in any unit; of several leads
            (samples, leads). NaN and infinities count as the mean of their lead.
        n: samples of the result; longer recordings lose their end.
        leads: of the recording.
        standardise: ``lead``: each lead to mean 0 and standard deviation 1 over the recording's
            own samples; ``record``: all leads together; ``none``: the values as they are.

    Returns:
        The recording, (n,) or (n, leads) float32; its own samples; and what one unit of it is in
        the unit of ``signal``, () or, of several leads, (leads,).

    Raises:
        RecordError: empty, of another shape, mostly missing, or a flat line (nothing to
            standardise).
    """
    values = clean(signal, n, leads)
    spread = values.std(axis=0)
    # A lead that is flat was not recorded, however the classifier standardises.
    for lead in range(leads):
        one, scale = (values, spread) if leads == 1 else (values[:, lead], spread[lead])
        if not is_usable_scale(one, float(scale)):
            which = "recording" if leads == 1 else f"recording's lead {lead + 1} of {leads}"
            raise RecordError(f"flat line: the {which} has a standard deviation of 0")
    centre = values.mean(axis=0)
    if standardise == "record":
        centre, spread = values.mean(), np.broadcast_to(values.std(), spread.shape)
    out = np.zeros((n, *values.shape[1:]), dtype=np.float32)
    if standardise == "none":
        out[: len(values)] = values
        return out, len(values), np.ones_like(spread)
    out[: len(values)] = (values - centre) / spread
    return out, len(values), spread


def is_usable_scale(values: np.ndarray, scale: float) -> bool:
    """Whether ``scale`` is a real spread and not the rounding error of a constant signal."""
    return bool(np.isfinite(scale) and scale > 1e-9 * max(float(np.abs(values).max()), 1e-30))
