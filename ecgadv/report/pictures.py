"""The figures of a run's folder, written to ``figures/``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgadv.evaluate.curves import ALL, pair_curves
from ecgadv.records.base import class_name
from ecgadv.report import data, figures, injected, signals, style, type2
from ecgadv.report.curves import robustness_by_metric, robustness_figure
from ecgadv.tracking.content import read_json

if TYPE_CHECKING:
    import pandas as pd

GALLERY = ("best", "median", "worst", "missed", "beats")
"""Kinds of single cases that are drawn: least, middling and most perturbed, not successful, and
enlarged with their R peaks."""

MOST_DISTANCES = 2
"""Distances that stand beside the signals of a comparison of metrics."""

MOST_SPECTRA = 300
"""Cases that a spectrum is made from at most, in the order of the table."""


@dataclass
class Pictures:
    """Files of a run's figures.

    Attributes:
        overview: of all cases.
        gallery: kind (:data:`GALLERY`) -> (file, caption) of single cases.
        note: why there is no gallery; "" where there is one.
    """

    overview: list[Path] = field(default_factory=list)
    gallery: dict[str, list[tuple[Path, str]]] = field(default_factory=dict)
    note: str = ""


def case_slug(case: str) -> str:
    """A case's id as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", case.replace("~", "noise"))


def _file_name(kind: str, rank: int, case: str) -> str:
    return f"{kind}_{rank}_{case_slug(case)}.png"


def overview(cases: pd.DataFrame, folder: Path, title: str, suffix: str = "") -> list[Path]:
    """Success heat map and distributions of the distances, as PNG files in ``folder``."""
    written = []
    if len(data.attempted(cases)):
        heading = f"{title}: success rate" if title else ""
        name = f"success_heatmap{suffix}.png"
        written.append(style.save_figure(figures.success_heatmap(cases, heading), folder / name))
    if data.succeeded(cases).any():
        heading = f"{title}: distances of the successful cases" if title else ""
        name = f"distance_distributions{suffix}.png"
        written.append(
            style.save_figure(figures.distance_distributions(cases, heading), folder / name)
        )
    return written


def _draw(
    row: Any,
    x: np.ndarray,
    delta: np.ndarray,
    scale: float,
    confidence: dict[str, float],
    lead: str,
    fs: int,
    labels: Mapping[str, str],
) -> Any:
    distances = {
        name: float(row[column]) for column, name in labels.items() if np.isfinite(row[column])
    }
    hit = str(row["predicted"]) == str(row["target"])
    return figures.before_after(
        x,
        delta[: x.size],
        scale,
        record=str(row["record"]) + (f", {lead}" if lead else ""),
        source=str(row["source"]),
        target=str(row["target"]),
        predicted=str(row["predicted"]),
        p_before=confidence.get(str(row["record"])),
        p_after=float(row["p_target"]) if hit and "p_target" in row else None,
        distances=distances,
        fs=fs,
    )


def _draw_beats(row: Any, x: np.ndarray, delta: np.ndarray, scale: float, fs: int) -> Any:
    return signals.beats(
        x,
        delta[: x.size],
        scale,
        record=str(row["record"]),
        source=str(row["source"]),
        target=str(row["target"]),
        predicted=str(row["predicted"]),
        fs=fs,
    )


def spectra_figure(runs: dict[str, Path]) -> Any:
    """Spectra of the perturbations of runs, a line a run, beside that of their records.

    Args:
        runs: name of the line -> folder of the run.

    Returns:
        The figure; None where no run has a successful case that can be read again.
    """
    groups, lengths = {}, {}
    ecg: dict[str, np.ndarray] = {}
    for name, run in runs.items():
        cases = data.read_cases(run)
        ids = [str(i) for i in cases.loc[data.succeeded(cases), "case_id"]][:MOST_SPECTRA]
        deltas = data.read_perturbations(run, ids)
        records, problem = data.read_signals(run, list(deltas))
        if problem or not records:
            continue
        own = [case for case in ids if case in deltas and case in records]
        groups[name or "perturbation"] = np.stack([deltas[c][0] * deltas[c][1] for c in own])
        lengths[name or "perturbation"] = np.array([records[c].size for c in own])
        known = dict(zip(cases["case_id"].astype(str), cases["record"].astype(str), strict=True))
        # Every record once, however many cases it has.
        ecg |= {known[c]: records[c] * deltas[c][1] for c in own}
    if not groups:
        return None
    n = max(x.size for x in ecg.values())
    padded = np.stack([np.pad(x, (0, n - x.size)) for x in ecg.values()])
    own_lengths = np.array([x.size for x in ecg.values()])
    fs = data.sampling_rate(next(iter(runs.values())))
    return signals.spectra(groups, padded, lengths=lengths, ecg_lengths=own_lengths, fs=fs)


