import sys
from pathlib import Path

import numpy as np
import pytest

# The writer of made-up runs is shared with the tests of tracking.
sys.path.insert(0, str(Path(__file__).parent.parent / "tracking"))

from fake_run import ecg, made_up_records, write_run


@pytest.fixture
def readable(monkeypatch):
    """The recordings of a made-up run can be read again."""
    monkeypatch.setattr("ecgadv.store.reading.instantiate", made_up_records)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def record():
    """A standardised record, a perturbation and mV per unit."""
    rng = np.random.default_rng(1)
    return ecg(0), (0.02 * rng.standard_normal(9000)).astype(np.float32), 0.2
