"""Figures of single signals and of their frequencies: beats of a case, spectra of perturbations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ecgadv.evaluate.beats import TOLERANCE, agreement, r_peaks
from ecgadv.evaluate.perceptibility import ECG_BAND
from ecgadv.report import style
from ecgadv.report.paper import GAIN, Strip, checked_length, limits, stack, window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ZOOM = 2.0
"""The beats are drawn at twice the usual speed and, where they fit, gain: 50 mm/s, 20 mm/mV."""

SEGMENT = 2048
"""Samples of a segment of Welch's method: 6.8 s, so the lowest frequency is 0.15 Hz."""


@style.styled
def beats(
    x: np.ndarray,
    delta: np.ndarray,
    scale_mv: float,
    *,
    record: str = "",
    source: str = "",
    target: str = "",
    predicted: str = "",
    length: int | None = None,
    start: float | None = None,
    seconds: float = 5.0,
    fs: int,
) -> Figure:
    """Original and adversarial ECG, enlarged, with the R peaks that a detector finds in each.

    A filled triangle is a peak that both have (within 50 ms), an open one a peak of this strip
    only. Line ids: ``trace``, ``ghost``, ``peaks-kept``, ``peaks-lost`` (only in the original),
    ``peaks-new`` (only in the adversarial ECG).

    Args:
        x: (n,) standardised record.
        delta: (n,) perturbation in the same units.
        scale_mv: the record's standard deviation, which turns both into mV.
        record: its name.
        source: its class letter.
        target: class letter aimed at, or ``any``.
        predicted: class letter after the perturbation.
        length: the record's own samples.
        start: first second shown; ``None`` for where the perturbation is strongest.
        seconds: how much is shown.
        fs: sampling rate in Hz.

    Raises:
        ValueError: ``x`` and ``delta`` are not two signals of one record.
    """
    length = checked_length(x, delta, length)
    shown = window(length, start, seconds, delta, fs)
    before = np.asarray(x[:length], dtype=np.float64) * scale_mv
    after = before + np.asarray(delta[:length], dtype=np.float64) * scale_mv
    peaks = r_peaks(before, fs), r_peaks(after, fs)
    both = np.concatenate([before[shown], after[shown]])
    gain = ZOOM * GAIN
    while np.ptp(both) * gain > 60.0 and gain > 0.1:
        gain /= 2
    # Room above for the triangles.
    room = 3.0 / gain
    low, high = limits(
        np.array([both.min(), both.max() + 2 * room]), (-5.0 / gain, 10.0 / gain), gain
    )
    strips = [
        Strip(before[shown], f"original: class {source}", style.ORIGINAL, gain, low, high),
        Strip(
            after[shown], f"adversarial: class {predicted}", style.ADVERSARIAL, gain, low, high,
            ghost=before[shown],
        ),
    ]  # fmt: skip
    found = agreement(*peaks, fs=fs)
    arrow = f"{source} → {target}" if source and target else ""
    title = ", ".join(part for part in (record and f"record {record}", arrow, "R peaks") if part)
    foot = (
        f"{ZOOM * 25:g} mm/s, {gain:g} mm/mV (pulse {10 / gain:g} mV), grid 1 mm and 5 mm; grey: "
        f"original;  whole record: {len(peaks[0])} peaks before, {len(peaks[1])} after, "
        f"{found.kept} in both (▼ in both, ▽ in one only)"
    )
    duration = (shown.stop - shown.start) / fs
    figure = stack(
        [(shown.start / fs, duration, strips)], title, foot, fs, speed=ZOOM * 25.0
    )  # fmt: skip
    for axes, mine, other, alone in zip(
        figure.axes, peaks, peaks[::-1], ("peaks-lost", "peaks-new"), strict=True
    ):
        shared = _shared(mine, other, fs)
        signal = before if mine is peaks[0] else after
        _triangles(axes, mine[shared], signal, shown, fs, room, "peaks-kept")
        _triangles(axes, mine[~shared], signal, shown, fs, room, alone)
    return figure


def _shared(mine: np.ndarray, other: np.ndarray, fs: int) -> np.ndarray:
    if not len(mine) or not len(other):
        return np.zeros(len(mine), dtype=bool)
    return np.abs(mine[:, None] - other[None, :]).min(1) <= TOLERANCE * fs


