"""Figures of injected signals: what is drawn is what was measured, under its name."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from ecgadv.evaluate.statistics import wilson
from ecgadv.report import study, type2


def inked(figure) -> None:
    figure.canvas.draw()
    assert (np.asarray(figure.canvas.buffer_rgba())[..., :3] < 250).any(-1).mean() > 0.01


def test_success_is_drawn_at_its_onset_with_wilsons_interval():
    # Onsets in the first second succeed, those of the last do not.
    onset = np.repeat([0.0, 299.0, 8700.0, 8999.0], 5).astype(int)
    shifts = pd.DataFrame(
        {
            "onset": onset,
            "source": "A",
            "target": "N",
            "predicted": np.where(onset < 4500, "N", "A"),
        }
    )
    figure = type2.shift_position(shifts, fs=300)
    (axes,) = figure.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    bars = [line for line in axes.lines if line.get_marker() != "o" and line.get_color() != "black"]
    where = np.array([float(np.atleast_1d(dot.get_xdata())[0]) for dot in dots])
    share = np.array([float(np.atleast_1d(dot.get_ydata())[0]) for dot in dots])
    assert share[where < 15].tolist() == [1.0] * int((where < 15).sum())
    assert share[where > 15].tolist() == [0.0] * int((where > 15).sum())
    assert {(where < 15).any(), (where > 15).any()} == {True}
    assert len(bars) == len(dots)
    sizes = [10] if len(dots) == 2 else [5, 10]
    ends = tuple(bars[0].get_ydata())
    assert any(ends == pytest.approx(wilson(n, n)) for n in sizes)
    assert axes.get_xlabel() == "onset of the perturbation (s)"
    assert "20 readings, mean 0.50" in axes.get_title()
    inked(figure)


def test_readings_of_one_record_are_no_trials_of_their_own():
    # Forty readings of four records at two onsets; at the second onset there are two records only.
    shifts = pd.DataFrame(
        {
            "onset": np.repeat([0, 8999], 40),
            "source": "A",
            "target": "N",
            "predicted": "N",
            "victim_record": [*np.repeat(["a", "b", "c", "d"], 10), *np.repeat(["a", "b"], 20)],
        }
    )
    (axes,) = type2.shift_position(shifts, fs=300).axes
    bars = [line for line in axes.lines if line.get_marker() != "o" and line.get_color() != "black"]
    assert [tuple(bar.get_ydata()) for bar in bars] == [pytest.approx(wilson(4, 4))]


def test_every_case_has_its_loss_and_the_median_stands_out():
    history = pd.DataFrame(
        {
            "case_id": np.repeat(["a", "b", "c"], 4),
            "iteration": np.tile([1, 2, 3, 4], 3),
            "loss": [4.0, 3.0, 2.0, 1.0, 8.0, 6.0, 4.0, 2.0, 0.8, 0.6, 0.4, 0.2],
        }
    )
    figure = type2.loss_curves(history)
    (axes,) = figure.axes
    assert [line.get_ydata().tolist() for line in axes.lines[:3]] == [
        [4.0, 3.0, 2.0, 1.0], [8.0, 6.0, 4.0, 2.0], [0.8, 0.6, 0.4, 0.2],
    ]  # fmt: skip
    assert axes.lines[3].get_ydata().tolist() == [4.0, 3.0, 2.0, 1.0]
    assert axes.lines[3].get_linewidth() > axes.lines[0].get_linewidth()
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("iteration", "mean cross-entropy")
    assert axes.get_yscale() == "log"
    inked(figure)


def test_a_tone_stands_where_it_is_and_filters_and_limits_are_marked():
    time = np.arange(9000) / 300
    tone = np.sin(2 * np.pi * 7.0 * time)[None]
    ecg = np.sin(2 * np.pi * 1.0 * time)[None]
    figure = type2.spectrum(
        tone, ecg, stopped=[0.05, 50.0], modelled=[60.0], band=[1.0, 40.0], fs=300
    )
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    for label, frequency in (("injected", 7.0), ("ECG", 1.0)):
        peak = np.asarray(lines[label].get_xdata())[np.argmax(lines[label].get_ydata())]
        assert peak == pytest.approx(frequency, rel=0.06)
    assert lines["taken for removed"].get_xdata()[0] == 60.0
    marked = [line.get_xdata()[0] for line in axes.lines if len(line.get_xdata()) == 2]
    assert sorted(marked) == [1.0, 40.0, 60.0]
    spans = sorted(patch.get_extents().x0 for patch in axes.patches)
    assert len(spans) == 2
    shown = {text.get_text() for text in axes.get_legend().get_texts()}
    assert shown == {"ECG", "injected", "removed by the device", "taken for removed", "attack.band"}
    assert axes.get_xlabel() == "frequency (Hz)"
    inked(figure)


def job(setting: str, own: float, others: float) -> study.Job:
    rows = [
        {"pair": "all", "tried_on": kind, "success_rate": rate, "ci95_low": rate - 0.1,
         "ci95_high": rate + 0.1}
        for kind, rate in (("same_record", own), ("other_records", others))
    ]  # fmt: skip
    history = pd.DataFrame(
        {"case_id": ["a", "a"], "iteration": [1, 2], "loss": [2.0, 1.0 - own / 2]}
    )
    return study.Job(setting, setting, rows, history)


def test_a_study_over_numbers_is_drawn_against_them():
    jobs = [job("window=10s", 0.2, 0.1), job("window=20s", 0.5, 0.3), job("window=30s", 0.9, 0.8)]
    figure = study.figure(jobs)
    rates, losses = figure.axes
    drawn = {line.get_label(): line for line in rates.lines}
    own, others = study.WORDS["same_record"], study.WORDS["other_records"]
    assert list(drawn[own].get_xdata()) == [10.0, 20.0, 30.0]
    assert list(drawn[own].get_ydata()) == [0.2, 0.5, 0.9]
    assert list(drawn[others].get_ydata()) == [0.1, 0.3, 0.8]
    ends = {
        tuple(np.round(line.get_ydata(), 6)) for line in rates.lines if len(line.get_xdata()) == 2
    }
    assert (0.1, 0.3) in ends
    assert (0.8, 1.0) in ends
    assert rates.get_xlabel() == "window (s)"
    assert [line.get_label() for line in losses.lines] == [j.setting for j in jobs]
    assert losses.lines[2].get_ydata()[1] == pytest.approx(0.55)
    inked(figure)


def test_the_losses_say_from_when_on_the_power_is_within_its_limit():
    first = job("window=10s", 0.2, 0.1)
    assert len(study.figure([first]).axes[1].lines) == 1
    figure = study.figure([dataclasses.replace(first, settled=2)])
    line = figure.axes[1].lines[1]
    assert set(line.get_xdata()) == {2}
    assert "limit of power reached" in [text.get_text() for text in figure.axes[1].texts]
    inked(figure)


def test_a_study_over_words_names_them():
    figure = study.figure([job("filter=none", 0.2, 0.1), job("filter=rectangular", 0.9, 0.7)])
    rates = figure.axes[0]
    labels = [text.get_text() for text in rates.get_yticklabels()]
    assert len(labels) == 2
    assert "none" in labels[0]
    assert "rectangular" in labels[1]
    drawn = {line.get_label(): line for line in rates.lines}
    assert list(drawn[study.WORDS["same_record"]].get_xdata()) == [0.2, 0.9]
    inked(figure)


def test_names_of_recordings_stay_texts(tmp_path):
    from ecgadv.report.type2 import read_table

    file = tmp_path / "evaluation.csv"
    file.write_text("perturbation_case,victim_record,n_shifts\n007_A_to_N,007,5\n7_A_to_N,7,5\n")
    assert read_table(file)["victim_record"].tolist() == ["007", "7"]
