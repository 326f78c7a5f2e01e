"""The released network as Keras 2.0 would have saved it, written and computed without Keras.

Layer by layer as in the public training code of Andreotti et al. 2017: names counted from 1 for
each kind, ``he_normal`` initialisers, a softmax head, ``categorical_crossentropy``, Adam's state in
``optimizer_weights``. Widths are free, so that a test takes no 13 million parameters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

VERSION = b"2.0.2"


def _initialiser(name: str) -> dict[str, Any]:
    if name == "he_normal":
        scaling = {"scale": 2.0, "mode": "fan_in", "distribution": "normal", "seed": None}
        return {"class_name": "VarianceScaling", "config": scaling}
    return {"class_name": name, "config": {}}


class Released:
    """The graph as it grows: configurations, arrays, and the values of one batch.

    Args:
        x: (B, n, 1) batch that is carried through.
        width: filters of the first blocks; the later ones have 2, 3 and 4 times as many.
        classes: outputs.
        seed: of the weights.
    """

    def __init__(self, x: np.ndarray, width: int = 2, classes: int = 4, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.layers: list[dict[str, Any]] = []
        self.arrays: dict[str, dict[str, np.ndarray]] = {}
        self.counts: dict[str, int] = {}
        shape = [None, *x.shape[1:]]
        config = {"batch_input_shape": shape, "dtype": "float32", "sparse": False, "name": "input"}
        self.layers.append(
            {"class_name": "InputLayer", "config": config, "name": "input", "inbound_nodes": []}
        )
        self.probabilities = self._build(("input", x.astype(np.float64)), width, classes)
        self._sort()

    def _sort(self) -> None:
        """Into the order of ``model.layers``: by depth, then as met going back from the end."""
        sources = {
            layer["name"]: [s[0] for node in layer["inbound_nodes"] for s in node]
            for layer in self.layers
        }
        met: list[str] = []
        stack = [self.layers[-1]["name"]]
        while stack:
            name = stack.pop()
            if name not in met:
                met.append(name)
                stack += reversed(sources[name])
        depth = dict.fromkeys(sources, 0)
        for layer in reversed(self.layers):
            for source in sources[layer["name"]]:
                depth[source] = max(depth[source], depth[layer["name"]] + 1)
        self.layers.sort(key=lambda one: (-depth[one["name"]], met.index(one["name"])))

    def _add(self, kind: str, prefix: str, config: dict[str, Any], *sources: Any) -> str:
        self.counts[prefix] = self.counts.get(prefix, 0) + 1
        name = f"{prefix}_{self.counts[prefix]}"
        self.layers.append(
            {
                "class_name": kind,
                "config": {"name": name, "trainable": True, **config},
                "name": name,
                "inbound_nodes": [[[source, 0, 0, {}] for source, _ in sources]],
            }
        )
        return name

    def conv(self, node: Any, filters: int, kernel: int = 16) -> Any:
        config: dict[str, Any] = {
            "filters": filters, "kernel_size": [kernel], "strides": [1], "padding": "same",
            "dilation_rate": [1], "activation": "linear", "use_bias": True,
            "kernel_initializer": _initialiser("he_normal"),
            "bias_initializer": _initialiser("Zeros"),
        }  # fmt: skip
        config |= dict.fromkeys(("kernel_regularizer", "bias_regularizer", "activity_regularizer"))
        config |= dict.fromkeys(("kernel_constraint", "bias_constraint"))
        name = self._add("Conv1D", "conv1d", config, node)
        x = node[1]
        scale = np.sqrt(2 / (kernel * x.shape[-1]))
        weights = (scale * self.rng.normal(size=(kernel, x.shape[-1], filters))).astype(np.float32)
        bias = (0.1 * self.rng.normal(size=filters)).astype(np.float32)
        self.arrays[name] = {"kernel:0": weights, "bias:0": bias}
        left = (kernel - 1) // 2
        padded = np.pad(x, ((0, 0), (left, kernel - 1 - left), (0, 0)))
        views = np.stack([padded[:, k : k + x.shape[1]] for k in range(kernel)])
        return name, np.einsum("kbnc,kcf->bnf", views, weights.astype(np.float64)) + bias

    def normalise(self, node: Any) -> Any:
        config: dict[str, Any] = {
            "axis": -1, "momentum": 0.99, "epsilon": 0.001, "center": True, "scale": True,
            "beta_initializer": _initialiser("Zeros"), "gamma_initializer": _initialiser("Ones"),
            "moving_mean_initializer": _initialiser("Zeros"),
            "moving_variance_initializer": _initialiser("Ones"),
        }  # fmt: skip
        config |= dict.fromkeys(
            ("beta_regularizer", "gamma_regularizer", "beta_constraint", "gamma_constraint")
        )
        name = self._add("BatchNormalization", "batch_normalization", config, node)
        x = node[1]
        size = x.shape[-1]
        gamma, variance = self.rng.uniform(0.5, 1.5, (2, size)).astype(np.float32)
        beta, mean = (0.3 * self.rng.normal(size=(2, size))).astype(np.float32)
        mean, variance = x.mean((0, 1)) + mean, x.var((0, 1)) * variance + 0.05
        arrays = {"gamma:0": gamma, "beta:0": beta, "moving_mean:0": mean}
        arrays["moving_variance:0"] = variance
        self.arrays[name] = {k: np.asarray(v, np.float32) for k, v in arrays.items()}
        g, b, m, v = (a.astype(np.float64) for a in self.arrays[name].values())
        return name, g * (x - m) / np.sqrt(v + 0.001) + b

    def relu(self, node: Any) -> Any:
        name = self._add("Activation", "activation", {"activation": "relu"}, node)
        return name, np.maximum(node[1], 0)

    def drop(self, node: Any) -> Any:
        return self._add("Dropout", "dropout", {"rate": 0.5}, node), node[1]

    def pool(self, node: Any) -> Any:
        config = {"strides": [2], "pool_size": [2], "padding": "valid"}
        name = self._add("MaxPooling1D", "max_pooling1d", config, node)
        x = node[1][:, : node[1].shape[1] // 2 * 2]
        return name, x.reshape(len(x), -1, 2, x.shape[-1]).max(2)

    def plus(self, one: Any, other: Any) -> Any:
        return self._add("Add", "add", {}, one, other), one[1] + other[1]

    def _build(self, node: Any, width: int, classes: int) -> np.ndarray:
        x = self.relu(self.normalise(self.conv(node, width)))
        y = self.drop(self.relu(self.normalise(self.conv(x, width))))
        y = self.pool(self.conv(y, width))
        x = self.plus(y, self.pool(x))
        times, pooled = 1, False
        for block in range(15):
            if block % 4 == 0 and block > 0:
                times += 1
                short = self.conv(x, width * times, 1)
            else:
                short = x
            y = self.conv(self.relu(self.normalise(x)), width * times)
            y = self.conv(self.drop(self.relu(self.normalise(y))), width * times)
            if pooled:
                y, short = self.pool(y), self.pool(short)
            x = self.plus(y, short)
            pooled = not pooled
        x = self.relu(self.normalise(x))
        name = self._add("Flatten", "flatten", {}, x)
        flat = x[1].reshape(len(x[1]), -1)
        config: dict[str, Any] = {
            "units": classes, "activation": "softmax", "use_bias": True,
            "kernel_initializer": _initialiser("he_normal"),
            "bias_initializer": _initialiser("Zeros"),
        }  # fmt: skip
        config |= dict.fromkeys(("kernel_regularizer", "bias_regularizer", "activity_regularizer"))
        config |= dict.fromkeys(("kernel_constraint", "bias_constraint"))
        last = self._add("Dense", "dense", config, (name, flat))
        weights = self.rng.normal(size=(flat.shape[1], classes)) / np.sqrt(flat.shape[1])
        bias = 0.1 * self.rng.normal(size=classes)
        self.arrays[last] = {
            "kernel:0": weights.astype(np.float32), "bias:0": bias.astype(np.float32)
        }  # fmt: skip
        z = flat @ self.arrays[last]["kernel:0"].astype(np.float64) + self.arrays[last]["bias:0"]
        self.logits = z
        shifted = np.exp(z - z.max(1, keepdims=True))
        return np.asarray(shifted / shifted.sum(1, keepdims=True))

    def write(self, path: Path, architecture: bool = True) -> Path:
        """Save as ``model.save`` of Keras 2.0 did, or only what ``save_weights`` did."""
        with h5py.File(path, "w") as file:
            root = file
            if architecture:
                config = {
                    "name": "model_1", "layers": self.layers,
                    "input_layers": [["input", 0, 0]],
                    "output_layers": [[self.layers[-1]["name"], 0, 0]],
                }  # fmt: skip
                model = {"class_name": "Model", "config": config}
                adam = {"lr": 0.001, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-8, "decay": 0.0}
                training = {
                    "optimizer_config": {"class_name": "Adam", "config": adam},
                    "loss": "categorical_crossentropy", "metrics": ["accuracy"],
                    "sample_weight_mode": None, "loss_weights": None,
                }  # fmt: skip
                file.attrs["model_config"] = json.dumps(model).encode()
                file.attrs["training_config"] = json.dumps(training).encode()
                file.attrs["keras_version"], file.attrs["backend"] = VERSION, b"tensorflow"
                state = file.create_group("optimizer_weights")
                state.create_dataset("iterations:0", data=np.float32(100))
                root = file.create_group("model_weights")
            root.attrs["layer_names"] = np.array([layer["name"].encode() for layer in self.layers])
            root.attrs["keras_version"], root.attrs["backend"] = VERSION, b"tensorflow"
            for layer in self.layers:
                group = root.create_group(layer["name"])
                arrays = self.arrays.get(layer["name"], {})
                names = [f"{layer['name']}/{name}".encode() for name in arrays]
                group.attrs["weight_names"] = np.array(names) if names else np.zeros(0, "S1")
                for name, array in zip(names, arrays.values(), strict=True):
                    group.create_dataset(name.decode(), data=array)
        return path
