"""A classifier behind one face: tensors for attacks, arrays for verdicts, its own pipeline."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import VictimError
from ecgadv.records.base import CLASSES
from ecgadv.records.preprocessing import FS, N_SAMPLES
from ecgadv.victims.pipeline import flatten, standardise, standardise_array

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
        open_length: whether nobody said how long an input is, so that ``n`` is only the usual one.
        notes: what a user should know of it, a sentence each.
        checked: whether :func:`ecgadv.victims.preflight.preflight` has passed.
        reference: what that saw of its answers, None where it has not.
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
        open_length: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        self._forward = forward
        self.name = name
        self.classes = tuple(classes)
        self.n = int(n)
        self.fs = int(fs)
        self.leads = int(leads)
        self.over = over
        self.channels = channels
        self.preprocess = preprocess
        self.sha256 = sha256
        self.card = card or {}
        self.model = model
        self.open_length = open_length
        self.notes = tuple(notes)
        self.checked = False
        self.reference: Any = None
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
    def can(self) -> frozenset[str]:
        """What it gives an attacker: ``labels``, ``scores``, ``gradients``; ``bfloat16`` too where
        the arithmetic of its gradients can be chosen.
        """
        given = {"labels", "scores", "gradients"}
        return frozenset(given if self.model is None else {*given, "bfloat16"})

    @property
    def activations(self) -> int:
        """Numbers that one input makes in all layers; a guess where the network does not tell."""
        if self.model is None:
            return self.width * 64
        outputs = [out for layer in self.model.layers for out in _listed(layer.output)]
        return sum(math.prod(size or 1 for size in out.shape[1:]) for out in outputs)

    @property
    def reading(self) -> dict[str, Any]:
        """What it reads and answers, as plain values."""
        return {"n": self.n, "fs": self.fs, "leads": self.leads, "standardise": self.over,
                "classes": list(self.classes)}  # fmt: skip

    def forward(self, x: Any) -> Any:
        """Differentiable logits of standardised tensors, (B, leads·n) -> (B, classes).

        Raises:
            VictimError: the network answers with something else than one tensor of two axes.
        """
        from keras import ops

        if self.leads == 1:
            signal = ops.expand_dims(x, -1)
        else:
            signal = ops.transpose(ops.reshape(x, (-1, self.leads, self.n)), (0, 2, 1))
        if self.preprocess is not None:
            signal = self.preprocess(signal)
        if self.channels == "first":
            signal = ops.transpose(signal, (0, 2, 1))
        output = self._forward(signal)
        wrong = _unlike_logits(output, signal.shape[0])
        if wrong:
            raise VictimError(f"victim {self.name}: {wrong}")
        return ops.cast(output, "float32")

    def standardise(self, signal: Any, valid: Any) -> Any:
        """std(·) of its pipeline on tensors, (B, leads·n) -> (B, leads·n)."""
        return standardise(signal, valid, self.leads, self.over)

    def standardise_array(self, signal: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """std(·) of its pipeline on arrays, (B, leads·n), any unit -> (B, leads·n) float32."""
        return standardise_array(signal, lengths, self.leads, self.over)

    @property
    def compiled(self) -> Callable[[Any], Any]:
        """:meth:`forward`, traced once a shape."""
        if self._compiled is None:
            self._compiled = backend.compile(self.forward)
        return self._compiled

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
        size = 1 if len(signals) == 1 else PREDICT_BATCH
        out = []
        for start in range(0, len(signals), size):
            part = signals[start : start + size]
            fill = size - len(part)
            full = np.concatenate([part, np.zeros((fill, self.width), np.float32)])
            result = backend.to_numpy(self.compiled(backend.tensor(full if fill else part)))
            if len(result) != size:
                raise VictimError(
                    f"victim {self.name}: output of {len(result)} rows for {size} records, "
                    "expected (B, classes)"
                )
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

    def copied(self) -> Victim:
        """The same victim, not yet checked; what is changed of it leaves this one as it is."""
        other = copy.copy(self)
        other.checked, other.reference, other._compiled = False, None, None
        return other

    def behind(self, change: Callable[[Any], Any]) -> Victim:
        """The same network on changed inputs, not yet checked.

        Args:
            change: differentiable map of standardised tensors (B, n, leads) to the same shape; it
                comes before the victim's own ``preprocess``.
        """
        changed, own = self.copied(), self.preprocess
        changed.preprocess = change if own is None else lambda signal: own(change(signal))
        return changed

    @property
    def network(self) -> Any:
        """What computes the logits: the Keras model, a module of PyTorch, or a function."""
        return self._forward if self.model is None else self.model

    def with_network(self, network: Any) -> Victim:
        """The same victim computing by another network of the same kind."""
        twin = copy.copy(self)
        twin._compiled, twin.reference, twin._forward = None, None, network
        if self.model is not None:
            twin.model = network
            twin._forward = lambda x: network(x, training=False)
        return twin

    def split_of(self, source: str, ids: Sequence[str]) -> np.ndarray:
        """``train`` or ``heldout`` for each record, as the card says.

        A record that the victim did not learn from is ``heldout``, whatever its source.
        """
        data = self.card.get("data", {})
        if data.get("name") != source:
            return np.full(len(ids), "heldout")
        held = set(data.get("heldout", ()))
        return np.array(["heldout" if i in held else "train" for i in ids])


def _listed(output: Any) -> list[Any]:
    """Tensors of an output that may be several."""
    if isinstance(output, Mapping):
        output = list(output.values())
    if not isinstance(output, list | tuple):
        return [output] if hasattr(output, "shape") else []
    return [tensor for part in output for tensor in _listed(part)]


def _unlike_logits(output: Any, batch: Any) -> str:
    """What stands in the place of logits (B, classes), "" where they do."""
    wanted = "expected (B, classes)"
    if isinstance(output, Mapping):
        names = ", ".join(str(key) for key in list(output)[:5])
        return (
            f"its output is a dict with {names}, {wanted}; give a function of a tensor that takes "
            "the logits out of it"
        )
    if isinstance(output, tuple | list):
        return (
            f"its output is a {type(output).__name__} of {len(output)}, {wanted}; give a function "
            "of a tensor that takes the logits out of it"
        )
    if isinstance(output, np.ndarray):
        return f"its output is a NumPy array, which has no gradient, {wanted} as a tensor"
    if output is None or not hasattr(output, "shape"):
        kind = "None" if output is None else f"a {type(output).__name__}"
        return f"its output is {kind}, {wanted}"
    if len(output.shape) != 2:
        return f"{shown(output.shape, batch)}, {wanted}"
    return ""


def shown(shape: Sequence[Any], batch: Any = None) -> str:
    """``output (B, 333, 4)``: a shape of outputs, for messages."""
    first = ["B" if size is None or size == batch else str(size) for size in shape[:1]]
    rest = ["any" if size is None else str(size) for size in shape[1:]]
    return f"output ({', '.join(first + rest)}{',' if len(shape) == 1 else ''})"


def digest_weights(arrays: Sequence[np.ndarray]) -> str:
    """sha256 over weight arrays in order."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.shape}{array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
