import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.signal import find_peaks, welch

from ecgadv.errors import DataError
from ecgadv.records import FS, RecordSet, synthetic
from ecgadv.records.synthetic import rhythms, waves


@pytest.fixture(scope="module")
def easy() -> RecordSet:
    """Textbook records, without borderline ones."""
    return synthetic._generate(3, 24, 0.0)


@pytest.fixture(scope="module")
def default() -> RecordSet:
    return synthetic._generate(0, 60, 0.35)


def signals(records: RecordSet, letter: str) -> list[np.ndarray]:
    chosen = [r.signal for r in records if r.label == letter]
    return [x if abs(x.max()) >= abs(x.min()) else -x for x in chosen]


def r_peaks(x: np.ndarray) -> np.ndarray:
    """Positions of R peaks: steep and far apart."""
    steep = np.abs(np.gradient(x)) ** 2
    energy = np.convolve(steep, np.ones(25), "same")
    rough, _ = find_peaks(energy, height=0.25 * np.quantile(energy, 0.985), distance=80)
    rough = rough[(rough > 100) & (rough < len(x) - 100)]
    return np.unique([p - 20 + int(np.argmax(x[p - 20 : p + 20])) for p in rough])


def spread_of_rr(x: np.ndarray) -> float:
    """Robust coefficient of variation of the RR intervals."""
    rr = np.diff(r_peaks(x[3 * FS :]))
    low, middle, high = np.quantile(rr, [0.16, 0.5, 0.84])
    return float((high - low) / 2 / middle)


def p_wave(x: np.ndarray) -> float:
    """Height of the averaged P wave over the level before it, in mV."""
    peaks = r_peaks(x)
    peaks = peaks[peaks > 110]
    mean = np.mean([x[p - 80 : p] for p in peaks], axis=0)
    return float(mean[20:52].max() - np.median(mean[4:16]))


def test_the_recursion_solves_the_models_three_equations() -> None:
    rr, heart_rate = 0.9, 2 * np.pi / 0.9
    tau = np.array([-0.16, -0.027, 0.0, 0.029, 0.26])
    s = np.array([0.022, 0.008, 0.0105, 0.0095, 0.05])
    h = np.array([0.1, -0.08, 1.0, -0.2, 0.25])
    theta, b = heart_rate * tau, heart_rate * s
    a = h * heart_rate / b**2

    def equations(t: float, state: np.ndarray) -> list[float]:
        x, y, z = state
        alpha = 1 - np.hypot(x, y)
        away = (np.arctan2(y, x) - theta + np.pi) % (2 * np.pi) - np.pi
        pull = -np.sum(a * away * np.exp(-(away**2) / (2 * b**2)))
        z0 = 0.05 * np.sin(2 * np.pi * 0.25 * t)
        return [alpha * x - heart_rate * y, alpha * y + heart_rate * x, pull - (z - z0)]

    t = np.arange(int(4.5 * FS)) / FS
    start = [np.cos(-np.pi), np.sin(-np.pi), 0.0]
    exact = solve_ivp(equations, (0, t[-1]), start, t_eval=t, max_step=1 / 600, rtol=1e-7).y[2]

    times = rr / 2 + rr * np.arange(5)
    rows = [np.tile(v, (5, 1)) for v in (tau, s, h)]
    slope = waves._forcing(times, *rows, t)
    ours = waves.integrate(slope, 0.05 * np.sin(2 * np.pi * 0.25 * t))
    assert exact.max() == pytest.approx(1.0, abs=0.15)
    np.testing.assert_allclose(ours, exact, atol=0.02)


def test_the_tachogram_has_the_papers_two_peaks() -> None:
    rr = rhythms.tachogram(np.random.default_rng(0), 2000, 0.85, 0.05, 0.5, 0.25)
    assert rr.mean() == pytest.approx(0.85, abs=1e-3)
    assert rr.std() == pytest.approx(0.05, rel=0.01)
    f, power = welch(rr - rr.mean(), 4, nperseg=1024)
    slow, fast = ((f > at - 0.04) & (f < at + 0.04) for at in (0.1, 0.25))
    assert power[slow].sum() / power[fast].sum() == pytest.approx(0.5, rel=0.25)
    assert power[slow | fast].sum() > 0.97 * power.sum()


def test_beats_fall_where_the_phase_turns() -> None:
    np.testing.assert_allclose(np.diff(rhythms._beats(np.full(81, 0.8), 0.3)), 0.8, rtol=1e-9)
    slowing = np.linspace(0.5, 1.5, 161)
    beats = rhythms._beats(slowing, 0.0)
    at = np.interp((beats[1:] + beats[:-1]) / 2, np.arange(161) / 4, slowing)
    np.testing.assert_allclose(np.diff(beats), at, rtol=0.01)


def test_fibrillation_is_irregular_and_has_no_p_wave(easy: RecordSet) -> None:
    irregular = [spread_of_rr(x) for x in signals(easy, "A")]
    regular = [spread_of_rr(x) for x in signals(easy, "N")]
    assert np.median(irregular) > 0.15
    assert np.quantile(irregular, 0.1) > np.quantile(regular, 0.9)
    assert np.median(regular) < 0.08
    without = np.median([p_wave(x) for x in signals(easy, "A")])
    present = np.median([p_wave(x) for x in signals(easy, "N")])
    assert present > 0.05
    assert without < 0.4 * present


