import numpy as np
import pytest

from ecgadv.errors import RecordError
from ecgadv.records.preprocessing import N_SAMPLES, clean, preprocess


def test_standardises_over_the_records_own_samples_and_pads_the_end() -> None:
    out = preprocess(np.array([1.0, 2.0, 3.0, 4.0]), n=6)
    # Mean 2.5, population standard deviation sqrt(1.25).
    expected = [-1.3416408, -0.4472136, 0.4472136, 1.3416408, 0.0, 0.0]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert out.dtype == np.float32


def test_missing_samples_count_as_zero_before_the_mean_is_taken() -> None:
    out = preprocess(np.array([np.nan, 2.0, np.inf, -np.inf, 2.0]), n=5)
    # 0, 2, 0, 0, 2: mean 0.8, standard deviation sqrt(0.96).
    expected = (np.array([0.0, 2.0, 0.0, 0.0, 2.0]) - 0.8) / np.sqrt(0.96)
    np.testing.assert_allclose(out, expected, rtol=1e-6)


def test_only_the_first_30_s_count() -> None:
    signal = np.random.default_rng(0).normal(size=N_SAMPLES + 500)
    changed = signal.copy()
    changed[N_SAMPLES:] += 100
    np.testing.assert_array_equal(preprocess(signal), preprocess(changed))
    assert preprocess(signal).shape == (N_SAMPLES,)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_any_unit_gives_the_same_input(unit: float) -> None:
    signal = np.random.default_rng(1).normal(size=400)
    np.testing.assert_allclose(preprocess(signal * unit), preprocess(signal), atol=1e-6)


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (np.full(300, 0.1), "flat line"),
        (np.full(300, np.nan), "flat line"),
        (np.zeros(0), "no samples"),
        (np.zeros((2, 300)), "one-dimensional"),
    ],
)
def test_what_cannot_be_standardised_is_refused(signal: np.ndarray, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        preprocess(signal)


def test_clean_keeps_short_recordings_short() -> None:
    assert clean(np.arange(10), 4).tolist() == [0, 1, 2, 3]
    assert clean(np.arange(3), 4).size == 3
