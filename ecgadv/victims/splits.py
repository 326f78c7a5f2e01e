"""Which records a victim may learn from: a stratified split by record."""

from __future__ import annotations

import numpy as np


def stratified_folds(labels: np.ndarray, folds: int = 5, seed: int = 0) -> np.ndarray:
    """Assign every record to one of ``folds`` parts with equal class shares.

    Args:
        labels: (R,) class letters.
        folds: number of parts.
        seed: of the shuffle within each class.

    Returns:
        (R,) int, the part of each record. Part ``k`` is the held-out fifth of fold ``k``.
    """
    rng = np.random.default_rng(seed)
    fold = np.zeros(len(labels), dtype=np.int64)
    for letter in sorted(set(labels.tolist())):
        members = np.flatnonzero(labels == letter)
        fold[rng.permutation(members)] = np.arange(len(members)) % folds
    return fold
