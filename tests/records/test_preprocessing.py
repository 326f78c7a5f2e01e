import numpy as np
import pytest

from ecgadv.errors import RecordError
from ecgadv.records.preprocessing import N_SAMPLES, clean, prepare
from ecgadv.victims.inputs import preprocess
from ecgadv.victims.pipeline import flatten, standardise_array, unflatten


def test_standardises_over_the_records_own_samples_and_pads_the_end() -> None:
    out = preprocess(np.array([1.0, 2.0, 3.0, 4.0]), 300, n=6)
    # Mean 2.5, population standard deviation sqrt(1.25).
    expected = [-1.3416408, -0.4472136, 0.4472136, 1.3416408, 0.0, 0.0]
    np.testing.assert_allclose(out, expected, rtol=1e-6)
    assert out.dtype == np.float32


@pytest.mark.parametrize("offset", [0.0, 5.0, -300.0])
def test_missing_samples_count_as_the_mean_of_the_others(offset: float) -> None:
    out = preprocess(np.array([np.nan, 2.0, np.inf, 4.0, 1.0, 5.0]) + offset, 300, n=7)
    # The mean of 2, 4, 1, 5 is 3; over six samples the variance is (1 + 1 + 4 + 4) / 6.
    expected = np.array([0, -1, 0, 1, -2, 2, 0]) / np.sqrt(10 / 6)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_a_lead_has_its_own_mean_for_missing_samples() -> None:
    signal = np.array([[1.0, 100.0], [3.0, np.nan], [2.0, 300.0], [2.0, 200.0]])
    out = preprocess(signal, 300, n=4)
    expected = [[-1.4142135, -1.4142135], [1.4142135, 0], [0, 1.4142135], [0, 0]]
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-6)


def test_only_the_first_30_s_count() -> None:
    signal = np.random.default_rng(0).normal(size=N_SAMPLES + 500)
    changed = signal.copy()
    changed[N_SAMPLES:] += 100
    np.testing.assert_array_equal(preprocess(signal, 300), preprocess(changed, 300))
    assert preprocess(signal, 300).shape == (N_SAMPLES,)


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_any_unit_gives_the_same_input(unit: float) -> None:
    signal = np.random.default_rng(1).normal(size=400)
    np.testing.assert_allclose(preprocess(signal * unit, 300), preprocess(signal, 300), atol=1e-6)


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (np.full(300, 0.1), "flat line"),
        (np.full(300, np.nan), "missing altogether"),
        (np.r_[np.full(200, np.nan), np.arange(100)], "67% of the samples read are missing"),
        (np.zeros(0), "no samples"),
        (np.zeros((2, 300)), r"\(samples,\) or \(samples, leads\), this one has shape \(2, 300\)"),
    ],
)
def test_what_cannot_be_standardised_is_refused(signal: np.ndarray, words: str) -> None:
    with pytest.raises(RecordError, match=words):
        preprocess(signal, 300)


def test_clean_keeps_short_recordings_short() -> None:
    assert clean(np.arange(10), 4).tolist() == [0, 1, 2, 3]
    assert clean(np.arange(3), 4).size == 3


def test_a_recording_at_another_rate_is_resampled() -> None:
    t = np.arange(1800) / 360
    out = preprocess(np.sin(2 * np.pi * 3 * t), 360, n=1600)
    expected = np.sqrt(2) * np.sin(2 * np.pi * 3 * np.arange(1500) / 300)
    np.testing.assert_allclose(out[30:1470], expected[30:1470], atol=5e-3)
    assert not out[1500:].any()


def test_a_rate_must_be_said_and_be_one() -> None:
    with pytest.raises(TypeError):
        preprocess(np.arange(300.0))  # type: ignore[call-arg]
    for fs in (0, "fast", np.nan, [300, 300]):
        with pytest.raises(RecordError, match="its sampling rate"):
            preprocess(np.arange(300.0), fs)  # type: ignore[arg-type]


@pytest.mark.parametrize("over", ["lead", "record", "none"])
def test_the_deployed_pipeline_fills_gaps_as_the_readers_do(over: str) -> None:
    rng = np.random.default_rng(3)
    signal = rng.normal(size=(50, 2)) * [1.0, 3.0] + [5.0, -300.0]
    signal[10:20, 0], signal[7, 1], signal[8, 1] = np.nan, np.inf, -np.inf
    padded = np.full((1, 60, 2), np.nan)
    padded[0, :50] = signal
    found = standardise_array(flatten(padded), np.array([50]), 2, over)
    expected, own, _ = prepare(signal, 60, 2, over)
    assert own == 50
    np.testing.assert_allclose(unflatten(found, 2)[0], expected, rtol=1e-5, atol=1e-6)
