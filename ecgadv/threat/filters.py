"""Front ends of a recording device, on NumPy arrays (paper, section "Type II").

Released code's defaults: high-pass at 0.05 Hz, mains notches at 50 and 60 Hz.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecgadv.errors import ConfigError

NFFT = 16384
"""Points of the DFT in the rectangular filter."""

HIGH_PASS_HZ = 0.05
MAINS_HZ = (60.0, 50.0)
NOTCH_Q = 30.0


def _check(frequencies: Sequence[float], fs: float) -> None:
    for frequency in frequencies:
        if not 0 < frequency < fs / 2:
            raise ConfigError(
                f"filter: {frequency:g} Hz is not between 0 and half the sampling rate "
                f"({fs / 2:g} Hz)"
            )


def stopped_bins(
    fs: float = 300,
    high_pass: float = 0.055,
    mains: Sequence[float] = (50.0, 60.0),
    nfft: int = NFFT,
) -> np.ndarray:
    """Indices of the real DFT's bins that the rectangular filter sets to zero.

    Those in (0, ``high_pass``] Hz and the one nearest to each mains frequency; the mean stays. At
    300 Hz and 16,384 points: bins 1 to 3, 2731 and 3277.

    Raises:
        ConfigError: a frequency is not below half the sampling rate.
    """
    _check([high_pass, *mains], fs)
    low = np.arange(1, int(np.floor(high_pass * nfft / fs)) + 1)
    notches = [round(frequency * nfft / fs) for frequency in mains]
    return np.unique(np.concatenate([low, np.array(notches, dtype=int)]))


def rectangular(
    p: np.ndarray, fs: float = 300, high_pass: float = 0.055, mains: Sequence[float] = (50.0, 60.0)
) -> np.ndarray:
    """The paper's filter model: zero-pad to 16,384 points, drop bins, cut back.

    Args:
        p: (…, n) signal in any unit, n <= 16,384.
        fs: sampling rate in Hz.
        high_pass: upper edge of the dropped low band in Hz.
        mains: frequencies in Hz whose nearest bins are dropped.

    Returns:
        (…, n) float64.
    """
    n = p.shape[-1]
    if n > NFFT:
        raise ConfigError(f"filter=rectangular: {n} samples, at most {NFFT}")
    spectrum = np.fft.rfft(np.asarray(p, dtype=np.float64), NFFT)
    spectrum[..., stopped_bins(fs, high_pass, mains)] = 0.0
    return np.fft.irfft(spectrum, NFFT)[..., :n]


def butterworth(
    p: np.ndarray,
    fs: float = 300,
    high_pass: float = HIGH_PASS_HZ,
    mains: Sequence[float] = MAINS_HZ,
    q: float = NOTCH_Q,
) -> np.ndarray:
    """The evaluation filter, causal: third-order Butterworth high-pass, then IIR notches.

    Args:
        p: (…, n) signal in any unit.
        fs: sampling rate in Hz.
        high_pass: cut-off in Hz.
        mains: notch frequencies in Hz, in order.
        q: quality factor of the notches.

    Returns:
        (…, n) float64.

    Raises:
        ConfigError: a frequency is not below half the sampling rate.
    """
    from scipy import signal

    _check([high_pass, *mains], fs)
    # Second-order sections: at 0.05 Hz the transfer-function form loses digits.
    sections = [signal.butter(3, high_pass, btype="highpass", fs=fs, output="sos")]
    sections += [signal.tf2sos(*signal.iirnotch(frequency, q, fs=fs)) for frequency in mains]
    return signal.sosfilt(np.concatenate(sections), np.asarray(p, dtype=np.float64), axis=-1)
