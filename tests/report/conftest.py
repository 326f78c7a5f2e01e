import sys
from pathlib import Path

import numpy as np
import pytest

# The writer of made-up runs is shared with the tests of tracking.
sys.path.insert(0, str(Path(__file__).parent.parent / "tracking"))

from fake_run import ecg, write_run

from ecgadv.records.base import RecordSet


@pytest.fixture
def readable(monkeypatch):
    """The data source of a made-up run: every record it names, the first one short."""

    def load(_):
        names = [f"{s}{k:04d}" for s in range(4) for k in range(100)]
        signals = [(1000 * 0.2 * ecg(i, 3600 if i == 0 else 9000)) for i in range(4)]
        return RecordSet.pack(
            "synthetic",
            [(name, "ANO~"[int(name[0])], signals[int(name[0])]) for name in names],
            gain=1000.0,
        )

    monkeypatch.setattr("ecgadv.config.instantiate", load)


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


@pytest.fixture
def record():
    """A standardised record, a perturbation and mV per unit."""
    rng = np.random.default_rng(1)
    return ecg(0), (0.02 * rng.standard_normal(9000)).astype(np.float32), 0.2
