"""The deployed pipeline: standardise, pad, classify; on tensors and on NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

_FLOOR = 1e-12


def valid_mask(lengths: np.ndarray, n: int) -> np.ndarray:
    """(B, n) float32, 1 on each record's own samples and 0 on its padding."""
    return (np.arange(n)[None, :] < np.asarray(lengths)[:, None]).astype(np.float32)


def standardise(signal: Any, valid: Any) -> Any:
    """std(·) as a differentiable map: zero mean and unit variance over the valid samples.

    Args:
        signal: (B, n) tensor in any unit; what lies on the padding is ignored.
        valid: (B, n) 1 on the samples that count, 0 on the padding, which stays 0.

    Returns:
        (B, n) tensor.
    """
    from keras import ops

    count = ops.sum(valid, axis=-1, keepdims=True)
    mean = ops.sum(signal * valid, axis=-1, keepdims=True) / count
    centred = (signal - mean) * valid
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / count
    return centred / ops.sqrt(ops.maximum(variance, _FLOOR))


def standardise_array(signal: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The same in float64 NumPy for verification, (B, n) -> (B, n) float32.

    Args:
        signal: (B, n) in any unit; NaN and infinities count as 0.
        lengths: (B,) own samples of each record.
    """
    valid = valid_mask(lengths, signal.shape[1]).astype(bool)
    values = np.where(valid, np.nan_to_num(signal.astype(np.float64), posinf=0, neginf=0), 0.0)
    count = valid.sum(1, keepdims=True)
    centred = np.where(valid, values - values.sum(1, keepdims=True) / count, 0.0)
    variance = (centred**2).sum(1, keepdims=True) / count
    return (centred / np.sqrt(np.maximum(variance, _FLOOR))).astype(np.float32)


def shift_indices(shifts: np.ndarray, lengths: np.ndarray, n: int) -> np.ndarray:
    """Gather indices of circular shifts within each record's own samples.

    Args:
        shifts: (B,) or (B, K) samples; a device that starts τ samples late sees sample i + τ first.
        lengths: (B,) own samples.
        n: samples of a padded record.

    Returns:
        (B, n) or (B, K, n) int64; the padding stays where it is.
    """
    shifts, lengths = np.asarray(shifts), np.asarray(lengths)
    position = np.arange(n)
    length = lengths.reshape(lengths.shape + (1,) * shifts.ndim)
    moved = (position + shifts[..., None]) % length
    return np.where(position < length, moved, position)
