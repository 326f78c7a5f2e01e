"""Front ends against explicit references: a sum over DFT bins, and scipy's transfer functions."""

import numpy as np
import pytest
from scipy import signal

from ecgadv.errors import ConfigError
from ecgadv.threat import filters

FILTERS = {"rectangular": filters.rectangular, "butterworth": filters.butterworth}


@pytest.fixture(params=sorted(FILTERS))
def front_end(request):
    return FILTERS[request.param]


@pytest.fixture
def p():
    return np.random.default_rng(2).normal(size=(2, 9000))


def by_bins(p: np.ndarray, bins: list[int], nfft: int = 16384) -> np.ndarray:
    """``p`` less its dropped components, each built from the exponential that defines it."""
    time = np.arange(p.shape[-1])
    out = p.astype(np.float64).copy()
    for k in bins:
        wave = np.exp(-2j * np.pi * k * time / nfft)
        # A real signal has bin nfft - k too: the pair gives twice the real part.
        out -= 2.0 / nfft * np.real((p @ wave)[..., None] * np.conj(wave))
    return out


def test_rectangular_drops_the_bins_of_the_paper(p):
    assert filters.stopped_bins().tolist() == [1, 2, 3, 2731, 3277]
    expected = by_bins(p, [1, 2, 3, 2731, 3277])
    np.testing.assert_allclose(filters.rectangular(p), expected, atol=1e-11)


def test_rectangular_against_the_dense_matrix_of_the_dft():
    n, nfft = 48, filters.NFFT
    p = np.random.default_rng(0).normal(size=(3, n))
    k = np.arange(nfft)
    forward = np.exp(-2j * np.pi * np.outer(np.arange(n), k) / nfft)
    keep = np.ones(nfft)
    for b in (1, 2, 3, 2731, 3277):
        keep[[b, nfft - b]] = 0
    expected = np.real(((p @ forward) * keep) @ np.conj(forward).T) / nfft
    np.testing.assert_allclose(filters.rectangular(p), expected, atol=1e-11)


def test_rectangular_keeps_the_mean_of_a_constant():
    # Of 16,384 zero-padded points the mean is kept, so a constant is not wiped out.
    assert filters.rectangular(np.ones(9000)).mean() > 0.5


def test_rectangular_at_another_rate(p):
    expected = by_bins(p, [*range(1, 4), round(50 * 16384 / 250), round(60 * 16384 / 250)])
    np.testing.assert_allclose(filters.rectangular(p, fs=250), expected, atol=1e-11)


def test_butterworth_agrees_with_scipys_transfer_functions(p):
    b, a = signal.butter(3, 0.05, btype="highpass", fs=300)
    expected = signal.lfilter(b, a, p)
    for mains in (60.0, 50.0):
        b, a = signal.iirnotch(mains, 30.0, fs=300)
        expected = signal.lfilter(b, a, expected)
    np.testing.assert_allclose(filters.butterworth(p), expected, atol=1e-6)


def test_butterworth_stops_drift_and_mains_and_passes_the_ecg():
    time = np.arange(60 * 300) / 300
    late = slice(40 * 300, None)

    def gain(frequency):
        wave = np.sin(2 * np.pi * frequency * time)
        return filters.butterworth(wave)[late].std() / wave[late].std()

    assert gain(50.0) < 1e-3
    assert gain(60.0) < 1e-3
    assert gain(0.01) < 0.05
    assert gain(10.0) == pytest.approx(1.0, abs=0.01)


def test_butterworth_is_causal(p):
    changed = p.copy()
    changed[:, 5000:] += 1
    a, b = filters.butterworth(p), filters.butterworth(changed)
    np.testing.assert_array_equal(a[:, :5000], b[:, :5000])
    assert (a[:, 5000:] != b[:, 5000:]).any()


def test_a_filter_is_linear_and_works_along_the_last_axis(front_end, p):
    one, two = front_end(p[0]), front_end(p[1])
    assert front_end(p).shape == p.shape
    assert front_end(p).dtype == np.float64
    np.testing.assert_allclose(front_end(p), [one, two], atol=1e-12)
    np.testing.assert_allclose(front_end(2 * p[0] - 3 * p[1]), 2 * one - 3 * two, atol=1e-9)
    np.testing.assert_allclose(front_end(p.reshape(1, 2, 9000))[0], front_end(p), atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"fs": 100}, {"fs": 120}, {"high_pass": 150.0}, {"high_pass": 0.0}, {"mains": [-50]}],
)
def test_a_frequency_beyond_half_the_sampling_rate_is_refused(front_end, options):
    with pytest.raises(ConfigError, match="is not between 0 and half the sampling rate"):
        front_end(np.zeros(300), **options)


def test_a_signal_longer_than_the_transform_is_refused():
    with pytest.raises(ConfigError, match="at most 16384"):
        filters.rectangular(np.zeros(20000))
