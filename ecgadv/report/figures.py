"""Figures of ECGs on paper, and of success rates and distances."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ecgadv.report import style
from ecgadv.report.data import attempted, class_order, succeeded
from ecgadv.report.data import distances as known_distances
from ecgadv.report.paper import (
    GAIN,
    SPEED,
    Strip,
    checked_length,
    gain_text,
    label,
    limits,
    magnification,
    stack,
    strip_gain,
    window,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@style.styled
def before_after(
    x: np.ndarray,
    delta: np.ndarray,
    scale_mv: float,
    *,
    record: str = "",
    source: str = "",
    target: str = "",
    predicted: str = "",
    p_before: float | None = None,
    p_after: float | None = None,
    distances: Mapping[str, float] | None = None,
    length: int | None = None,
    start: float | None = None,
    seconds: float = 10.0,
    fs: int,
) -> Figure:
    """Original, adversarial ECG and perturbation, one above the other on ECG paper.

    The perturbation is drawn twice: at the scale of the ECG, and magnified as far as 10 mm allow,
    with the magnification in the caption (once only, where it is too large to magnify).

    Args:
        x: (n,) standardised record.
        delta: (n,) perturbation in the same units.
        scale_mv: the record's standard deviation, which turns both into mV.
        record: its name.
        source: class letter of the record, as the victim sees it unperturbed.
        target: class letter aimed at, or ``any``.
        predicted: class letter after the perturbation.
        p_before: the victim's probability of ``source`` on the original.
        p_after: its probability of ``predicted`` on the adversarial record.
        distances: name (``d_l2``, …) -> value, printed below.
        length: the record's own samples; padding is not drawn.
        start: first second shown; ``None`` for where the perturbation is strongest.
        seconds: how much is shown.
        fs: sampling rate in Hz.

    Raises:
        ValueError: ``x`` and ``delta`` are not two signals of one record.
    """
    length = checked_length(x, delta, length)
    shown = window(length, start, seconds, delta, fs)
    clean = np.asarray(x[shown], dtype=np.float64) * scale_mv
    noise = np.asarray(delta[shown], dtype=np.float64) * scale_mv
    both = np.concatenate([clean, clean + noise])
    gain = strip_gain(both)
    low, high = limits(both, (-0.5 * GAIN / gain, 1.0 * GAIN / gain), gain)
    peak = float(np.abs(noise).max())
    factor = magnification(peak)
    hit = "" if not target else f"target {target}, {'reached' if predicted == target else 'missed'}"
    if target == "any":
        hit = "untargeted, " + ("reached" if predicted != source else "missed")
    strips = [
        Strip(clean, f"original: {label(source, p_before)}", style.ORIGINAL, gain, low, high),
        Strip(
            clean + noise,
            f"adversarial: {label(predicted, p_after)}",
            style.ADVERSARIAL,
            gain,
            low,
            high,
            ghost=clean,
            note=hit,
        ),
        Strip(
            noise,
            f"perturbation at the same scale (largest {peak:.3g} mV)",
            style.PERTURBATION,
            gain,
            *limits(noise, (-0.5 * GAIN / gain, 1.0 * GAIN / gain), gain),
        ),
    ]
    if GAIN * factor > gain:
        strips.append(
            Strip(
                noise,
                f"perturbation magnified {GAIN * factor / gain:g} times: "
                f"{gain_text(GAIN * factor)}, pulse {1 / factor:g} mV",
                style.PERTURBATION,
                GAIN * factor,
                *limits(noise, (-1.0 / factor, 1.0 / factor), GAIN * factor),
            )
        )
    duration = clean.size / fs
    arrow = f"{source} → {target}" if source and target else ""
    title = ", ".join(part for part in (record and f"record {record}", arrow) if part)
    foot = f"{SPEED:g} mm/s, {gain_text(gain)}, grid 1 mm and 5 mm; grey: original"
    for name, value in (distances or {}).items():
        foot += f";  {name} = {value:.3g}"
    return stack([(shown.start / fs, duration, strips)], title, foot, fs)


@style.styled
def metric_comparison(
    x: np.ndarray,
    deltas: Mapping[str, np.ndarray],
    scale_mv: float,
    *,
    record: str = "",
    source: str = "",
    target: str = "",
    notes: Mapping[str, str] | None = None,
    length: int | None = None,
    start: float | None = None,
    seconds: float = 5.0,
    fs: int,
) -> Figure:
    """One record attacked under several metrics: adversarial ECGs left, perturbations right.

    All perturbations are magnified alike, so that they can be compared by eye.

    Args:
        x: (n,) standardised record.
        deltas: name of the metric -> (n,) perturbation.
        scale_mv: the record's standard deviation in mV.
        record: its name.
        source: its class letter.
        target: class letter aimed at.
        notes: name of the metric -> text beside it, e.g. a distance.
        length: the record's own samples.
        start: first second shown; ``None`` for where the perturbations are strongest.
        seconds: how much is shown.
        fs: sampling rate in Hz.

    Raises:
        ValueError: no perturbation is given, or one does not fit ``x``.
    """
    if not deltas:
        raise ValueError("no perturbation to compare")
    for delta in deltas.values():
        samples = checked_length(x, delta, length)
    together = np.sqrt(sum(np.square(d, dtype=np.float64) for d in deltas.values()))
    shown = window(samples, start, seconds, together, fs)
    clean = np.asarray(x[shown], dtype=np.float64) * scale_mv
    noises = {k: np.asarray(d[shown], dtype=np.float64) * scale_mv for k, d in deltas.items()}
    both = np.concatenate([clean, *(clean + noise for noise in noises.values())])
    gain = strip_gain(both)
    low, high = limits(both, (-0.5 * GAIN / gain, 1.0 * GAIN / gain), gain)
    factor = magnification(max(float(np.abs(noise).max()) for noise in noises.values()))
    every = np.concatenate(list(noises.values()))
    ends = limits(every, (-1.0 / factor, 1.0 / factor), GAIN * factor)
    # Equal heights keep the rows of the two columns together.
    tall = max((high - low) * gain, (ends[1] - ends[0]) * GAIN * factor)
    low, high = _widen(low, high, tall / gain, 5.0 / gain)
    ends = _widen(*ends, tall / (GAIN * factor), 0.5 / factor)
    left = [Strip(clean, f"original, class {source}", style.ORIGINAL, gain, low, high)]
    right = []
    for name, noise in noises.items():
        note = (notes or {}).get(name, "")
        left.append(
            Strip(clean + noise, name, style.ADVERSARIAL, gain, low, high, ghost=clean, note=note)
        )
        caption = f"{name}: perturbation x {factor}, pulse {1 / factor:g} mV"
        right.append(Strip(noise, caption, style.PERTURBATION, GAIN * factor, *ends))
    right.insert(0, Strip(0 * clean, "no perturbation", style.PERTURBATION, GAIN * factor, *ends))
    duration, begin = clean.size / fs, shown.start / fs
    title = f"record {record}, {source} → {target}" if record else f"{source} → {target}"
    foot = f"{SPEED:g} mm/s, {gain_text(gain)} (right: {gain_text(GAIN * factor)}); grey: original"
    return stack([(begin, duration, left), (begin, duration, right)], title, foot, fs)


def _widen(low: float, high: float, span: float, step: float) -> tuple[float, float]:
    """Move two ends apart to ``span``, both staying on multiples of ``step``."""
    missing = round((span - (high - low)) / step)
    return low - (missing // 2) * step, high + (missing - missing // 2) * step


@style.styled
def success_heatmap(cases: pd.DataFrame, title: str = "") -> Figure:
    """Success rate of every source and target class, with counts.

    Args:
        cases: rows of ``cases.csv``; those that were skipped do not count.
        title: e.g. the metric.
    """
    tried = attempted(cases)
    classes = class_order(tried)
    targets = [*classes, "any"] if (tried["target"] == "any").any() else classes
    sources = [*classes, "any"] if (tried["source"] == "any").any() else classes
    figure = style.new_figure(34 + 17 * len(targets), 92)
    axes = figure.add_axes((0.17, 0.15, 0.66, 0.68))
    rates = np.full((len(sources), len(targets)), np.nan)
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            mine = tried[(tried["source"] == source) & (tried["target"] == target)]
            if len(mine):
                rates[i, j] = succeeded(mine).mean()
    image = axes.imshow(rates, cmap=style.RATE_MAP, vmin=0, vmax=1, aspect="auto")
    for i, source in enumerate(sources):
        for j, target in enumerate(targets):
            if math.isnan(rates[i, j]):
                axes.text(j, i, "–", ha="center", va="center", color="#777777")
                continue
            mine = tried[(tried["source"] == source) & (tried["target"] == target)]
            axes.text(
                j,
                i,
                f"{100 * rates[i, j]:.0f} %\n{int(succeeded(mine).sum())}/{len(mine)}",
                ha="center",
                va="center",
                fontsize=8,
                color="black" if rates[i, j] > 0.5 else "white",
            )
    axes.set_xticks(range(len(targets)), targets)
    axes.set_yticks(range(len(sources)), sources)
    axes.tick_params(length=0)
    axes.set_xlabel("target class")
    axes.set_ylabel("source class")
    axes.set_title(title or "success rate", pad=6)
    for spine in axes.spines.values():
        spine.set_visible(False)
    bar = figure.colorbar(image, cax=figure.add_axes((0.86, 0.15, 0.03, 0.68)))
    bar.set_ticks([0, 0.5, 1], labels=["0", "50 %", "100 %"])
    bar.outline.set_visible(False)
    return figure


@style.styled
def distance_distributions(cases: pd.DataFrame, title: str = "") -> Figure:
    """Distances of the successful cases by pair: every case a dot, median and quartiles as lines.

    Args:
        cases: rows of ``cases.csv``.
        title: e.g. the metric.
    """
    won = cases[succeeded(cases)]
    order = [*class_order(cases), "any"]
    pairs = sorted(
        set(zip(won["source"], won["target"], strict=True)),
        key=lambda p: (order.index(p[0]), order.index(p[1])),
    )
    labels = {column: own.label for column, own in known_distances(won).items()}
    columns = list(labels)
    figure = style.new_figure(60 + 58 * len(columns), 26 + 6.0 * max(4, len(pairs)))
    for k, column in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), k + 1)
        values_of = [
            won.loc[(won["source"] == s) & (won["target"] == t), column].dropna().to_numpy(float)
            for s, t in pairs
        ]
        for row, values in enumerate(values_of):
            values = values[values > 0]
            if not values.size:
                continue
            # Dots are spread by rank, not at random: equal data give equal figures.
            spread = (np.arange(values.size) * 0.618 % 1 - 0.5) * 0.5
            axes.plot(values, row + spread, "o", ms=2, mew=0, alpha=0.5, color=style.ADVERSARIAL)
            q25, median, q75 = np.quantile(values, [0.25, 0.5, 0.75])
            axes.plot([q25, q75], [row, row], color="black", linewidth=1.2)
            axes.plot([median], [row], "|", color="black", ms=9, mew=1.6)
        every = np.concatenate([*values_of, np.zeros(0)])
        every = every[every > 0]
        if every.size:
            style.log_axis(axes, float(every.min()) / 1.4, float(every.max()) * 1.4)
        axes.set_ylim(len(pairs) - 0.4, -0.6)
        axes.set_yticks(
            range(len(pairs)),
            [f"{s} → {t}  ({len(v)})" for (s, t), v in zip(pairs, values_of, strict=True)],
        )
        if k:
            axes.set_yticklabels([])
        axes.set_xlabel(labels[column])
        axes.grid(axis="x", linewidth=0.4, color=style.GRID)
        axes.set_axisbelow(True)
    figure.suptitle(title or "distances of the successful cases", fontsize=9)
    figure.subplots_adjust(left=0.14, right=0.98, top=0.9, bottom=0.16, wspace=0.08)
    return figure
