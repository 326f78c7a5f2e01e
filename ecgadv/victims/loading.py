"""Victims: any classifier behind one face, checked before it is attacked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import BackendError, VictimError
from ecgadv.options import Name, Source
from ecgadv.records.files import pointer
from ecgadv.records.preprocessing import N_SAMPLES
from ecgadv.victims import files
from ecgadv.victims.declared import (
    Channels,
    Classes,
    Leads,
    Rate,
    Reading,
    Samples,
    Standardise,
    declared,
    is_function,
    is_included,
)
from ecgadv.victims.keras_models import from_keras, from_subclassed
from ecgadv.victims.preflight import preflight, probe_signals
from ecgadv.victims.victim import Victim, digest_weights

__all__ = [
    "NAMES", "WEIGHTS", "Victim", "digest_weights", "from_keras", "load_victim", "preflight",
    "probe_signals", "save_weights",
]  # fmt: skip

WEIGHTS = Path(__file__).parent / "weights"
"""Where the weights that ship with the package lie."""

NAMES = ("compact", "resnet34", "keras", "torch")
"""Words that stand for a kind of victim where a file could."""


def _load_shipped(name: str, folder: Path) -> Victim:
    from ecgadv.victims.architectures import build

    weights, card_file = folder / f"{name}.npz", folder / f"{name}.json"
    if not weights.is_file() or not card_file.is_file():
        raise VictimError(
            f"victim={name}: no trained weights in this installation; train it with "
            f"task=train victim={name}, then use victim=keras victim.path=FILE.keras"
        )
    card = json.loads(card_file.read_text(encoding="utf-8"))
    model = build(name)
    with np.load(weights, allow_pickle=False) as stored:
        arrays = [stored[f"w{i:03d}"].astype(np.float32) for i in range(len(stored.files))]
    if len(arrays) != len(model.get_weights()):
        raise VictimError(f"victim={name}: {weights.name} does not fit the architecture")
    model.set_weights(arrays)
    model.trainable = False
    return from_keras(model, name=name, card=card, own=True)


def save_weights(model: Any, card: dict[str, Any], name: str, folder: Path) -> None:
    """Write the package's form of a trained network: float16 arrays and the card."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {f"w{i:03d}": np.asarray(w, np.float16) for i, w in enumerate(model.get_weights())}
    np.savez_compressed(folder / f"{name}.npz", allow_pickle=False, **arrays)
    (folder / f"{name}.json").write_text(json.dumps(card, indent=1), encoding="utf-8")


def _readable(path: Path) -> str:
    """The option that names a file, for messages; raises VictimError if it may not be read."""
    where = f"victim.path={path}"
    if not path.exists():
        raise VictimError(f"{where} does not exist")
    absent = pointer(path)
    if absent:
        raise VictimError(f"{where} {absent}")
    why = files.refusal(path)
    if why:
        raise VictimError(f"{where}: {why}")
    return where


def _load_keras_file(path: Path, reading: Reading) -> Victim:
    where = _readable(path)
    if path.suffix.lower() not in files.KERAS_SUFFIXES:
        raise VictimError(f"{where}: expected a .keras, .h5 or .hdf5 file")
    model = files.load_keras(path, where)
    options = _options(reading)
    victim = from_keras(model, name=path.stem, card=reading.card, own=True, **options)
    return _identified(victim, reading, hashlib.sha256(path.read_bytes()).hexdigest())


def _load_weights(name: str, path: Path, reading: Reading) -> Victim:
    """A network of this project with weights from an HDF5 file that has no architecture in it."""
    from ecgadv.victims.architectures import build

    model = build(name, reading.n or N_SAMPLES, len(reading.classes))
    files.fill_by_order(model, path, _readable(path))
    options = _options(reading)
    victim = from_keras(model, name=path.stem, card=reading.card, own=True, **options)
    return _identified(victim, reading, hashlib.sha256(path.read_bytes()).hexdigest())


def _load_torch_file(path: Path, reading: Reading) -> Victim:
    where = _readable(path)
    _need_torch(where)
    from ecgadv.victims.torch_files import load_torch

    victim = _from_torch(load_torch(path, where), reading, path.stem, own=True)
    return _identified(victim, reading, hashlib.sha256(path.read_bytes()).hexdigest())


