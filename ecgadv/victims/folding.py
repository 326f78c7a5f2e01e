"""Batch normalisations of a Keras network that is only asked, folded into the layers beside them.

At inference a batch normalisation is y = a·x + b per channel, so it can become part of the kernel
and bias of a convolution or dense layer before or after it. The answers stay the same but for
rounding; a gradient costs less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from ecgadv import backend

Arrays = list[np.ndarray]

AFTER = (
    "Conv1D", "Conv2D", "Conv3D", "Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose",
    "Dense", "SeparableConv1D", "SeparableConv2D", "DepthwiseConv1D", "DepthwiseConv2D",
)  # fmt: skip
"""Layers that take a normalisation of what they answer into their weights."""

BEFORE = tuple(name for name in AFTER if not name.endswith("Transpose"))
"""Layers that take a normalisation of what they read into their weights."""

PASSING = (
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout",
    "GaussianNoise", "AlphaDropout", "ActivityRegularization", "Identity",
)  # fmt: skip
"""Layers that do nothing at inference."""


def folded(model: Any) -> tuple[Any, int, int]:
    """The same network with as few batch normalisations as can be, and weights of its own.

    A normalisation is left where another layer takes its input too, where a layer is called more
    than once, and before a convolution that pads: there, the padding is not normalised.

    Args:
        model: a functional or sequential model of one input and one output, in float32.

    Returns:
        The network (``model`` itself where nothing can be folded), the number of normalisations
        folded, and the number that there were.

    Raises:
        Exception: whatever a layer raises that cannot be made again.
    """
    import keras

    from ecgadv.victims.rebuilding import rebuilt

    calls = _Calls(keras.Model(model.inputs[0], model.outputs[0]))
    there = [node for node in calls.nodes if _is(node, ("BatchNormalization",))]
    left = there
    while True:
        rest = [node for node in left if not calls.fold(node)]
        if len(rest) == len(left):
            break
        left = rest  # One that is gone may have stood between another and its layer.
    if len(left) == len(there):
        return model, 0, len(there)
    return rebuilt(model, "float32", changes=calls.changes()), len(there) - len(left), len(there)


def _is(node: Any, names: tuple[str, ...]) -> bool:
    """Whether a call is one of a layer of Keras itself, not of a class derived from it."""
    kind = type(node.operation)
    return kind.__name__ in names and kind.__module__.startswith("keras.")


class _Calls:
    """Calls of layers in a model and in the models inside it.

    Attributes:
        nodes: all of them, of each model from the input to the output.
    """

    def __init__(self, model: Any) -> None:
        self.nodes: list[Any] = []
        self._times: Counter[int] = Counter()
        self._makers: dict[int, Any] = {}
        self._takers: dict[int, list[Any]] = {}
        self._gone: dict[int, Any] = {}
        self._weights: dict[int, tuple[Any, Arrays]] = {}
        self._walk(model, set())

    def _walk(self, model: Any, seen: set[int]) -> None:
        import keras

        graph = model._functional if isinstance(model, keras.Sequential) else model
        seen.add(id(model))
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                self.nodes.append(node)
                self._times[id(node.operation)] += 1
                for tensor in node.outputs:
                    self._makers[id(tensor)] = node
                for tensor in node.input_tensors:
                    self._takers.setdefault(id(tensor), []).append(node)
                inner = node.operation
                is_graph = isinstance(inner, keras.Sequential) or hasattr(inner, "_nodes_by_depth")
                if is_graph and id(inner) not in seen:
                    self._walk(inner, seen)
        for tensor in graph.outputs:
            self._takers.setdefault(id(tensor), []).append(None)

    def _passes(self, node: Any) -> bool:
        """Whether a call hands on what it is given."""
        import keras

        layer = node.operation
        straight = _is(node, ("Activation",)) and layer.activation is keras.activations.linear
        return id(layer) in self._gone or straight or (_is(node, PASSING) and not _told(node))

    def _source(self, tensor: Any) -> Any:
        """The one call that makes a tensor which nothing else takes, else None."""
        while len(self._takers[id(tensor)]) == 1:
            node = self._makers.get(id(tensor))
            if node is None or self._times[id(node.operation)] != 1:
                return None
            if not self._passes(node):
                return node
            tensor = node.input_tensors[0]
        return None

    def _target(self, tensor: Any) -> Any:
        """The one call that takes a tensor, else None."""
        while len(self._takers[id(tensor)]) == 1:
            (node,) = self._takers[id(tensor)]
            if node is None or self._times[id(node.operation)] != 1:
                return None
            if not self._passes(node):
                return node
            (tensor,) = node.outputs
        return None

    def fold(self, node: Any) -> bool:
        """Fold one call of a batch normalisation; False where it cannot be."""
        layer = node.operation
        if self._times[id(layer)] != 1 or _told(node) or getattr(layer, "renorm", False):
            return False
        scale, shift = _affine(layer)
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            return False
        before, after = self._source(node.input_tensors[0]), self._target(node.outputs[0])
        if before is not None and _is(before, AFTER) and _answers_on(before, node):
            changed = _after(self._arrays(before.operation), before.operation, scale, shift)
            found = before.operation
        elif after is not None and _is(after, BEFORE) and _reads_on(after, node, shift):
            changed = _before(self._arrays(after.operation), after.operation, scale, shift)
            found = after.operation
        else:
            return False
        self._weights[id(found)] = (found, changed)
        self._gone[id(layer)] = layer
        return True

    def _arrays(self, layer: Any) -> Arrays:
        """Weights of a layer in float64, the last one its bias."""
        if id(layer) in self._weights:
            return self._weights[id(layer)][1]
        weights = [np.asarray(w, np.float64) for w in layer.get_weights()]
        if layer.use_bias:
            return weights
        return [*weights, np.zeros(_width(layer, weights))]

    def changes(self) -> dict[int, tuple[dict[str, Any] | None, Arrays]]:
        """For each layer that changes, its configuration's changes, None where it goes; weights."""
        out: dict[int, tuple[dict[str, Any] | None, Arrays]] = {}
        for key, (_, arrays) in self._weights.items():
            out[key] = ({"use_bias": True}, [a.astype(np.float32) for a in arrays])
        return out | {key: (None, []) for key in self._gone}


