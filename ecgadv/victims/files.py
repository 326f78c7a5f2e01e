"""Model files: what is read from them, what never is, and whether all of it arrived."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import VictimError
from ecgadv.making import look_here

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
TORCH_SUFFIXES = (".pt", ".pth", ".ts", ".torchscript", ".pt2", ".ep")

REFUSED = {
    ".onnx": "an ONNX file has no gradients of its own and no converter to a differentiable "
    "network is maintained well enough to be relied on; export from its framework instead, or "
    "convert it and give the result as module:function",
    ".pb": "a SavedModel is a program that may read and write files, so it is not run from a "
    "path; save the model as .keras, or load it yourself and give it as module:function",
    ".pkl": "a pickle can run any code; save the model as .keras, TorchScript or torch.export",
    ".joblib": "a pickle can run any code; save the model as .keras, TorchScript or torch.export",
    ".ckpt": "a checkpoint is a pickle, which can run any code; export the model with torch.export",
}
"""Files that are not opened, and why."""


def refusal(path: Path) -> str:
    """Why a file or folder is not read, "" where nothing speaks against it so far."""
    if path.is_dir():
        if (path / "saved_model.pb").is_file():
            return REFUSED[".pb"]
        return "is a folder, not a model file"
    return REFUSED.get(path.suffix.lower(), "")


def one_line(error: BaseException) -> str:
    """The line of another library's error that says what is wrong."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip() or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if "TorchScript interpreter" in lines[0]:
        # A traceback of the program follows, the reason comes last.
        found = lines[-1].removeprefix("RuntimeError: ")
    elif lines[0].startswith("Exception encountered when calling") and len(lines) > 1:
        found = lines[1]
    else:
        found = lines[0]
    return found[:200]


def load_keras(path: Path, where: str) -> Any:
    """The Keras model of a ``.keras``, ``.h5`` or ``.hdf5`` file, no code of which is run.

    Of an HDF5 file every stored array must have arrived in the model, and the model must have no
    other weights.

    Raises:
        VictimError: damaged, unsafe, weights without an architecture, or weights left over.
    """
    import keras

    if path.suffix.lower() != ".keras":
        _refuse_bare_weights(path, where)
    try:
        # What an old file does not say is as Keras had it, not as keras.json has it here.
        with backend.keras_defaults(layout=True):
            model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds on files that are no models
        text = str(error)
        if "Lambda" in text or "safe_mode" in text or "unsafe" in text:
            raise VictimError(
                f"{where} cannot be loaded as a Keras model: it holds Python code (a Lambda layer "
                "or the like), which is not run from a file; rebuild it from layers, or give it "
                "as module:function"
            ) from None
        raise VictimError(f"{where} cannot be loaded as a Keras model: {one_line(error)}") from None
    if path.suffix.lower() != ".keras":
        check_arrived(model, path, where)
    return model


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(8) == b"\x89HDF\r\n\x1a\n"


def _refuse_bare_weights(path: Path, where: str) -> None:
    if _is_hdf5(path) and not has_architecture(path):
        raise VictimError(
            f"{where} holds weights without an architecture: victim=resnet34 victim.path=FILE "
            "builds that network for them; for another one save the whole model"
        )


def has_architecture(path: Path) -> bool:
    """Whether an HDF5 file holds a model, and not only its weights."""
    import h5py

    with h5py.File(path, "r") as file:
        return "model_config" in file.attrs


