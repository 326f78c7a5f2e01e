"""What a victim says of a whole data source: kept as it goes, the same after an interruption."""

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


def test_an_interrupted_classification_goes_on_where_it_was(records, network, tmp_path):
    whole = predict(network, records, block=4)
    for file in tmp_path.glob("predictions-*"):
        file.unlink()
    first = Interrupted(network, batches=2)
    with pytest.raises(KeyboardInterrupt):
        predict(first, records, block=4)
    assert first.rows == 7
    assert [f.name for f in tmp_path.iterdir()] == [
        f"predictions-{'f' * 16}-{'d' * 16}-unfinished.npy"
    ]
    second = Interrupted(network, batches=99)
    resumed = predict(second, records, block=4)
    assert second.rows == 12
    np.testing.assert_array_equal(resumed.logits, whole.logits)
    assert np.isnan(resumed.logits[7]).all()
    assert [f.name for f in tmp_path.iterdir()] == [f"predictions-{'f' * 16}-{'d' * 16}.npy"]
    third = Interrupted(network, batches=0)
    np.testing.assert_array_equal(predict(third, records).logits, whole.logits)


def test_a_beginning_that_does_not_fit_is_done_again(records, network):
    file = cache.cache_root() / f"predictions-{'f' * 16}-{'d' * 16}-unfinished.npy"
    file.parent.mkdir(exist_ok=True)
    for content in (b"", b"no array"):
        file.write_bytes(content)
        assert np.isfinite(predict(network, records).logits[0]).all()
        cache.cache_root().joinpath(f"predictions-{'f' * 16}-{'d' * 16}.npy").unlink()
    np.save(file, np.zeros((3, 4), np.float32), allow_pickle=False)
    counted = Interrupted(network, batches=99)
    predict(counted, records)
    assert counted.rows == 19
