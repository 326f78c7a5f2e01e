"""Checks of a victim before it is attacked: what would make every result meaningless."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.errors import VictimError
from ecgadv.victims.pipeline import flatten
from ecgadv.victims.victim import Victim


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
