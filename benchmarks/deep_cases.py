"""Twelve cases of recordings against the included 34-layer network, on a CPU.

    python benchmarks/deep_cases.py data=cinc2017 data.root=training2017.zip

Needs PyTorch. The attack walks on the network with its convolutions computed in the frequency
domain (``recipes/train_resnet34.py``), the same function at a fraction of the time; the verdict is
that of the included Keras network and its pipeline. The first held-out recording of each class that
both included victims read correctly, each toward the other classes, under each metric; the
perturbations are then shown to ``compact`` as well.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

import ecgadv
from ecgadv.config import compose_checked
from ecgadv.evaluate.statistics import wilson
from ecgadv.records.base import CLASSES
from ecgadv.study.judge import Judge
from ecgadv.tasks.common import open_records

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "recipes"))
import train_resnet34


def count(hits: np.ndarray) -> str:
    """``k/n (95 % interval)``."""
    low, high = wilson(int(hits.sum()), len(hits))
    return f"{hits.sum()}/{len(hits)} [{100 * low:.1f}, {100 * high:.1f}] %"


def main(argv: list[str]) -> int:
    """Attack and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("options", nargs="*", help="where the data are, as for run.py")
    parser.add_argument("--steps", type=int, default=100)
    given = parser.parse_intermixed_args(argv)
    train_resnet34.keep_memory()
    records = open_records(compose_checked(given.options).jobs[0].config)
    shipped, other = ecgadv.load_victim("resnet34"), ecgadv.load_victim("compact")
    attacked = ecgadv.load_victim(train_resnet34.Deployed(shipped.model))
    held = shipped.split_of(records.name, records.ids) == "heldout"
    chosen = []
    for k, letter in enumerate(CLASSES):
        for row in np.flatnonzero(held & (records.labels == letter)):
            batch = records.batch([int(row)])
            if all(v.pipeline(batch.x, batch.lengths).argmax() == k for v in (other, shipped)):
                chosen.append(int(row))
                break
    print("records:", ", ".join(records.ids[row] for row in chosen))
    batch = records.batch(chosen)
    pairs = [
        (i, t)
        for i in range(len(chosen))
        for t in range(4)
        if CLASSES[t] != records.labels[chosen[i]]
    ]
    rows, target = (np.array(part) for part in zip(*pairs, strict=True))
    x, lengths = batch.x[rows], batch.lengths[rows]
    source = np.array([CLASSES.index(str(records.labels[chosen[i]])) for i in rows])
    plain = shipped.logits(batch.x)
    apart = np.abs(attacked.logits(batch.x) - plain).max() / np.abs(plain).max()
    print(f"the two forms of the network differ by {apart:.1e} of the largest logit")
    for metric in ("l2", "diff", "diffl2"):
        begun = time.perf_counter()
        found = ecgadv.attack(
            attacked, x, target=[CLASSES[t] for t in target], metric=metric, lengths=lengths,
            steps=given.steps,
        )  # fmt: skip
        seconds = (time.perf_counter() - begun) / len(x)
        own = Judge(shipped).trials(x, found.delta, lengths, source, target)
        success = np.array([trial.success for trial in own])
        told = Judge(other).trials(x, found.delta, lengths, source, target)
        read = np.array([trial.predicted for trial in told])
        print(
            f"{metric}: {count(success)} with {given.steps} gradients, {seconds:.1f} s "
            "a case, "
            f"median distance {np.median(found.distance[success]):.3g}; by compact "
            f"{count(read == target)} to the target, {count(read != source)} "
            "off the source",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