def _told(node: Any) -> bool:
    """Whether a call says more than what to work on, such as ``training=True``."""
    # A mask counts in training only.
    named = [value for key, value in node.arguments.kwargs.items() if key != "mask"]
    rest = [*node.arguments.args[1:], *named]
    return any(value is not None and value is not False for value in rest)


def _affine(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Scale a and shift b of y = a·x + b."""

    def own(name: str, usual: float) -> np.ndarray:
        value = getattr(layer, name)
        return np.array(usual) if value is None else _values(value)

    mean, variance = _values(layer.moving_mean), _values(layer.moving_variance)
    scale = own("gamma", 1.0) / np.sqrt(variance + layer.epsilon)
    return scale, own("beta", 0.0) - mean * scale


def _values(variable: Any) -> np.ndarray:
    return backend.to_numpy(variable).astype(np.float64)


def _channel_axis(layer: Any, rank: int) -> int:
    return 1 if getattr(layer, "data_format", "channels_last") == "channels_first" else rank - 1


def _same_axis(layer: Any, norm: Any) -> bool:
    rank = len(norm.input_tensors[0].shape)
    return bool(norm.operation.axis % rank == _channel_axis(layer, rank))


def _plain_weights(layer: Any) -> bool:
    """Whether a layer has kernels and perhaps a bias, and nothing a user or a tool put to them."""
    kernels = 2 if type(layer).__name__.startswith("Separable") else 1
    return len(layer.weights) == kernels + layer.use_bias


def _answers_on(node: Any, norm: Any) -> bool:
    """Whether a normalisation works on what a layer's weights made, channel by channel."""
    import keras

    layer = node.operation
    straight = layer.activation in (None, keras.activations.linear)
    return straight and _same_axis(layer, norm) and _plain_weights(layer)


def _reads_on(node: Any, norm: Any, shift: np.ndarray) -> bool:
    """Whether a layer reads a normalisation's answer, and nothing that is not normalised."""
    layer = node.operation
    padded = getattr(layer, "padding", "valid") != "valid" and set(layer.kernel_size) != {1}
    exact = not padded or not shift.any()
    return exact and _same_axis(layer, norm) and _plain_weights(layer)


def _width(layer: Any, kernels: Arrays) -> int:
    """Channels of a layer's answers."""
    kind, last = type(layer).__name__, kernels[-1]
    if kind.startswith("Depthwise"):
        return int(np.prod(last.shape[-2:]))
    return int(last.shape[-2 if kind.endswith("Transpose") else -1])


def _after(arrays: Arrays, layer: Any, scale: np.ndarray, shift: np.ndarray) -> Arrays:
    """Weights of a layer whose answers are normalised: a·(W x + c) + b."""
    *others, kernel, bias = arrays
    kind = type(layer).__name__
    shape: tuple[int, ...] = (-1,)
    if kind.startswith("Depthwise"):
        shape = kernel.shape[-2:]
    elif kind.endswith("Transpose"):
        shape = (-1, 1)
    return [*others, kernel * scale.reshape(shape), bias * scale + shift]


def _before(arrays: Arrays, layer: Any, scale: np.ndarray, shift: np.ndarray) -> Arrays:
    """Weights of a layer that reads normalised values: W (a·x + b) + c."""
    kernel, *others, bias = arrays
    each: Callable[[np.ndarray], np.ndarray]
    if type(layer).__name__.startswith(("Depthwise", "Separable")):

        def each(values: np.ndarray) -> np.ndarray:
            return values[:, None]

    else:
        # Of several groups, each filter reads the channels of its own.
        groups = getattr(layer, "groups", 1)
        group_of = np.repeat(np.arange(groups), kernel.shape[-1] // groups)

        def each(values: np.ndarray) -> np.ndarray:
            return values.reshape(groups, -1)[group_of].T

    moved = kernel * each(shift)
    if type(layer).__name__.startswith(("Depthwise", "Separable")):
        constant = moved.sum(axis=tuple(range(moved.ndim - 2))).reshape(-1)
        if others:
            constant = constant @ others[0].reshape(len(constant), -1)
    else:
        constant = moved.sum(axis=tuple(range(moved.ndim - 1)))
    return [kernel * each(scale), *others, bias + constant]
