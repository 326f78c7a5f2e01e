"""Writes a run's folder as an attack does, with made-up numbers, for tests of its readers."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np

from ecgadv.records.base import RecordSet

COLUMNS = [
    "case_id",
    "record",
    "source",
    "target",
    "predicted",
    "success",
    "p_target",
    "margin",
    "d_l2",
    "d_smooth",
    "d_smooth_l2",
    "l2_norm",
    "linf",
    "snr_db",
    "prd_percent",
    "n_gradients",
    "n_forwards",
    "seconds",
    "status",
    "message",
    "split",
]

PAIRS = [(s, t) for s in "ANO~" for t in "ANO~" if s != t]


def ecg(seed: int, n: int = 9000) -> np.ndarray:
    """A beat a second on a drift, standardised."""
    rng = np.random.default_rng(seed)
    t = np.arange(n) / 300
    x = np.exp(-(((t % 1.0) - 0.4) ** 2) / 2e-4) + 0.05 * rng.standard_normal(n)
    return ((x - x.mean()) / x.std()).astype(np.float32)


def made_up_records(_: object) -> RecordSet:
    """The data source of a made-up run: every record it names, those of class A short."""
    names = [f"{s}{k:04d}" for s in range(4) for k in range(100)]
    signals = [(1000 * 0.2 * ecg(i, 3600 if i == 0 else 9000)) for i in range(4)]
    return RecordSet.pack(
        "synthetic",
        [(name, "ANO~"[int(name[0])], signals[int(name[0])]) for name in names],
        gain=1000.0,
    )


def case_rows(per_pair: int = 2, seed: int = 0) -> list[dict[str, object]]:
    """``per_pair`` cases a pair; the first is lost in A>~, plus one failed and one skipped case."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for source, target in PAIRS:
        for k in range(per_pair):
            won = not ((source, target) == ("A", "~") and k == 0)
            d_l2, d_smooth = rng.lognormal(3, 1), rng.lognormal(-1, 0.5)
            record = f"{'ANO~'.index(source)}{k:04d}"
            rows.append(
                dict(
                    case_id=f"{record}-{source}-{target}".replace("~", "noise"),
                    record=record,
                    source=source,
                    target=target,
                    predicted=target if won else source,
                    success="true" if won else "false",
                    p_target=0.51 if won else 0.2,
                    margin=0.01 if won else -1.0,
                    d_l2=d_l2,
                    d_smooth=d_smooth,
                    d_smooth_l2=d_smooth + 0.01 * d_l2,
                    l2_norm=d_l2**0.5,
                    linf=0.3,
                    snr_db=20.0,
                    prd_percent=10.0,
                    n_gradients=100,
                    n_forwards=120,
                    seconds=0.5,
                    status="ok",
                    message="",
                    split="heldout",
                )
            )
    blank = dict.fromkeys(COLUMNS, "")
    broken = dict(record="N0099", source="N", target="A", success="false")
    rows.append(blank | broken | dict(case_id="f", status="failed", message="out of memory"))
    rows.append(blank | broken | dict(case_id="s", status="skipped", message="flat line"))
    return rows


def write_run(folder: Path, per_pair: int = 2, seed: int = 0, metric: str = "l2") -> Path:
    """The files of a finished run."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = case_rows(per_pair, seed)
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    ok = [row for row in rows if row["status"] == "ok"]
    won = [row for row in ok if row["success"] == "true"]
    rng = np.random.default_rng(seed)
    np.savez(
        folder / "perturbations.npz",
        case_id=np.array([str(row["case_id"]) for row in ok]),
        delta=(0.05 * rng.standard_normal((len(ok), 9000))).astype(np.float32),
        scale_mv=np.full(len(ok), 0.2, np.float32),
    )
    summary = {
        "n_cases": len(ok) + 1,
        "n_success": len(won),
        "success_rate": len(won) / (len(ok) + 1),
        "ci95": [0.8, 0.99],
        "pairs": {},
        "gradients_per_case": 100.0,
        "seconds": 12.0,
        "cases_per_second": 2.0,
        "config_signature": f"abc{seed}",
        "victim": {"name": "compact", "sha256": "f00d"},
        "versions": {"python": "3.11.9", "keras": "3.15.0"},
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "config.json").write_text(json.dumps(config(metric)))
    (folder / "status.json").write_text(json.dumps({"status": "finished", "message": ""}))
    return folder


def config(metric: str = "l2", **tracking: object) -> dict[str, object]:
    """A composed configuration, cut short."""
    return {
        "task": "attack",
        "backend": "tensorflow",
        "seed": 0,
        "metric": {"name": metric, "_target_": "ecgadv.threat.metrics.L2"},
        "attack": {"name": "minnorm", "_target_": "x.MinNorm", "steps": 100, "kappa": 0.0},
        "data": {"name": "synthetic", "root": None},
        "selection": {"per_class": 2, "source": ["A", "N"]},
        "tracking": {"name": "mlflow", "uri": None, "experiment": "test", **tracking},
    }