def _text(value: Any) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def read_layers(path: Path) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """Layers with weights of an HDF5 file of Keras 1 or 2, in its own order.

    Returns:
        Layer name -> (weight name, array) pairs.

    Raises:
        VictimError: not of that layout.
    """
    import h5py

    try:
        with h5py.File(path, "r") as file:
            root = file.get("model_weights", file)
            found = []
            for layer in (_text(name) for name in _names(root, "layer_names")):
                group = root[layer]
                arrays = [(w, np.asarray(group[w])) for w in _names(group, "weight_names")]
                if arrays:
                    found.append((layer, arrays))
            return found
    except (OSError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise VictimError(f"{path}: not in the layout of Keras 2 ({one_line(error)})") from None


def _names(group: Any, attribute: str) -> list[str]:
    """A list of names; Keras cuts one over 64 kB into ``attribute0``, ``attribute1``, …"""
    if attribute in group.attrs:
        return [_text(name) for name in group.attrs[attribute]]
    numbers = [k.removeprefix(attribute) for k in group.attrs if k.startswith(attribute)]
    if not numbers:
        raise KeyError(attribute)
    chunks = sorted(int(number) for number in numbers)
    return [_text(name) for chunk in chunks for name in group.attrs[f"{attribute}{chunk}"]]


def check_arrived(model: Any, path: Path, where: str) -> None:
    """Make sure that every stored array is where its name says, and that no weight lacks one.

    Keras matches the layers of an HDF5 file by their order, which is not the same in all versions:
    layers of equal shapes may change places without a word. Those are put right by name.

    Raises:
        VictimError: a stored layer is not in the model, or a weight of the model not in the file.
    """
    own = {layer.name: layer for layer in model.layers if layer.get_weights()}
    stored = dict(read_layers(path))
    apart = sorted(set(stored) ^ set(own))
    if apart:
        raise VictimError(
            f"{where}: layer {apart[0]} is not in both, the stored weights and the architecture; "
            "it would be skipped silently"
        )
    for name, layer in own.items():
        arrays = [array for _, array in stored[name]]
        held = layer.get_weights()
        if _equal(arrays, held):
            continue
        # A model inside a model keeps its weights in another order.
        if hasattr(layer, "layers") and _equal(_sorted(arrays), _sorted(held)):
            continue
        if [a.shape for a in arrays] != [a.shape for a in held] or hasattr(layer, "layers"):
            raise VictimError(f"{where}: the stored weights of layer {name} did not arrive in it")
        layer.set_weights(arrays)


def _equal(some: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> bool:
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(np.array_equal(a, b) for a, b in pairs)


def _sorted(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
    return sorted(arrays, key=lambda a: (a.shape, a.tobytes()))


def fill_by_order(model: Any, path: Path, where: str) -> None:
    """Put the weights of an HDF5 file into a network of the same architecture, layer by layer.

    Layers are matched kind by kind (convolutions by kernel size, batch normalisations, dense
    layers) in the order of the file: names differ between versions, the order along a chain does
    not. Nothing is skipped: counts and shapes must agree throughout.

    Raises:
        VictimError: they do not; the message names the first layer.
    """

    def kind(shapes: Sequence[tuple[int, ...]]) -> str:
        first = shapes[0]
        if len(first) == 3:
            return f"convolution of kernel {first[0]}"
        return {1: "batch normalisation", 2: "dense layer"}.get(len(first), f"{len(first)}-d layer")

    stored: dict[str, list[tuple[str, list[np.ndarray]]]] = {}
    for name, pairs in read_layers(path):
        arrays = [array for _, array in pairs]
        stored.setdefault(kind([a.shape for a in arrays]), []).append((name, arrays))
    own: dict[str, list[Any]] = {}
    for layer in model.layers:
        shapes = [tuple(w.shape) for w in layer.get_weights()]
        if shapes:
            own.setdefault(kind(shapes), []).append(layer)
    for what in sorted(set(stored) | set(own)):
        have, need = len(stored.get(what, [])), len(own.get(what, []))
        if have != need:
            raise VictimError(f"{where} holds {have} x {what}, the architecture has {need}")
        for (name, arrays), layer in zip(stored[what], own[what], strict=True):
            expected = [tuple(w.shape) for w in layer.get_weights()]
            if [a.shape for a in arrays] != expected:
                raise VictimError(
                    f"{where}: layer {name} has weights of shapes {[a.shape for a in arrays]}, "
                    f"the architecture wants {expected} there"
                )
            layer.set_weights(arrays)


def importable(name: str) -> bool:
    """Whether the top module of ``module:function`` is there; nothing is imported."""
    look_here()
    return find_spec(name.partition(":")[0].partition(".")[0]) is not None


def load_function(name: str, option: str) -> Any:
    """What ``module:function`` names; a user's own code, named by the user.

    Raises:
        VictimError: it cannot be imported, or is not there.
    """
    from importlib import import_module

    look_here()
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = import_module(module_name)
    except Exception as error:  # a user's module may raise anything
        raise VictimError(
            f"{option}={name}: cannot import {module_name} ({one_line(error)})"
        ) from (error)
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise VictimError(f"{option}={name}: {module_name} has no {attribute}")
        found = getattr(found, part)
    return found


def code_digest(function: Any) -> str:
    """sha256 of the source file of a function or class, "" where there is none."""
    import inspect

    function = getattr(function, "func", function)  # a partial's own
    kind = function if inspect.isroutine(function) or inspect.isclass(function) else type(function)
    try:
        file = inspect.getsourcefile(kind)
        return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""
    except (OSError, TypeError):
        return ""


def combined_digest(*parts: Any) -> str:
    """sha256 over the text of several things."""
    return hashlib.sha256(json.dumps([str(p) for p in parts]).encode()).hexdigest()
