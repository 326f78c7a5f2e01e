"""The R-peak detector against wfdb's XQRS on recordings of CinC 2017, and what it costs.

ECGADV_CINC2017=training2017.zip python benchmarks/r_peaks.py --records 400
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np

from ecgadv.evaluate.beats import agreement, r_peaks
from ecgadv.evaluate.perceptibility import perceptibility
from ecgadv.records import cinc2017

TOLERANCE = 0.075  # s; half of the 150 ms within which beats are compared by ANSI/AAMI EC57


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from wfdb.processing import XQRS

    records = cinc2017.load(os.environ.get("ECGADV_CINC2017"))
    rng = np.random.default_rng(options.seed)
    batch = records.batch(sorted(rng.choice(len(records), options.records, replace=False)), 9000)
    signals = [x[:length] for x, length in zip(batch.x, batch.lengths, strict=True)]
    r_peaks(signals[0], records.fs)
    started = time.perf_counter()
    ours = [r_peaks(signal, records.fs) for signal in signals]
    print(f"two moving averages: {1e3 * (time.perf_counter() - started) / len(ours):.2f} ms/record")
    started = time.perf_counter()
    theirs = []
    for signal in signals:
        detector = XQRS(sig=signal.astype(float), fs=records.fs)
        detector.detect(verbose=False)
        theirs.append(np.array(detector.qrs_inds, dtype=int))
    print(f"XQRS: {1e3 * (time.perf_counter() - started) / len(theirs):.1f} ms/record")
    delta = 0.05 * rng.standard_normal(batch.x.shape)
    started = time.perf_counter()
    perceptibility(delta, batch.x, batch.lengths, batch.scale_mv, records.fs)
    print(f"all columns: {1e3 * (time.perf_counter() - started) / len(delta):.2f} ms/case")
    print("| class | records | peaks of XQRS | found | peaks found | in XQRS |")
    print("|---|---|---|---|---|---|")
    for letter in "ANO~":
        mine = np.flatnonzero(batch.labels == letter)
        n_theirs = sum(len(theirs[i]) for i in mine)
        n_ours = sum(len(ours[i]) for i in mine)
        kept = sum(agreement(theirs[i], ours[i], records.fs, TOLERANCE).kept for i in mine)
        print(
            f"| {letter} | {len(mine)} | {n_theirs} | {100 * kept / n_theirs:.1f} % "
            f"| {n_ours} | {100 * kept / n_ours:.1f} % |"
        )


if __name__ == "__main__":
    main()
