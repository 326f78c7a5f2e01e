"""Structure of the figures of beats, of spectra, and of perceptibility by metric."""

from itertools import pairwise

import numpy as np
import pytest
from fake_run import write_run
from test_figures import MM, ink, lines_of, size_mm, texts

from ecgadv.evaluate.beats import r_peaks
from ecgadv.report import data, pictures, signals, style

FS = 300


def peaks_of(axes, kind):
    (line,) = lines_of(axes, kind)
    return np.asarray(line.get_xdata()), line


def test_beats_marks_what_was_kept_lost_and_new(record):
    x, _, scale = record
    t = np.arange(9000) / FS
    delta = np.zeros(9000, np.float32)
    # The QRS complex at 12.4 s goes, one at 13.9 s comes.
    taken = np.exp(-((t - 12.4) ** 2) / 2e-4)
    size = x.max() - np.median(x)
    delta -= (size * taken).astype(np.float32)
    delta += (size * np.exp(-((t - 13.9) ** 2) / 2e-4)).astype(np.float32)
    figure = signals.beats(
        x, delta, scale, record="A00001", source="N", target="A", predicted="A", start=11.0, fs=300
    )
    above, below = figure.axes
    kept, line = peaks_of(above, "peaks-kept")
    np.testing.assert_allclose(kept, [11.4, 13.4, 14.4, 15.4], atol=0.03)
    assert line.get_markerfacecolor() == style.PERTURBATION
    lost, line = peaks_of(above, "peaks-lost")
    np.testing.assert_allclose(lost, [12.4], atol=0.03)
    assert line.get_markerfacecolor() == "white"
    np.testing.assert_allclose(peaks_of(below, "peaks-kept")[0], kept, atol=0.03)
    np.testing.assert_allclose(peaks_of(below, "peaks-new")[0], [13.9], atol=0.03)
    # Triangles lie above their complexes and within the paper.
    for axes in (above, below):
        for kind in ("peaks-kept", "peaks-lost", "peaks-new"):
            for mark in lines_of(axes, kind):
                assert (np.asarray(mark.get_ydata()) < axes.get_ylim()[1]).all()
    top = lines_of(above, "trace")[0].get_ydata().max()
    assert lines_of(above, "peaks-kept")[0].get_ydata().max() > top
    before, after = len(r_peaks(x, fs=300)), len(r_peaks(x + delta, fs=300))
    said = texts(figure)
    assert f"{before} peaks before, {after} after, {before - 1} in both" in said
    assert "record A00001, N → A, R peaks" in said
    assert "adversarial: class A" in said


def test_beats_are_enlarged_in_true_proportions(record):
    x, delta, _ = record
    figure = signals.beats(0.2 * x, 0.2 * delta, 1.0, source="N", predicted="A", start=3.0, fs=300)
    axes = figure.axes[0]
    low, high = axes.get_ylim()
    begin, end = axes.get_xlim()
    width, height = size_mm(axes)
    assert width == pytest.approx(50 * (end - begin))
    assert height == pytest.approx(20 * (high - low))
    assert "50 mm/s, 20 mm/mV (pulse 0.5 mV)" in texts(figure)
    trace = lines_of(axes, "trace")[0]
    np.testing.assert_allclose(trace.get_ydata(), 0.2 * x[900:2400], atol=1e-6)
    assert figure.get_size_inches()[0] * MM > 270
    assert ink(figure) > 0.05


def test_a_flat_record_has_no_triangles():
    x = np.zeros(3000, np.float32)
    figure = signals.beats(x, x, 1.0, source="~", predicted="~", start=0.0, fs=300)
    assert all(not len(peaks_of(axes, "peaks-kept")[0]) for axes in figure.axes)
    assert "0 peaks before, 0 after, 0 in both" in texts(figure)


def wave(frequency, amplitude, rows=4):
    t = np.arange(9000) / FS
    return np.stack([amplitude * np.sin(2 * np.pi * frequency * t + k) for k in range(rows)])


