"""Victims of Keras models in memory: a copy of its own, computing in float32, with logits out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import VictimError
from ecgadv.records.preprocessing import FS
from ecgadv.victims.preflight import probe_signals
from ecgadv.victims.rebuilding import OTHER_FLOATS, rebuilt
from ecgadv.victims.victim import Victim, digest_weights, shown


def from_keras(
    model: Any,
    name: str = "",
    card: dict[str, Any] | None = None,
    own: bool = False,
    **options: Any,
) -> Victim:
    """A victim of a Keras model in memory, as it is at this moment; a softmax head becomes logits.

    The victim is a copy in float32: the model itself is not changed, and what is done to it later
    does not reach the victim.

    Args:
        model: (B, n, leads) or, with ``channels="first"``, (B, leads, n) -> (B, classes).
        name: default the model's own.
        card: its model card.
        own: the model is nobody else's, so it need not be copied.
        **options: further attributes of :class:`Victim`; ``n`` and ``leads`` only where the model
            does not tell them (a ``preprocess`` changes its input, or its length is open).

    Raises:
        VictimError: the input is not one signal, or outputs are not one row of logits.
    """
    name = name or model.name
    hook = options.get("preprocess")
    _read_input(model, name, options)
    outputs = model.outputs
    # A sequential model has no structure of outputs to ask for.
    named = getattr(model, "_outputs_struct", None)
    if len(outputs) != 1 or isinstance(named, dict):
        kind = f"list of {len(outputs)}"
        if isinstance(named, dict):
            kind = f"dict with {', '.join(named)}"
        raise VictimError(
            f"victim {name}: its output is a {kind}, expected (B, classes); make a keras.Model of "
            "the output with the logits"
        )
    if len(outputs[0].shape) != 2:
        raise VictimError(f"victim {name}: {shown(outputs[0].shape)}, expected (B, classes)")
    inputs = [None, *model.inputs[0].shape[1:]]
    if hook is None and len(inputs) == 3:
        first = options.get("channels") == "first"
        inputs[1:] = ((options["leads"], options["n"]) if first else
                      (options["n"], options["leads"]))  # fmt: skip
    notes = []
    if options["open_length"]:
        seconds = options["n"] / options.get("fs", FS)
        notes.append(
            f"it takes any length: {options['n']} samples ({seconds:g} s); victim.n (in Python: "
            "n=) says otherwise"
        )
    kinds = arithmetic(model)
    others = [kind for kind in OTHER_FLOATS if kind in kinds]
    forward: Callable[[Any], Any]
    twin: Any = model
    if not own or others or tuple(inputs) != tuple(model.inputs[0].shape):
        twin = _copy(model, inputs, bool(others))
    if twin is None:
        forward, twin, weights = frozen(model), None, model.get_weights()
    else:
        if others:
            notes.append(f"it was made in {', '.join(others)}: taken in float32, weights kept")
        complete, twin = twin, _logits_model(twin)
        if twin is not complete:
            notes.append("its softmax head was taken off: an attack works on the logits before it")
        weights = twin.get_weights()
        network = twin

        def forward(x: Any) -> Any:
            return network(x, training=False)

    victim = Victim(
        forward,
        name=name,
        sha256=digest_weights([np.asarray(w) for w in weights]),
        card=card,
        model=twin,
        notes=notes,
        **options,
    )
    if twin is not None and twin is not complete and hook is None:
        _check_softmax(complete, victim)
    return victim


def _read_input(model: Any, name: str, options: dict[str, Any]) -> None:
    """Put length and leads of a model's input into the options of its victim."""
    first = options.get("channels") == "first"
    wanted = "(B, leads, n)" if first else "(B, n, leads)"
    keys = ("leads", "n") if first else ("n", "leads")
    several = len(model.inputs) != 1
    shape = model.input_shape if several else tuple(model.inputs[0].shape)
    if options.get("preprocess") is None:
        if several or len(shape) != 3:
            raise VictimError(f"victim {name}: input shape {shape}, expected {wanted}")
        found = dict(zip(keys, shape[1:], strict=True))
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
    elif not several and len(shape) == 3:
        # A function of the user's may change the shape; where nothing is said it does not.
        for key, value in zip(keys, shape[1:], strict=True):
            options[key] = options.get(key) or value
    options["open_length"] = not options.get("n")
    options["n"] = int(options.get("n") or 30 * options.get("fs", FS))
    options["leads"] = int(options.get("leads") or 1)


