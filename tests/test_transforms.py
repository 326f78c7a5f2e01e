"""Shifts, windows and front ends as differentiable maps, against NumPy and scipy."""

import numpy as np
import pytest

from ecgadv import backend
from ecgadv.errors import ConfigError
from ecgadv.threat.channel import Channel
from ecgadv.threat.front_ends import Butterworth, Rectangular, Through, from_config, get
from ecgadv.threat.transforms import onset_count, shift, window_samples

FRONT_ENDS = {
    "none": Through(),
    "rectangular": Rectangular(),
    "butterworth": Butterworth(high_pass=0.05, mains=(60, 50)),
    "rectangular at 50 Hz": Rectangular(mains=(50,)),
    "butterworth at 1 Hz": Butterworth(high_pass=1.0, mains=(60,), q=10),
}


@pytest.fixture(params=sorted(FRONT_ENDS))
def front_end(request):
    return FRONT_ENDS[request.param]


def test_a_front_end_on_tensors_agrees_with_the_reference_filters(front_end):
    p = np.random.default_rng(0).normal(size=(2, 3, 9000)).astype(np.float32)
    found = backend.to_numpy(front_end(backend.tensor(p)))
    np.testing.assert_allclose(found, front_end.array(p), atol=2e-5)


def test_the_gradient_of_a_front_end_is_its_transpose(front_end):
    rng = np.random.default_rng(1)
    p, weight = rng.normal(size=(2, 1, 400)).astype(np.float32)
    weight = backend.tensor(weight)

    def loss(q):
        from keras import ops

        return ops.sum(weight * front_end(q), axis=-1), ()

    _, gradient = backend.value_and_grad(loss)(backend.tensor(p))
    # <w, F e_j> is entry j of Fᵀw.
    expected = front_end.array(np.eye(400)) @ backend.to_numpy(weight)[0].astype(np.float64)
    np.testing.assert_allclose(backend.to_numpy(gradient)[0], expected, atol=5e-5)


def test_a_shift_moves_every_row_by_its_own_onsets():
    p = np.arange(10, dtype=np.float32).reshape(2, 5)
    onsets = np.array([[0, 2, 4], [1, 1, 3]])
    expected = [[np.roll(row, k) for k in ks] for row, ks in zip(p, onsets, strict=True)]
    found = backend.to_numpy(shift(backend.tensor(p), backend.tensor(onsets, "int32")))
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(shift(p, onsets), expected)


@pytest.mark.parametrize("window", [1, 4, 9, 10])
def test_a_window_is_placed_where_it_fits_and_only_a_whole_one_wraps(window):
    p = np.where(np.arange(10) < window, np.arange(1.0, 11), 0)
    assert onset_count(window, 10) == (10 if window == 10 else 11 - window)
    for onset, placed in enumerate(shift(p[None], np.arange(onset_count(window, 10))[None])[0]):
        if window < 10:
            np.testing.assert_array_equal(placed[onset : onset + window], p[:window])
            assert np.count_nonzero(placed) == window
        else:
            np.testing.assert_array_equal(placed, np.roll(p, onset))


@pytest.mark.parametrize("window", [9000, 3000])
def test_onsets_are_uniform(window):
    from scipy.stats import chisquare

    views = Channel(True, True, window).draw([7, 8], [9000] * 2, 20, rounds=500).onset
    assert views.shape == (2, 500, 20)
    count = onset_count(window, 9000)
    for row in views:
        assert row.min() >= 0
        assert row.max() < count
        bins = np.histogram(row, bins=np.linspace(0, count, 41))[0]
        expected = np.diff(np.ceil(np.linspace(0, count, 41)))
        assert chisquare(bins, expected * row.size / count).pvalue > 1e-3
    # Neighbouring draws do not depend on each other either.
    assert abs(np.corrcoef(views[0].ravel()[:-1], views[0].ravel()[1:])[0, 1]) < 0.04


def test_records_of_a_pool_are_drawn_uniformly_and_apart_from_the_onsets():
    from scipy.stats import chi2_contingency, chisquare

    views = Channel(True, True).draw([3], [9000], 20, 500, np.array([[0, 5]]))
    record, onset = (part.ravel() for part in views)
    assert chisquare(np.bincount(record, minlength=5)).pvalue > 1e-3
    table = np.histogram2d(record, onset, bins=(5, 6))[0]
    assert chi2_contingency(table).pvalue > 1e-3


def test_onsets_come_from_the_seed_of_the_case_alone():
    channel = Channel(True, True, 3000)
    both = channel.draw([1, 2], [9000] * 2, 3, rounds=4).onset
    alone = channel.draw([2], [9000], 3, rounds=4).onset
    np.testing.assert_array_equal(both[1:], alone)
    assert (both[0] != both[1]).any()


def test_without_shifts_the_onset_is_known():
    views = Channel(True, False, 3000).draw([1], [9000], 0, rounds=4)
    assert not views.onset.any()
    assert not views.record.any()


def test_without_shifts_the_records_of_a_pool_take_turns():
    """Each its own, and none that another case is made from."""
    views = Channel(True, False).draw([1, 2], [9000] * 2, 0, 7, np.array([[0, 3], [3, 2]]))
    assert views.record[:, :, 0].tolist() == [[0, 1, 2, 0, 1, 2, 0], [3, 4, 3, 4, 3, 4, 3]]
    assert not views.onset.any()


@pytest.mark.parametrize(
    ("window", "samples"),
    [(None, 9000), (9000, 9000), (1, 1), ("10s", 3000), ("2.5 s", 750), ("30s", 9000)],
)
def test_windows_are_samples_or_seconds(window, samples):
    assert window_samples(window, 9000, 300) == samples


@pytest.mark.parametrize("window", [0, -1, 9001, "40s", "0s", "0.001s", "long"])
def test_a_window_that_does_not_fit_is_refused(window):
    with pytest.raises(ConfigError, match=f"window={window}"):
        window_samples(window, 9000, 300)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"high_pass": 150.0}, "150 Hz is not between 0 and half the sampling rate"),
        ({"mains": (200.0,)}, "200 Hz is not between 0 and half the sampling rate"),
        ({"high_pass": 0.0}, "filter.high_pass=0.0: must be a number above 0, or null"),
    ],
)
@pytest.mark.parametrize("name", ["rectangular", "butterworth"])
def test_a_frequency_that_the_sampling_rate_lacks_is_refused(name, options, said):
    with pytest.raises(ConfigError, match=said):
        type(get(name))(**options)


def test_an_unknown_front_end_is_refused():
    with pytest.raises(ConfigError, match="filter=chebyshev: unknown"):
        get("chebyshev")


def test_options_of_a_front_end_come_from_the_configuration():
    assert from_config({"name": "none"}).name == "none"
    node = {"name": "butterworth", "high_pass": 0.5, "mains": [60], "q": 20}
    assert from_config(node) == Butterworth(300, 0.5, (60.0,), 20)
    assert from_config({"name": "butterworth"}).high_pass == 0.05
    assert from_config({"name": "rectangular"}) == FRONT_ENDS["rectangular"]


def test_a_front_end_made_for_another_rate_is_refused():
    from ecgadv.threat.front_ends import Butterworth, Through, get

    assert get(Butterworth(fs=500), 500).fs == 500
    assert get(Through(), 500).name == "none"
    with pytest.raises(ConfigError, match="filter=butterworth: made for 300 Hz, say fs=500"):
        get(Butterworth(), 500)
