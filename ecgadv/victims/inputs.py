"""From a recording as a person has it to what a victim reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from ecgadv.errors import RecordError
from ecgadv.records.conversion import check_fs, resample
from ecgadv.records.preprocessing import FS, N_SAMPLES, prepare
from ecgadv.victims.loading import Victim, load_victim


def preprocess(
    signal: np.ndarray, fs: float, victim: Any = None, n: int | None = None
) -> np.ndarray:
    """What a victim reads of a recording: resampled, standardised, zero-padded at the end.

    Args:
        signal: (samples,) or (samples, leads) in any unit. Missing samples (NaN, infinities) count
            as the mean of their lead.
        fs: its sampling rate in Hz.
        victim: whose rate, length, leads and standardisation count: a victim, or anything that
            :func:`ecgadv.load_victim` takes. None means those of the included victims: 300 Hz,
            9,000 samples, each lead by itself.
        n: samples of the result in place of the victim's; longer recordings lose their end.

    Returns:
        (n,) float32, or of several leads (n, leads).

    Raises:
        RecordError: empty, of another shape, at a rate that no ECG has, mostly missing, or a flat
            line.
        VictimError: ``victim`` cannot be used.
    """
    if victim is not None and not isinstance(victim, Victim):
        victim = load_victim(victim)
    values = np.asarray(signal, dtype=np.float64)
    if values.ndim not in (1, 2) or (values.ndim == 2 and values.shape[1] > values.shape[0]):
        raise RecordError(
            f"a recording must be (samples,) or (samples, leads), this one has shape {values.shape}"
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    own_fs = check_fs(fs)
    rate, length, over = FS, N_SAMPLES, "lead"
    leads = 1 if values.ndim == 1 else values.shape[1]
    if victim is not None:
        rate, length, over = victim.fs, victim.n, victim.over
        if leads != victim.leads:
            raise RecordError(
                f"the recording has {leads} lead(s), victim {victim.name} reads {victim.leads}"
            )
    length = length if n is None else n
    if length < 1:
        raise RecordError(f"n={n}: must be at least 1")
    known = np.isfinite(values)
    if values.size and not known.any(axis=0).all():
        raise RecordError("a lead of the recording is missing altogether (NaN)")
    if own_fs != rate:
        values = resample(values, own_fs, rate)
    return prepare(values, length, leads, over)[0]