def test_density_has_the_power_of_the_signal():
    frequency, power = signals.density(wave(10.0, 0.2), fs=300)
    step = frequency[1] - frequency[0]
    # A sine of amplitude a has the power a²/2.
    np.testing.assert_allclose(power.sum(1) * step, 0.02, rtol=0.02)
    np.testing.assert_allclose(frequency[power.argmax(1)], 10.0, atol=step)
    cut = signals.density(
        np.pad(wave(10.0, 0.2)[:, :1500], ((0, 0), (0, 7500))), np.full(4, 1500), fs=300
    )
    np.testing.assert_allclose(cut[1].sum(1) * step, 0.02, rtol=0.1)


def test_spectra_draw_every_group_where_its_energy_is():
    groups = {"l2": wave(100.0, 0.01), "diff": wave(1.0, 0.1), "diffl2": wave(5.0, 0.05)}
    figure = signals.spectra(groups, wave(10.0, 0.3, rows=2), title="spectra of a test", fs=300)
    (axes,) = figure.axes
    lines = {line.get_gid(): line for line in axes.lines}
    assert set(lines) == {"ECG", "l2", "diff", "diffl2"}
    for name, at in {"ECG": 10, "l2": 100, "diff": 1, "diffl2": 5}.items():
        frequency, power = lines[name].get_data()
        assert frequency[np.argmax(power)] == pytest.approx(at, abs=0.15)
    assert {c.get_gid() for c in axes.collections} >= {f"band {name}" for name in lines}
    legend = [t.get_text() for t in axes.get_legend().get_texts()]
    assert legend == ["ECG (2)", "l2 (4)", "diff (4)", "diffl2 (4)"]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_ylabel() == "power density (mV²/Hz)"
    shaded = sorted(p.get_x() for p in axes.patches)
    assert shaded == pytest.approx([FS / 2048, 40.0])
    # Told apart without colour.
    looks = {(line.get_linestyle(), tuple(line._dash_pattern[1] or ())) for line in lines.values()}
    assert len(looks) == 4
    assert "spectra of a test" in texts(figure)
    assert ink(figure) > 0.05


def test_spectra_of_nothing_are_refused():
    with pytest.raises(ValueError, match="no perturbation"):
        signals.spectra({"l2": np.zeros((0, 9000))}, fs=300)


def test_metric_bars_show_cases_medians_and_names():
    rng = np.random.default_rng(0)
    groups = {
        name: {"snr_db": rng.normal(k, 1, 20), "max_slope_mv_s": rng.lognormal(k, 1, 20)}
        for k, name in enumerate(("l2", "diff", "diffl2"))
    }
    groups["l2"]["snr_db"][3] = np.nan
    figure = signals.metric_bars(groups, ["snr_db", "max_slope_mv_s"])
    first, second = figure.axes
    assert [a.get_title("left") for a in figure.axes] == ["SNR (dB)", "largest slope (mV/s)"]
    assert (first.get_xscale(), second.get_xscale()) == ("linear", "log")
    assert [t.get_text() for t in first.get_yticklabels()] == ["l2", "diff", "diffl2"]
    for row, (name, columns) in enumerate(groups.items()):
        (dots,) = lines_of(first, f"dots {name}")
        (bar,) = lines_of(first, f"median {name}")
        values = columns["snr_db"][np.isfinite(columns["snr_db"])]
        np.testing.assert_array_equal(dots.get_xdata(), values)
        assert bar.get_xdata()[0] == pytest.approx(np.median(values))
        assert np.abs(np.asarray(dots.get_ydata()) - row).max() < 0.3
    every = {name: {"r_recall": np.ones(3), "p_share": np.full(3, 0.2)} for name in groups}
    for axes in signals.metric_bars(every, ["r_recall", "p_share"]).axes:
        assert axes.get_xlim() == (-0.03, 1.03)
    colours = {lines_of(first, f"dots {name}")[0].get_color() for name in groups}
    assert len(colours) == 3
    assert ink(figure) > 0.01


def test_a_run_and_a_sweep_get_their_figures(tmp_path, readable):
    runs = {m: write_run(tmp_path / m, seed=k, metric=m) for k, m in enumerate(("l2", "diff"))}
    drawn = pictures.write_figures(runs["l2"], each=1)
    assert "spectra.png" in {file.name for file in drawn.overview}
    assert len(drawn.gallery["beats"]) == 2
    assert not list((runs["l2"] / "figures").glob("*.pdf"))
    tables = [data.read_cases(run).assign(metric=m, r_recall=0.9) for m, run in runs.items()]
    import pandas as pd

    cases = pd.concat(tables, ignore_index=True)
    with style.vector_copies():
        written = pictures.compare_groups(cases, runs, tmp_path)
    assert [file.name for file in written] == ["perceptibility.png", "spectra.png"]
    for file in written:
        assert file.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    # Tables of earlier versions have none of the columns.
    old = cases.drop(columns=["r_recall", "snr_db"])
    assert [f.name for f in pictures.compare_groups(old, {}, tmp_path / "old")] == []


