"""A defended victim: what is attacked and judged, under a name and a digest of its own."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import beats, random_network

import ecgadv
from ecgadv.defences import defend, none
from ecgadv.errors import VictimError
from ecgadv.victims.twin import twin_of

N = 300


@dataclass(frozen=True)
class Gain:
    """Inputs times a number."""

    factor: float = 0.5
    weights: str = ""

    def __call__(self, victim):
        return victim.behind(lambda signal: self.factor * signal)


@pytest.fixture
def victim():
    made = random_network(N)
    made.sha256 = made.sha256 or "f00d"
    return made


def test_none_is_the_victim_itself(victim):
    assert defend(victim, none(), "none") is victim


def test_a_defence_is_read_attacked_and_judged(victim):
    x = beats(4, N, seed=1)
    before = victim.logits(x)
    defended = defend(victim, Gain(), "gain", {"factor": 0.5})
    assert defended.name == f"{victim.name}+gain"
    np.testing.assert_allclose(defended.logits(x), victim.logits(0.5 * x), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(victim.logits(x), before)
    target = (defended.logits(x).argmax(1) + 1) % 4
    found = ecgadv.attack(defended, x, target=target, steps=30)
    # Judged by the defended pipeline, which the bare network does not agree with.
    read = defended.pipeline(x + found.delta).argmax(1)
    assert found.success.any()
    np.testing.assert_array_equal(read[found.success], target[found.success])
    assert twin_of(defended).preprocess is defended.preprocess


def test_the_digest_tells_defences_apart(victim, tmp_path):
    file = tmp_path / "weights.bin"
    file.write_bytes(b"one")
    options = {"factor": 0.5, "weights": str(file)}
    digests = [defend(victim, Gain(), name, options).sha256 for name in ("gain", "other")]
    digests.append(defend(victim, Gain(), "gain", {**options, "factor": 0.7}).sha256)
    file.write_bytes(b"two")
    digests.append(defend(victim, Gain(), "gain", options).sha256)
    assert len({victim.sha256, *digests}) == 5
    assert defend(victim, Gain(), "gain", options).sha256 == digests[-1]


def test_a_defence_that_changes_the_victim_in_place_changes_a_copy(victim):
    x = beats(2, N, seed=2)
    before = victim.logits(x)

    def in_place(given):
        given.preprocess = lambda signal: -signal
        return given

    defended = defend(victim, in_place, "turned")
    assert defended is not victim
    assert victim.preprocess is None
    np.testing.assert_array_equal(victim.logits(x), before)
    np.testing.assert_allclose(defended.logits(x), victim.logits(-x), rtol=1e-5, atol=1e-5)


def test_what_returns_no_victim_is_named(victim):
    with pytest.raises(VictimError, match="defence=half: returned a NoneType, not a Victim"):
        defend(victim, lambda given: None, "half")