def from_subclassed(model: Any, name: str, **options: Any) -> Victim:
    """A victim of a Keras model that does not tell its shapes, with the weights of this moment."""
    if not model.built:
        bare = Victim(lambda x: model(x, training=False), name=name, **options)
        try:
            bare.forward(backend.tensor(np.zeros((1, bare.width), np.float32)))
        except Exception:
            # The checks call it in the same way, and say why it fails.
            return bare
    return Victim(frozen(model) if model.built else model, name=name, **options)


def frozen(model: Any) -> Callable[[Any], Any]:
    """A model with the values that its variables have now; calls change none of them."""
    import keras

    values = [backend.to_numpy(keras.ops.convert_to_tensor(v)) for v in model.variables]
    held = [
        (variable, backend.tensor(np.array(value), variable.dtype))
        for variable, value in zip(model.variables, values, strict=True)
    ]

    def forward(x: Any) -> Any:
        with keras.StatelessScope(state_mapping=held):
            return model(x, training=False)

    return forward


def arithmetic(model: Any) -> set[str]:
    """Names of the types that a model's layers compute in and keep their weights in."""
    kinds: set[str] = set()
    for layer in model._flatten_layers():
        kinds |= {str(layer.compute_dtype), str(layer.variable_dtype)}
    return kinds


def _copy(model: Any, inputs: list[int | None], recast: bool) -> Any:
    """The model in float32 for inputs of a known shape; None where it cannot be rebuilt alike."""
    try:
        twin = rebuilt(model, "float32", inputs=tuple(inputs))
        shape = [1 if size is None else size for size in inputs[1:]]
        x = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
        if any(size is None for size in inputs[1:]):
            return twin
        one, other = (
            np.asarray(backend.to_numpy(backend.compile(call)(backend.tensor(x))), np.float64)
            for call in (frozen(model), frozen(twin))
        )
    except Exception:  # a layer of the user's may raise anything when it is made again
        return None
    # Other arithmetic rounds otherwise; a layer that lost what it had learnt is far off.
    scale = max(float(np.abs(one).max()), 1e-3)
    alike = np.allclose(one, other, rtol=0, atol=(0.25 if recast else 1e-4) * scale)
    return twin if alike else None


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


def _logits_model(model: Any) -> Any:
    """Rebuild a model that ends in a softmax without it, same weights; any other stays itself.

    What counts is the operation that makes the output, not the layer that comes last in a list.
    """
    import keras

    output = model.outputs[0]
    history = output._keras_history
    last = history.operation
    (before, *others) = last._inbound_nodes[history.node_index].input_tensors or [None]
    if before is None or others:
        return model
    axis = getattr(last, "axis", -1)
    activation = getattr(last, "activation", None)
    bare = isinstance(last, keras.layers.Softmax) or (
        isinstance(last, keras.layers.Activation) and activation is keras.activations.softmax
    )
    if (bare or _is_softmax_operation(last)) and axis in (-1, 1):
        return keras.Model(model.inputs[0], before, name=model.name)
    if isinstance(last, keras.layers.Dense) and activation is keras.activations.softmax:
        config = last.get_config() | {"activation": "linear", "name": f"{last.name}_logits"}
        head = keras.layers.Dense.from_config(config)
        twin = keras.Model(model.inputs[0], head(before), name=model.name)
        head.set_weights(last.get_weights())
        return twin
    if isinstance(last, keras.Model) and len(getattr(last, "outputs", None) or []) == 1:
        inner = _logits_model(last)
        if inner is not last:
            return keras.Model(model.inputs[0], inner(before), name=model.name)
    return model


def _is_softmax_operation(operation: Any) -> bool:
    """Whether it is ``keras.ops.softmax`` standing in a model's graph."""
    kind = type(operation)
    return kind.__name__ == "Softmax" and kind.__module__.startswith("keras.")
