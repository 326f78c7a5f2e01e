"""Time and size of ``report.html`` for a run of many cases, and how fast a browser opens it.

    python benchmarks/report_speed.py 1000

The run is made up: the simulated recordings, perturbed by smooth noise instead of an attack. What
costs time in a report (reading, figures, tables, recordings read again) is as in a real one. The
browser is timed where Chromium and selenium are installed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ecgadv.config import compose_checked
from ecgadv.records import synthetic
from ecgadv.report import write_report
from ecgadv.store import CASES, write_csv
from ecgadv.threat import metrics

CLASSES = "ANO~"


def make_run(folder: Path, cases: int) -> None:
    """Write the files of a run of so many cases."""
    rng = np.random.default_rng(0)
    job = compose_checked([]).jobs[0]
    records = synthetic.load(per_class=60)
    pairs = itertools.cycle((i, t) for i in range(len(records)) for t in range(3))
    picked = [next(pairs) for _ in range(cases)]
    noise = rng.normal(size=(cases, 9000))
    smooth = np.apply_along_axis(np.convolve, 1, noise, np.hanning(60) / 8, "same")
    delta = (smooth * rng.lognormal(-3, 0.7, (cases, 1))).astype(np.float32)
    sizes = {name: metrics.get(name).value(delta) for name in ("l2", "diff", "diffl2")}
    rows = []
    for k, (i, t) in enumerate(picked):
        source = str(records.labels[i])
        target = [c for c in CLASSES if c != source][t]
        won = k % 20 != 0
        rows.append(
            {
                "case_id": f"{records.ids[i]}_{source}_to_{target}_{k}".replace("~", "noise"),
                "record": records.ids[i], "source": source, "target": target,
                "predicted": target if won else source, "success": won,
                "p_target": rng.uniform(0.3, 0.6), "margin": rng.uniform(0.01, 0.02),
                "d_l2": float(sizes["l2"][k]), "d_smooth": float(sizes["diff"][k]),
                "d_smooth_l2": float(sizes["diffl2"][k]), "l2_norm": float(sizes["l2"][k]) ** 0.5,
                "linf": float(abs(delta[k]).max()), "snr_db": rng.uniform(5, 40),
                "prd_percent": rng.uniform(1, 30), "n_gradients": 100, "n_forwards": 110,
                "seconds": 0.5, "status": "ok", "split": "heldout",
            }
        )  # fmt: skip
    folder.mkdir(parents=True)
    write_csv(folder / "cases.csv", rows, CASES)
    np.savez(
        folder / "perturbations.npz",
        case_id=np.array([row["case_id"] for row in rows]),
        delta=delta,
        scale_mv=np.full(cases, 0.2, np.float32),
    )
    (folder / "config.json").write_text(json.dumps(job.config, default=str))
    (folder / "summary.json").write_text(json.dumps({"robustness": {"metric": "l2"}}))


def open_in_browser(page: Path) -> str:
    """Milliseconds to the load event, by the browser's own clock, or why there is none."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    import browser

    reason = browser.missing()
    if reason:
        return reason
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = browser.start(Path(profile))
        window = browser.Browser(driver, Path(profile))
        times = []
        for _ in range(3):
            window.open(page)
            times.append(
                window.js("return performance.getEntriesByType('navigation')[0].loadEventEnd")
            )
        driver.quit()
    return ", ".join(f"{t:.0f} ms" for t in times)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=int, nargs="?", default=1000)
    cases = parser.parse_args().cases
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        make_run(run, cases)
        start, worked = time.perf_counter(), time.process_time()
        page = write_report(run)
        seconds, worked = time.perf_counter() - start, time.process_time() - worked
        size = page.stat().st_size / 1e6
        print(f"{cases} cases: written in {seconds:.1f} s ({worked:.1f} s of CPU), {size:.2f} MB")
        print(f"opened in: {open_in_browser(page)}")


if __name__ == "__main__":
    main()