def _triangles(
    axes: Axes,
    peaks: np.ndarray,
    signal: np.ndarray,
    shown: slice,
    fs: int,
    room: float,
    name: str,
) -> None:
    peaks = peaks[(peaks >= shown.start) & (peaks < shown.stop)]
    face = style.PERTURBATION if name == "peaks-kept" else "white"
    # Above the highest point of the complex, which need not be the detector's own peak.
    reach = round(0.06 * fs)
    tops = [signal[max(0, p - reach) : p + reach].max() for p in peaks]
    (line,) = axes.plot(
        peaks / fs, np.array(tops) + room, "v", ms=5, color=style.PERTURBATION,
        markerfacecolor=face, markeredgewidth=0.9, linestyle="none",
    )  # fmt: skip
    line.set_gid(name)


def density(
    signals: np.ndarray, lengths: np.ndarray | None = None, *, fs: float
) -> tuple[np.ndarray, np.ndarray]:
    """Power spectral densities by Welch's method, the mean not removed.

    Args:
        signals: (M, n).
        lengths: (M,) own samples; None for all.
        fs: sampling rate in Hz.

    Returns:
        (F,) frequencies in Hz without 0, and (M, F) densities in the unit's square per Hz.
    """
    from scipy.signal import welch

    rows = []
    frequency = np.fft.rfftfreq(SEGMENT, 1 / fs)
    for k, signal in enumerate(np.asarray(signals, dtype=np.float64)):
        own = signal if lengths is None else signal[: int(lengths[k])]
        size = min(SEGMENT, own.size)
        _, power = welch(own, fs, nperseg=size, nfft=SEGMENT, detrend=False)
        rows.append(power)
    return frequency[1:], np.array(rows).reshape(-1, SEGMENT // 2 + 1)[:, 1:]


@style.styled
def spectra(
    perturbations: Mapping[str, np.ndarray],
    ecg: np.ndarray | None = None,
    *,
    lengths: Mapping[str, np.ndarray] | None = None,
    ecg_lengths: np.ndarray | None = None,
    title: str = "",
    fs: float,
) -> Figure:
    """Spectra of perturbations, a line a group (metric): the median of the cases and quartiles.

    Line ids: the groups' names and ``ECG``; bands: ``band`` and the name.

    Args:
        perturbations: name -> (M, n) in mV.
        ecg: (M, n) records in mV, or None.
        lengths: name -> (M,) own samples.
        ecg_lengths: (M,) of the records.
        title: e.g. the metric.
        fs: sampling rate in Hz.

    Raises:
        ValueError: there is no perturbation.
    """
    if not any(len(group) for group in perturbations.values()):
        raise ValueError("no perturbation to draw")
    figure = style.new_figure(130, 76)
    axes = figure.add_axes((0.135, 0.165, 0.84, 0.735))
    low, high = fs / SEGMENT, fs / 2
    for ends in ((low, ECG_BAND[0]), (ECG_BAND[1], high)):
        axes.axvspan(*ends, facecolor=style.SHADE, linewidth=0, zorder=0)
    groups = [(name, group, (lengths or {}).get(name)) for name, group in perturbations.items()]
    tops = []
    if ecg is not None and len(ecg):
        groups.insert(0, ("ECG", ecg, ecg_lengths))
    for rank, (name, group, own) in enumerate(groups):
        if not len(group):
            continue
        frequency, power = density(group, own, fs=fs)
        q25, median, q75 = np.quantile(power, [0.25, 0.5, 0.75], axis=0)
        look = style.series(0) if name == "ECG" else style.metric_series(name, rank)
        axes.fill_between(
            frequency, np.maximum(q25, 1e-16), np.maximum(q75, 1e-16), color=look["color"],
            alpha=0.15, linewidth=0,
        ).set_gid(f"band {name}")  # fmt: skip
        (line,) = axes.plot(
            frequency, np.maximum(median, 1e-16), linewidth=1.1, label=f"{name} ({len(group)})",
            **look,
        )  # fmt: skip
        line.set_gid(name)
        tops.append((float(q75.max()), float(np.maximum(q25, 1e-16).min())))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    top = max(t for t, _ in tops)
    axes.set_ylim(max(min(b for _, b in tops), top * 1e-10), top * 3)
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20, 40, 100]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.set_xlabel("frequency (Hz); white: 0.5 to 40 Hz, the band of ECG monitors")
    axes.set_ylabel("power density (mV²/Hz)")
    heading = title or "spectra"
    axes.set_title(f"{heading}: median of the cases, band: quartiles", pad=4)
    axes.legend(frameon=False, loc="lower left", handlelength=3.2)
    return figure


