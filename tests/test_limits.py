"""Band, peak and mask: the projections against NumPy's DFT, and what attacks store under them."""

import numpy as np
import pytest
from helpers import beats, linear_victim, random_network

import ecgadv
from ecgadv import backend, config
from ecgadv.attacks.cw import CarliniWagner
from ecgadv.attacks.eot import EOT
from ecgadv.attacks.minnorm import MinNorm
from ecgadv.attacks.pgd import PGD
from ecgadv.errors import ConfigError
from ecgadv.threat.limits import Limits, band_limited, mask_array, spans_of

SPANS = [(0, 900), (0, 270), (300, 601), (100, 101), (400, 900)]


def rows(seed=0, n=900):
    free = np.zeros((len(SPANS), n), np.float32)
    for row, (first, last) in zip(free, SPANS, strict=True):
        row[first:last] = 1
    return np.random.default_rng(seed).normal(size=free.shape).astype(np.float32) * free, free


def within(signal, band, fs=300):
    """The signal less what its DFT has outside the band, (m,) -> (m,)."""
    frequency = np.fft.rfftfreq(len(signal), 1 / fs)
    inside = (frequency >= band[0] - 1e-9) & (frequency <= band[1] + 1e-9)
    return np.fft.irfft(np.fft.rfft(signal) * inside, len(signal))


@pytest.mark.parametrize("band", [(1, 40), (0, 30), (5, 150), (0, 150), (2.5, 17.3)])
def test_the_band_is_that_of_the_dft_over_each_rows_own_samples(band):
    delta, free = rows()
    found = backend.to_numpy(band_limited(backend.tensor(delta), backend.tensor(free), band, 300))
    for row, signal, (first, last) in zip(found, delta, SPANS, strict=True):
        expected = within(signal[first:last].astype(float), band)
        np.testing.assert_allclose(row[first:last], expected, atol=3e-6)
        assert not row[:first].any()
        assert not row[last:].any()


def test_into_is_the_nearest_point_under_one_limit_and_obeys_both():
    delta, free = rows(1)
    given = backend.tensor(3 * delta), backend.tensor(free)
    clipped = backend.to_numpy(Limits(peak=0.5).into(*given))
    np.testing.assert_allclose(clipped, np.clip(3 * delta, -0.5, 0.5), atol=1e-6)
    assert np.abs(clipped.astype(float)).max() <= 0.5
    both = backend.to_numpy(Limits((1, 40), 0.5, 300).into(*given))
    assert np.abs(both.astype(float)).max() <= 0.5
    assert np.abs(both[0]).max() > 0.4
    for row, (first, last) in zip(both, SPANS, strict=True):
        signal = row[first:last].astype(float)
        np.testing.assert_allclose(signal, within(signal, (1, 40)), atol=3e-6)
    assert Limits().into(*given) is given[0]


def test_spans_are_seconds_and_end_before_their_end():
    assert spans_of([1, 2]) == spans_of([[1, 2]]) == [(1.0, 2.0)]
    assert spans_of([[5, 7], [1, 2]]) == [(1.0, 2.0), (5.0, 7.0)]
    free = mask_array([[0, 1], [2.5, 2.51]], 900, 300)
    np.testing.assert_array_equal(np.flatnonzero(free), [*range(300), 750, 751, 752])
    for wrong in ([2, 1], [[1, 2], [1.5, 3]], [], [-1, 2], [1], [[1, 2, 3]]):
        with pytest.raises(ConfigError, match=r"attack\.mask="):
            spans_of(wrong)
    with pytest.raises(ConfigError, match="holds no sample of the first 3 s"):
        mask_array([5, 6], 900, 300)


@pytest.mark.parametrize("attack", [MinNorm, CarliniWagner, PGD, EOT])
def test_limits_that_cannot_be_are_refused_by_every_attack(attack):
    with pytest.raises(ConfigError, match=r"attack\.band=\[40,1\]: must be two numbers"):
        attack(band=(40, 1))
    with pytest.raises(ConfigError, match="half the sampling rate"):
        attack(band=(1, 200)).limits_for(300, 1)
    with pytest.raises(ConfigError, match=r"attack\.peak=0"):
        attack(peak=0.0)
    with pytest.raises(ConfigError, match="cannot have gaps"):
        attack(band=(1, 40), mask=[[0, 1], [2, 3]])
    with pytest.raises(ConfigError, match="hold no whole period"):
        attack(band=(1.2, 1.4)).limits_for(300, 1).check_span(300)


def test_arrays_with_gaps_are_refused_under_a_band(problem):
    victim, x, lengths, target = problem
    mask = np.ones(victim.n, bool)
    mask[100:200] = False
    given = {"target": target, "lengths": lengths, "mask": mask}
    with pytest.raises(ConfigError, match="cannot have gaps"):
        ecgadv.attack(victim, x, band=(4, 40), **given)
    with pytest.raises(ConfigError, match="no whole period"):
        ecgadv.attack(victim, x, band=(0.1, 0.2), target=target, lengths=lengths)


