"""The Type II attack on victims small enough to enumerate every onset."""

import numpy as np
import pytest

from ecgadv import backend
from ecgadv.attacks.base import Problem
from ecgadv.attacks.engine import Engine
from ecgadv.attacks.eot import EOT, paper_shifts
from ecgadv.attacks.minnorm import MinNorm
from ecgadv.errors import ConfigError
from ecgadv.threat import metrics
from ecgadv.threat.channel import Channel, Views
from ecgadv.threat.front_ends import Butterworth
from ecgadv.threat.goals import UNTARGETED
from ecgadv.threat.objectives import Cases, Objective
from ecgadv.threat.transforms import shift
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import standardise_array

N = 48
CLASSES = 4
FRONT_END = Butterworth(high_pass=4.0, mains=(60,))


def energies(x):
    """Logits from the energy of the first half in four sets of bands.

    A signal in the right bands serves wherever it is, but only if it lasts.
    """
    from keras import ops

    half = N // 2
    real, imaginary = ops.rfft(x[:, :half, 0], half)
    power = ops.log(ops.square(real) + ops.square(imaginary) + 1e-3)
    return ops.stack([ops.sum(power[:, k::CLASSES], axis=-1) for k in range(CLASSES)], axis=-1) / 4


def onset_sensitive(x):
    """Logits of a fixed random two-layer network."""
    from keras import ops

    rng = np.random.default_rng(0)
    first = ops.convert_to_tensor(rng.normal(size=(N, 16)).astype(np.float32) / 5)
    second = ops.convert_to_tensor(rng.normal(size=(16, CLASSES)).astype(np.float32))
    return ops.matmul(ops.tanh(ops.matmul(x[..., 0], first)), second)


@pytest.fixture(scope="module")
def victim():
    return Victim(onset_sensitive, name="toy", n=N)


def make_cases(count, *, views, window=N, target=1, seed=0):
    x = np.random.default_rng(seed).normal(size=(count, N))
    x = standardise_array(x, np.full(count, N))
    free = np.tile((np.arange(N) < window).astype(np.float32), (count, 1))
    ones = np.ones_like(free)
    return Cases(
        x, ones, free, np.zeros(count, int), np.full(count, target), np.full(count, N), views
    )


def injected(victim, shifts, pool=None, at_once=None):
    channel = Channel(True, shifts > 0, N, FRONT_END, pool=pool)
    return Objective(victim, channel=channel, shifts=shifts, at_once=at_once)


def moved(p, onsets):
    return shift(np.asarray(p)[None], np.asarray(onsets)[None])[0]


def every_onset(count, rows):
    onsets = np.arange(count, dtype=np.int32)[None, None].repeat(rows, axis=0)
    return Views(0 * onsets, onsets)


def entropy_by_hand(victim, x, p, onset, target, source=0):
    z = standardise_array((x + FRONT_END.array(moved(p, [onset])[0]))[None], np.array([N]))
    logits = victim.logits(z)[0].astype(np.float64)
    probability = np.exp(logits - logits.max())
    probability /= probability.sum()
    return -np.log(1 - probability[source] if target == UNTARGETED else probability[target])


def loss_and_gradient(victim, p, cases):
    objective = injected(victim, cases.views.onset.shape[2])
    device = cases.on_device()
    turn = backend.tensor(np.zeros(len(cases.x)), "int32")

    def loss(q):
        return objective.loss(q, device, turn)

    (value, _), gradient = backend.value_and_grad(loss)(backend.tensor(p))
    return backend.to_numpy(value), backend.to_numpy(gradient)


@pytest.mark.parametrize("target", [1, UNTARGETED])
@pytest.mark.parametrize("window", [N, 20])
def test_loss_over_every_onset_is_the_exact_mean(victim, window, target):
    count = N if window == N else N - window + 1
    cases = make_cases(2, views=every_onset(count, 2), window=window, target=target)
    p = np.random.default_rng(5).normal(size=(2, N)).astype(np.float32) * cases.free
    value, _ = loss_and_gradient(victim, p, cases)
    expected = [
        np.mean([entropy_by_hand(victim, x, q, t, target) for t in range(count)])
        for x, q in zip(cases.x, p, strict=True)
    ]
    np.testing.assert_allclose(value, expected, rtol=2e-4)


def test_sampled_loss_and_gradient_approach_the_exact_ones(victim):
    every = every_onset(N, 1)
    p = np.random.default_rng(6).normal(size=(1, N)).astype(np.float32)
    exact, slope = loss_and_gradient(victim, p, make_cases(1, views=every))

    def error(shifts):
        away = []
        for seed in range(6):
            views = Channel(True, True).draw([seed], [N], shifts)
            value, gradient = loss_and_gradient(victim, p, make_cases(1, views=views))
            distance = np.linalg.norm(gradient - slope) / np.linalg.norm(slope)
            away.append((abs(value[0] - exact[0]), distance))
        return np.mean(away, axis=0)

    few, many = error(8), error(800)
    # A hundred times the samples, a tenth of the error; some room for six draws.
    assert (many < few / 4).all()
    assert many[1] < 0.4


