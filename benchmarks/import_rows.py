"""Take perturbations that were found elsewhere into a benchmark: judged here, by the same pipeline.

    python benchmarks/import_rows.py SOURCE METHOD ROWS [override …]

SOURCE is the folder of a finished run of ``task=attack``, or an .npz with ``delta`` (M, n) float32
and ``ids`` (M,), the record of each row, the rows of a record in the order of their target classes;
optional there are ``g`` (M,), gradients, and ``seconds``. ROWS is the folder that ``benchmark.out``
names. The overrides choose data, victim, metric and ``benchmark.per_class`` as the benchmark does:

    python benchmarks/import_rows.py cw_l2.npz cw outputs/rows metric=l2 data=cinc2017
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ecgadv import backend, config
from ecgadv.errors import DataError, EcgadvError
from ecgadv.evaluate.benchmark import Row
from ecgadv.evaluate.predictions import predict
from ecgadv.store import load_run, write_atomic
from ecgadv.study.cases import CaseSpec
from ecgadv.study.judge import Judge
from ecgadv.study.study import class_indices
from ecgadv.tasks.benchmark import Bench, setting_of
from ecgadv.tasks.common import open_records, open_victim
from ecgadv.tasks.metering import machine
from ecgadv.tasks.methods import known_metric
from ecgadv.threat import metrics


def read_source(
    source: Path, specs: list[CaseSpec]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Rows of a source in the order of the cases: δ, gradients, forwards; and seconds in all."""
    if source.is_dir():
        run = load_run(source)
        place = {str(case): k for k, case in enumerate(run.case_ids)}
        rows = {str(row["case_id"]): row for _, row in run.cases.iterrows()}
        delta = run.delta
        gradients = np.array([int(rows[str(c)]["n_gradients"]) for c in run.case_ids])
        forwards = np.array([int(rows[str(c)]["n_forwards"]) for c in run.case_ids])
        seconds = float(sum(rows[s.case_id]["seconds"] for s in specs if s.case_id in rows))
    else:
        with np.load(source, allow_pickle=False) as stored:
            names = [str(name) for name in stored["ids"]]
            delta = stored["delta"]
            gradients = stored["g"] if "g" in stored else np.zeros(len(names), int)
            seconds = float(stored["seconds"]) if "seconds" in stored else 0.0
        forwards = np.zeros(len(names), int)
        place, turn = {}, dict.fromkeys(names, 0)
        targets: dict[str, list[CaseSpec]] = {}
        for spec in specs:
            targets.setdefault(spec.record, []).append(spec)
        for k, name in enumerate(names):
            if name in targets and turn[name] < len(targets[name]):
                place[targets[name][turn[name]].case_id] = k
            turn[name] += 1
    absent = [s.case_id for s in specs if s.case_id not in place]
    if absent:
        raise DataError(f"{source}: has no perturbation of {absent[0]} and {len(absent) - 1} more")
    order = np.array([place[s.case_id] for s in specs])
    return delta[order], gradients[order], forwards[order], seconds


def main(argv: list[str]) -> int:
    """Import one source as one row."""
    if len(argv) < 3:
        print(__doc__, file=sys.stderr)
        return 2
    source, method, folder = Path(argv[0]), argv[1], Path(argv[2])
    cfg = config.compose_checked(["task=benchmark", *argv[3:]]).config
    backend.configure(cfg["backend"])
    records, victim = open_records(cfg), open_victim(cfg)
    bench = Bench(cfg, records, victim, predict(victim, records), folder)
    specs = bench.specs(cfg["benchmark"]["per_class"])
    form = known_metric(cfg, cfg["metric"]["name"])
    delta, gradients, forwards, seconds = read_source(source, specs)
    batch = records.batch([s.position for s in specs], victim.n)
    trials = Judge(victim).trials(
        batch.x, delta, batch.lengths, *class_indices(specs, victim.classes)
    )
    ids = [s.case_id for s in specs]
    row = Row(
        form.name, method, ids, [trial.success for trial in trials],
        [float(v) for v in form.value(delta.astype(np.float64))],
        [float(v) for v in metrics.d_l2(delta.astype(np.float64))],
        [int(v) for v in gradients], [int(v) for v in forwards], seconds, None, None,
        setting_of(victim, records, ids) | {"source": source.name}, "imported", machine(),
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{form.name}-{method}-{len(ids)}.json"
    write_atomic(file, json.dumps(asdict(row)))
    print(f"{file}: {sum(row.success)} of {len(ids)} cases succeed, {seconds:.0f} s")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except EcgadvError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