@style.styled
def metric_bars(groups: Mapping[str, Mapping[str, np.ndarray]], names: Sequence[str]) -> Figure:
    """What a reader might notice, side by side: a panel a column, a row a metric.

    Every case is a dot, the median a bar and the quartiles a line. Line ids: ``dots NAME`` and
    ``median NAME``.

    Args:
        groups: metric -> column of ``cases.csv`` -> (M,) values of its successful cases.
        names: columns to draw; those of :data:`PANELS` have a title and a scale.
    """
    wide = 3
    lines = -(-len(names) // wide)
    figure = style.new_figure(180, 12 + lines * (13 + 6 * len(groups)))
    grid = figure.add_gridspec(
        lines, wide, left=0.09, right=0.98, bottom=0.2 / lines, top=1 - 0.16 / lines, hspace=0.62,
        wspace=0.12,
    )  # fmt: skip
    for k, name in enumerate(names):
        axes = figure.add_subplot(grid[k // wide, k % wide])
        words, logarithmic = PANELS.get(name, (name, False))
        for row, (metric, columns) in enumerate(groups.items()):
            values = np.asarray(columns.get(name, ()), dtype=np.float64)
            values = values[np.isfinite(values)]
            values = values[values > 0] if logarithmic else values
            if not values.size:
                continue
            colour = style.metric_series(metric, row)["color"]
            # Spread by rank, not at random: equal data give equal figures.
            spread = (np.arange(values.size) * 0.618 % 1 - 0.5) * 0.55
            (dots,) = axes.plot(values, row + spread, "o", ms=1.8, mew=0, alpha=0.45, color=colour)
            dots.set_gid(f"dots {metric}")
            q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
            axes.plot([q25, q75], [row, row], color="black", linewidth=1.2)
            (bar,) = axes.plot([median], [row], "|", color="black", ms=9, mew=1.6)
            bar.set_gid(f"median {metric}")
        if logarithmic and axes.lines:
            style.log_axis(axes, *_log_ends(groups, name))
        if name.endswith("_share") or name in ("r_recall", "r_precision"):
            # All shares from 0 to 1: panels compare, and nothing lies beyond.
            axes.set_xlim(-0.03, 1.03)
        axes.set_ylim(len(groups) - 0.4, -0.6)
        axes.set_yticks(range(len(groups)), list(groups) if not k % wide else [""] * len(groups))
        axes.set_title(words, loc="left", fontsize=8, pad=3)
        axes.grid(axis="x", linewidth=0.4, color=style.GRID)
        axes.set_axisbelow(True)
    return figure


PANELS = {
    "snr_db": ("SNR (dB)", False),
    "max_change_mv": ("largest change (mV)", True),
    "max_slope_mv_s": ("largest slope (mV/s)", True),
    "ecg_band_share": ("energy in 0.5 to 40 Hz", False),
    "p_share": ("energy about P waves", False),
    "qrs_share": ("energy about QRS complexes", False),
    "t_share": ("energy about T waves", False),
    "r_recall": ("R peaks kept (recall)", False),
    "r_precision": ("R peaks that were there", False),
}
"""Columns of ``cases.csv`` -> what is written above their panel, and whether it is logarithmic."""


def _log_ends(groups: Mapping[str, Mapping[str, np.ndarray]], name: str) -> tuple[float, float]:
    values = np.concatenate(
        [np.asarray(c.get(name, ()), dtype=np.float64) for c in groups.values()]
    )
    values = values[np.isfinite(values) & (values > 0)]
    return float(values.min()) / 1.4, float(values.max()) * 1.4