def _options(reading: Reading) -> dict[str, Any]:
    """Arguments of :class:`Victim` from what is declared."""
    hook = reading.preprocess
    if isinstance(hook, str):
        hook = files.load_function(hook, "victim.preprocess")
    if hook is not None and not callable(hook):
        raise VictimError(f"victim.preprocess={reading.preprocess}: must be a function of a tensor")
    return {
        "classes": reading.classes, "fs": reading.fs, "n": reading.n, "leads": reading.leads,
        "channels": reading.channels, "over": reading.standardise, "preprocess": hook,
    }  # fmt: skip


def _shaped(reading: Reading) -> dict[str, Any]:
    """The same for what cannot tell its own shapes."""
    told = reading.n is not None
    usual = f"{reading.seconds_30} samples (30 s at {reading.fs} Hz)"
    note = f"nothing says how long its input is: {usual}; victim.n (in Python: n=) says otherwise"
    return _options(reading) | {
        "n": reading.n or reading.seconds_30, "leads": reading.leads or 1,
        "open_length": not told, "notes": () if told else (note,),
    }  # fmt: skip


def _identified(victim: Victim, reading: Reading, digest: str) -> Victim:
    """Give a victim the digest of all that decides its answers: file, and what stands around it.

    Predictions are kept under it, so it is "" where code has no source to read.
    """
    usual = Reading()
    changed = [
        (key, getattr(reading, key))
        for key in ("classes", "channels", "standardise", "n", "leads")
        if getattr(reading, key) != getattr(usual, key)
    ]
    if victim.preprocess is not None:
        source = files.code_digest(victim.preprocess)
        if not source:
            victim.sha256 = ""
            return victim
        name = getattr(victim.preprocess, "__qualname__", "")
        changed.append(("preprocess", f"{name} {source}"))
    victim.sha256 = files.combined_digest(digest, changed) if changed else digest
    return victim


def _need_torch(what: str) -> None:
    try:
        backend.configure("torch")
    except BackendError as error:
        why = "" if "already runs" in str(error) else f" ({error})"
        raise VictimError(
            f"{what} needs backend=torch (in Python: KERAS_BACKEND=torch before it starts){why}"
        ) from None


def _from_torch(module: Any, reading: Reading, name: str = "", own: bool = False) -> Victim:
    _need_torch("a torch.nn.Module")
    from ecgadv.victims.torch_files import copied, weights

    name = name or getattr(module, "original_name", type(module).__name__)
    twin, notes = copied(module, name, own)
    options = _shaped(reading)
    options["notes"] += notes
    return Victim(
        twin, name=name, sha256=digest_weights(weights(twin)), card=reading.card, **options
    )  # fmt: skip


def load_victim(
    victim: Any = "compact",
    path: Source | None = None,
    check: bool = True,
    n: Samples | None = None,
    *,
    classes: Classes | None = None,
    fs: Rate | None = None,
    leads: Leads | None = None,
    channels: Channels | None = None,
    standardise: Standardise | None = None,
    preprocess: Name | Callable[[Any], Any] | None = None,
) -> Victim:
    """A victim from a name, a file, a model in memory or a callable, checked and as it is now.

    A model or module in memory is copied: it is left as it was, and training it on does not change
    the victim. A callable cannot be copied: on some backends it follows what it calls, so keep that
    unchanged for as long as the victim is used.

    Verdicts are made in float32: a network made in other arithmetic is taken in float32 with the
    same weights, or refused. Classes are taken to exclude each other. What else there is to know of
    a victim stands in its ``notes``.

    What is None is taken from the model, from the card beside its file, or else is as usual: A, N,
    O, ~, 300 Hz, 30 s, one lead, channels last.

    Args:
        victim: ``compact`` or ``resnet34``, a path of a Keras file, ``module:function``, a
            ``keras.Model``, a ``torch.nn.Module``, or a callable (B, n, leads) tensor ->
            (B, classes) logits that is differentiable on the running backend.
        path: file of a ``keras`` or ``torch`` victim, or ``module:function`` for anything that may
            stand for ``victim`` (called without arguments where it is no model).
        check: run :func:`preflight`.
        n: samples of an input.
        classes: class names in output order.
        fs: sampling rate of an input, Hz.
        leads: leads of an input.
        channels: ``last``, (B, n, leads), or ``first``, (B, leads, n).
        standardise: ``lead``: each lead to mean 0 and standard deviation 1; ``record``: all leads
            together; ``none``: not at all, inputs and perturbations are in mV.
        preprocess: differentiable map of standardised tensors (B, n, leads) to what the network
            takes (then transposed for ``channels="first"``); a function, or ``module:function``.

    Raises:
        VictimError: it cannot be loaded, or fails a check.
        BackendError: Keras does not start.
    """
    file = path
    if file is None and isinstance(victim, str | Path) and str(victim) not in NAMES:
        file = victim
    reading = declared(
        {"path": file, "classes": classes, "fs": fs,
         "n": n, "leads": leads, "channels": channels, "standardise": standardise,
         "preprocess": preprocess}
    )  # fmt: skip
    if not isinstance(victim, Victim):
        backend.running()  # Says in one line what keeps Keras from starting.
    loaded = _resolve(victim, path, reading)
    if isinstance(victim, Victim) or (file is None and is_included(victim)):
        # What these read is known: another value would mean something else, or nothing.
        told = {"n": n, "fs": fs, "leads": leads, "channels": channels, "standardise": standardise,
                "classes": classes if classes is None else reading.classes,
                "preprocess": preprocess}  # fmt: skip
        for key, value in told.items():
            own = getattr(loaded, "over" if key == "standardise" else key)
            if value is not None and value != own:
                raise VictimError(f"{key}={value}: victim {loaded.name} has {key}={own}")
    if check and not loaded.checked:
        preflight(loaded)
    return loaded


