"""The same attack on TensorFlow, JAX and PyTorch: same decisions, distances within 1 %."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import json, sys
from ecgadv import backend
backend.configure(sys.argv[1])
import ecgadv
from ecgadv.records import synthetic
victim = ecgadv.load_victim("compact")
batch = synthetic.load().batch([0, 1, 2, 3])
out = {"backend": backend.running(), "logits": victim.pipeline(batch.x, batch.lengths).tolist()}
# Away from A toward N, and from everything else toward A.
wanted = ["N" if row.argmax() == 0 else "A" for row in victim.pipeline(batch.x, batch.lengths)]
for method, metric, options in (
    ("minnorm", "l2", {"steps": 40}),
    ("minnorm", "diff", {"steps": 40}),
    ("minnorm", "diffl2", {"steps": 40}),
    ("cw", "l2", {"steps": 60, "search_steps": 2, "check_every": 30, "initial_constant": 10.0}),
):
    result = ecgadv.attack(
        victim, batch.x, target=wanted, metric=metric, method=method,
        lengths=batch.lengths, **options,
    )
    out[f"{method} {metric}"] = {
        "success": result.success.tolist(), "distance": result.distance.tolist(),
        "predicted": result.predicted.tolist(),
    }
print(json.dumps(out))
"""


def outcome(name: str) -> dict[str, Any]:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, name],
        capture_output=True, text=True, timeout=900, env=environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    return outcome("tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jax", "torch"])
def test_backends_agree(name: str, reference: dict[str, Any]) -> None:
    other = outcome(name)
    assert other["backend"] == name
    for mine, theirs in zip(reference["logits"], other["logits"], strict=True):
        assert theirs == pytest.approx(mine, abs=1e-3)
    far = []
    for key in (k for k in reference if " " in k):
        mine, theirs = reference[key], other[key]
        assert theirs["success"] == mine["success"], key
        assert theirs["predicted"] == mine["predicted"], key
        far += [
            (key, a, b)
            for a, b in zip(mine["distance"], theirs["distance"], strict=True)
            if abs(a - b) > 0.01 * abs(a)
        ]
    # Rounding may send one case of the sixteen into a neighbouring minimum.
    assert len(far) <= 1, far


@pytest.mark.slow
def test_the_reference_attacks_succeed(reference: dict[str, Any]) -> None:
    assert all(all(reference[key]["success"]) for key in reference if key.startswith("minnorm"))
