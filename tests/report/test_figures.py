"""Structure of the figures: proportions, grids, pulses, labels, and that they are not empty."""

import numpy as np
import pytest

from ecgadv.report import data, figures, paper, style

MM = 25.4


def size_mm(axes):
    page = axes.figure.get_size_inches() * MM
    box = axes.get_position()
    return box.width * page[0], box.height * page[1]


def lines_of(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def grid_of(axes, gid):
    (grid,) = [c for c in axes.collections if c.get_gid() == gid]
    segments = grid.get_segments()
    vertical = sorted(s[0][0] for s in segments if s[0][0] == s[1][0])
    horizontal = sorted(s[0][1] for s in segments if s[0][1] == s[1][1])
    return np.array(vertical), np.array(horizontal)


def texts(figure):
    found = [t.get_text() for t in figure.texts]
    for axes in figure.axes:
        found += [axes.get_title(loc) for loc in ("left", "center", "right")]
        found += [t.get_text() for t in axes.texts]
        found += [axes.get_xlabel(), axes.get_ylabel()]
        found += [t.get_text() for t in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    return "\n".join(found)


def ink(figure):
    """Share of pixels that are not white."""
    figure.canvas.draw()
    return (np.asarray(figure.canvas.buffer_rgba())[..., :3] < 250).any(-1).mean()


@pytest.mark.parametrize(("gain", "start"), [(10.0, 0.0), (10.0, 17.4), (5.0, 0.0), (200.0, 3.0)])
def test_paper_has_true_proportions(gain, start):
    figure = style.new_figure(300, 120)
    low, high = -10 / gain, 20 / gain
    axes = paper.ecg_paper_axes(figure, 5, 5, 10, low, high, start=start, gain=gain)
    assert size_mm(axes) == pytest.approx((10.4 * 25, 30))
    for gid, step, across, up in (("grid-1mm", 1, 261, 31), ("grid-5mm", 5, 53, 7)):
        vertical, horizontal = grid_of(axes, gid)
        assert (len(vertical), len(horizontal)) == (across, up)
        assert np.diff(vertical) == pytest.approx(step / 25)
        assert np.diff(horizontal) == pytest.approx(step / gain)
    # 0 mV and the start of the signal lie on 5 mm lines.
    vertical, horizontal = grid_of(axes, "grid-5mm")
    assert np.abs(vertical - start).min() < 1e-9
    assert np.abs(horizontal).min() < 1e-9
    (pulse,) = lines_of(axes, "calibration")
    t, v = pulse.get_data()
    high_part = np.asarray(t)[np.asarray(v) > 0]
    assert np.ptp(v) == pytest.approx(10 / gain)
    assert np.ptp(high_part) == pytest.approx(0.2)
    assert max(t) <= start


def test_before_after_shows_the_signals_in_mv(record):
    x, delta, scale = record
    figure = figures.before_after(
        x,
        delta,
        scale,
        record="A00001",
        source="N",
        target="~",
        predicted="~",
        p_before=0.97,
        p_after=0.53,
        distances={"d_l2": 3.6},
        start=2.0,
        fs=300,
    )
    assert len(figure.axes) == 4
    shown = slice(600, 3600)
    traces = [lines_of(axes, "trace")[0].get_data() for axes in figure.axes]
    for (time, values), wanted in zip(traces, [x, x + delta, delta, delta], strict=True):
        assert time[0] == pytest.approx(2.0)
        assert time[-1] == pytest.approx(12.0 - 1 / 300)
        np.testing.assert_allclose(values, wanted[shown] * scale, atol=1e-6)
    (ghost,) = lines_of(figure.axes[1], "ghost")
    np.testing.assert_allclose(ghost.get_ydata(), x[shown] * scale, atol=1e-6)
    for axes in figure.axes:
        assert len(lines_of(axes, "calibration")) == 1
        low, high = axes.get_ylim()
        trace = lines_of(axes, "trace")[0].get_ydata()
        assert low <= trace.min()
        assert trace.max() <= high
    said = texts(figure)
    for words in (
        "record A00001, N → ~",
        "original: class N (p = 0.97)",
        "adversarial: class ~ (p = 0.53)",
        "target ~, reached",
        "25 mm/s, 10 mm/mV",
        "d_l2 = 3.6",
    ):
        assert words in said
    assert ink(figure) > 0.05


def test_the_magnified_strip_states_its_scale(record):
    x, delta, _ = record
    delta = 0.045 * delta / np.abs(delta).max()
    figure = figures.before_after(
        0.4 * x, delta, 1.0, source="N", target="A", predicted="N", fs=300
    )
    same, magnified = figure.axes[2:]
    # 0.045 mV fills 9 of 10 mm at 200 mm/mV.
    assert "magnified 20 times: 200 mm/mV, pulse 0.05 mV" in magnified.get_title("left")
    for axes, gain in ((same, 10), (magnified, 200)):
        low, high = axes.get_ylim()
        assert size_mm(axes)[1] == pytest.approx((high - low) * gain)
    assert "target A, missed" in texts(figure)


def test_a_perturbation_as_large_as_the_ecg_is_not_magnified(record):
    x, delta, _ = record
    figure = figures.before_after(
        0.4 * x, 30 * delta, 1.0, source="N", target="any", predicted="A", fs=300
    )
    assert len(figure.axes) == 3
    assert "untargeted, reached" in texts(figure)


def test_a_tall_record_is_drawn_at_half_gain(record):
    x, delta, _ = record
    figure = figures.before_after(
        x, delta, 12 / np.ptp(x), source="N", target="A", predicted="A", fs=300
    )
    assert "5 mm/mV" in texts(figure)
    assert "10 mm/mV," not in texts(figure)
    low, high = figure.axes[0].get_ylim()
    assert size_mm(figure.axes[0])[1] == pytest.approx(5 * (high - low))


def test_padding_is_not_drawn(record):
    x, delta, scale = record
    figure = figures.before_after(x, delta, scale, length=1500, source="N", predicted="A", fs=300)
    time, values = lines_of(figure.axes[0], "trace")[0].get_data()
    assert len(values) == 1500
    assert time[-1] < 5


def test_the_window_shown_is_the_one_most_perturbed():
    delta = np.zeros(9000, np.float32)
    delta[6000:6300] = 1
    assert 11 <= paper.busiest_start(delta, 9000, 10.0, fs=300) <= 20
    assert paper.busiest_start(delta, 2000, 10.0, fs=300) == 0.0


@pytest.mark.parametrize("shape", [(9000, 1), (8000,)])
def test_signals_that_do_not_belong_together_are_refused(record, shape):
    with pytest.raises(ValueError, match="one record and its perturbation"):
        figures.before_after(record[0], np.zeros(shape, np.float32), 1.0, fs=300)


def test_metric_comparison_magnifies_all_alike(record):
    x, delta, scale = record
    figure = figures.metric_comparison(
        x,
        {"l2": delta, "diff": 3 * delta, "diffl2": 2 * delta},
        scale,
        record="A1",
        source="A",
        target="N",
        notes={"diff": "d_smooth = 0.3"},
        start=0.0,
        fs=300,
    )
    assert len(figure.axes) == 8
    left, right = figure.axes[:4], figure.axes[4:]
    assert len({a.get_ylim() for a in left}) == 1
    assert len({a.get_ylim() for a in right}) == 1
    for a, b in zip(left, right, strict=True):
        assert a.get_position().y0 == pytest.approx(b.get_position().y0)
        assert size_mm(a) == pytest.approx(size_mm(b))
    titles = [a.get_title("left").split(":")[0] for a in right[1:]]
    assert titles == ["l2", "diff", "diffl2"]
    np.testing.assert_allclose(
        lines_of(right[2], "trace")[0].get_ydata(), 3 * delta[:1500] * scale, atol=1e-6
    )
    assert "d_smooth = 0.3" in texts(figure)
    with pytest.raises(ValueError, match="no perturbation"):
        figures.metric_comparison(x, {}, scale, fs=300)


def test_heatmap_counts_every_pair(run):
    figure = figures.success_heatmap(data.read_cases(run), "l2")
    axes = figure.axes[0]
    rates = axes.images[0].get_array().filled(np.nan)
    assert rates.shape == (4, 4)
    assert np.isnan(np.diag(rates)).all()
    assert rates[0, 3] == 0.5  # one of two A>~ is lost
    assert rates[1, 0] == pytest.approx(2 / 3)  # one N>A failed with an error
    assert rates[3, 2] == 1.0
    cells = {(t.get_position()[1], t.get_position()[0]): t.get_text() for t in axes.texts}
    assert cells[0, 3] == "50 %\n1/2"
    assert cells[1, 0] == "67 %\n2/3"
    assert cells[2, 2] == "–"
    assert [t.get_text() for t in axes.get_yticklabels()] == ["A", "N", "O", "~"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("target class", "source class")
    assert ink(figure) > 0.1


def test_heatmap_of_untargeted_cases(run):
    cases = data.read_cases(run).assign(target="any")
    axes = figures.success_heatmap(cases).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["A", "N", "O", "~", "any"]


def test_distributions_show_successful_cases_only(run):
    cases = data.read_cases(run)
    figure = figures.distance_distributions(cases)
    assert len(figure.axes) == 3
    dots = sum(len(line.get_xdata()) for line in figure.axes[0].lines if line.get_marker() == "o")
    assert dots == 23
    labels = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert len(labels) == 12
    assert labels[:3] == ["A → N  (2)", "A → O  (2)", "A → ~  (1)"]
    mine = cases[(cases.source == "A") & (cases.target == "N")]["d_l2"]
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert marks[0].get_xdata()[0] == pytest.approx(mine.median())
    assert figure.axes[0].get_xscale() == "log"
    assert ink(figure) > 0.01


def test_equal_figures_give_equal_files(record, tmp_path):
    for kind in ("png", "svg"):
        files = []
        for k in range(2):
            figure = figures.before_after(*record, source="N", target="A", predicted="A", fs=300)
            files.append(style.save(figure, tmp_path / f"{k}.{kind}").read_bytes())
        if kind == "png":
            assert files[0] == files[1]
        assert len(files[0]) > 10_000


def test_figures_leave_the_callers_settings_alone(record):
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.before_after(*record, source="N", target="A", predicted="A", fs=300)
    assert dict(matplotlib.rcParams) == before


def test_colours_differ_in_grey():
    from matplotlib.colors import to_rgb

    grey = {
        name: np.dot(to_rgb(getattr(style, name)), (0.2126, 0.7152, 0.0722))
        for name in ("ORIGINAL", "ADVERSARIAL", "GHOST", "PAPER_MAJOR", "PAPER_MINOR")
    }
    values = sorted(grey.values())
    assert values == list(grey.values())
    assert min(np.diff(values)) > 0.1
