"""The same attack on every installed backend: seconds, successes, distances.

python benchmarks/backends.py [--cases 12] [--steps 30] [--victim compact] [--out FILE.json]

Each backend runs in a process of its own, twice: the first run compiles, the second is timed. Only
one at a time, so that they do not share the processor. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

BACKENDS = ("tensorflow", "jax", "torch")

JOB = """
import json, sys, time
from ecgadv import backend
name, victim_name, cases, steps, metric = sys.argv[1:]
backend.configure(name)
import numpy as np
import ecgadv
from ecgadv.records import synthetic
victim = ecgadv.load_victim(victim_name)
count = int(cases)
records = synthetic.load()
rows = np.arange(len(records))[: 8 * count]
batch = records.batch(rows)
read = victim.pipeline(batch.x, batch.lengths).argmax(1)
right = [i for i in range(len(rows)) if "ANO~"[read[i]] == batch.labels[i]][:count]
x, lengths = batch.x[right], batch.lengths[right]
seconds, cpu = [], []
for turn in range(2):
    wall, used = time.perf_counter(), time.process_time()
    result = ecgadv.attack(victim, x, metric=metric, steps=int(steps), lengths=lengths)
    seconds.append(time.perf_counter() - wall)
    cpu.append(time.process_time() - used)
version = backend.versions()[name]
print(json.dumps({
    "backend": name, "version": version, "device": backend.device_kind(), "cases": len(right),
    "success": int(result.success.sum()), "first": seconds[0], "second": seconds[1],
    "cpu_seconds": cpu[1], "distance": result.distance.tolist(),
}))
"""


def measure(name: str, options: argparse.Namespace) -> dict[str, Any] | None:
    """One backend's numbers; None where it is not installed or fails."""
    if importlib.util.find_spec(name) is None:
        print(f"note: {name} is not installed", file=sys.stderr)
        return None
    root = Path(__file__).resolve().parents[1]
    environment = {k: v for k, v in os.environ.items() if k != "KERAS_BACKEND"}
    environment |= {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", JOB, name, options.victim, str(options.cases)]
    done = subprocess.run(
        [*command, str(options.steps), options.metric], capture_output=True, text=True,
        env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        print(f"note: {name} failed: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--victim", default="compact", help="name or file")
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--metric", default="l2")
    parser.add_argument("--out", type=Path, help="keep the measurements here")
    options = parser.parse_args()
    rows = [row for name in BACKENDS if (row := measure(name, options))]
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1))
    if not rows:
        raise SystemExit("no backend could be measured")
    reference = rows[0]["distance"]
    print(
        "| backend | device | success | s a case | CPU s a case | first run, s | distances apart |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        apart = max(
            (abs(a - b) / a for a, b in zip(reference, row["distance"], strict=True) if a),
            default=0.0,
        )
        print(
            f"| {row['backend']} {row['version']} | {row['device']} "
            f"| {row['success']}/{row['cases']} | {row['second'] / row['cases']:.2f} "
            f"| {row['cpu_seconds'] / row['cases']:.2f} | {row['first']:.1f} "
            f"| {100 * apart:.2f} % |"
        )


if __name__ == "__main__":
    main()
