"""Seconds a case that ``minnorm`` takes on a network of this project with random weights.

    python benchmarks/victim_seconds.py resnet34

Time depends on the network's size, not on its weights. Four simulated recordings, each toward the
three classes that it is not taken for, under each metric; success is the deployed pipeline's
verdict.
"""

from __future__ import annotations

import argparse
import time

import keras
import numpy as np

import ecgadv
from ecgadv.records import synthetic
from ecgadv.victims.architectures import ARCHITECTURES, build
from ecgadv.victims.loading import from_keras


def main() -> None:
    """Attack 12 cases under each metric and print how long it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture", choices=sorted(ARCHITECTURES))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--metrics", nargs="+", default=["l2", "diff", "diffl2"])
    given = parser.parse_args()
    keras.utils.set_random_seed(0)
    model = build(given.architecture)
    records = synthetic.load(per_class=1)
    x = records.batch(range(4)).x
    # Random networks answer all alike; a head that spreads their answers lets every class win.
    logits = model.predict(x[..., None], verbose=0)
    kernel, _ = model.layers[-1].get_weights()
    spread = logits.std(0)
    model.layers[-1].set_weights([3 * kernel / spread, -3 * logits.mean(0) / spread])
    victim = from_keras(model, name=given.architecture)
    source = victim.logits(x).argmax(1)
    pairs = [(i, t) for i in range(4) for t in range(4) if t != source[i]]
    rows, targets = (np.array(part) for part in zip(*pairs, strict=True))
    for metric in given.metrics:
        begun = time.perf_counter()
        found = ecgadv.attack(
            victim, x[rows], [victim.classes[t] for t in targets], metric=metric, steps=given.steps
        )
        seconds = time.perf_counter() - begun
        print(
            f"{given.architecture} {metric}: {found.success.sum()}/{len(rows)} with {given.steps} "
            f"gradients, {seconds / len(rows):.2f} s a case",
            flush=True,
        )


if __name__ == "__main__":
    main()
