"""The networks this project trains: logits out, standardised (n, 1) signals in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecgadv import backend
from ecgadv.errors import VictimError

if TYPE_CHECKING:
    import keras

COMPACT_FILTERS = (32, 48, 64, 80, 96, 112, 128)
"""Filters of the compact network's seven residual blocks; each halves the length."""

RESNET34_FILTERS = (64,) * 5 + (128,) * 4 + (192,) * 4 + (256,) * 3
"""Filters of the 16 residual blocks of Andreotti et al. 2017."""


def compact(n: int = 9000, classes: int = 4, dropout: float = 0.3) -> keras.Model:
    """A small residual network for CPUs: strided stem, seven blocks, average and max pooling.

    Args:
        n: samples of an input.
        classes: outputs.
        dropout: rate before the last layer; half of it inside the blocks.

    Returns:
        Model (B, n, 1) -> (B, classes) logits, about 0.86 M parameters.
    """
    import keras
    from keras import layers

    def conv(x: Any, filters: int, kernel: int, strides: int = 1) -> Any:
        return layers.Conv1D(
            filters, kernel, strides=strides, padding="same", use_bias=False,
            kernel_initializer="he_normal",
        )(x)  # fmt: skip

    inputs = keras.Input((n, 1), name="ecg")
    x = conv(inputs, COMPACT_FILTERS[0], 16, strides=3)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    for filters in COMPACT_FILTERS:
        shortcut = layers.AveragePooling1D(2, padding="same")(x)
        if shortcut.shape[-1] != filters:
            shortcut = conv(shortcut, filters, 1)
        y = conv(x, filters, 9, strides=2)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Dropout(dropout / 2)(y)
        y = layers.BatchNormalization()(conv(y, filters, 9))
        x = layers.ReLU()(layers.Add()([shortcut, y]))
    pooled = layers.Concatenate()(
        [layers.GlobalAveragePooling1D()(x), layers.GlobalMaxPooling1D()(x)]
    )
    pooled = layers.Dropout(dropout)(pooled)
    outputs = layers.Dense(classes, dtype="float32", name="logits")(pooled)
    return keras.Model(inputs, outputs, name="compact")


def resnet34(n: int = 9000, classes: int = 4, dropout: float = 0.5) -> keras.Model:
    """The 34-layer network of Andreotti et al. 2017 (CinC 44, doi:10.22489/CinC.2017.360-239).

    A convolution of kernel 16 and 64 filters, then 16 residual blocks (5, 4, 4 and 3 with 64, 128,
    192 and 256 filters), two convolutions of kernel 16 each, batch normalisation and ReLU before
    each (the first block's opening pair stands in the stem), a 1x1 convolution on the shortcut
    where the width changes, max pooling by 2 on both branches in blocks 1, 3, … 15, then batch
    normalisation, ReLU, flatten, dense.

    Returns:
        Model (B, n, 1) -> (B, classes) logits; 13,316,100 parameters at the default sizes.
    """
    import keras
    from keras import layers

    def conv(x: Any, filters: int, kernel: int = 16) -> Any:
        return layers.Conv1D(filters, kernel, padding="same", kernel_initializer="he_normal")(x)

    def activate(x: Any) -> Any:
        return layers.ReLU()(layers.BatchNormalization()(x))

    inputs = keras.Input((n, 1), name="ecg")
    x = activate(conv(inputs, RESNET34_FILTERS[0]))
    for number, filters in enumerate(RESNET34_FILTERS, 1):
        shortcut = x if x.shape[-1] == filters else conv(x, filters, 1)
        y = x if number == 1 else activate(x)
        y = activate(conv(y, filters))
        y = conv(layers.Dropout(dropout)(y), filters)
        if number % 2:
            y = layers.MaxPooling1D(2)(y)
            shortcut = layers.MaxPooling1D(2)(shortcut)
        x = layers.Add()([y, shortcut])
    x = layers.Flatten()(activate(x))
    outputs = layers.Dense(classes, dtype="float32", name="logits")(x)
    return keras.Model(inputs, outputs, name="resnet34")


ARCHITECTURES = {"compact": compact, "resnet34": resnet34}


def build(name: str, n: int = 9000, classes: int = 4, policy: str = "float32") -> keras.Model:
    """A fresh network by name, whatever Keras' defaults are.

    Raises:
        VictimError: there is none of that name.
    """
    if name not in ARCHITECTURES:
        raise VictimError(f"unknown architecture {name!r}; there are {', '.join(ARCHITECTURES)}")
    with backend.keras_defaults(policy, layout=True):
        return ARCHITECTURES[name](n=n, classes=classes)