def test_a_peak_below_the_power_that_the_paper_asks_for_is_refused():
    with pytest.raises(ConfigError, match=r"needs amplitudes of 0\.707 at least"):
        EOT(schedule="paper", peak=0.5)


# --- what is stored -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def problem():
    """A random network, records of two lengths, and the runner-up class of each."""
    victim = random_network()
    x = beats(4, victim.n)
    lengths = np.array([600, 600, 450, 450])
    x[2:, 450:] = 0
    x[2:, :450] -= x[2:, :450].mean(1, keepdims=True)
    return victim, x, lengths, np.argsort(victim.logits(x), 1)[:, -2]


OPTIONS = {
    "minnorm": {"steps": 40},
    "cw": {"steps": 60, "search_steps": 2, "initial_constant": 10.0, "learning_rate": 2e-2},
    "pgd": {"steps": 30, "budget": 300.0},
}
LIMITS = {
    "band": {"band": (4, 40)},
    "peak": {"peak": 0.8},
    "band and peak": {"band": (0, 30), "peak": 1.2},
}


@pytest.mark.parametrize(
    ("method", "limits", "metric"),
    [
        *((method, limits, "l2") for method in OPTIONS for limits in LIMITS),
        ("minnorm", "band and peak", "diff"),
        ("pgd", "band", "diff"),
    ],
)
def test_what_a_type_i_attack_stores_obeys_its_limits(problem, method, limits, metric):
    victim, x, lengths, target = problem
    given = LIMITS[limits]
    found = ecgadv.attack(
        victim, x, target=target, metric=metric, method=method, lengths=lengths,
        **OPTIONS[method], **given,
    )  # fmt: skip
    assert np.isfinite(found.delta).all()
    assert found.success.sum() >= 2
    if "peak" in given:
        assert np.abs(found.delta.astype(float)).max() <= given["peak"]
    if "band" in given:
        for row, length in zip(found.delta.astype(float), lengths, strict=True):
            outside = row[:length] - within(row[:length], given["band"])
            assert np.abs(outside).max() <= 2e-5 * np.abs(row).max()
            assert not row[length:].any()


def test_minnorm_finds_the_nearest_point_of_a_plane_within_a_band():
    n, band = 64, (20, 80)
    rng = np.random.default_rng(3)
    w = rng.normal(size=n)
    w = within(w - w.mean(), (1, 149))
    w /= np.linalg.norm(w)
    x = np.zeros((4, n))
    for row in range(4):
        rest = rng.normal(size=n)
        rest -= rest.mean()
        rest -= (rest @ w) * w
        x[row] = rest * np.sqrt(n - 1) / np.linalg.norm(rest) - w
    victim = linear_victim(w, gain=40.0)
    found = ecgadv.attack(victim, x.astype(np.float32), target=1, band=band)
    assert found.success.all()
    # Within the band the plane's normal is the rest of w; its distance from x is 1/|that|.
    nearest = 1 / np.sum(within(w, band) ** 2)
    ratio = found.distance / nearest
    # std(·) takes out the mean, which no signal within the band has.
    assert (ratio >= 0.999).all(), ratio
    assert (ratio <= 1.02).all(), ratio


def test_a_mask_of_a_run_is_where_its_perturbations_lie(tmp_path, monkeypatch):
    from ecgadv.tasks import attack

    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path / "cache"))
    composed = config.compose_checked(
        ["selection.source=[A]", "target=N", "selection.per_class=2", "attack.steps=4",
         "attack.mask=[[2,4],[6,7]]", "attack.peak=2", "tracking=none", f"paths.root={tmp_path}"]
    )  # fmt: skip
    composed.folder.mkdir(parents=True)
    assert attack.run(composed.config, composed.folder) == 0
    run = ecgadv.load_run(composed.folder)
    free = mask_array([[2, 4], [6, 7]], 9000, 300) > 0
    assert not run.delta[:, ~free].any()
    assert (run.delta[:, free] != 0).mean() > 0.5
    assert np.abs(run.delta.astype(float)).max() <= 2


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("attack.band=[1,200]", "attack.band=[1,200]: must end at half the sampling rate"),
        ("attack.peak=0", "attack.peak=0: must be a number above 0"),
        ("attack.mask=[3,2]", "attack.mask=[3,2]: must be spans in seconds"),
        ("attack.mask=[40,50]", "attack.mask=[40,50]: begins after the 30 s"),
        ("attack.band=[1,40] attack.mask=[[0,1],[2,3]]", "cannot have gaps"),
        ("threat_model=type2 window=5s attack.mask=[6,7]", "begins after the 5 s that the window"),
        ("attack=ch_pgd attack.band=[1,40]", "attack.band"),
        ("threat_model=type2 universal=all", "universal=all target=all: one signal for all"),
        ("universal=all", "universal=all is for injected signals"),
        ("threat_model=type2 universal=some", "universal=some: must be true, false or all"),
    ],
)
def test_contradictions_are_one_line(argv, message):
    with pytest.raises(ConfigError) as caught:
        config.compose_checked(argv.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
