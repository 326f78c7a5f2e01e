"""Figures of Type II runs: success against shift position, loss, spectrum, and studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgadv.errors import EcgadvError
from ecgadv.evaluate.trials import HISTORY, SHIFTS, trial_table
from ecgadv.report import data, style
from ecgadv.study.setting import device
from ecgadv.threat.front_ends import from_config
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


def read_table(file: Path) -> pd.DataFrame | None:
    """A table that lies beside ``cases.csv``, with rows; None where there is none."""
    if not file.is_file():
        return None
    table = {"shifts.csv": SHIFTS, "history.csv": HISTORY}.get(file.name) or trial_table()
    found = table.frame(file)
    return found if len(found) else None


def _hits(shifts: pd.DataFrame) -> pd.Series:
    reached = shifts["predicted"] == shifts["target"]
    left = shifts["predicted"] != shifts["source"]
    return left.where(shifts["target"] == "any", reached)


@style.styled
def shift_position(shifts: pd.DataFrame, fs: float) -> Figure:
    """Share of readings that reach the target against the onset, with 95 % intervals over records.

    Args:
        shifts: rows of ``shifts.csv``; of a table that names no records the intervals are Wilson's.
        fs: sampling rate in Hz.
    """
    from ecgadv.evaluate.statistics import record_interval, wilson

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
        ends: tuple[float, float] | None = wilson(int(mine.sum()), mine.size)
        if "victim_record" in shifts:
            names = shifts["victim_record"][place == k].astype(str).tolist()
            ends = record_interval(mine, np.ones(mine.size), names)
        if ends is not None:
            axes.plot([middle] * 2, ends, color=style.GHOST)
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
    p: np.ndarray,
    x: np.ndarray | None,
    stopped: Sequence[float] = (),
    modelled: Sequence[float] = (),
    band: Sequence[float] | None = None,
    *,
    fs: float,
) -> Figure:
    """Power spectral density of perturbations and records, with what filters and limits take out.

    Args:
        p: (M, n) perturbations, in multiples of each record's standard deviation.
        x: (M, n) standardised records, or None.
        stopped: frequencies in Hz that the device removes; the first is its high-pass.
        modelled: those that the attack took for removed.
        band: lowest and highest frequency in Hz that the injector was given; None for all.
        fs: sampling rate in Hz.
    """
    figure = style.new_figure(130, 70)
    axes = figure.add_axes((0.12, 0.18, 0.85, 0.7))
    lowest = fs / p.shape[1]
    for signal, colour, label in ((x, style.ORIGINAL, "ECG"), (p, style.PERTURBATION, "injected")):
        if signal is not None:
            frequency, density = _density(np.asarray(signal, float), fs)
            axes.loglog(frequency, np.maximum(density, 1e-12), color=colour, label=label)
    for k, value in enumerate(stopped):
        low, high = (lowest / 2, value) if k == 0 else (value * 0.985, value * 1.015)
        name = "removed by the device" if k == 0 else None
        axes.axvspan(low, max(high, low), color="#D0D0D0", linewidth=0, label=name)
    for k, value in enumerate(modelled):
        name = "taken for removed" if k == 0 else None
        axes.axvline(value, color=style.ADVERSARIAL, linewidth=0.6, linestyle="--", label=name)
    for k, value in enumerate(band or ()):
        name = "attack.band" if k == 0 else None
        axes.axvline(value, color="#444444", linewidth=0.7, linestyle=":", label=name)
    axes.set_xlim(lowest / 2, fs / 2)
    axes.set_xlabel("frequency (Hz)")
    axes.set_ylabel("power density (variance / Hz)")
    axes.set_title(f"spectrum: mean of {len(p)}")
    axes.legend(frameon=False, fontsize=6.5)
    return figure


SPECTRUM_BINS = 24
"""Points a decade of a drawn spectrum; below, the transform's own bins are farther apart."""


def _density(signal: np.ndarray, fs: float) -> tuple[np.ndarray, np.ndarray]:
    """Periodogram of the whole length, averaged over rows and within steps of the logarithm.

    The whole length, because the device's high-pass lies at 0.05 Hz.
    """
    power = (np.abs(np.fft.rfft(signal, axis=-1)) ** 2).mean(0)[1:] * 2 / (fs * signal.shape[1])
    frequency = np.fft.rfftfreq(signal.shape[1], 1 / fs)[1:]
    place = np.floor(np.log10(frequency) * SPECTRUM_BINS).astype(int)
    _, which = np.unique(place, return_inverse=True)
    count = np.bincount(which)
    return np.bincount(which, frequency) / count, np.bincount(which, power) / count


def write_figures(folder: Path) -> list[Path]:
    """Draw what a Type II run's folder holds, to ``figures/``; [] for other runs."""
    place = folder / "figures"
    written = []
    shifts = read_table(folder / "shifts.csv")
    if shifts is None:
        return []
    if "counts" in shifts:
        shifts = shifts[shifts["counts"].astype(str).str.lower() == "true"]
    if len(shifts):
        drawn = shift_position(shifts, data.sampling_rate(folder))
        written.append(style.save_figure(drawn, place / "shift_position.png"))
    history = read_table(folder / "history.csv")
    if history is not None:
        written.append(style.save_figure(loss_curves(history), place / "loss_history.png"))
    config = read_json(folder / "config.json")
    try:
        with np.load(folder / "perturbations.npz", allow_pickle=False) as stored:
            p = stored["delta"]
    except (OSError, KeyError, ValueError):
        return written
    if len(p) and config.get("threat_model") == "type2":
        x, fs = _records(folder), data.sampling_rate(folder)
        drawn = spectrum(
            _by_lead(p), None if x is None else _by_lead(x), _stopped(config, fs),
            _modelled(config, fs), _band(config), fs=fs,
        )  # fmt: skip
        written.append(style.save_figure(drawn, place / "spectrum.png"))
    return written


def _by_lead(signals: np.ndarray) -> np.ndarray:
    """(M, n) stays; of several leads (M, n, leads) -> (M·leads, n)."""
    return signals if signals.ndim == 2 else np.concatenate(np.moveaxis(signals, 2, 1))


def _records(folder: Path) -> np.ndarray | None:
    from ecgadv.store import load_run

    try:
        return np.asarray(load_run(folder).x)
    except (EcgadvError, OSError):
        return None


def _stopped(config: dict[str, Any], fs: float) -> list[float]:
    """What the device of a run removes, in Hz, its high-pass first; [] where it removes nothing."""
    node = config.get("evaluation") or {}
    if config.get("deployment") != "local" or node.get("filter") in (None, "none"):
        return []
    return _removed(device(config), fs)


def _modelled(config: dict[str, Any], fs: float) -> list[float]:
    """What the attack took for removed, in Hz; [] where it modelled no front end."""
    node = config.get("filter") or {}
    if config.get("deployment") != "local" or node.get("name") in (None, "none"):
        return []
    return _removed(node, fs)


def _removed(node: Mapping[str, Any], fs: float) -> list[float]:
    """Frequencies that a front end takes out; [] where one's own cannot be made any more."""
    try:
        return list(from_config(node, fs).removed)
    except EcgadvError:
        return []


def _band(config: dict[str, Any]) -> list[float] | None:
    node = config.get("attack")
    return node.get("band") if isinstance(node, dict) else None
