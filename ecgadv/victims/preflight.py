"""Checks of a victim before it is attacked: what would make every result meaningless."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import VictimError
from ecgadv.victims.files import one_line
from ecgadv.victims.pipeline import flatten
from ecgadv.victims.victim import PREDICT_BATCH, Victim

PLAIN, CHECKED = 4, PREDICT_BATCH
"""Rows of :func:`check_rows`: the first are beats, all fill one batch."""

ROOTS = (
    "usual causes are a root, a logarithm or a division at 0: add a small constant there, as in "
    "sqrt(x² + 1e-6)"
)
"""What to do about it."""


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


def check_rows(victim: Victim) -> np.ndarray:
    """(CHECKED, leads·n) float32 inputs that show what kind of outputs a network has.

    Beats; the same with padding (two rows) and with a flat stretch (two rows); turned over; up to a
    thousand times as large, where logits leave every fixed range; and noise.
    """
    beats = probe_signals(victim.n, victim.fs, leads=victim.leads)
    x = flatten(beats)
    rng = np.random.default_rng(1)
    count = CHECKED - 6 * PLAIN
    noise = rng.standard_normal((count, victim.width)).astype(np.float32)
    noise[::2] = flatten(np.cumsum(noise[::2].reshape(-1, *victim.shape), axis=1))
    noise /= noise.std(axis=1, keepdims=True)
    return np.concatenate([x, _interrupted(victim, beats), -x, 30 * x, -30 * x, 1e3 * x, noise])


def _interrupted(victim: Victim, beats: np.ndarray) -> np.ndarray:
    """(4, leads·n): two short records with their padding, two with a flat stretch in the middle."""
    n = victim.n
    rows = beats.astype(np.float64).copy()
    rows[2:, n // 3 : n // 2] = rows[2:, n // 3 : n // 3 + 1]
    return victim.standardise_array(flatten(rows), np.array([n // 2, (3 * n) // 4, n, n]))


def head_of(outputs: np.ndarray) -> str:
    """What kind of outputs a network has: ``logits``, ``softmax`` or ``sigmoid``.

    Args:
        outputs: (R, C) answers to inputs as different as :func:`check_rows`; rows that are not
            finite do not count.

    Returns:
        ``softmax`` where every row is a distribution, ``sigmoid`` where all outputs are within 0
        and 1 and do not add up to 1.
    """
    rows = outputs[np.isfinite(outputs).all(axis=1)]
    if not len(rows) or rows.min() < -1e-6 or rows.max() > 1 + 1e-6:
        return "logits"
    return "softmax" if np.allclose(rows.sum(axis=1), 1.0, atol=1e-3) else "sigmoid"


def preflight(victim: Victim) -> None:
    """Refuse a victim whose attack would mean nothing, and note what its user should know.

    Raises:
        VictimError: it fails on a standard input; wrong class count; NaN; probabilities instead of
            logits; arithmetic in fewer bits than float32; outputs that never change, that change
            from call to call or with the other records of a batch; or gradients that vanish or are
            not finite.
    """
    where = f"victim {victim.name}"
    x = check_rows(victim)
    first = _answers(victim, x)
    head = head_of(first)
    if first.shape[1] != len(victim.classes):
        raise VictimError(
            f"{where}: {first.shape[1]} outputs, but the classes are {', '.join(victim.classes)} "
            f"({len(victim.classes)}); victim.classes names them in order"
            + ("; one output for two classes: give two logits, 0 and it" if first.shape[1] == 1
               else "")
        )  # fmt: skip
    if not np.isfinite(first[:PLAIN]).all():
        raise VictimError(f"{where}: its outputs are not finite on a standard input")
    # A softmax over the batch looks like a sigmoid: what the batch does comes before the head.
    _refuse_coarse(victim, x)
    _refuse_company(victim, x, first)
    if np.ptp(first[np.isfinite(first).all(axis=1)], axis=0).max() == 0:
        raise VictimError(f"{where}: its outputs are the same for every input")
    if head == "softmax":
        raise VictimError(
            f"{where}: outputs are probabilities, an attack needs logits; remove the last softmax"
        )
    if head == "sigmoid":
        raise VictimError(
            f"{where}: its outputs are sigmoid probabilities of labels that do not exclude each "
            "other; an attack needs the logits of classes of which one is right"
        )
    _check_gradient(victim, x, first)
    victim.checked = True


def _answers(victim: Victim, x: np.ndarray) -> np.ndarray:
    """Logits of the checked rows, or what stands in the way of them."""
    try:
        return victim.logits(x)
    except VictimError:
        raise
    except Exception as error:  # a network may raise anything
        raise VictimError(
            f"victim {victim.name}: fails on an input of shape {_input_shape(victim)}: "
            f"{one_line(error)}{_remedy(victim, x)}"
        ) from None


def _remedy(victim: Victim, x: np.ndarray) -> str:
    """What would let a failing network answer, as far as it can be found by trying."""
    turned = copy.copy(victim)
    turned.channels = "last" if victim.channels == "first" else "first"
    if _works(turned, x):
        return f"; it answers with victim.channels={turned.channels}"
    for size in (1, 2, 4, 8, 16, 64, 128):
        if _works(victim, np.resize(x, (size, victim.width))):
            return f"; it takes batches of {size} only: make its batch size free"
    for note in victim.notes:
        if note.startswith("it was made in"):
            return f"; {note}"
    if victim.open_length:
        return "; victim.n (in Python: n=) says how many samples it takes"
    return ""


def _works(victim: Victim, x: np.ndarray) -> bool:
    try:
        out = backend.to_numpy(backend.compile(victim.forward)(backend.tensor(x)))
    except Exception:  # that it fails is the answer
        return False
    return out.shape == (len(x), len(victim.classes))


def _refuse_coarse(victim: Victim, x: np.ndarray) -> None:
    found = backend.coarse_arithmetic(victim.compiled, backend.tensor(x))
    if found:
        raise VictimError(
            f"victim {victim.name}: it computes in {' and '.join(found)} inside, verdicts are made "
            "in float32; build it without mixed precision, casts and autocast"
        )


def _refuse_company(victim: Victim, x: np.ndarray, first: np.ndarray) -> None:
    """Raise where the answer for a record is not its own."""
    where = f"victim {victim.name}"
    known = np.isfinite(first).all(axis=1)
    # Batches of another shape are summed in another order, on GPUs with fewer bits.
    share = 1e-2 if backend.device_kind() == "gpu" else 2e-4
    bound = 1e-5 + share * np.abs(first).max(axis=1, initial=0.0, where=known[:, None])

    def apart(rows: np.ndarray, others: np.ndarray) -> bool:
        same = np.isfinite(others).all(axis=1) & known[rows]
        gap = np.where(same[:, None], others, 0) - np.where(same[:, None], first[rows], 0)
        far = np.abs(gap).max(axis=1)
        return bool((far > bound[rows]).any() or (same != known[rows]).any())

    every = np.arange(len(x))
    if apart(every[::-1], victim.logits(x[::-1])):
        if apart(every, victim.logits(x)):
            raise VictimError(
                f"{where}: outputs change from call to call; switch dropout or noise off"
            )
    elif not any(apart(every[k : k + 1], _alone(victim, x, k)) for k in range(PLAIN)):
        return
    raise VictimError(
        f"{where}: its answer for a record changes with the others in its batch; usual causes are "
        "batch normalisation or dropout in training mode, a recurrent layer without batch_first, "
        "and anything else taken over the batch axis"
    )


def _alone(victim: Victim, x: np.ndarray, row: int) -> np.ndarray:
    try:
        return victim.logits(x[row : row + 1])
    except VictimError:
        raise
    except Exception as error:  # a network may raise anything
        raise VictimError(
            f"victim {victim.name}: fails on a batch of one record, though not on {len(x)}: "
            f"{one_line(error)}; make its batch size free"
        ) from None


def _check_gradient(victim: Victim, x: np.ndarray, first: np.ndarray) -> None:
    """Raise where the gradient is of no use on whole records; note where it is not on others."""
    where = f"victim {victim.name}"
    gradient = _gradient_function(victim)
    plain, _ = gradient(x[:PLAIN])
    victim.reference = Reference(x[:PLAIN], first[:PLAIN], plain)
    bad = ~np.isfinite(plain)
    if bad.any():
        raise VictimError(
            f"{where}: the gradient of its outputs by its input is not finite ({bad.sum()} of "
            f"{bad.size} samples of standard inputs); {ROOTS}"
        )
    if not np.any(plain):
        raise VictimError(f"{where}: the gradient of its outputs by its input is zero everywhere")
    rows = slice(PLAIN, 2 * PLAIN)
    bad = ~np.isfinite(gradient(x[rows])[0]) | ~np.isfinite(first[rows]).all(axis=1, keepdims=True)
    for name, part in (("zero-padded (short) records", bad[:2]), ("flat stretches", bad[2:])):
        if part.any():
            victim.notes += (
                f"its gradient is not finite on {name} ({part.sum()} of {part.size} samples): "
                f"such cases end as failed; {ROOTS}",
            )


def _input_shape(victim: Victim) -> str:
    if victim.channels == "first":
        return f"(B, {victim.leads}, {victim.n})"
    return f"(B, {victim.n}, {victim.leads})"


@dataclass(frozen=True)
class Reference:
    """What a network answers to a few beats.

    Attributes:
        x: (PLAIN, leads·n) standardised inputs.
        logits: (PLAIN, C).
        gradient: (PLAIN, leads·n) of a mixture of all logits by the input.
    """

    x: np.ndarray
    logits: np.ndarray
    gradient: np.ndarray


def reference(victim: Victim) -> Reference:
    """Logits and gradient of a network on standard inputs.

    Raises:
        VictimError: there is no gradient.
    """
    x = flatten(probe_signals(victim.n, victim.fs, PLAIN, victim.leads))
    gradient, logits = _gradient_function(victim)(x)
    return Reference(x, logits, gradient)


def _gradient_function(victim: Victim) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Gradient of a mixture of all logits by the input, and the logits, as arrays."""
    from keras import ops

    def loss(signal: Any) -> tuple[Any, Any]:
        logits = victim.forward(signal)
        return ops.logsumexp(logits * np.float32(0.5), axis=-1) - logits[:, 0], logits

    compiled = backend.compile(backend.value_and_grad(loss))

    def gradient(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        try:
            (_, logits), found = compiled(backend.tensor(x))
            return backend.to_numpy(found), backend.to_numpy(logits)
        except Exception as error:  # a network may raise anything
            raise VictimError(
                f"victim {victim.name}: no gradient by its input: {one_line(error)}"
            ) from None

    return gradient
