"""The table of docs/perceptibility.md from the runs of a sweep over the metrics, in Markdown.

    python run.py -m metric=l2,diff,diffl2 data=cinc2017 data.root=training2017.zip \
        selection.per_class=5 selection.split=heldout
    python tools/perceptibility_table.py multirun_outputs/<the sweep's folder> --images docs/images

With ``--images`` it draws ``spectra.png`` and ``beats.png`` there. Columns are computed anew from
the stored perturbations, so runs of earlier versions will do.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from ecgadv import load_run
from ecgadv.evaluate.perceptibility import perceptibility
from ecgadv.report import data, pictures, signals, style

ROWS = {
    "snr_db": "SNR (dB)",
    "prd_percent": "PRD (%)",
    "max_change_mv": "largest change (mV)",
    "max_slope_mv_s": "largest slope (mV/s)",
    "ecg_band_share": "energy in 0.5 to 40 Hz",
    "p_share": "energy about P waves",
    "qrs_share": "energy about QRS complexes",
    "t_share": "energy about T waves",
    "r_recall": "R peaks kept (recall)",
    "r_precision": "R peaks that were there (precision)",
    "heart_rate_change": "heart-rate change (1/min)",
}


def columns(folder: Path) -> tuple[str, int, dict[str, np.ndarray]]:
    """Metric, number of successful cases, and their columns; ``source`` and ``even`` with them.

    ``even`` are the columns of a perturbation that is the same everywhere.
    """
    run = load_run(folder)
    table = run.cases.set_index("case_id").loc[[str(name) for name in run.case_ids]]
    won = table["success"].to_numpy(bool)
    of = (run.x[won], run.lengths[won], run.scale_mv[won], data.sampling_rate(folder))
    seen = perceptibility(run.delta[won], *of)
    for name in ("snr_db", "prd_percent"):
        seen[name] = table[name].to_numpy(float)[won]
    even = perceptibility(np.ones_like(run.x[won]), *of)
    seen |= {f"even_{name}": values for name, values in even.items()}
    seen["source"] = table["source"].to_numpy(str)[won]
    return str(run.summary["metric"]), int(won.sum()), seen


def cell(values: np.ndarray) -> str:
    """Median and quartiles."""
    low, middle, high = np.nanpercentile(values, [25, 50, 75])
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


def draw(folders: list[Path], images: Path, case_id: str) -> None:
    """Spectra of all metrics, and the beats of one case under ``diff``."""
    runs = {str(load_run(folder).summary["metric"]): folder for folder in folders}
    style.save(pictures.spectra_figure(runs), images / "spectra.png", dpi=150)
    run = load_run(runs["diff"])
    row = [str(name) for name in run.case_ids].index(case_id)
    case = run.cases.set_index("case_id").loc[case_id]
    figure = signals.beats(
        run.x[row], run.delta[row], float(run.scale_mv[row]), length=int(run.lengths[row]),
        fs=data.sampling_rate(runs["diff"]),
        **{name: str(case[name]) for name in ("record", "source", "target", "predicted")},
    )  # fmt: skip
    style.save(figure, images / "beats.png", dpi=120)


def main() -> None:
    """Read the command line and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path, help="folder of the sweep over metric=l2,diff,diffl2")
    parser.add_argument("--images", type=Path, help="folder that pictures go to")
    parser.add_argument("--case", default="A00001_N_to_A", help="case whose beats are drawn")
    options = parser.parse_args()
    folders = sorted(f.parent for f in options.sweep.glob("*/cases.csv"))
    if not folders:
        raise SystemExit("no job with a cases.csv lies there")
    found = [columns(folder) for folder in folders]
    heads = [f"`{metric}` ({count})" for metric, count, _ in found]
    print("| | " + " | ".join([*heads, "evenly spread"]) + " |")
    print("|---|" + "---|" * (len(found) + 1))
    for name, words in ROWS.items():
        cells = [cell(seen[name]) for _, _, seen in found]
        even = f"{np.nanmedian(found[0][2][f'even_{name}']):.3g}" if "about" in words else ""
        print(f"| {words} | " + " | ".join([*cells, even]) + " |")
    for words, classes in (("A, N, O", "ANO"), ("~", "~")):
        kept = []
        for _, _, seen in found:
            mine = np.isin(seen["source"], list(classes))
            same = mine & (seen["r_recall"] == 1) & (seen["r_precision"] == 1)
            kept.append(f"{int(same.sum())}/{int(mine.sum())}")
        print(f"| all R peaks kept, none added: {words} | " + " | ".join([*kept, ""]) + " |")
    if options.images:
        draw(folders, options.images, options.case)


if __name__ == "__main__":
    main()
