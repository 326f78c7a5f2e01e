"""Keras models made anew with the same weights and other arithmetic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ecgadv import backend

OTHER_FLOATS = ("float16", "bfloat16", "float64")
"""Arithmetic of layers that is replaced by float32."""


def rebuilt(
    model: Any,
    policy: str,
    keep: Any = None,
    inputs: Any = None,
    changes: Mapping[int, tuple[dict[str, Any] | None, list[np.ndarray]]] | None = None,
) -> Any:
    """The same network with other arithmetic and weights of its own, layers and models in it too.

    Args:
        model: a functional or sequential model of one input and one output.
        policy: dtype policy of every layer.
        keep: a layer that keeps its own.
        inputs: shape of its input with the batch, where it should be another one.
        changes: by the id of a layer, what is another in its configuration, and its weights; None
            for a layer that only hands on what it is given.
    """
    import keras

    changes = changes or {}
    pairs: list[tuple[Any, Any]] = []

    def recast(layer: Any) -> Any:
        if isinstance(layer, keras.layers.Lambda):
            # Its configuration would be code as text.
            return keras.layers.Lambda(
                layer.function, output_shape=layer._output_shape, mask=layer.mask,
                arguments=layer.arguments, name=layer.name, dtype=policy,
            )  # fmt: skip
        if not isinstance(layer, keras.layers.Layer):
            return layer  # An operation has no weights.
        changed, _ = changes.get(id(layer), ({}, None))
        if changed is None:
            return _passing(layer.name, policy)
        config = layer.get_config() | changed
        if layer is not keep:
            config = {**_in_policy(config, policy), "dtype": policy}
        made = type(layer).from_config(config)
        pairs.append((layer, made))
        return made

    with backend.keras_defaults(layout=True):
        # Without a loss and an optimiser, which would be copied too.
        bare = keras.Model(model.inputs[0], model.outputs[0], name=model.name)
        start = keras.Input(
            batch_shape=inputs or model.inputs[0].shape, dtype="float32", name=model.inputs[0].name
        )
        twin = keras.models.clone_model(bare, start, clone_function=recast, recursive=True)
    for layer, made in pairs:
        _, weights = changes.get(id(layer), (None, layer.get_weights()))
        made.set_weights([_as_float(w) for w in weights])
    for layer in twin._flatten_layers():
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()
    return twin


def head_layer(model: Any) -> Any:
    """The layer or operation that makes a model's output, also inside models in it."""
    last = model.outputs[0]._keras_history.operation
    inside = getattr(last, "outputs", None)
    return head_layer(last) if inside else last


def _passing(name: str, policy: str) -> Any:
    """A layer that hands on its input, called as a normalisation is."""
    import keras

    class Passing(keras.layers.Layer):
        supports_masking = True

        def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
            return inputs

    return Passing(name=name, dtype=policy)


def _as_float(array: Any) -> np.ndarray:
    values = np.asarray(array)
    return values if values.dtype.kind in "iub" else values.astype(np.float32)


def _in_policy(config: Any, policy: str) -> Any:
    """A layer's configuration with another dtype policy, also for layers inside it."""
    if isinstance(config, list | tuple):
        return type(config)(_in_policy(part, policy) for part in config)
    if not isinstance(config, dict):
        return config
    out = {}
    for key, value in config.items():
        float_name = isinstance(value, str) and value.removeprefix("mixed_") in (
            *OTHER_FLOATS, "float32",
        )  # fmt: skip
        is_policy = isinstance(value, dict) and value.get("class_name") == "DTypePolicy"
        changed = key == "dtype" and (float_name or is_policy)
        out[key] = policy if changed else _in_policy(value, policy)
    return out
