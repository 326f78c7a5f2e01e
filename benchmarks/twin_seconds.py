"""What folding batch normalisations saves: seconds of a gradient, and of the attack.

    python benchmarks/twin_seconds.py [compact:24 resnet34:8] [--rounds 9] [--attack 60]

Gradients of the victim, of its float32 twin and of its bfloat16 twin are taken in turn, so that
what else the machine does falls on all alike. "of the victim's" is the median over the rounds of
the ratio of two neighbours; processor time is that of all threads of this process. ``--attack``
also attacks so many cases by ``minnorm``, each chunk through the victim and through its twin in
turn, after one chunk of each that compiles and does not count. KERAS_BACKEND chooses the backend.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.attacks.base import Problem
from ecgadv.attacks.engine import Engine, chunk_size
from ecgadv.attacks.minnorm import MinNorm
from ecgadv.records import cinc2017, synthetic
from ecgadv.study.judge import Judge
from ecgadv.study.study import Chunk, Study, chunks
from ecgadv.tasks.metering import machine
from ecgadv.threat import metrics
from ecgadv.threat.objectives import Objective
from ecgadv.victims.loading import Victim, load_victim
from ecgadv.victims.twin import about_twin, twin_of

Timed = tuple[float, float]


def timed(call: Callable[[], Any]) -> tuple[Timed, Any]:
    """Seconds by the clock and of the processor, and the result."""
    wall, used = time.perf_counter(), time.process_time()
    out = call()
    return (time.perf_counter() - wall, time.process_time() - used), out


def gradient(victim: Victim, x: Any) -> Callable[[], Any]:
    """A compiled gradient of a logit at x."""

    def energy(z: Any) -> tuple[Any, Any]:
        logits = victim.forward(z)
        return logits[:, 0], logits

    compiled = backend.compile(backend.value_and_grad(energy))
    return lambda: backend.to_numpy(compiled(x)[1])


def work(victim: Victim) -> float:
    """GFLOP of a gradient in what takes most of it: once forward, once back to the input."""
    operations = 0
    for layer in victim.model._flatten_layers():
        if getattr(layer, "kernel", None) is not None:
            places = int(np.prod(layer.output.shape[1:-1]))
            operations += 2 * 2 * places * int(np.prod(layer.kernel.shape))
    return operations / 1e9


def gradients(name: str, size: int, rounds: int) -> None:
    """Print a row a network."""
    victim = load_victim(name, check=False)
    networks = {"victim, float32": victim}
    networks |= {f"twin, {p}": twin_of(victim, p) for p in ("float32", "bfloat16")}
    rng = np.random.default_rng(0)
    x = backend.tensor(rng.standard_normal((size, victim.width)), "float32")
    calls = {key: gradient(network, x) for key, network in networks.items()}
    for call in calls.values():
        call()
    seconds = np.array([[timed(call)[0] for call in calls.values()] for _ in range(rounds)])
    wall, used = 1e3 * np.median(seconds, axis=0).T / size
    shares = np.median(seconds / seconds[:, :1], axis=0)
    for row, key in enumerate(calls):
        print(
            f"| {name}, batch {size} | {key} | {wall[row]:.2f} | {shares[row, 0]:.2f} | "
            f"{used[row]:.2f} | {shares[row, 1]:.2f} |",
            flush=True,
        )
    print(
        f"<!-- {name}: {about_twin(victim)}; {work(victim):.2f} GFLOP a gradient in convolutions "
        "and dense layers -->",
        flush=True,
    )


def cases(victim: Victim, count: int, data: Path | None) -> Chunk:
    """The first records that the victim reads as labelled, each toward its other classes."""
    records = cinc2017.load(data) if data else synthetic.load()
    others = len(victim.classes) - 1
    rows = np.arange(min(len(records), 20 * count))
    batch = records.batch(rows, victim.n, victim.over)
    read = victim.pipeline(batch.x, batch.lengths).argmax(1)
    right = [i for i in rows if victim.classes[read[i]] == batch.labels[i]][: -(-count // others)]
    at = np.repeat(right, others)[:count]
    target = np.array([t for i in right for t in range(others + 1) if t != read[i]])[:count]
    return Chunk(batch.x[at], batch.lengths[at], read[at], target)


def attack(name: str, count: int, steps: int, data: Path | None) -> None:
    """Print seconds and distances of ``minnorm`` through the victim and through its twin."""
    victim = load_victim(name, check=False)
    form, solver = metrics.get("l2"), MinNorm(steps=steps)
    study = Study(victim, form, solver, Judge(victim))
    whole = cases(victim, count, data)
    size = chunk_size(victim, "auto", count)
    engines = [
        Engine(solver, Problem(Objective(network), form)) for network in (victim, twin_of(victim))
    ]
    sums = np.zeros((2, 2))
    distances: list[list[float]] = [[], []]
    won = np.zeros(2, int)
    for turn, rows in enumerate([np.arange(size), *chunks(count, size)]):
        chunk = whole.rows(rows)
        given = study.cases(chunk, chunk.source)
        # Who goes first alternates.
        for one in (0, 1) if turn % 2 else (1, 0):
            spent, found = timed(lambda run=engines[one].run, given=given: run(given))
            if not turn:
                continue
            sums[one] += spent
            distances[one] += form.value(found.delta.astype(np.float64)).tolist()
            logits = victim.pipeline(chunk.x + found.delta, chunk.lengths)
            won[one] += int((logits.argmax(1) == chunk.target).sum())
    ratio = np.array(distances[1]) / np.array(distances[0])
    low, high = np.percentile(ratio, [5, 95])
    print(
        f"{name}, minnorm_{steps}, {count} cases: victim {sums[0, 0]:.1f} s ({sums[0, 1]:.1f} s of "
        f"processor), {won[0]} reached; twin {sums[1, 0]:.1f} s ({sums[1, 1]:.1f} s), {won[1]} "
        f"reached; {sums[1, 0] / sums[0, 0]:.2f} of the seconds, {sums[1, 1] / sums[0, 1]:.2f} of "
        f"the processor's; distance ratio {np.median(ratio):.4f} at the median, {low:.3f} to "
        f"{high:.3f} (5th to 95th percentile)",
        flush=True,
    )


def main() -> None:
    """Measure, and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("victims", nargs="*", default=["compact:24", "resnet34:8"])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--attack", type=int, default=0, metavar="CASES")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--data", type=Path, help="recordings of CinC 2017 instead of made-up ones")
    given = parser.parse_args()
    backend.running()
    seen = machine()
    versions = ", ".join(f"{key} {value}" for key, value in seen["versions"].items())
    load = ", ".join(f"{v:.1f}" for v in os.getloadavg())
    print(f"{seen['processor']}, {seen['cores']} cores, {versions}; load {load} before\n")
    print(
        "| network | gradient of | ms a record | of the victim's | processor ms | of the victim's |"
    )
    print("|---|---|---|---|---|---|")
    pairs = [victim.partition(":") for victim in given.victims]
    for name, _, size in pairs:
        gradients(name, int(size or 8), given.rounds)
    if given.attack:
        print()
        for name, _, _ in pairs:
            attack(name, given.attack, given.steps, given.data)
    print(f"\nload {', '.join(f'{v:.1f}' for v in os.getloadavg())} after")


if __name__ == "__main__":
    main()
