"""Recompute the success of every case of a run from its files, sharing none of its code.

Read are ``perturbations.npz``, ``cases.csv`` and the recordings; standardisation, margin and
decision are this script's own. Only the network's logits come from the package.

    python tests/independent_check.py RUN RECORDINGS [VICTIM]

RECORDINGS is the CinC 2017 zip or folder, or an ``.npz`` with one array a record (1-D, any unit).
"""

from __future__ import annotations

import csv
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

N = 9000
CLASSES = ["A", "N", "O", "~"]


def mat4(content: bytes) -> np.ndarray:
    """First matrix of a MATLAB v4 file, flattened: five integers, a name, the data."""
    kind, rows, columns, _, name = np.frombuffer(content[:20], "<i4")
    dtype = {0: "<f8", 1: "<f4", 2: "<i4", 3: "<i2", 4: "<u2", 5: "u1"}[int(kind) // 10 % 10]
    values = np.frombuffer(content[20 + int(name) :], dtype, int(rows) * int(columns))
    return values.astype(np.float64)


def recordings(place: Path, names: set[str]) -> dict[str, np.ndarray]:
    """Signals by record name, in any unit."""
    if place.suffix == ".npz":
        with np.load(place, allow_pickle=False) as stored:
            return {name: np.asarray(stored[name], np.float64) for name in names}
    if place.is_dir():
        found = {p.stem: p.read_bytes() for p in place.rglob("*.mat") if p.stem in names}
    else:
        with zipfile.ZipFile(place) as archive:
            found = {
                Path(f).stem: archive.read(f)
                for f in archive.namelist()
                if f.endswith(".mat") and Path(f).stem in names
            }
    return {name: mat4(content) for name, content in found.items()}


def own_samples(signal: np.ndarray) -> np.ndarray:
    """The first 30 s, standardised; what is not a number counts as 0."""
    values = signal[:N].copy()
    values[~np.isfinite(values)] = 0.0
    return (values - np.mean(values)) / np.sqrt(np.mean((values - np.mean(values)) ** 2))


def judged(logits: np.ndarray, source: str, target: str) -> tuple[bool, str, float]:
    """Success, class read, and the lead of the wanted class."""
    z = logits.astype(np.float64)
    best = int(np.argmax(z))
    if target == "any":
        wanted = max((z[i], i) for i in range(4) if CLASSES[i] != source)[1]
    else:
        wanted = CLASSES.index(target)
    lead = z[wanted] - max(z[i] for i in range(4) if i != wanted)
    if target == "any":
        lead = z[wanted] - z[CLASSES.index(source)]
    return bool(lead >= 1e-3 * max(1.0, float(np.abs(z).max()))), CLASSES[best], float(lead)


def check(run: Path, place: Path, victim: Any) -> dict[str, Any]:
    """Compare a run with what is recomputed.

    Args:
        run: the run's folder.
        place: where the recordings are.
        victim: a function of (B, 9000) float32 giving (B, 4) logits.

    Returns:
        Counts, and a line for every disagreement.
    """
    with (run / "cases.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["status"] == "ok"]
    with np.load(run / "perturbations.npz", allow_pickle=False) as stored:
        deltas = dict(zip(stored["case_id"].tolist(), stored["delta"], strict=True))
        scales = dict(zip(stored["case_id"].tolist(), stored["scale_mv"], strict=True))
    config = json.loads((run / "config.json").read_text())
    everything = bool(config["attack"].get("perturb_padding"))
    signals = recordings(place, {row["record"] for row in rows})
    wrong = []
    if sorted(deltas) != sorted(row["case_id"] for row in rows):
        wrong.append("perturbations.npz and cases.csv name different cases")
    won = 0
    for row in rows:
        name = row["case_id"]
        delta = deltas[name].astype(np.float64)
        signal = signals[row["record"]]
        own = own_samples(signal)
        length = len(own)
        perturbed = np.zeros(N)
        perturbed[:length] = own
        perturbed += delta
        span = N if everything else length
        if delta[span:].any():
            wrong.append(f"{name}: the padding is perturbed")
        x = np.zeros((1, N), np.float32)
        x[0, :span] = own_samples(perturbed[:span])
        success, predicted, lead = judged(victim(x)[0], row["source"], row["target"])
        won += success
        if success != (row["success"] == "true"):
            wrong.append(f"{name}: success {row['success']}, recomputed {success} (lead {lead:g})")
        if predicted != row["predicted"] and abs(lead) > 1e-3:
            wrong.append(f"{name}: predicted {row['predicted']}, recomputed {predicted}")
        if abs(lead - float(row["margin"])) > 1e-2 * max(1.0, abs(lead)):
            wrong.append(f"{name}: margin {row['margin']}, recomputed {lead:g}")
        steps = np.concatenate([[0.0], np.diff(delta), [-delta[-1]]])
        sizes = {
            "d_l2": np.sum(delta**2),
            "d_smooth": 1e4 * np.mean((steps - steps.mean()) ** 2),
            "linf": np.abs(delta).max(),
            "l2_norm": np.sqrt(np.sum(delta**2)),
        }
        for column, value in sizes.items():
            if abs(float(row[column]) - value) > 1e-6 * value + 1e-9:
                wrong.append(f"{name}: {column} {row[column]}, recomputed {value:g}")
        kept = np.where(np.isfinite(signal[:N]), signal[:N], 0.0)
        ratio = float(scales[name]) / kept.std()
        # CinC 2017 has 1000 units a mV, the arrays of a test are in mV.
        if min(abs(ratio - 1.0), abs(ratio - 1e-3)) > 1e-5 * ratio:
            wrong.append(f"{name}: scale_mv {scales[name]}, the recording's is {kept.std():g}")
    return {"cases": len(rows), "success": won, "wrong": wrong}


def main(argv: list[str]) -> int:
    """Check one run; exit status 1 where anything disagrees."""
    import ecgadv

    victim = ecgadv.load_victim(argv[3] if len(argv) > 3 else "compact")
    result = check(Path(argv[1]), Path(argv[2]), victim.logits)
    print(json.dumps(result, indent=1))
    return int(bool(result["wrong"]))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
