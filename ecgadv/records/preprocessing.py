"""From a recording in any unit to the classifier's input (paper, section "Data processing")."""

from __future__ import annotations

import numpy as np

from ecgadv.errors import RecordError

N_SAMPLES = 9000
"""Samples of a classifier input: 30 s at 300 Hz."""

FS = 300
"""Sampling rate of a classifier input, in Hz."""


def clean(signal: np.ndarray, n: int = N_SAMPLES) -> np.ndarray:
    """First ``n`` samples of a recording, NaN and infinities replaced by 0.

    Args:
        signal: (samples,) recording in any unit.
        n: largest number of samples kept.

    Returns:
        (min(samples, n),) float64.

    Raises:
        RecordError: the signal is not one-dimensional, or empty.
    """
    values = np.asarray(signal, dtype=np.float64)
    if values.ndim != 1:
        raise RecordError(f"a recording must be one-dimensional, this one has shape {values.shape}")
    if values.size == 0:
        raise RecordError("the recording holds no samples")
    return np.nan_to_num(values[:n], nan=0.0, posinf=0.0, neginf=0.0)


def preprocess(signal: np.ndarray, n: int = N_SAMPLES) -> np.ndarray:
    """Standardise a recording over its own samples and zero-pad it at the end to ``n``.

    Args:
        signal: (samples,) recording at 300 Hz, in any unit; NaN and infinities count as 0.
        n: samples of the result; longer recordings lose their end.

    Returns:
        (n,) float32 with mean 0 and standard deviation 1 over the recording's own samples.

    Raises:
        RecordError: empty, not one-dimensional, or a flat line (nothing to standardise).
    """
    values = clean(signal, n)
    scale = values.std()
    if not is_usable_scale(values, scale):
        raise RecordError("flat line: the recording's standard deviation is 0")
    out = np.zeros(n, dtype=np.float32)
    out[: values.size] = (values - values.mean()) / scale
    return out


def is_usable_scale(values: np.ndarray, scale: float) -> bool:
    """Whether ``scale`` is a real spread and not the rounding error of a constant signal."""
    return bool(np.isfinite(scale) and scale > 1e-9 * max(float(np.abs(values).max()), 1e-30))
