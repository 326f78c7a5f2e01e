"""One formula for the tensors of an attack and the arrays of its judge."""

from __future__ import annotations

from typing import Any

import numpy as np


def ops_of(array: Any) -> Any:
    """NumPy for NumPy arrays, Keras ops for tensors: the same names."""
    if isinstance(array, np.ndarray):
        return np
    import keras

    return keras.ops
