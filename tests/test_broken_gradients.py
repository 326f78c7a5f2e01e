"""A gradient that is not finite ends its own case, says so, and leaves the batch mates alone."""

import dataclasses

import numpy as np
import pytest
from helpers import beats

from ecgadv import backend
from ecgadv.attacks.base import Attack, Found, Problem
from ecgadv.attacks.engine import Engine, Solution
from ecgadv.attacks.registry import attack_kinds, make_attack
from ecgadv.threat import metrics
from ecgadv.threat.channel import Channel
from ecgadv.threat.goals import UNTARGETED
from ecgadv.threat.objectives import Cases, Objective
from ecgadv.victims.pipeline import valid_mask

N = 300
SMALL = {
    "minnorm": {"steps": 12},
    "cw": {"steps": 12, "search_steps": 2, "initial_constant": 10.0, "check_every": 4},
    "pgd": {"steps": 6, "budget": 5.0},
    "eot": {"steps": 6},
    "ch_fgm": {"budget": 2.0},
    "ch_pgd": {"steps": 4, "budget": 2.0},
    "ch_mim": {"steps": 4, "budget": 2.0},
}
KINDS = attack_kinds()


def network(kind: str):
    """A small Keras victim whose gradient is not finite for some records.

    ``nan``: √(z²) is NaN by its derivative at exactly 0, so where there is padding.
    ``inf``: exp overflows where a sample lies above about 13 standard deviations.
    """
    import keras
    from keras import ops

    from ecgadv.victims.loading import from_keras

    inputs = keras.Input((N, 1))
    if kind == "nan":
        y = keras.layers.Lambda(lambda z: ops.sqrt(ops.square(z)), output_shape=(N, 1))(inputs)
    else:
        y = keras.layers.Lambda(
            lambda z: z + 1e-30 * ops.exp(7.0 * ops.max(z, axis=1, keepdims=True)),
            output_shape=(N, 1),
        )(inputs)
    weights = keras.initializers.RandomNormal(stddev=0.4, seed=1)
    y = keras.layers.Conv1D(6, 9, strides=2, activation="tanh", kernel_initializer=weights)(y)
    y = keras.layers.GlobalAveragePooling1D()(y)
    weights = keras.initializers.RandomNormal(stddev=4.0, seed=2)
    y = keras.layers.Dense(4, kernel_initializer=weights)(y)
    return from_keras(keras.Model(inputs, y), name=kind)


def records(kind: str, broken: bool) -> tuple[np.ndarray, np.ndarray]:
    """Four records and their lengths; the second breaks the network, where it is to."""
    x, lengths = beats(4, N), np.full(4, N)
    if broken and kind == "nan":
        x[1, 200:] = 0
        x[1, :200] = (x[1, :200] - x[1, :200].mean()) / x[1, :200].std()
        lengths[1] = 200
    elif broken:
        x[1] *= 0.1
        x[1, 150] = 30.0
        x[1] = (x[1] - x[1].mean()) / x[1].std()
    return x, lengths


@pytest.fixture(scope="module", params=["nan", "inf"])
def victim(request):
    return network(request.param)


def solve(victim, method: str, metric: str, broken: bool, at_once: int | None = None) -> Solution:
    """Run the engine on the four records, whatever the attack is for."""
    x, lengths = records(victim.name, broken)
    if method == "eot" and broken and victim.name == "nan":
        # Injected signals have no padding, but a record may be silent and a signal starts so.
        x[1] = 0
        lengths[1] = N
    valid = valid_mask(lengths, N)
    source = victim.logits(beats(4, N)).argmax(1)
    target = (source + 1) % 4
    target[2] = UNTARGETED
    solver = make_attack(method, **SMALL[method])
    objective = Objective(victim)
    views = Channel().draw([0] * 4, lengths, 0)
    if method == "eot":
        valid = np.ones_like(valid)
        channel = Channel(injected=True, moving=True)
        views = channel.draw([0, 1, 2, 3], [N] * 4, 3, rounds=8)
        objective = Objective(victim, channel=channel, shifts=3, at_once=at_once)
    problem = Problem(objective, metrics.get(metric))
    return Engine(solver, problem).run(Cases(x, valid, valid, source, target, lengths, views))


