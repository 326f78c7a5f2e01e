"""Draw the pictures of the documentation from the folders of a sweep over the metrics.

    python run.py -m metric=l2,diff,diffl2 data=cinc2017 data.root=training2017.zip \
        "selection.records=[A00271]" target=N
    python tools/make_figures.py multirun_outputs/<the sweep's folder> docs/images

The second command takes the sweep's folder, as the first one prints it, and writes
``before_after.png`` (the job with ``metric=diff``) and ``metrics.png`` (all jobs).
"""

from __future__ import annotations

import argparse
from pathlib import Path

from ecgadv.report import data, figures, style

SECONDS = 6.0
"""How much of the record is shown."""


def jobs_by_metric(sweep: Path) -> dict[str, Path]:
    """Name of the metric -> folder of its job."""
    folders = sorted(file.parent for file in sweep.glob("*/cases.csv"))
    return {data.metric_of(data.read_config(folder)): folder for folder in folders}


def before_after(folder: Path, file: Path, start: float | None) -> None:
    """Original, adversarial and magnified perturbation of the first case of a run."""
    case = data.read_cases(folder).iloc[0]
    name = str(case["case_id"])
    signals, problem = data.read_signals(folder, [name])
    if problem:
        raise SystemExit(problem)
    delta, scale_mv = data.read_perturbations(folder, [name])[name]
    record, x = str(case["record"]), signals[name]
    figure = figures.before_after(
        x,
        delta[: x.size],
        scale_mv,
        record=record,
        source=str(case["source"]),
        target=str(case["target"]),
        predicted=str(case["predicted"]),
        p_before=data.confidences(folder).get(record),
        p_after=float(case["p_target"]) if case["success"] else None,
        distances={"d_smooth": float(case["d_smooth"]), "d_l2": float(case["d_l2"])},
        start=start,
        seconds=SECONDS,
        fs=data.sampling_rate(folder),
    )
    print(style.save(figure, file, dpi=130))


def compare(jobs: dict[str, Path], file: Path, start: float | None) -> None:
    """The first case that the jobs share, under every metric."""
    deltas, notes = {}, {}
    for metric, folder in jobs.items():
        case = data.read_cases(folder).iloc[0]
        name = str(case["case_id"])
        delta, scale_mv = data.read_perturbations(folder, [name])[name]
        deltas[metric] = delta
        notes[metric] = f"d_l2 = {case['d_l2']:.3g}  d_smooth = {case['d_smooth']:.3g}"
    x = data.read_signals(folder, [name])[0][name]
    figure = figures.metric_comparison(
        x,
        {metric: delta[: x.size] for metric, delta in deltas.items()},
        scale_mv,
        record=str(case["record"]),
        source=str(case["source"]),
        target=str(case["target"]),
        notes=notes,
        start=start,
        seconds=4.0,
        fs=data.sampling_rate(folder),
    )
    print(style.save(figure, file, dpi=130))


def main() -> None:
    """Read the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="folder of the sweep over metric=l2,diff,diffl2")
    parser.add_argument("images", type=Path, help="folder that the pictures go to")
    parser.add_argument(
        "--start", type=float, help="first second shown; where δ is strongest if left out"
    )
    options = parser.parse_args()
    jobs = jobs_by_metric(options.sweep)
    if "diff" not in jobs:
        raise SystemExit(f"{options.sweep}: holds no job with metric=diff")
    before_after(jobs["diff"], options.images / "before_after.png", options.start)
    compare(jobs, options.images / "metrics.png", options.start)


if __name__ == "__main__":
    main()
