"""Victims: any classifier behind one face, checked before it is attacked."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import BackendError, VictimError
from ecgadv.records.base import CLASSES
from ecgadv.records.preprocessing import FS, N_SAMPLES
from ecgadv.victims import files
from ecgadv.victims.declared import Reading, declared, is_function
from ecgadv.victims.pipeline import flatten, standardise, standardise_array

WEIGHTS = Path(__file__).parent / "weights"
"""Where the weights that ship with the package lie."""

NAMES = ("compact", "resnet34", "keras", "torch")
"""Words that stand for a kind of victim where a file could."""

PREDICT_BATCH = 32
"""Fixed batch shape of verification, so that nothing is traced twice."""


class Victim:
    """A classifier x (B, n, leads) standardised -> logits (B, classes), with its own pipeline.

    Attributes:
        name: for tables and tracking.
        classes: class letters in output order.
        n: samples of an input.
        fs: sampling rate of an input, Hz.
        leads: leads of an input; inside, one after the other in one vector.
        over: what its standardisation is over, see :data:`ecgadv.victims.pipeline.STANDARDISE`.
        channels: where its network wants the leads, ``last`` or ``first``.
        preprocess: what its pipeline does between standardisation and network, or None.
        sha256: digest of the weights, "" where there are none to read.
        card: the model card, {} where there is none.
        model: the Keras model, None where it is another kind.
        checked: whether :func:`preflight` has passed.
    """

    def __init__(
        self,
        forward: Callable[[Any], Any],
        *,
        name: str,
        classes: Sequence[str] = CLASSES,
        n: int = N_SAMPLES,
        fs: int = FS,
        leads: int = 1,
        over: str = "lead",
        channels: str = "last",
        preprocess: Callable[[Any], Any] | None = None,
        sha256: str = "",
        card: dict[str, Any] | None = None,
        model: Any = None,
    ) -> None:
        self._forward = forward
        self.name = name
        self.classes = tuple(classes)
        self.n = n
        self.fs = fs
        self.leads = leads
        self.over = over
        self.channels = channels
        self.preprocess = preprocess
        self.sha256 = sha256
        self.card = card or {}
        self.model = model
        self.checked = False
        self._compiled: Callable[[Any], Any] | None = None

    def __repr__(self) -> str:
        leads = f" x {self.leads} leads" if self.leads > 1 else ""
        return f"Victim({self.name}, {self.n} samples{leads}, classes {', '.join(self.classes)})"

    @property
    def width(self) -> int:
        """Numbers of one input: samples times leads."""
        return self.n * self.leads

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one input as it is stored: (n,), or (n, leads)."""
        return (self.n,) if self.leads == 1 else (self.n, self.leads)

    @property
    def reading(self) -> dict[str, Any]:
        """What it reads and answers, as plain values."""
        return {"n": self.n, "fs": self.fs, "leads": self.leads, "standardise": self.over,
                "classes": list(self.classes)}  # fmt: skip

    def forward(self, x: Any) -> Any:
        """Differentiable logits of standardised tensors, (B, leads·n) -> (B, classes)."""
        from keras import ops

        if self.leads == 1:
            signal = ops.expand_dims(x, -1)
        else:
            signal = ops.transpose(ops.reshape(x, (-1, self.leads, self.n)), (0, 2, 1))
        if self.preprocess is not None:
            signal = self.preprocess(signal)
        if self.channels == "first":
            signal = ops.transpose(signal, (0, 2, 1))
        return ops.cast(self._forward(signal), "float32")

    def standardise(self, signal: Any, valid: Any) -> Any:
        """std(·) of its pipeline on tensors, (B, leads·n) -> (B, leads·n)."""
        return standardise(signal, valid, self.leads, self.over)

    def standardise_array(self, signal: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """std(·) of its pipeline on arrays, (B, leads·n), any unit -> (B, leads·n) float32."""
        return standardise_array(signal, lengths, self.leads, self.over)

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits of standardised NumPy signals -> (B, classes) float32.

        Computed in float32, in batches of one fixed shape.

        Args:
            x: (B, n), (B, n, 1); of several leads (B, n, leads), or (B, leads·n) lead after lead.
        """
        signals = np.asarray(x, dtype=np.float32)
        if signals.ndim == 3 and signals.shape[1:] == (self.n, self.leads):
            signals = flatten(signals) if self.leads > 1 else signals[..., 0]
        if signals.ndim != 2 or signals.shape[1] != self.width:
            expected = f"(B, {self.n}, {self.leads})"
            raise VictimError(
                f"victim {self.name}: input shape {np.shape(x)}, expected "
                + (f"(B, {self.n}) or {expected}" if self.leads == 1 else expected)
            )
        if self._compiled is None:
            self._compiled = backend.compile(self.forward)
        size = 1 if len(signals) == 1 else PREDICT_BATCH
        out = []
        for start in range(0, len(signals), size):
            part = signals[start : start + size]
            fill = size - len(part)
            full = np.concatenate([part, np.zeros((fill, self.width), np.float32)])
            result = backend.to_numpy(self._compiled(backend.tensor(full if fill else part)))
            out.append(result[: len(part)])
        return np.concatenate(out) if out else np.zeros((0, len(self.classes)), np.float32)

    def pipeline(
        self, signal: np.ndarray | Sequence[np.ndarray], lengths: np.ndarray | None = None
    ) -> np.ndarray:
        """What is deployed: standardise over the record's own samples, pad, classify.

        Args:
            signal: (B, n), (B, n, 1), (n,) or a list of 1-D signals, in any unit; of several leads
                (B, n, leads), (n, leads) or a list of (samples, leads).
            lengths: (B,) own samples of each record; None means every sample given is one.

        Returns:
            (B, classes) float32 logits.
        """
        if self.leads > 1:
            alone = isinstance(signal, np.ndarray) and signal.ndim == 2
            rows = [np.asarray(s)[: self.n] for s in ([signal] if alone else signal)]
            if any(row.ndim != 2 or row.shape[1] != self.leads for row in rows):
                raise VictimError(
                    f"victim {self.name}: input shape {np.shape(rows[0])}, expected (samples, "
                    f"{self.leads}) for each record"
                )
        else:
            if isinstance(signal, np.ndarray) and signal.ndim == 3 and signal.shape[-1] == 1:
                signal = signal[..., 0]
            alone = np.ndim(signal[0]) == 0
            rows = [np.asarray(s)[: self.n] for s in ([signal] if alone else signal)]
        own = np.array([len(r) for r in rows], dtype=np.int64)
        if lengths is not None:
            own = np.minimum(own, np.asarray(lengths, dtype=np.int64).reshape(-1))
        padded = np.zeros((len(rows), *self.shape), dtype=np.float64)
        for row, values in enumerate(rows):
            padded[row, : len(values)] = values
        return self.logits(self.standardise_array(flatten(padded), own))

    def with_precision(self, precision: str) -> Victim:
        """The same network computing in ``bfloat16`` (weights and logits stay float32).

        For gradients only: success is judged by the float32 victim.

        Raises:
            VictimError: the victim is no Keras model, so its arithmetic is not ours to choose.
        """
        if precision == "float32":
            return self
        if self.model is None:
            raise VictimError(f"precision={precision}: victim {self.name} is no Keras model")
        import keras

        def recast(layer: Any) -> Any:
            config = layer.get_config()
            # The last layer keeps its precision, so that logits are not rounded.
            if layer is not self.model.layers[-1]:
                config["dtype"] = "mixed_bfloat16"
            return layer.__class__.from_config(config)

        twin = keras.models.clone_model(self.model, clone_function=recast)
        twin.set_weights(self.model.get_weights())
        twin.trainable = False
        return Victim(
            lambda x: twin(x, training=False),
            name=self.name,
            classes=self.classes,
            n=self.n,
            fs=self.fs,
            leads=self.leads,
            over=self.over,
            channels=self.channels,
            preprocess=self.preprocess,
            sha256=self.sha256,
            card=self.card,
            model=twin,
        )

    def split_of(self, source: str, ids: Sequence[str]) -> np.ndarray:
        """``train`` or ``heldout`` for each record, as the card says.

        A record that the victim did not learn from is ``heldout``, whatever its source.
        """
        data = self.card.get("data", {})
        if data.get("name") != source:
            return np.full(len(ids), "heldout")
        held = set(data.get("heldout", ()))
        return np.array(["heldout" if i in held else "train" for i in ids])


def digest_weights(arrays: Sequence[np.ndarray]) -> str:
    """sha256 over weight arrays in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


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
    return from_keras(model, name=name, card=card)


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
    why = files.refusal(path)
    if why:
        raise VictimError(f"{where}: {why}")
    return where


def _load_keras_file(path: Path, reading: Reading) -> Victim:
    where = _readable(path)
    if path.suffix.lower() not in files.KERAS_SUFFIXES:
        raise VictimError(f"{where}: expected a .keras, .h5 or .hdf5 file")
    model = files.load_keras(path, where)
    model.trainable = False
    victim = from_keras(model, name=path.stem, card=reading.card, **_options(reading))
    return _identified(victim, reading, hashlib.sha256(path.read_bytes()).hexdigest())


def _load_weights(name: str, path: Path, reading: Reading) -> Victim:
    """A network of this project with weights from an HDF5 file that has no architecture in it."""
    from ecgadv.victims.architectures import build

    model = build(name, reading.n or N_SAMPLES, len(reading.classes))
    files.fill_by_order(model, path, f"victim.path={path}")
    model.trainable = False
    victim = from_keras(model, name=path.stem, card=reading.card, **_options(reading))
    return _identified(victim, reading, hashlib.sha256(path.read_bytes()).hexdigest())


def _load_torch_file(path: Path, reading: Reading) -> Victim:
    where = _readable(path)
    _need_torch(where)
    from ecgadv.victims.torch_files import load_torch

    victim = _from_torch(load_torch(path, where), reading, path.stem)
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
    options = _options(reading)
    return options | {"n": reading.n or reading.seconds_30, "leads": reading.leads or 1}


def _identified(victim: Victim, reading: Reading, digest: str) -> Victim:
    """Give a victim the digest of all that decides its answers: file, and what stands around it.

    Predictions are kept under it, so it is "" where code has no source to read.
    """
    usual = Reading()
    changed = [
        (key, getattr(reading, key))
        for key in ("classes", "channels", "standardise")
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


def _from_torch(module: Any, reading: Reading, name: str = "") -> Victim:
    _need_torch("a torch.nn.Module")
    with contextlib.suppress(NotImplementedError):  # torch.export's modules have one mode only
        module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    state = [np.asarray(v.detach().cpu()) for v in module.state_dict().values()]
    return Victim(
        module, name=name or type(module).__name__, sha256=digest_weights(state),
        card=reading.card, **_shaped(reading),
    )  # fmt: skip


def load_victim(
    victim: Any = "compact",
    path: str | Path | None = None,
    check: bool = True,
    n: int | None = None,
    *,
    classes: Sequence[str] | None = None,
    fs: int | None = None,
    leads: int | None = None,
    channels: str | None = None,
    standardise: str | None = None,
    preprocess: str | Callable[[Any], Any] | None = None,
) -> Victim:
    """A victim from a name, a file, a model in memory or a callable.

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
        # A subclassed model does not tell its shapes; what it computes is checked like a callable.
        name = getattr(victim, "name", type(victim).__name__)
        return Victim(lambda x: victim(x, training=False), name=name, **_shaped(reading))
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


def probe_signals(n: int, fs: int, count: int = 4, leads: int = 1) -> np.ndarray:
    """(count, n) float32 standardised beat-like test signals; no data source is needed.

    Of several leads (count, n, leads): the same beats, each lead with gain and delay of its own.
    """
    if leads > 1:
        whole = probe_signals(n, fs, count)
        gains = np.cos(1.0 + np.arange(leads))
        moved = [g * np.roll(whole, lead, axis=1) for lead, g in enumerate(gains)]
        each = np.stack(moved, axis=-1)
        return (each / each.std(axis=1, keepdims=True)).astype(np.float32)
    time = np.arange(n) / fs
    rng = np.random.default_rng(0)
    out = []
    for row in range(count):
        period = 0.55 + 0.2 * row
        phase = (time % period) - 0.5 * period
        wave = np.exp(-0.5 * (phase / 0.012) ** 2) + 0.2 * np.exp(
            -0.5 * ((phase - 0.25) / 0.05) ** 2
        )
        wave = wave + 0.03 * (1 + row) * rng.standard_normal(n)
        out.append((wave - wave.mean()) / wave.std())
    return np.array(out, dtype=np.float32)


def preflight(victim: Victim) -> None:
    """Refuse a victim whose attack would mean nothing.

    Raises:
        VictimError: it fails on a standard input; wrong class count; NaN; probabilities instead of
            logits; outputs that change from call to call; or gradients that vanish.
    """
    x = flatten(probe_signals(victim.n, victim.fs, leads=victim.leads))
    where = f"victim {victim.name}"
    try:
        first = victim.logits(x)
    except VictimError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise VictimError(
            f"{where}: fails on an input of shape {_input_shape(victim)}: {reason}"
        ) from None
    if first.ndim != 2 or first.shape[1] != len(victim.classes):
        raise VictimError(
            f"{where}: {first.shape[-1]} outputs, but the classes are {', '.join(victim.classes)} "
            f"({len(victim.classes)}); victim.classes names them in order"
        )
    if not np.isfinite(first).all():
        raise VictimError(f"{where}: its outputs are not finite on a standard input")
    if (first >= -1e-6).all() and np.allclose(first.sum(1), 1.0, atol=1e-3):
        raise VictimError(
            f"{where}: outputs are probabilities, an attack needs logits; remove the last softmax"
        )
    if not np.allclose(first, victim.logits(x), rtol=1e-4, atol=1e-4):
        raise VictimError(f"{where}: outputs change from call to call; switch dropout or noise off")
    if not np.any(_input_gradient(victim, x)):
        raise VictimError(f"{where}: the gradient of its outputs by its input is zero everywhere")
    victim.checked = True


def _input_shape(victim: Victim) -> str:
    if victim.channels == "first":
        return f"(B, {victim.leads}, {victim.n})"
    return f"(B, {victim.n}, {victim.leads})"


def _input_gradient(victim: Victim, x: np.ndarray) -> np.ndarray:
    from keras import ops

    def loss(signal: Any) -> tuple[Any, Any]:
        logits = victim.forward(signal)
        return ops.logsumexp(logits * np.float32(0.5), axis=-1) - logits[:, 0], logits

    try:
        _, gradient = backend.compile(backend.value_and_grad(loss))(backend.tensor(x))
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise VictimError(f"victim {victim.name}: no gradient by its input: {reason}") from None
    return backend.to_numpy(gradient)
