"""Victims, runs and records that several tests share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

REPO = Path(__file__).resolve().parents[1]

needs_patience = pytest.mark.skipif(
    not os.environ.get("ECGADV_LONG"), reason="takes minutes; set ECGADV_LONG=1"
)
"""Marks tests that are run before a release rather than at every change."""


def linear_victim(w: np.ndarray, gain: float = 1.0, others: float = -30.0) -> Any:
    """Logits ±gain/2·w·z for classes 0 and 1, and ``others`` for the rest; no bias difference.

    Its boundary between 0 and 1 is a plane through 0, so the closest point of it is known for every
    quadratic metric.
    """
    from keras import ops

    from ecgadv.victims.loading import Victim

    columns = np.stack([-0.5 * gain * w, 0.5 * gain * w, 0 * w, 0 * w], axis=1)
    bias = np.array([0.0, 0.0, others, others], dtype=np.float32)

    def forward(z: Any) -> Any:
        W = ops.convert_to_tensor(columns.astype(np.float32))
        return ops.matmul(z[..., 0], W) + bias

    return Victim(forward, name="linear", n=len(w))


def random_network(n: int = 600, seed: int = 3) -> Any:
    """A small convolutional network with random weights, as a victim of ``n`` samples."""
    import keras

    from ecgadv.victims.loading import from_keras

    def weights(gain: float, number: int) -> Any:
        return keras.initializers.RandomNormal(stddev=gain, seed=seed + number)

    inputs = keras.Input((n, 1))
    y = keras.layers.Conv1D(8, 9, strides=2, activation="tanh", kernel_initializer=weights(0.4, 0))(
        inputs
    )
    y = keras.layers.Conv1D(
        12, 9, strides=2, activation="relu", kernel_initializer=weights(0.3, 1)
    )(y)
    y = keras.layers.Concatenate()(
        [keras.layers.GlobalAveragePooling1D()(y), keras.layers.GlobalMaxPooling1D()(y)]
    )
    head = keras.layers.Dense(4, kernel_initializer=weights(1.0, 2))
    model = keras.Model(inputs, head(y))
    # Centred and scaled, so that every class is read in some record and within reach of the others.
    logits = model.predict_on_batch(beats(16, n, seed=9)[..., None])
    kernel, _ = head.get_weights()
    head.set_weights([3 * kernel / logits.std(0), -3 * logits.mean(0) / logits.std(0)])
    return from_keras(model, name="random")


def beats(count: int, n: int, seed: int = 0) -> np.ndarray:
    """(count, n) float32 standardised beat-like signals, each another rate and noise."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(n) / 300
    rows = []
    for _ in range(count):
        period = rng.uniform(0.3, 0.9)
        phase = ((time_s + rng.uniform(0, period)) % period) - 0.5 * period
        wave = np.exp(-0.5 * (phase / 0.015) ** 2) + rng.uniform(0.02, 0.4) * rng.normal(size=n)
        rows.append((wave - wave.mean()) / wave.std())
    return np.array(rows, dtype=np.float32)


def command(*overrides: str) -> list[str]:
    """The command line of a run with these overrides."""
    return [sys.executable, str(REPO / "run.py"), *overrides]


def environment(**more: str) -> dict[str, str]:
    """What a subprocess of a test sees."""
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(REPO)} | more


def execute(
    *overrides: str, timeout: float = 300, env: dict[str, str] | None = None, cwd: Path = REPO
) -> subprocess.CompletedProcess[str]:
    """Run ``run.py`` to its end in a process of its own."""
    return subprocess.run(
        command(*overrides), capture_output=True, text=True, timeout=timeout, cwd=cwd,
        env=env or environment(), check=False,
    )  # fmt: skip


def run_folder(result: subprocess.CompletedProcess[str]) -> Path:
    """Folder that a finished run names."""
    assert result.returncode == 0, result.stderr[-2000:]
    line = next(row for row in result.stdout.splitlines() if row.startswith("results: "))
    return Path(line.removeprefix("results: "))


def error_lines(result: subprocess.CompletedProcess[str]) -> list[str]:
    """Lines of standard error that are errors."""
    return [row for row in result.stderr.splitlines() if row.startswith("error: ")]


def status_of(folder: Path) -> dict[str, Any]:
    """``status.json`` of a run."""
    content: dict[str, Any] = json.loads((folder / "status.json").read_text())
    return content


@contextlib.contextmanager
def started(*overrides: str, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A run in the background; killed at the end where it still goes on."""
    process = subprocess.Popen(
        command(*overrides), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPO,
        env=env or environment(),
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


def wait_for(condition: Callable[[], bool], process: Any = None, timeout: float = 240) -> None:
    """Wait until the condition holds; fails where the process ends or time runs out before."""
    end = time.monotonic() + timeout
    while not condition():
        if process is not None and process.poll() is not None and not condition():
            raise AssertionError(f"the run ended first:\n{process.stderr.read()[-2000:]}")
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def small_world(folder: Path, records: int = 6, network: Any = None) -> list[str]:
    """Overrides of a run that takes seconds: a small network of 9,000 samples and a few records.

    The records are labelled as the network reads them, and go to the class it comes nearest to
    most often, so that all of them can be attacked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    victim = random_network(9000) if network is None else network
    victim.model.save(folder / "small.keras")
    signals = beats(records, 9000, seed=5)
    signals[1, 6000:] = np.nan
    classes = victim.pipeline([row[np.isfinite(row)] for row in signals]).argmax(1)
    np.savez(
        folder / "records.npz", signals=0.2 * signals, fs=np.float64(300),
        labels=np.array(["ANO~"[c] for c in classes]),
        ids=np.array([f"R{i:02d}" for i in range(records)]),
    )  # fmt: skip
    return [
        "data=arrays", f"data.root={folder / 'records.npz'}", "victim=keras",
        f"victim.path={folder / 'small.keras'}", "tracking=none", "selection=all",
        f"paths.data={folder / 'cache'}",
    ]  # fmt: skip


def table(folder: Path) -> list[dict[str, str]]:
    """``cases.csv`` as text."""
    import csv

    with (folder / "cases.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def without_times(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Rows less ``seconds``, the only column that two identical runs may differ in."""
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def in_process(*overrides: str) -> tuple[int, Path]:
    """Run the command line here (no new interpreter to warm up); exit status and run's folder."""
    from ecgadv import cli

    roots = [Path(o.removeprefix("paths.root=")) for o in overrides if o.startswith("paths.root=")]
    code = cli.main(list(overrides))
    folders = sorted((roots[0] / "outputs").iterdir(), key=lambda p: p.stat().st_mtime)
    return code, folders[-1]
