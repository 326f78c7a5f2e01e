"""Figures of Type II runs: success against shift position, loss, spectrum, and studies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgadv.records.preprocessing import FS
from ecgadv.report import style
from ecgadv.tracking.content import read_json

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

POSITION_BINS = 15

KINDS = {
    "same_record": ("its own record", style.ADVERSARIAL),
    "other_records": ("other records of the class", style.PERTURBATION),
    "other_classes": ("records of other classes", style.GHOST),
}


def _read(file: Path) -> pd.DataFrame | None:
    import pandas as pd

    if not file.is_file():
        return None
    table = pd.read_csv(file, keep_default_na=False)
    return table if len(table) else None


def _hits(shifts: pd.DataFrame) -> pd.Series:
    reached = shifts["predicted"] == shifts["target"]
    left = shifts["predicted"] != shifts["source"]
    return left.where(shifts["target"] == "any", reached)


@style.styled
def shift_position(shifts: pd.DataFrame, fs: float = FS) -> Figure:
    """Share of readings that reach the target against the onset, with Wilson's intervals.

    Args:
        shifts: rows of ``shifts.csv``.
        fs: sampling rate in Hz.
    """
    from ecgadv.evaluate.statistics import wilson

    onset, hit = shifts["onset"].to_numpy(float) / fs, _hits(shifts).to_numpy(float)
    edges = np.linspace(0, max(onset.max(), 1 / fs) + 1 / fs, POSITION_BINS + 1)
    place = np.digitize(onset, edges) - 1
    figure = style.new_figure(120, 62)
    axes = figure.add_axes((0.14, 0.2, 0.83, 0.68))
    for k in range(POSITION_BINS):
        mine = hit[place == k]
        if not mine.size:
            continue
        middle = (edges[k] + edges[k + 1]) / 2
        axes.plot([middle] * 2, wilson(int(mine.sum()), mine.size), color=style.GHOST)
        axes.plot(middle, mine.mean(), "o", ms=3.5, color=style.ADVERSARIAL)
    axes.axhline(hit.mean(), color="black", linewidth=0.6, linestyle=":")
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("onset of the perturbation (s)")
    axes.set_ylabel("share that reaches the target")
    axes.set_title(f"success against shift position: {hit.size} readings, mean {hit.mean():.2f}")
    return figure


@style.styled
def loss_curves(history: pd.DataFrame) -> Figure:
    """Cross-entropy against iterations: every case a line, their median bold."""
    figure = style.new_figure(120, 62)
    axes = figure.add_axes((0.14, 0.2, 0.83, 0.68))
    for _, case in history.groupby("case_id", sort=False):
        axes.plot(case["iteration"], case["loss"], color=style.GHOST, alpha=0.6, linewidth=0.5)
    middle = history.groupby("iteration")["loss"].median()
    axes.plot(middle.index, middle.to_numpy(), color=style.ADVERSARIAL, linewidth=1.3)
    if (history["loss"] > 0).all():
        axes.set_yscale("log")
    axes.set_xlabel("iteration")
    axes.set_ylabel("mean cross-entropy")
    axes.set_title("loss against iterations (cases grey, median blue)")
    return figure


@style.styled
def spectrum(
    p: np.ndarray, x: np.ndarray | None, stopped: Sequence[float], fs: float = FS
) -> Figure:
    """Power spectral density of perturbations and records, with the device's notches.

    Args:
        p: (M, n) perturbations, in multiples of each record's standard deviation.
        x: (M, n) standardised records, or None.
        stopped: frequencies in Hz that the device removes; the first is its high-pass.
        fs: sampling rate in Hz.
    """
    from scipy.signal import welch

    figure = style.new_figure(120, 66)
    axes = figure.add_axes((0.13, 0.19, 0.84, 0.69))
    for signal, colour, label in ((x, style.ORIGINAL, "ECG"), (p, style.PERTURBATION, "injected")):
        if signal is None:
            continue
        length = min(2048, signal.shape[1])
        frequency, density = welch(signal.astype(float), fs, nperseg=length, axis=-1)
        # Below the first bins is nothing to see on a logarithmic axis.
        mean = np.maximum(density.mean(0), 1e-12)[1:]
        axes.loglog(frequency[1:], mean, color=colour, label=label)
    for k, value in enumerate(stopped):
        if k == 0:
            axes.axvspan(axes.get_xlim()[0], max(value, 1e-3), color="#DDDDDD", linewidth=0)
        else:
            axes.axvspan(value - 1, value + 1, color="#DDDDDD", linewidth=0)
    axes.set_xlim(fs / 2048, fs / 2)
    axes.set_xlabel("frequency (Hz); grey: removed by the front end")
    axes.set_ylabel("power density (variance / Hz)")
    axes.set_title("spectrum")
    axes.legend(frameon=False)
    return figure


@style.styled
def study(jobs: Sequence[tuple[str, dict[str, Any]]]) -> Figure:
    """Rates of a sweep's jobs, with bootstrap intervals over records.

    Args:
        jobs: name of the job and ``evaluation`` of its summary.
    """
    figure = style.new_figure(150, 26 + 9 * len(jobs))
    axes = figure.add_axes((0.36, 12 / (26 + 9 * len(jobs)), 0.61, 1 - 22 / (26 + 9 * len(jobs))))
    used = [kind for kind in KINDS if any(kind in evaluation for _, evaluation in jobs)]
    for row, (_, evaluation) in enumerate(jobs):
        for k, kind in enumerate(used):
            if kind not in evaluation:
                continue
            total = evaluation[kind]["all"]
            at = row + 0.22 * (k - (len(used) - 1) / 2)
            axes.plot(total["ci95_records"], [at, at], color=KINDS[kind][1])
            axes.plot(
                total["success_rate"], at, "o", ms=3.5, color=KINDS[kind][1],
                label=KINDS[kind][0] if not row else None,
            )  # fmt: skip
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(len(jobs) - 0.4, -0.6)
    axes.set_yticks(range(len(jobs)), [name for name, _ in jobs])
    axes.set_xlabel("share of readings that reach the target")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=6.5)
    return figure


def write_figures(folder: Path) -> list[Path]:
    """Draw what a Type II run's folder holds, to ``figures/``; [] for other runs."""
    place = folder / "figures"
    written = []
    shifts = _read(folder / "shifts.csv")
    if shifts is None:
        return []
    written.append(style.save(shift_position(shifts), place / "shift_position.png"))
    history = _read(folder / "history.csv")
    if history is not None:
        written.append(style.save(loss_curves(history), place / "loss_history.png"))
    config = read_json(folder / "config.json")
    try:
        with np.load(folder / "perturbations.npz", allow_pickle=False) as stored:
            p = stored["delta"]
    except (OSError, KeyError, ValueError):
        return written
    if len(p):
        x = _records(folder)
        written.append(style.save(spectrum(p, x, _stopped(config)), place / "spectrum.png"))
    return written


def _records(folder: Path) -> np.ndarray | None:
    from ecgadv.errors import EcgadvError
    from ecgadv.store import load_run

    try:
        return np.asarray(load_run(folder).x)
    except (EcgadvError, OSError):
        return None


def _stopped(config: dict[str, Any]) -> list[float]:
    """What the device of a run removes, in Hz, its high-pass first; [] where it removes nothing."""
    node = config.get("evaluation") or {}
    if config.get("deployment") != "local" or node.get("filter") in (None, "none"):
        return []
    usual = 0.05 if node["filter"] == "butterworth" else 0.055
    return [float(node.get("high_pass") or usual), *map(float, node.get("mains") or ())]
