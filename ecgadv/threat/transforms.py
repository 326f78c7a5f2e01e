"""How long a perturbation lasts, and where it begins.

Paper, section "Type II": a perturbation p lasts w samples and starts at an onset τ that nobody
knows beforehand (S_τ).
"""

from __future__ import annotations

import re
from typing import Any

from ecgadv.errors import ConfigError
from ecgadv.threat.both import ops_of


def window_samples(window: int | str | None, n: int, fs: float) -> int:
    """Samples that a perturbation lasts.

    Args:
        window: samples, a time such as ``10s``, or None for the whole recording.
        n: samples of the recording.
        fs: sampling rate in Hz.

    Raises:
        ConfigError: it is no duration, shorter than one sample, or longer than the recording.
    """
    if window is None:
        return n
    if isinstance(window, str):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*s", window)
        if match is None:
            raise ConfigError(f"window={window}: must be a number of samples or a time like 10s")
        samples = round(float(match[1]) * fs)
    else:
        samples = int(window)
    if not 1 <= samples <= n:
        raise ConfigError(
            f"window={window}: must last at least one sample and at most the recording's "
            f"{n} samples ({n / fs:g} s)"
        )
    return samples


def onset_count(window: int, n: int) -> int:
    """Number of onsets: n for a whole recording, which wraps, else those that fit, n − w + 1."""
    return n if window == n else n - window + 1


def shift(p: Any, onsets: Any, spans: Any = None) -> Any:
    """S_τ on tensors or arrays: (B, n), (B, K) int and (B,) int -> (B, K, n).

    out[b, k, i] = p[b, (i − τ_bk) mod m_b] for i < m_b; what lies beyond stays. A window is p with
    zeros after sample w − 1: at onsets of at most n − w it moves without wrapping; a perturbation
    of all n samples wraps around.

    Args:
        p: rows.
        onsets: τ in samples; below 0 toward the start.
        spans: m, own samples of each row; None for n.
    """
    xp = ops_of(p)
    n, count = p.shape[-1], onsets.shape[-1]
    position = xp.arange(n, dtype="int32")
    if spans is None:
        index = xp.mod(position - onsets[:, :, None], n)
    else:
        length = spans[:, None, None]
        index = xp.mod(position - onsets[:, :, None], length)
        index = xp.where(position < length, index, position)
    return xp.take_along_axis(xp.repeat(p[:, None, :], count, axis=1), index, axis=2)
