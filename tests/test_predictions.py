"""What a victim says of a whole data source: kept as it goes, the same after an interruption."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import beats, random_network

from ecgadv.evaluate import predictions
from ecgadv.evaluate.predictions import predict
from ecgadv.records import cache
from ecgadv.records.base import RecordSet


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ECGADV_CACHE", str(tmp_path))
    monkeypatch.setattr(predictions, "KEEP_EVERY", 0.0)


@pytest.fixture
def records():
    x = beats(20, 600, seed=4)
    x[7] = 0.0  # a flat line cannot be used
    offsets = np.arange(21, dtype=np.int64) * 600
    labels = np.array(list("ANO~" * 5))
    names = [f"R{i}" for i in range(20)]
    return RecordSet("made", names, labels, x.ravel(), offsets, digest="d" * 64)


class Interrupted:
    """A victim that is killed at its third batch."""

    def __init__(self, victim, batches):
        self._victim, self._left, self.rows = victim, batches, 0

    def __getattr__(self, name):
        return getattr(self._victim, name)

    def pipeline(self, x, lengths):
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1
        self.rows += len(x)
        return self._victim.pipeline(x, lengths)


@pytest.fixture(scope="module")
def network():
    victim = random_network()
    victim.sha256 = "f" * 64
    return victim


def kept(victim, records, ending=""):
    """Name of the file in the cache."""
    return f"predictions-{predictions._key(victim, records)}{ending}.npy"


def test_an_interrupted_classification_goes_on_where_it_was(records, network, tmp_path):
    whole = predict(network, records, block=4)
    for file in tmp_path.glob("predictions-*"):
        file.unlink()
    first = Interrupted(network, batches=2)
    with pytest.raises(KeyboardInterrupt):
        predict(first, records, block=4)
    assert first.rows == 7
    assert [f.name for f in tmp_path.iterdir()] == [kept(network, records, "-unfinished")]
    second = Interrupted(network, batches=99)
    resumed = predict(second, records, block=4)
    assert second.rows == 12
    np.testing.assert_array_equal(resumed.logits, whole.logits)
    assert np.isnan(resumed.logits[7]).all()
    assert [f.name for f in tmp_path.iterdir()] == [kept(network, records)]
    third = Interrupted(network, batches=0)
    np.testing.assert_array_equal(predict(third, records).logits, whole.logits)


def test_a_beginning_that_does_not_fit_is_done_again(records, network):
    file = cache.cache_root() / kept(network, records, "-unfinished")
    file.parent.mkdir(exist_ok=True)
    for content in (b"", b"no array"):
        file.write_bytes(content)
        assert np.isfinite(predict(network, records).logits[0]).all()
        cache.cache_root().joinpath(kept(network, records)).unlink()
    np.save(file, np.zeros((3, 4), np.float32), allow_pickle=False)
    counted = Interrupted(network, batches=99)
    predict(counted, records)
    assert counted.rows == 19


@pytest.mark.parametrize(
    "change",
    [
        {"sha256": "e" * 64},
        {"over": "record"},
        {"fs": 250},
        {"channels": "first"},
        {"classes": ("N", "A", "O", "~")},
        {"n": 599},
    ],
    ids=str,
)
def test_what_changes_the_answers_changes_the_key(records, network, change):
    class Other(Interrupted):
        @property
        def reading(self):
            names = {"n": "n", "fs": "fs", "over": "standardise", "classes": "classes"}
            told = {names[k]: v for k, v in change.items() if k in names}
            return self._victim.reading | told

    other = Other(network, 9)
    for name, value in change.items():
        setattr(other, name, value)
    assert predictions._key(other, records) != predictions._key(network, records)


def test_edited_recordings_and_other_layers_change_the_key(records, network):
    whole = predictions._key(network, records)
    for change in ({"digest": "c" * 64}, {"fs": 250}, {"gain": 1000.0}):
        assert predictions._key(network, dataclasses.replace(records, **change)) != whole
    first, second = (
        keras.Sequential(
            [keras.Input((600, 1)), keras.layers.Conv1D(1, 3, strides=s, use_bias=False)]
        )
        for s in (1, 2)
    )
    second.set_weights(first.get_weights())
    keys = set()
    for model in (first, second):
        victim = Interrupted(network, 9)
        victim.model = model
        keys.add(predictions._key(victim, records))
    assert len(keys) == 2
