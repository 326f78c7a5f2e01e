"""Projected gradient ascent in the balls of the three metrics."""

import numpy as np
import pytest
from helpers import beats, linear_victim, random_network

import ecgadv
from ecgadv.api import make_attack
from ecgadv.errors import ConfigError
from ecgadv.threat import metrics
from ecgadv.threat.metrics import METRICS
from ecgadv.victims.pipeline import valid_mask

N = 64


def plane(form, length=N, count=6):
    """A linear victim and records whose nearest point of its boundary is at d = 1 exactly."""
    rng = np.random.default_rng(11)
    w = np.zeros(N)
    w[:length] = rng.normal(size=length)
    # Centred on the record's span: std(·) then leaves the boundary where it is.
    w[:length] -= w[:length].mean()
    w /= np.linalg.norm(w)
    free = valid_mask(np.array([length]), N)
    reach = float(w @ form.solve(form.factor(N, free > 0, ridge=0.0), w[None])[0])
    lead = np.sqrt(reach)
    x = np.zeros((count, N))
    for row in range(count):
        rest = rng.normal(size=length)
        rest -= rest.mean()
        rest -= (rest @ w[:length]) * w[:length]
        rest *= np.sqrt(length - lead**2) / np.linalg.norm(rest)
        x[row, :length] = rest - lead * w[:length]
    return linear_victim(w, gain=40.0 / lead), x.astype(np.float32), np.full(count, length)


@pytest.mark.parametrize("random_start", [False, True], ids=["zero", "random"])
@pytest.mark.parametrize("length", [N, 48])
@pytest.mark.parametrize("name", sorted(METRICS))
def test_success_begins_at_the_distance_of_the_plane(name, length, random_start):
    form = METRICS[name](ridge=0.0)
    victim, x, lengths = plane(form, length)

    def at(budget):
        return ecgadv.attack(
            victim, x, target=1, metric=form, method="pgd", lengths=lengths, steps=60,
            budget=budget, random_start=random_start,
        )  # fmt: skip

    above, below = at(1.02), at(0.98)
    assert above.success.all()
    assert not below.success.any()
    for found, budget in ((above, 1.02), (below, 0.98)):
        assert (found.distance <= budget).all()
        # It is the margin that the budget limits, so all of the budget is used.
        assert (found.distance >= 0.99 * budget).all()


@pytest.mark.parametrize("name", sorted(METRICS))
def test_the_ball_is_that_of_the_pure_metric(name):
    form, victim = metrics.get(name), random_network()
    x, lengths = beats(6, 600), np.array([600, 600, 500, 600, 400, 600])
    budget = 0.5 if name == "l2" else 0.05
    source = victim.pipeline(x, lengths).argmax(1)
    found = ecgadv.attack(
        victim, x, target=(source + np.array([1, 2, 3, 1, 2, 3])) % 4, metric=form, method="pgd",
        steps=12, step_size=0.7, budget=budget, lengths=lengths,
    )  # fmt: skip
    assert (found.distance <= budget).all()
    assert (found.distance > 0.5 * budget).all()
    assert not found.delta[2, 500:].any()
    assert not found.delta[4, 400:].any()


def test_a_larger_budget_gives_a_larger_margin_and_the_best_iterate_is_kept():
    victim, x = random_network(), beats(4, 600)
    logits = victim.logits(x)
    target = logits.argmin(1)
    margins = []
    for budget in (0.01, 0.1, 1.0, 10.0):
        found = ecgadv.attack(victim, x, target, method="pgd", steps=20, budget=budget)
        margins.append(found.margin)
    assert (np.diff(margins, axis=0) > 0).all()
    # Steps as long as the ball is wide overshoot; what is returned is never worse than no attack.
    wild = ecgadv.attack(victim, x, target, method="pgd", steps=7, step_size=3.0, budget=10.0)
    rows = np.arange(len(x))
    others = np.where(np.arange(4) == target[:, None], -np.inf, logits).max(1)
    assert (wild.margin >= logits[rows, target] - others - 1e-4).all()


def test_untargeted_leaves_the_class():
    victim, x = random_network(), beats(5, 600)
    source = victim.logits(x).argmax(1)
    found = ecgadv.attack(victim, x, "untargeted", method="pgd", steps=30, budget=50.0)
    assert found.success.all()
    assert (found.predicted != source).all()


@pytest.mark.parametrize("random_start", [False, True], ids=["zero", "random"])
def test_batch_mates_change_nothing(random_start):
    victim, x = random_network(), beats(5, 600)
    options = {"method": "pgd", "metric": "diffl2", "steps": 10, "budget": 0.1,
               "random_start": random_start}  # fmt: skip
    together = ecgadv.attack(victim, x, 2, **options)
    alone = ecgadv.attack(victim, x, 2, batch_size=1, **options)
    np.testing.assert_array_equal(together.success, alone.success)
    np.testing.assert_allclose(together.delta, alone.delta, atol=2e-5)


def test_another_seed_starts_elsewhere_and_the_same_seed_does_not():
    victim, x = random_network(), beats(2, 600)
    first, again, other = (
        ecgadv.attack(victim, x, 2, method="pgd", steps=3, budget=1.0, random_start=True, seed=s)
        for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.delta, again.delta)
    assert np.abs(first.delta - other.delta).max() > 1e-3


def test_gradients_are_counted():
    found = ecgadv.attack(random_network(), beats(2, 600), 1, method="pgd", steps=9)
    assert (found.n_gradients == 9).all()
    assert (found.n_forwards == 1).all()


@pytest.mark.parametrize(
    "options",
    [{"budget": 0.0}, {"budget": -1.0}, {"budget": float("inf")}, {"steps": 0}, {"step_size": 0.0}],
    ids=str,
)
def test_options_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(ConfigError, match=f"attack.{name}="):
        make_attack("pgd", **options)
