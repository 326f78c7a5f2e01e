"""What keeping and tracking results costs, and how long thousands of stored cases take to read.

    python benchmarks/store_overhead.py [--cases 10000] [--folder FOLDER] [--run]

Cases are made up and written through the store and the tracker, as an attack does it; ``--run``
also times the default run (``python run.py``) and says which share of it they take.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import config
from ecgadv.evaluate import summary as summaries
from ecgadv.store import CASES, RunStore, load_run, success_pairs
from ecgadv.tracking import Tracker, open_tracker

CHUNK = 24
N = 9000


def rows_of(first: int, count: int) -> list[dict[str, Any]]:
    """Rows as an attack makes them, with made-up numbers."""
    rng = np.random.default_rng(first)
    rows = []
    for i in range(first, first + count):
        source, target = "ANO~"[i % 4], "ANO~"[(i + 1 + i // 4 % 3) % 4]
        numbers = [name for name, kind in CASES.columns.items() if kind is float]
        values = dict(zip(numbers, rng.lognormal(0, 1, len(numbers)).tolist(), strict=True))
        rows.append(
            values
            | {"case_id": f"R{i:06d}", "record": f"R{i:06d}", "source": source, "target": target,
               "predicted": target, "success": bool(i % 20), "n_gradients": 100, "n_forwards": 12,
               "seconds": 0.5, "status": "ok", "message": "", "split": "heldout"}
        )  # fmt: skip
    return rows


def write(folder: Path, cases: int, tracked: bool) -> dict[str, float]:
    """Store and track made-up cases; seconds by what was done."""
    cfg = dict(config.compose_checked([f"paths.root={folder.parent}", "task=attack"]).config)
    spent = {"store": 0.0, "tracking: start": 0.0, "tracking: progress": 0.0, "tracking: end": 0.0}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        spent[what] += time.perf_counter() - began

    settings = {"name": "mlflow" if tracked else "none", "system_metrics": False}
    tracker = open_tracker(settings, cfg, folder, root=folder.parent)
    with RunStore(folder) as store:
        store.write_json("config.json", cfg)
        with timed("tracking: start"):
            tracker.start({"name": "synthetic", "digest": "0"})
        noise = np.random.default_rng(0).standard_normal((CHUNK, N)).astype(np.float32)
        for number, first in enumerate(range(0, cases, CHUNK)):
            rows = rows_of(first, min(CHUNK, cases - first))
            with timed("store"):
                store.add(number, rows, noise[: len(rows)], np.full(len(rows), 0.2))
                store.export()
            if isinstance(tracker, Tracker):
                tracker._last_write = float("-inf")  # every chunk is written, as in a slow run
            with timed("tracking: progress"):
                tracker.progress(first + len(rows), {"cases_done": first + len(rows)})
        with timed("store"):
            store.export(final=True)
        stored = store.rows()
        store.write_json("summary.json", summaries.summarise(stored, success_pairs(stored)))
    with timed("tracking: end"):
        tracker.finish("FINISHED")
    return spent


def seconds(function: Callable[[], Any]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def both(function: Callable[[], Any]) -> list[float]:
    """Seconds by the clock, and of the processor: those of a machine that does nothing else."""
    began = time.process_time()
    passed = seconds(function)
    return [round(passed, 3), round(time.process_time() - began, 3)]


def read(folder: Path) -> dict[str, list[float]]:
    """Seconds (clock, processor) to read and list a stored run, to resume it, to report on it."""
    from ecgadv.report import tables
    from ecgadv.report.write import write_report

    def listed() -> None:
        cases = load_run(folder).cases
        tables.success_markdown(cases)
        tables.distances_markdown(cases)

    def resumed() -> None:
        with RunStore(folder):
            pass

    listed()  # imports are not what is measured
    return {
        "read and list": both(listed),
        "open to resume": both(resumed),
        "report": both(lambda: write_report(folder)),
    }


def default_run(root: Path) -> dict[str, float]:
    """Seconds of the default run in all, and of its store and its tracking."""
    from ecgadv import cli

    spent: dict[str, float] = {}

    def watch(kind: type, name: str, what: str) -> None:
        inner = getattr(kind, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent[what] = spent.get(what, 0.0) + time.perf_counter() - began

        setattr(kind, name, outer)

    for name in ("open", "add", "export", "plan", "close"):
        watch(RunStore, name, "store")
    watch(Tracker, "start", "tracking: start")
    watch(Tracker, "progress", "tracking: progress")
    watch(Tracker, "finish", "tracking: end")
    spent["in all"] = seconds(lambda: cli.main([f"paths.root={root}", "resume=false"]))
    return spent


def main() -> None:
    """Measure and print, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--untracked", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
        root = Path(scratch)
        result: dict[str, Any] = {"cases": args.cases}
        spent = write(root / "run", args.cases, not args.untracked)
        result["write_s"] = {k: round(v, 3) for k, v in spent.items()}
        each = ("store", "tracking: progress")
        result["ms_a_case"] = {k: round(1e3 * spent[k] / args.cases, 3) for k in each}
        result["read_s"] = read(root / "run")
        if args.run:
            default_run(root / "warm")  # makes the database, whose tables take seconds once
            ran = default_run(root / "warm")
            result["default_run_s"] = {k: round(v, 3) for k, v in ran.items()}
            share = sum(ran[k] for k in each) / ran["in all"]
            result["default_run_percent"] = {
                "store and progress": round(100 * share, 3),
                "start and end of tracking": round(
                    100 * (ran["tracking: start"] + ran["tracking: end"]) / ran["in all"], 2
                ),
            }
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