def run_spectra(runs: dict[str, Path], file: Path) -> list[Path]:
    """Draw :func:`spectra_figure` to a file; [] where there is none."""
    figure = spectra_figure(runs)
    return [] if figure is None else [style.save_figure(figure, file)]


def compare_groups(cases: pd.DataFrame, runs: dict[str, Path], folder: Path) -> list[Path]:
    """What tells the metrics of a sweep apart: perceptibility side by side, and spectra.

    Args:
        cases: rows of all jobs, with a column ``metric``.
        runs: metric -> folder of a job; those with injected signals have no spectrum here.
        folder: where the files go.
    """
    written = []
    names = [name for name in signals.PANELS if name in cases and cases[name].notna().any()]
    groups = {
        str(metric): {name: mine[name].to_numpy(float) for name in names}
        for metric, mine in cases[data.succeeded(cases)].groupby("metric", sort=False)
    }
    if len(names) > 1 and groups:
        figure = signals.metric_bars(groups, names)
        written.append(style.save_figure(figure, folder / "perceptibility.png"))
    written += _robustness(cases, runs, folder)
    edited = {
        name: run
        for name, run in runs.items()
        if data.read_config(run).get("threat_model") != "type2"
    }
    return written + (run_spectra(edited, folder / "spectra.png") if len(edited) > 1 else [])


def _robustness(cases: pd.DataFrame, runs: dict[str, Path], folder: Path) -> list[Path]:
    """Curves by metric, of sweeps over metrics that looked for the smallest perturbations."""
    curves, labels = {}, {}
    for metric, run in runs.items():
        summary = read_json(run / "summary.json")
        column = str((summary.get("robustness") or {}).get("column", ""))
        if column in cases:
            mine = cases[cases["metric"] == metric].to_dict("records")
            curves[metric] = pair_curves(mine, column)[ALL]
            labels[metric] = data.label(cases, column)
    if len(curves) < 2:
        return []
    figure = robustness_by_metric(curves, labels)
    return [style.save_figure(figure, folder / "robustness_by_metric.png")]