def _resolve(victim: Any, path: str | Path | None, reading: Reading) -> Victim:
    if isinstance(victim, Victim):
        return victim
    if isinstance(victim, str | Path):
        return _resolve_name(str(victim), path, reading)
    kind = {base.__module__.split(".")[0] for base in type(victim).__mro__}
    if "torch" in kind and "keras" not in kind:
        return _changed(_from_torch(victim, reading), reading)
    if "keras" in kind and getattr(victim, "inputs", None):
        return _changed(from_keras(victim, **_options(reading)), reading)
    if "keras" in kind:
        # It does not tell its shapes; what it computes is checked like a callable.
        name = getattr(victim, "name", type(victim).__name__)
        return from_subclassed(victim, name, **_shaped(reading))
    if callable(victim):
        name = getattr(victim, "__name__", type(victim).__name__)
        return Victim(victim, name=name, **_shaped(reading))
    raise VictimError(
        f"a {type(victim).__name__} is no victim: give a name, path, model or callable"
    )


def _changed(victim: Victim, reading: Reading) -> Victim:
    return _identified(victim, reading, victim.sha256)


def _resolve_name(name: str, path: str | Path | None, reading: Reading) -> Victim:
    if path is None and name in ("compact", "resnet34"):
        return _load_shipped(name, WEIGHTS)
    if path is None and name in ("keras", "torch"):
        raise VictimError(f"victim={name} needs victim.path=FILE")
    where = str(name if path is None else path)
    if is_function(where):
        return _from_function(where, reading)
    file = Path(where)
    if path is None and not file.suffix and not file.exists():
        raise VictimError(
            f"victim={name}: neither a shipped victim (compact, resnet34) nor a model file"
        )
    if name == "torch" or file.suffix.lower() in files.TORCH_SUFFIXES:
        return _load_torch_file(file, reading)
    if name in ("compact", "resnet34") and file.is_file() and _bare_weights(file):
        return _load_weights(name, file, reading)
    return _load_keras_file(file, reading)


def _bare_weights(file: Path) -> bool:
    with file.open("rb") as stream:
        is_hdf5 = stream.read(8) == b"\x89HDF\r\n\x1a\n"
    return is_hdf5 and not files.has_architecture(file)


def _from_function(name: str, reading: Reading) -> Victim:
    """What ``module:function`` names: a model or a callable, or a function that makes one."""
    found = files.load_function(name, "victim.path")
    kind = {base.__module__.split(".")[0] for base in type(found).__mro__}
    made = found
    if not kind & {"keras", "torch"} and not isinstance(found, Victim):
        if not callable(found):
            raise VictimError(f"victim.path={name}: must name a model or a function that makes one")
        try:
            made = found()
        except Exception as error:  # a user's function may raise anything
            reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            raise VictimError(
                f"victim.path={name}: calling it without arguments failed ({reason})"
            ) from error
    if isinstance(made, str | Path) or made is None:
        raise VictimError(f"victim.path={name}: returned {made!r}, not a model or a callable")
    victim = _resolve(made, None, reading)
    source = files.code_digest(found)
    if source and victim.sha256:
        victim.sha256 = files.combined_digest(victim.sha256, name, source)
    return victim