@pytest.mark.parametrize(
    ("method", "metric"),
    [
        (method, metric)
        for method, kind in sorted(KINDS.items())
        # Another library's attacks know no metric.
        for metric in (sorted(metrics.METRICS) if issubclass(kind, Attack) else ["l2"])
    ],
)
def test_only_the_broken_case_ends_and_its_mates_keep_every_byte(victim, method, metric):
    whole, hurt = (solve(victim, method, metric, broken) for broken in (False, True))
    assert not whole.broken.any()
    assert not whole.broken_at.any()
    assert hurt.broken.tolist() == [False, True, False, False]
    assert hurt.broken_at.tolist() == [0, 1, 0, 0]
    assert not hurt.success[1]
    assert not hurt.delta[1].any()
    assert np.isfinite(hurt.delta).all()
    mates = [0, 2, 3]
    for name in ("delta", "success", "gradients", "forwards"):
        one, other = getattr(whole, name)[mates], getattr(hurt, name)[mates]
        assert one.tobytes() == other.tobytes(), name
    assert whole.delta[mates].any(axis=1).all()


def test_views_that_go_through_the_network_in_turns_are_watched_too():
    victim = network("inf")
    hurt = solve(victim, "eot", "l2", True, at_once=2)
    assert hurt.broken_at.tolist() == [0, 1, 0, 0]
    assert np.isfinite(hurt.delta).all()


@pytest.mark.parametrize("method", ["minnorm", "cw", "pgd", "ch_pgd"])
def test_a_case_that_breaks_on_the_way_keeps_its_last_finite_perturbation(method):
    """The logits lead z₁ upward; beyond -0.8, where z₀ is not high, √(0²) has no derivative."""
    from keras import ops

    from ecgadv.victims.loading import Victim

    def forward(z):
        first, second = z[:, 0, 0], z[:, 1, 0]
        edge = ops.sqrt(ops.square(ops.relu(ops.relu(first) - 0.8 - second)))
        away = ops.zeros_like(edge) - 30.0
        return ops.stack([1e-3 * edge - second, second, away, away], axis=-1)

    victim = Victim(forward, name="edge", n=N)
    x = beats(2, N)
    x[:, 0], x[:, 1] = (3.0, -1.0), -1.0
    lengths, valid = np.full(2, N), np.ones((2, N), np.float32)
    zero, one = np.zeros(2, int), np.ones(2, int)
    cases = Cases(x, valid, valid, zero, one, lengths, Channel().draw([0, 0], lengths, 0))
    options = SMALL[method] | ({"steps": 300} if method == "cw" else {})
    problem = Problem(Objective(victim), metrics.get("l2"))
    found = Engine(make_attack(method, **options), problem).run(cases)
    assert found.broken.tolist() == [False, True]
    assert found.broken_at[1] >= 2
    assert np.isfinite(found.delta).all()
    # What minnorm keeps before a success is what it last looked at, 0 here; ch_pgd's library hands
    # out its last iterate only.
    assert bool(found.delta[1].any()) == (method in ("cw", "pgd"))
    assert found.gradients[1] == (4 if method == "ch_pgd" else found.broken_at[1])
    assert found.success[0]
    assert not found.success[1]


@dataclasses.dataclass(frozen=True)
class Unwatched(Attack):
    """An attack that differentiates for itself, and ends in NaN."""

    name = "unwatched"

    def max_steps(self) -> int:
        return 2

    def init(self, problem, cases, factor):
        return (cases.x * 0, cases.lengths * 0)

    def step(self, problem, cases, factor, state):
        def loss(delta):
            return problem.objective(delta, cases, state[1]).margin, ()

        _, gradient = backend.value_and_grad(loss)(state[0])
        return (state[0] + gradient, state[1] + 1)

    def found(self, state):
        count = state[1]
        return Found(state[0], count > 0, count > 1, count, count * 0)


def test_an_attack_that_is_not_watched_hands_out_nothing_but_finite_numbers(victim):
    x, lengths = records(victim.name, True)
    valid = valid_mask(lengths, N)
    source = victim.logits(beats(4, N)).argmax(1)
    views = Channel().draw([0] * 4, lengths, 0)
    cases = Cases(x, valid, valid, source, (source + 1) % 4, lengths, views)
    found = Engine(Unwatched(), Problem(Objective(victim), metrics.get("l2"))).run(cases)
    assert found.broken.tolist() == [False, True, False, False]
    assert found.broken_at.tolist() == [0, 0, 0, 0]
    assert found.success.tolist() == [True, False, True, True]
    assert np.isfinite(found.delta).all()
    assert found.delta[[0, 2, 3]].any(axis=1).all()


def test_a_solution_of_another_library_is_broken_where_it_is_not_finite():
    delta = np.ones((3, 4), np.float32)
    delta[1, 2] = np.nan
    delta[2, 0] = -np.inf
    count = np.ones(3, int)
    found = Solution(delta, np.ones(3, bool), count, count)
    assert found.broken.tolist() == [False, True, True]
    assert found.success.tolist() == [True, False, False]
    assert found.delta.tolist() == [[1] * 4, [0] * 4, [0] * 4]
