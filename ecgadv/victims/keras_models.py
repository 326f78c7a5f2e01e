"""Victims of Keras models in memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import VictimError
from ecgadv.records.preprocessing import FS
from ecgadv.victims.preflight import probe_signals
from ecgadv.victims.victim import Victim, digest_weights


def from_keras(
    model: Any, name: str = "", card: dict[str, Any] | None = None, **options: Any
) -> Victim:
    """A victim of a Keras model in memory; a softmax head becomes logits.

    Args:
        model: (B, n, leads) or, with ``channels="first"``, (B, leads, n) -> (B, classes).
        name: default the model's own.
        card: its model card.
        **options: further attributes of :class:`Victim`; ``n`` and ``leads`` only where the model
            does not tell them (a ``preprocess`` changes its input, or its length is open).

    Raises:
        VictimError: the input is not one signal, or outputs are not one row of logits.
    """
    name = name or model.name
    _refuse_probabilities(model, name)
    original, model = model, _logits_model(model)
    shape, output = model.input_shape, model.output_shape
    first = options.get("channels") == "first"
    wanted = "(B, leads, n)" if first else "(B, n, leads)"
    hook = options.get("preprocess")
    if hook is None:
        if isinstance(shape, list) or len(shape) != 3:
            raise VictimError(f"victim {name}: input shape {shape}, expected {wanted}")
        found = dict(zip(("leads", "n") if first else ("n", "leads"), shape[1:], strict=True))
        if (found["leads"] or 1) > (found["n"] or 10**9):
            raise VictimError(
                f"victim {name}: input shape {shape} has more leads than samples, expected "
                f"{wanted}; set victim.channels to {'last' if first else 'first'}"
            )
        for key, value in found.items():
            told = options.get(key)
            if value is not None and told is not None and told != value:
                raise VictimError(
                    f"victim.{key}={told}: the model reads input shape {shape}, {wanted}"
                )
            options[key] = value if value is not None else told
    elif isinstance(shape, tuple) and len(shape) == 3:
        # A function of the user's may change the shape; where nothing is said it does not.
        keys = ("leads", "n") if first else ("n", "leads")
        for key, value in zip(keys, shape[1:], strict=True):
            options[key] = options.get(key) or value
    if isinstance(output, list) or len(output) != 2:
        raise VictimError(f"victim {name}: output shape {output}, expected (B, classes)")
    options["n"] = int(options.get("n") or 30 * options.get("fs", FS))
    options["leads"] = int(options.get("leads") or 1)
    victim = Victim(
        lambda x: model(x, training=False),
        name=name,
        sha256=digest_weights([np.asarray(w) for w in model.get_weights()]),
        card=card,
        model=model,
        **options,
    )
    if model is not original and hook is None:
        _check_softmax(original, victim)
    return victim


def _check_softmax(original: Any, victim: Victim) -> None:
    """Raise where the softmax of the logits is not what the model itself answers."""
    x = probe_signals(victim.n, victim.fs, leads=victim.leads)
    rows = x if x.ndim == 3 else x[..., None]
    if victim.channels == "first":
        rows = rows.transpose(0, 2, 1)
    told = backend.to_numpy(original(rows, training=False)).astype(np.float64)
    logits = victim.logits(x).astype(np.float64)
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    worst = float(np.abs(shifted / shifted.sum(1, keepdims=True) - told).max())
    if not worst <= 1e-4:
        raise VictimError(
            f"victim {victim.name}: without its last softmax it answers otherwise (probabilities "
            f"{worst:.2g} apart)"
        )


def _refuse_probabilities(model: Any, name: str) -> None:
    """Raise where the head is a sigmoid: several classes at once have no logits to compare."""
    import keras

    last = getattr(model.layers[-1], "activation", None)
    if last is keras.activations.sigmoid:
        raise VictimError(
            f"victim {name}: its outputs are sigmoid probabilities, an attack needs the logits of "
            "classes that exclude each other; remove the last activation"
        )


def _logits_model(model: Any) -> Any:
    """Rebuild a model whose last layer is a softmax with a linear one, same weights."""
    import keras

    last = model.layers[-1]
    if isinstance(last, keras.layers.Softmax):
        return keras.Model(model.inputs, last.input, name=model.name)
    activation = getattr(last, "activation", None)
    if isinstance(last, keras.layers.Activation) and activation is keras.activations.softmax:
        return keras.Model(model.inputs, last.input, name=model.name)
    if isinstance(last, keras.layers.Dense) and activation is keras.activations.softmax:
        config = last.get_config() | {"activation": "linear", "name": f"{last.name}_logits"}
        head = keras.layers.Dense.from_config(config)
        twin = keras.Model(model.inputs, head(last.input), name=model.name)
        head.set_weights(last.get_weights())
        return twin
    return model