def test_normal_rates_are_normal(easy: RecordSet) -> None:
    rates = [60 * FS / np.median(np.diff(r_peaks(x))) for x in signals(easy, "N")]
    assert np.quantile(rates, 0.05) > 48
    assert np.quantile(rates, 0.95) < 102


def test_fibrillatory_waves_lie_between_4_and_9_hz() -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        t = np.arange(60 * FS) / FS
        f, power = welch(waves._fibrillatory_waves(rng, t), FS, nperseg=1024)
        assert 4 <= f[np.argmax(power)] <= 9
        assert power[(f > 3) & (f < 10)].sum() > 0.6 * power.sum()


def test_other_rhythms_are_what_they_are_called() -> None:
    seen = set()
    for seed in range(80):
        rhythm = rhythms._other(np.random.default_rng(seed), 33.0, False)
        rr = np.diff(rhythm.times)
        assert np.all(rr > 0.2), "no beat within the refractory period of another"
        rate = 60 / np.median(rr)
        kinds = set(rhythm.kinds.tolist())
        if kinds == {0}:
            assert rate < 50 or rate > 100
            seen.add("slow" if rate < 50 else "fast")
            continue
        (odd,) = kinds - {0}
        where = np.flatnonzero(rhythm.kinds == odd)
        where = where[(where > 1) & (where < len(rr) - 1)]
        seen.add(odd)
        if odd != 3:
            assert np.all(rr[where - 1] < rr[where]), "early, then a pause"
    assert seen == {"slow", "fast", 1, 2, 3}


def test_noise_is_larger_and_less_like_a_heart(default: RecordSet) -> None:
    noisy = [np.std(x) for x in signals(default, "~")]
    clean = [np.std(x) for x in signals(default, "N")]
    assert np.median(noisy) > 1.8 * np.median(clean)


def test_spectra_follow_the_real_ones(default: RecordSet, real: RecordSet) -> None:
    rng = np.random.default_rng(0)
    bands = [(0.3, 1), (1, 4), (4, 12), (12, 25), (25, 40)]

    def spectrum(records: RecordSet, positions: np.ndarray) -> np.ndarray:
        rows = []
        for i in positions:
            x = records[int(i)].signal
            f, power = welch(x / x.std(), FS, nperseg=2400)
            rows.append([power[(f >= a) & (f < b)].mean() for a, b in bands])
        return np.median(np.log10(rows), axis=0)

    for letter in "ANO~":
        made = np.flatnonzero(default.labels == letter)
        found = np.flatnonzero((real.labels == letter) & (real.lengths >= 2400))
        found = rng.choice(found, 60, replace=False)
        difference = spectrum(default, made) - spectrum(real, found)
        assert np.abs(difference).max() < 0.6, (letter, difference.round(2))


def test_amplitudes_and_lengths_are_those_of_a_hand_held_device(default: RecordSet) -> None:
    seconds = default.lengths / FS
    assert seconds.min() >= 9
    assert seconds.max() <= 60
    assert np.median(seconds) == 30
    assert 0.55 < np.mean(seconds == 30) < 0.75
    for letter in "ANO":
        std = np.median([x.std() for x in signals(default, letter)])
        assert 0.1 < std < 0.3, "mV"
    assert default.samples.dtype == np.int16
    assert default.gain == 1000
    assert np.abs(default.samples).max() < 32767


def test_every_record_is_usable_and_different(default: RecordSet) -> None:
    assert len(default) == 240
    assert default.ids[:2] == ["S00001", "S00002"]
    assert [str(c) for c in default.labels[:5]] == ["A", "N", "O", "~", "A"]
    assert all(default.unusable(i) == "" for i in range(len(default)))
    starts = {default[i].signal[:300].tobytes() for i in range(len(default))}
    assert len(starts) == len(default)


def test_a_seed_gives_its_bytes_and_a_larger_set_begins_with_the_smaller() -> None:
    small = synthetic._generate(0, 2, 0.35)
    assert synthetic._generate(0, 2, 0.35).digest == small.digest
    larger = synthetic._generate(0, 3, 0.35)
    np.testing.assert_array_equal(larger.samples[: small.samples.size], small.samples)
    assert synthetic._generate(1, 2, 0.35).digest != small.digest
    assert synthetic._generate(0, 2, 0.5).digest != small.digest


def test_load_caches_by_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    first = synthetic.load(seed=4, per_class=2)
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_generate", lambda *a: pytest.fail("generated again"))
        assert synthetic.load(seed=4, per_class=2).digest == first.digest
    assert len(synthetic.load(seed=4, per_class=3)) == 12


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"per_class": 0}, r"data\.per_class=0"),
        ({"per_class": 2.5}, r"data\.per_class=2\.5"),
        ({"seed": -1}, r"data\.seed=-1"),
        ({"difficulty": 1.5}, r"data\.difficulty=1\.5: must be a number from 0 to 1"),
        ({"root": "x.zip"}, r"data\.root=x\.zip: data=synthetic reads no file"),
    ],
)
def test_arguments_out_of_range(options: dict, words: str) -> None:
    with pytest.raises(DataError, match=words):
        synthetic.load(**options)