def write_figures(folder: Path, *, each: int = 3) -> Pictures:
    """Draw a run's figures: success by pair, distances, and a gallery of single cases on ECG paper.

    Args:
        folder: a run's folder (``cases.csv``, ``perturbations.npz``); files go to ``figures/``.
        each: at most so many cases of each kind.

    Raises:
        StoreError: the folder holds no readable table of cases, or cannot be written.
    """
    cases, config = data.read_cases(folder), data.read_config(folder)
    place = folder / "figures"
    pictures = Pictures(overview(cases, place, data.metric_of(config)))
    # Only of runs that looked for the smallest perturbations: the task wrote their robustness.
    if read_json(folder / "summary.json").get("robustness"):
        column = data.ranking_column(config, cases)
        curves = pair_curves(cases.to_dict("records"), column)
        heading = f"{data.metric_of(config)}: success in a budget"
        drawn = robustness_figure(curves, data.label(cases, column), heading)
        pictures.overview.append(style.save_figure(drawn, place / "robustness_curve.png"))
    pictures.overview += injected.write_figure(folder) + type2.write_figures(folder)
    for stale in place.glob("*_*_*.p*"):
        if stale.name.startswith(GALLERY):
            stale.unlink(missing_ok=True)
    if config.get("threat_model") != "type2":
        pictures.overview += run_spectra({data.metric_of(config): folder}, place / "spectra.png")
    column = data.ranking_column(config, cases)
    chosen = data.extremes(cases, column, each)
    lost = cases[cases["status"].eq("ok") & ~data.succeeded(cases)]
    chosen["missed"] = [str(i) for i in lost["case_id"][:each]]
    wanted = [case for ids in chosen.values() for case in ids]
    if not wanted:
        pictures.note = "no case was attacked to its end"
        return pictures
    deltas = data.read_perturbations(folder, wanted)
    records, problem = data.read_signals(folder, wanted)
    if problem:
        pictures.note = f"the recordings could not be read again: {problem}"
        return pictures
    confidence, leads = data.confidences(folder), data.read_leads(folder, wanted)
    fs = data.sampling_rate(folder)
    labels = {name: own.label for name, own in data.distances(cases).items()}
    row_of = {str(row["case_id"]): row for _, row in cases.iterrows()}
    chosen["beats"] = [ids[0] for ids in (chosen["median"], chosen["worst"]) if ids]
    for kind, ids in chosen.items():
        for rank, case in enumerate(ids, 1):
            if case not in deltas or case not in records:
                continue
            row = row_of[case]
            if kind == "beats":
                figure = _draw_beats(row, records[case], *deltas[case], fs)
            else:
                lead = leads.get(case, "")
                figure = _draw(row, records[case], *deltas[case], confidence, lead, fs, labels)
            file = style.save_figure(figure, place / _file_name(kind, rank, case))
            pair = f"{class_name(str(row['source']))} to {class_name(str(row['target']))}"
            value = f", {data.label(cases, column)} = {row[column]:.3g}"
            pictures.gallery.setdefault(kind, []).append(
                (file, f"{kind} {rank}: record {row['record']}, {pair}{value}")
            )
    return pictures


def compare_metrics(runs: dict[str, Path], folder: Path, most: int = 3) -> list[tuple[Path, str]]:
    """Draw cases that several runs share, one metric each, side by side.

    Args:
        runs: name of the metric -> folder of its run.
        folder: where the PNG files go.
        most: how many cases.

    Returns:
        Files with captions; [] where the runs share no successful case, or cannot be read again.
    """
    if len(runs) < 2:
        return []
    tables, columns = {}, []
    for name, run in runs.items():
        cases = data.read_cases(run)
        won = cases[data.succeeded(cases)]
        columns.append(list(data.distances(cases)))
        keys = zip(won["record"], won["source"], won["target"], strict=True)
        tables[name] = dict(zip(keys, won.to_dict("records"), strict=True))
    first = next(iter(tables.values()))
    shared = [key for key in first if all(key in table for table in tables.values())][:most]
    if not shared:
        return []
    drawn = []
    shown = [c for c in columns[0] if all(c in other for other in columns)][:MOST_DISTANCES]
    ids = {name: [str(t[key]["case_id"]) for key in shared] for name, t in tables.items()}
    # The same lead of all of them, as each may have changed another one most.
    deltas = {name: data.read_perturbations(runs[name], ids[name], lead=0) for name in runs}
    name0 = next(iter(runs))
    records, problem = data.read_signals(runs[name0], ids[name0], lead=0)
    if problem:
        return []
    fs = data.sampling_rate(runs[name0])
    for k, (record, source, target) in enumerate(shared):
        if any(ids[name][k] not in deltas[name] for name in runs) or ids[name0][k] not in records:
            continue
        x = records[ids[name0][k]]
        figure = figures.metric_comparison(
            x,
            {name: deltas[name][ids[name][k]][0][: x.size] for name in runs},
            deltas[name0][ids[name0][k]][1],
            record=str(record),
            source=str(source),
            target=str(target),
            notes={
                name: "  ".join(f"{c} = {tables[name][shared[k]][c]:.3g}" for c in shown)
                for name in runs
            },
            fs=fs,
        )
        name = _file_name("metrics", k + 1, f"{record}_{source}_to_{target}")
        caption = f"record {record}, {class_name(source)} to {class_name(target)}"
        drawn.append((style.save_figure(figure, folder / name), caption))
    return drawn