def test_gradient_agrees_with_finite_differences(victim):
    every = every_onset(N, 1)
    cases = make_cases(1, views=every)
    p = np.random.default_rng(7).normal(size=(1, N)).astype(np.float32)
    _, gradient = loss_and_gradient(victim, p, cases)

    def exact(q):
        return np.mean([entropy_by_hand(victim, cases.x[0], q, t, 1) for t in range(N)])

    for i in (0, 17, N - 1):
        step = np.zeros(N)
        step[i] = 0.02
        slope = (exact(p[0] + step) - exact(p[0] - step)) / 0.04
        assert gradient[0, i] == pytest.approx(slope, rel=0.03, abs=2e-4)


def run(victim, cases, attack, *, metric="l2", pool=None, shifts=4):
    objective = injected(victim, shifts, pool)
    return Engine(attack, Problem(objective, metrics.get(metric))).run(cases)


def views_of(count, *, window=N, shifts=4, records=1):
    channel = Channel(True, shifts > 0, window)
    return channel.draw(range(count), [N] * count, shifts, 40, np.array([[0, records]] * count))


def rate(victim, x, p, target, window=N):
    onsets = np.arange(N if window == N else N - window + 1)
    signal = x + FRONT_END.array(moved(p.astype(float), onsets))
    logits = victim.logits(standardise_array(signal, np.full(len(onsets), N)))
    return (logits.argmax(1) == target).mean()


def test_with_shifts_it_reaches_onsets_that_it_never_saw_and_without_it_does_not():
    victim = Victim(energies, name="bands", n=N)
    attack = EOT(steps=80, power=4.0)
    cases = make_cases(4, views=views_of(4))
    found = run(victim, cases, attack)
    assert (found.gradients == 80 * 4).all()
    with_shifts = [rate(victim, x, p, 1) for x, p in zip(cases.x, found.delta, strict=True)]
    assert np.mean(with_shifts) > 0.9
    blind = make_cases(4, views=views_of(4, shifts=0))
    found = run(victim, blind, attack, shifts=0)
    assert (found.gradients == 80).all()
    onset_0 = blind.x + FRONT_END.array(found.delta.astype(float))
    assert (victim.logits(standardise_array(onset_0, np.full(4, N))).argmax(1) == 1).all()
    without = [rate(victim, x, p, 1) for x, p in zip(blind.x, found.delta, strict=True)]
    assert np.mean(without) < np.mean(with_shifts) - 0.1


@pytest.mark.parametrize("power", [0.1, 2.0])
@pytest.mark.parametrize("window", [N, 20])
def test_power_stays_within_the_budget_and_the_window(victim, power, window):
    cases = make_cases(3, views=views_of(3, window=window), window=window)
    found = run(victim, cases, EOT(steps=30, power=power))
    assert (found.delta[:, window:] == 0).all()
    mean = (found.delta.astype(np.float64) ** 2).sum(1) / window
    assert (mean <= power).all()
    assert (mean > 0.5 * power).all()


def test_the_limit_falls_from_its_start_to_the_power():
    attack = EOT(steps=10, power=2.0, start_power=16.0)
    limits = [float(attack.excess(np.float32(done))) for done in (0.0, 0.35, 0.7, 0.85, 1.0)]
    np.testing.assert_allclose(limits, [16, 4, 1, 1, 1], rtol=1e-5)
    assert float(EOT(start_power=1.0).excess(np.float32(0.1))) == 1


def test_band_and_peak_hold(victim):
    cases = make_cases(3, views=views_of(3))
    found = run(victim, cases, EOT(steps=30, band=(20, 80), peak=0.8))
    spectrum = np.abs(np.fft.rfft(found.delta, axis=1))
    frequency = np.fft.rfftfreq(N, 1 / 300)
    outside = (frequency < 20) | (frequency > 80)
    assert spectrum[:, outside].max() < 1e-3 * spectrum.max()
    assert np.abs(found.delta).max() <= 0.8 * (1 + 1e-5)


def test_the_smoothness_metric_makes_it_smoother(victim):
    cases = make_cases(4, views=views_of(4))
    rough = run(victim, cases, EOT(steps=40)).delta
    smooth = run(victim, cases, EOT(steps=40, constant=1e3), metric="diff").delta
    ratio = [metrics.d_smooth(d) / metrics.d_l2(d) for d in (smooth, rough)]
    assert np.median(ratio[0]) < 0.5 * np.median(ratio[1])


