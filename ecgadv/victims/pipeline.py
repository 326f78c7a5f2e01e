"""The deployed pipeline: standardise, pad, classify; on tensors and on NumPy arrays.

A record of several leads, (B, n, leads), goes through the attack as one long vector, lead after
lead, (B, leads·n): whatever works on samples works on it unchanged. :func:`flatten` and
:func:`unflatten` lead there and back; with one lead both leave an array as it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgadv.records.preprocessing import fill_missing

_FLOOR = 1e-12

STANDARDISE = ("lead", "record", "none")
"""What std(·) takes mean and spread over: each lead by itself, the whole record, or nothing."""


def flatten(signal: np.ndarray) -> np.ndarray:
    """(B, n, leads) -> (B, leads·n), lead after lead; (B, n) stays."""
    if signal.ndim != 3:
        return signal
    return np.ascontiguousarray(signal.transpose(0, 2, 1)).reshape(len(signal), -1)


def unflatten(signal: np.ndarray, leads: int) -> np.ndarray:
    """The inverse of :func:`flatten`; with one lead (B, n) stays."""
    if leads == 1:
        return signal
    n = signal.shape[1] // leads
    return np.ascontiguousarray(signal.reshape(len(signal), leads, n).transpose(0, 2, 1))


def valid_mask(lengths: np.ndarray, n: int) -> np.ndarray:
    """(B, n) float32, 1 on each record's own samples and 0 on its padding."""
    return (np.arange(n)[None, :] < np.asarray(lengths)[:, None]).astype(np.float32)


def standardise(signal: Any, valid: Any, leads: int = 1, over: str = "lead") -> Any:
    """std(·) as a differentiable map: zero mean and unit variance over the valid samples.

    Args:
        signal: (B, leads·n) tensor in any unit; what lies on the padding is ignored.
        valid: (B, leads·n) 1 on the samples that count, 0 on the padding, which stays 0.
        leads: of a record, one after the other.
        over: one of :data:`STANDARDISE`.

    Returns:
        (B, leads·n) tensor.
    """
    from keras import ops

    if over == "none":
        return signal * valid
    if leads > 1 and over == "lead":
        apart = (-1, leads, signal.shape[-1] // leads)
        each = standardise(ops.reshape(signal, apart), ops.reshape(valid, apart))
        return ops.reshape(each, (-1, signal.shape[-1]))
    count = ops.sum(valid, axis=-1, keepdims=True)
    mean = ops.sum(signal * valid, axis=-1, keepdims=True) / count
    centred = (signal - mean) * valid
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / count
    return centred / ops.sqrt(ops.maximum(variance, _FLOOR))


def standardise_array(
    signal: np.ndarray, lengths: np.ndarray, leads: int = 1, over: str = "lead"
) -> np.ndarray:
    """The same in float64 NumPy for verification, (B, leads·n) -> (B, leads·n) float32.

    Args:
        signal: (B, leads·n) in any unit; NaN and infinities count as the mean of their lead's
            other samples, which is 0 after standardisation.
        lengths: (B,) own samples of each record.
        leads: of a record, one after the other.
        over: one of :data:`STANDARDISE`.
    """
    if leads > 1 and over == "lead":
        apart = signal.reshape(len(signal) * leads, -1)
        return standardise_array(apart, np.repeat(lengths, leads)).reshape(signal.shape)
    valid = np.tile(valid_mask(lengths, signal.shape[1] // leads), (1, leads)).astype(bool)
    values = np.where(valid, signal.astype(np.float64), 0.0)
    if not np.isfinite(values).all():
        each = np.where(valid, values, np.nan).reshape(len(values) * leads, -1)
        values = np.where(valid, fill_missing(each.T).T.reshape(values.shape), 0.0)
    if over == "none":
        return values.astype(np.float32)
    count = valid.sum(1, keepdims=True)
    centred = np.where(valid, values - values.sum(1, keepdims=True) / count, 0.0)
    variance = (centred**2).sum(1, keepdims=True) / count
    return (centred / np.sqrt(np.maximum(variance, _FLOOR))).astype(np.float32)
