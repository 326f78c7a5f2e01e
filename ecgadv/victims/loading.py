"""Victims: any classifier behind one face, checked before it is attacked."""

from __future__ import annotations

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
from ecgadv.victims.pipeline import standardise_array

WEIGHTS = Path(__file__).parent / "weights"
"""Where the weights that ship with the package lie."""

PREDICT_BATCH = 32
"""Fixed batch shape of verification, so that nothing is traced twice."""


class Victim:
    """A classifier x (B, n, 1) standardised -> logits (B, classes), with its deployed pipeline.

    Attributes:
        name: for tables and tracking.
        classes: class letters in output order.
        n: samples of an input.
        fs: sampling rate of an input, Hz.
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
        sha256: str = "",
        card: dict[str, Any] | None = None,
        model: Any = None,
    ) -> None:
        self._forward = forward
        self.name = name
        self.classes = tuple(classes)
        self.n = n
        self.fs = fs
        self.sha256 = sha256
        self.card = card or {}
        self.model = model
        self.checked = False
        self._compiled: Callable[[Any], Any] | None = None

    def __repr__(self) -> str:
        return f"Victim({self.name}, {self.n} samples, classes {', '.join(self.classes)})"

    def forward(self, x: Any) -> Any:
        """Differentiable logits of standardised tensors, (B, n) -> (B, classes)."""
        from keras import ops

        return ops.cast(self._forward(ops.expand_dims(x, -1)), "float32")

    def logits(self, x: np.ndarray) -> np.ndarray:
        """Logits of standardised NumPy signals, (B, n) or (B, n, 1) -> (B, classes) float32.

        Computed in float32, in batches of one fixed shape.
        """
        signals = np.asarray(x, dtype=np.float32)
        if signals.ndim == 3 and signals.shape[-1] == 1:
            signals = signals[..., 0]
        if signals.ndim != 2 or signals.shape[1] != self.n:
            raise VictimError(
                f"victim {self.name}: input shape {np.shape(x)}, expected (B, {self.n}) or "
                f"(B, {self.n}, 1)"
            )
        if self._compiled is None:
            self._compiled = backend.compile(self.forward)
        size = 1 if len(signals) == 1 else PREDICT_BATCH
        out = []
        for start in range(0, len(signals), size):
            part = signals[start : start + size]
            fill = size - len(part)
            full = np.concatenate([part, np.zeros((fill, self.n), np.float32)]) if fill else part
            result = backend.to_numpy(self._compiled(backend.tensor(full)))
            out.append(result[: len(part)])
        return np.concatenate(out) if out else np.zeros((0, len(self.classes)), np.float32)

    def pipeline(
        self, signal: np.ndarray | Sequence[np.ndarray], lengths: np.ndarray | None = None
    ) -> np.ndarray:
        """What is deployed: standardise over the record's own samples, pad, classify.

        Args:
            signal: (B, n), (B, n, 1), (n,) or a list of 1-D signals, in any unit.
            lengths: (B,) own samples of each record; None means every sample given is one.

        Returns:
            (B, classes) float32 logits.
        """
        if isinstance(signal, np.ndarray) and signal.ndim == 3 and signal.shape[-1] == 1:
            signal = signal[..., 0]
        rows = [np.asarray(s)[: self.n] for s in ([signal] if np.ndim(signal[0]) == 0 else signal)]
        own = np.array([len(r) for r in rows], dtype=np.int64)
        if lengths is not None:
            own = np.minimum(own, np.asarray(lengths, dtype=np.int64).reshape(-1))
        padded = np.zeros((len(rows), self.n), dtype=np.float64)
        for row, values in enumerate(rows):
            padded[row, : len(values)] = values
        return self.logits(standardise_array(padded, own))

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

    Raises:
        VictimError: the input is not one (n, 1) signal, or outputs are not one row of logits.
    """
    _refuse_probabilities(model, name or model.name)
    model = _logits_model(model)
    shape, output = model.input_shape, model.output_shape
    if isinstance(shape, list) or len(shape) != 3 or shape[-1] != 1:
        raise VictimError(f"victim {name or model.name}: input shape {shape}, expected (B, n, 1)")
    if isinstance(output, list) or len(output) != 2:
        raise VictimError(
            f"victim {name or model.name}: output shape {output}, expected (B, classes)"
        )
    return Victim(
        lambda x: model(x, training=False),
        name=name or model.name,
        n=int(shape[1] or N_SAMPLES),
        sha256=digest_weights([np.asarray(w) for w in model.get_weights()]),
        card=card,
        model=model,
        **options,
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
    card = json.loads(card_file.read_text())
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
    (folder / f"{name}.json").write_text(json.dumps(card, indent=1))


def _load_file(path: Path) -> Victim:
    import keras

    if not path.is_file():
        raise VictimError(f"victim.path={path} does not exist")
    if path.suffix not in (".keras", ".h5", ".hdf5"):
        raise VictimError(f"victim.path={path}: expected a .keras, .h5 or .hdf5 file")
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds on files that are no models
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise VictimError(
            f"victim.path={path} cannot be loaded as a Keras model: {reason}"
        ) from None
    model.trainable = False
    victim = from_keras(model, name=path.stem, card=_card_beside(path))
    victim.sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return victim


def _card_beside(path: Path) -> dict[str, Any]:
    """The model card of a model file, {} where there is none."""
    file = path.with_suffix(".json")
    if not file.is_file():
        return {}
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VictimError(f"{file}: the card beside the model is damaged ({error})") from None
    # Another tool's file of that name is no card, and no reason to refuse the model.
    return card if isinstance(card, dict) and isinstance(card.get("data", {}), dict) else {}


def _from_torch(module: Any, n: int) -> Victim:
    try:
        backend.configure("torch")
    except BackendError:
        raise VictimError(
            "a torch.nn.Module needs backend=torch (KERAS_BACKEND=torch before Python starts)"
        ) from None
    module = module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    state = [np.asarray(v.detach().cpu()) for v in module.state_dict().values()]
    return Victim(module, name=type(module).__name__, n=n, sha256=digest_weights(state))


def load_victim(
    victim: Any = "compact",
    path: str | Path | None = None,
    check: bool = True,
    n: int = N_SAMPLES,
) -> Victim:
    """A victim from a name, a file, a model in memory or a callable.

    Args:
        victim: ``compact`` or ``resnet34`` (weights that ship), a path of a Keras file, a
            ``keras.Model``, a ``torch.nn.Module``, or a callable (B, n, 1) tensor -> (B, classes)
            logits that is differentiable on the running backend.
        path: file of a ``keras`` victim.
        check: run :func:`preflight`.
        n: samples of an input, for a callable or a module, which do not tell.

    Raises:
        VictimError: it cannot be loaded, or fails a check.
    """
    loaded = _resolve(victim, path, n)
    if check and not loaded.checked:
        preflight(loaded)
    return loaded


def _resolve(victim: Any, path: str | Path | None, n: int) -> Victim:
    if isinstance(victim, Victim):
        return victim
    if isinstance(victim, str | Path):
        if path is not None:
            return _load_file(Path(path))
        name = str(victim)
        if name in ("compact", "resnet34"):
            return _load_shipped(name, WEIGHTS)
        if name in ("keras", "torch"):
            raise VictimError(f"victim={name} needs victim.path=FILE")
        if not Path(name).suffix and not Path(name).exists():
            raise VictimError(
                f"victim={name}: neither a shipped victim (compact, resnet34) nor a model file"
            )
        return _load_file(Path(name))
    kind = {base.__module__.split(".")[0] for base in type(victim).__mro__}
    if "torch" in kind and "keras" not in kind:
        return _from_torch(victim, n)
    if "keras" in kind and getattr(victim, "inputs", None):
        return from_keras(victim)
    if "keras" in kind:
        # A subclassed model does not tell its shapes; what it computes is checked like a callable.
        name = getattr(victim, "name", type(victim).__name__)
        return Victim(lambda x: victim(x, training=False), name=name, n=n)
    if callable(victim):
        return Victim(victim, name=getattr(victim, "__name__", type(victim).__name__), n=n)
    raise VictimError(
        f"a {type(victim).__name__} is no victim: give a name, path, model or callable"
    )


def probe_signals(n: int, fs: int, count: int = 4) -> np.ndarray:
    """(count, n) float32 standardised beat-like test signals; no data source is needed."""
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
    x = probe_signals(victim.n, victim.fs)
    where = f"victim {victim.name}"
    try:
        first = victim.logits(x)
    except VictimError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise VictimError(
            f"{where}: fails on an input of shape (B, {victim.n}, 1): {reason}"
        ) from None
    if first.ndim != 2 or first.shape[1] != len(victim.classes):
        raise VictimError(
            f"{where}: {first.shape[-1]} outputs, but the classes are {', '.join(victim.classes)} "
            f"({len(victim.classes)})"
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