def test_a_batch_is_its_singletons(victim):
    cases = make_cases(4, views=views_of(4))
    whole = run(victim, cases, EOT(steps=15))
    for i in range(4):
        own = backend.map_tensors(lambda part: part[i : i + 1], cases)  # noqa: B023
        alone = run(victim, own, EOT(steps=15))
        np.testing.assert_allclose(alone.delta[0], whole.delta[i], atol=2e-3)
        np.testing.assert_allclose(alone.history[0], whole.history[i], atol=2e-3)
    again = run(victim, cases, EOT(steps=15))
    np.testing.assert_array_equal(again.delta, whole.delta)


def test_the_loss_of_every_iteration_is_kept():
    victim = Victim(energies, name="bands", n=N)
    found = run(victim, make_cases(2, views=views_of(2)), EOT(steps=40))
    assert found.history.shape == (2, 40)
    assert (found.history > 0).all()
    assert (found.history[:, -5:].mean(1) < found.history[:, :5].mean(1)).all()


def test_the_papers_schedule_ends_in_its_band_from_either_side(victim):
    for constant in (1.0, 1e9):
        cases = make_cases(2, views=views_of(2))
        attack = EOT(schedule="paper", paper_steps=30, constant=constant, search_steps=8,
                     step_size=0.2, highest_power=4.0)  # fmt: skip
        found = run(victim, cases, attack)
        power = (found.delta.astype(np.float64) ** 2).mean(1)
        assert (power <= 4.0 * (1 + 1e-5)).all()
        assert (power >= 0.5).all()
        assert (found.gradients % 30 == 0).all()
        assert found.gradients.max() <= 4 * 30 * 8


def test_the_papers_number_of_shifts():
    assert paper_shifts(9000, 9000, 300) == 180
    assert paper_shifts(3000, 9000, 300) == 120
    assert paper_shifts(8999, 9000, 300) == 1
    assert paper_shifts(5000, 5000, 500) == 60


def test_universal_training_serves_records_that_one_record_does_not():
    victim = Victim(energies, name="bands", n=N)
    rng = np.random.default_rng(3)
    pool = standardise_array(rng.normal(size=(12, N)), np.full(12, N))
    unseen = standardise_array(rng.normal(size=(12, N)), np.full(12, N))
    cases = make_cases(1, views=views_of(1, shifts=12, records=12))
    p = run(victim, cases, EOT(steps=80), pool=pool, shifts=12).delta[0]
    single = run(victim, make_cases(1, views=views_of(1, shifts=12)), EOT(steps=80), shifts=12)
    together = np.mean([rate(victim, x, p, 1) for x in unseen])
    alone = np.mean([rate(victim, x, single.delta[0], 1) for x in unseen])
    assert together > alone
    assert together > 0.5


def test_other_solvers_take_the_same_objective(victim):
    cases = make_cases(2, views=views_of(2), window=20)
    found = run(victim, cases, MinNorm(steps=40))
    assert (found.delta[:, 20:] == 0).all()
    assert np.isfinite(found.delta).all()


def test_it_refuses_the_objective_of_type_i(victim):
    engine = Engine(EOT(), Problem(Objective(victim), metrics.get("l2")))
    with pytest.raises(ConfigError, match="needs threat_model=type2"):
        engine.run(make_cases(1, views=views_of(1)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "fast"}, "attack.schedule=fast"),
        ({"steps": 0}, "attack.steps=0"),
        ({"power": 0.0}, "attack.power=0"),
        ({"band": (40, 1)}, "attack.band"),
        ({"band": (-1, 40)}, "attack.band"),
        ({"lowest_power": 1.5}, "attack.lowest_power=1.5"),
        ({"peak": -1.0}, "attack.peak"),
        ({"start_power": 0.5}, "attack.start_power=0.5"),
        ({"train_records": 0}, "attack.train_records=0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        EOT(**options)


@pytest.mark.parametrize("at_once", [1, 3, 5, 12])
def test_views_in_turns_give_the_gradient_of_all_together(victim, at_once):
    cases = make_cases(2, views=views_of(2, shifts=12))
    p = np.random.default_rng(8).normal(size=(2, N)).astype(np.float32)
    device, turn = cases.on_device(), backend.tensor(np.array([0, 5]), "int32")

    def of(turns):
        objective = injected(victim, 12, at_once=turns)
        found = backend.compile(objective.gradient)(backend.tensor(p), device, turn)
        return [backend.to_numpy(part) for part in found]

    for part, whole in zip(of(at_once), of(None), strict=True):
        np.testing.assert_allclose(part, whole, rtol=1e-4, atol=1e-6)