def luminance(colour):
    from matplotlib.colors import to_rgb

    return float(np.dot(to_rgb(colour), (0.2126, 0.7152, 0.0722)))


# Linear RGB as people without red, green or blue cones see it (Machado, Oliveira, Fernandes: A
# physiologically-based model for simulation of color vision deficiency. IEEE TVCG 2009).
BLINDNESS = {
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritan": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


@pytest.mark.parametrize("kind", BLINDNESS)
def test_lines_differ_for_colour_blind_readers(kind):
    """In colour by a visible step, or else in dashes."""
    from matplotlib.colors import to_rgb

    def lab(colour):
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.array(BLINDNESS[kind]) @ linear, 0, 1)
        xyz = np.array(
            [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
        )
        ratio = xyz @ seen / np.array([0.9505, 1.0, 1.089])
        f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    looks = [style.series(k) for k in range(len(style.SERIES))]
    for i, a in enumerate(looks):
        for b in looks[:i]:
            apart = np.linalg.norm(lab(a["color"]) - lab(b["color"]))
            assert apart > 15 or a.get("dashes") != b.get("dashes")
    assert len({look.get("dashes") for look in looks}) == len(looks)


def test_rates_are_read_in_grey():
    from matplotlib import colormaps

    shades = [luminance(colormaps[style.RATE_MAP](v)[:3]) for v in np.linspace(0, 1, 11)]
    assert (np.diff(shades) > 0.02).all()


def test_equal_vector_figures_give_equal_files(record, tmp_path):
    for kind in ("svg", "pdf"):
        files = [
            style.save(
                signals.beats(*record, start=0.0, fs=300), tmp_path / f"{k}.{kind}"
            ).read_bytes()
            for k in range(2)
        ]
        assert files[0] == files[1]
        assert len(files[0]) > 10_000


@pytest.mark.parametrize("decades", [0.5, 1.9, 2.9, 6.0])
def test_labels_of_logarithmic_panels_do_not_run_into_each_other(decades, run):
    from ecgadv.report import figures

    cases = data.read_cases(run)
    for column in data.distances(cases):
        cases[column] = np.logspace(-decades / 2, decades / 2, len(cases))
    figure = figures.distance_distributions(cases)
    figure.canvas.draw()
    for axes in figure.axes:
        low, high = axes.get_xlim()
        labels = [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
        boxes = [t.get_window_extent() for t in labels if t.get_text()]
        assert len(boxes) >= 2
        ends = sorted((box.x0, box.x1) for box in boxes)
        assert all(a[1] < b[0] for a, b in pairwise(ends))


def test_robustness_by_metric_has_a_panel_and_a_distance_for_each(run):
    from ecgadv.evaluate.curves import success_curve
    from ecgadv.report.curves import robustness_by_metric

    distances = {"l2": np.array([1.0, 2.0, 4.0, np.inf]), "diff": np.array([0.1, 0.2, 0.3])}
    curves = {metric: success_curve(values) for metric, values in distances.items()}
    figure = robustness_by_metric(curves, {"l2": "d_l2", "diff": "d_smooth"})
    for axes, (metric, values) in zip(figure.axes, distances.items(), strict=True):
        (line,) = lines_of(axes, metric)
        assert line.get_ydata()[-1] == pytest.approx(np.isfinite(values).mean())
        np.testing.assert_allclose(line.get_xdata()[1:-1], np.sort(values[np.isfinite(values)]))
        assert axes.get_title("left") == f"{metric}: {len(values)} cases"
        assert f"band {metric}" in {c.get_gid() for c in axes.collections}
    said = [axes.get_xlabel() for axes in figure.axes]
    assert said == ["budget: d_l2", "budget: d_smooth"]
    figure.canvas.draw()
    assert figure.axes[0].yaxis.label.get_window_extent().x0 >= 0
    assert ink(figure) > 0.01
