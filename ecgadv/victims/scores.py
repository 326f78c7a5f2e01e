"""Classification scores of a victim: confusion matrix and the challenge's F1."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecgadv.records.base import CLASSES


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) counts; rows are true classes, columns predicted ones."""
    flat = np.bincount(truth * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def f1_scores(confusion: np.ndarray) -> np.ndarray:
    """F1 of each class, 2·n_ii / (row sum + column sum), as the challenge has it; 0 if empty."""
    total = confusion.sum(0) + confusion.sum(1)
    return 2.0 * np.diag(confusion) / np.maximum(total, 1)


def summary(confusion: np.ndarray, classes: Sequence[str] = CLASSES) -> dict[str, object]:
    """Scores as plain numbers: F1 of each class, N/A/O mean F1 where they exist, accuracy."""
    f1 = f1_scores(confusion)
    scored = [i for i, c in enumerate(classes) if c in ("N", "A", "O")]
    return {
        "f1": {c: round(float(f1[i]), 4) for i, c in enumerate(classes)},
        "f1_nao_mean": round(float(f1[scored].mean()), 4) if scored else None,
        "f1_mean": round(float(f1.mean()), 4),
        "accuracy": round(float(np.diag(confusion).sum() / max(confusion.sum(), 1)), 4),
        "n": int(confusion.sum()),
        "confusion": confusion.tolist(),
    }
