"""R peaks, and the columns that say what a reader might notice, against signals of known answer."""

import time

import numpy as np
import pytest

from ecgadv.evaluate import beats, perceptibility, summary
from ecgadv.records import synthetic
from ecgadv.tracking import content

FS = 300


def train(times, n=9000, width=0.012, polarity=1.0, noise=0.0, seed=0):
    """Gaussian QRS complexes at ``times`` (s), a T wave after each, and white noise; mV."""
    t = np.arange(n) / FS
    rng = np.random.default_rng(seed)
    x = noise * rng.standard_normal(n)
    for beat in times:
        x = x + polarity * np.exp(-0.5 * ((t - beat) / width) ** 2)
        x = x + 0.25 * np.exp(-0.5 * ((t - beat - 0.28) / 0.05) ** 2)
    return x


BEATS = np.arange(0.5, 29.6, 0.8)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"noise": 0.1},
        {"polarity": -1.0},
        {"width": 0.02},
    ],
    ids=["clean", "noise", "inverted", "wide"],
)
def test_peaks_are_found_where_they_are(change):
    found = beats.r_peaks(train(BEATS, **change), fs=300)
    assert len(found) == len(BEATS)
    assert np.abs(found / FS - BEATS).max() < 0.02
    assert np.diff(found).min() > beats.REFRACTORY * FS


def test_irregular_beats_and_a_drift_are_no_obstacle():
    rng = np.random.default_rng(3)
    times = 0.5 + np.cumsum(rng.uniform(0.35, 1.3, 32))
    times = times[times < 29.5]
    drift = 3.0 * np.sin(2 * np.pi * 0.2 * np.arange(9000) / FS)
    found = beats.r_peaks(train(times) + drift, fs=300)
    assert len(found) == len(times)
    assert np.abs(found / FS - times).max() < 0.02


def test_units_do_not_matter_and_nothing_is_found_in_nothing():
    x = train(BEATS, noise=0.05)
    for scale in (1e-12, 1e-3, 1e6):
        scaled = beats.r_peaks(scale * x + 7 * scale, fs=300)
        np.testing.assert_array_equal(scaled, beats.r_peaks(x, fs=300))
    for empty in (np.zeros(9000), np.full(9000, 3.0), x[:200], np.full(9000, np.nan)):
        assert beats.r_peaks(empty, fs=300).size == 0


def test_peaks_agree_with_an_independent_detector():
    """wfdb's XQRS, on simulated records of every class but noise."""
    from wfdb.processing import XQRS

    records = [r for r in synthetic.load(per_class=2) if r.label != "~"]
    kept = ours = theirs = 0
    for record in records:
        detector = XQRS(sig=record.signal.astype(float), fs=FS)
        detector.detect(verbose=False)
        mine = beats.r_peaks(record.signal, fs=300)
        kept += beats.agreement(np.asarray(detector.qrs_inds), mine, tolerance=0.075, fs=300).kept
        ours, theirs = ours + len(mine), theirs + len(detector.qrs_inds)
    assert theirs > 100
    assert kept / theirs > 0.95
    assert kept / ours > 0.95


def test_agreement_counts_what_moved_vanished_and_appeared():
    original = np.array([300, 600, 900, 1200])
    same = beats.agreement(original, original + 15, fs=300)  # 50 ms
    assert (same.kept, same.precision, same.recall) == (4, 1.0, 1.0)
    moved = beats.agreement(original, original + 16, fs=300)
    assert (moved.kept, moved.precision, moved.recall) == (0, 0.0, 0.0)
    fewer = beats.agreement(original, original[1:], fs=300)
    assert (fewer.precision, fewer.recall) == (1.0, 0.75)
    more = beats.agreement(original, np.array([100, 300, 600, 750, 900, 1200]), fs=300)
    assert (more.precision, more.recall) == (4 / 6, 1.0)
    none = np.zeros(0, np.int64)
    assert np.isnan(beats.agreement(original, none, fs=300).precision)
    assert beats.agreement(original, none, fs=300).recall == 0.0
    assert np.isnan(beats.agreement(none, original, fs=300).recall)


def test_heart_rate_is_the_mean_one():
    assert beats.heart_rate(np.array([0, 300, 600]), fs=300) == pytest.approx(60)
    assert beats.heart_rate(np.array([0, 200, 600]), fs=300) == pytest.approx(60)
    assert np.isnan(beats.heart_rate(np.array([5]), fs=300))


@pytest.mark.parametrize(
    ("frequency", "inside"), [(0.1, 0), (0.6, 1), (10.0, 1), (39.9, 1), (40.2, 0), (100.0, 0)]
)
def test_the_band_is_that_of_monitors(frequency, inside):
    wave = np.sin(2 * np.pi * frequency * np.arange(9000) / FS)
    assert perceptibility.band_share(wave, fs=300) == pytest.approx(inside, abs=1e-9)


def test_band_shares_add_up_as_parseval_says():
    rng = np.random.default_rng(1)
    for n in (9000, 899):
        wave = rng.standard_normal(n)
        spectrum = np.fft.fft(wave)
        frequency = np.abs(np.fft.fftfreq(n, 1 / FS))
        inside = (frequency >= 0.5) & (frequency <= 40)
        wanted = (np.abs(spectrum[inside]) ** 2).sum() / n / (wave**2).sum()
        assert perceptibility.band_share(wave, fs=300) == pytest.approx(wanted)
    assert np.isnan(perceptibility.band_share(np.zeros(100), fs=300))


def test_regions_lie_where_the_waves_are():
    peaks = np.arange(240, 8900, 240)  # 75 a minute
    masks = perceptibility.regions(peaks, 9000, fs=300)
    time_s = (np.arange(9000) - peaks[5]) / FS
    for name, low, high in (
        ("qrs", -0.06, 0.06),
        ("p", -0.26, -0.06),
        ("t", 0.06, -0.06 + 0.44 * np.sqrt(0.8)),
    ):
        near = masks[name] & (np.abs(time_s) < 0.4)
        assert time_s[near].min() == pytest.approx(low, abs=0.005)
        assert time_s[near].max() == pytest.approx(high, abs=0.005)
    assert sum(m.astype(int) for m in masks.values()).max() == 1


def test_fast_beats_share_out_what_overlaps():
    peaks = np.arange(100, 8900, 85)  # 212 a minute: P and T windows overlap
    masks = perceptibility.regions(peaks, 9000, fs=300)
    assert sum(m.astype(int) for m in masks.values()).max() == 1
    assert masks["qrs"][peaks].all()
    assert masks["t"][peaks[3] + 20]
    assert not any(m.any() for m in perceptibility.regions(peaks[:1], 9000, fs=300).values())


def pack(deltas, signal, length=9000, scale=0.2):
    """Columns of several perturbations (mV) of one signal (mV)."""
    rows = len(deltas)
    x = np.tile(signal / scale, (rows, 1))
    x[:, length:] = 0
    return perceptibility.perceptibility(
        np.array(deltas) / scale, x, np.full(rows, length), np.full(rows, scale), fs=300
    )


def test_units_are_millivolts_and_seconds():
    signal = train(BEATS)
    ramp = np.zeros(9000)
    ramp[3000:3301] = np.linspace(0, 0.5, 301)  # 0.5 mV within a second
    ramp[3301:] = 0.5
    found = pack([ramp, -ramp], signal)
    np.testing.assert_allclose(found["max_change_mv"], 0.5)
    np.testing.assert_allclose(found["max_slope_mv_s"], 0.5)
    np.testing.assert_array_equal(found["r_peaks"], len(BEATS))
    np.testing.assert_allclose(found["heart_rate"], 75, atol=0.05)
    np.testing.assert_array_equal(found["r_recall"], 1)
    np.testing.assert_array_equal(found["heart_rate_change"], 0)


def test_beats_that_are_taken_away_or_added_show():
    signal = train(BEATS)
    gone = -train(BEATS[10:20]) + 0.0
    extra = train(BEATS[:-1] + 0.45)
    found = pack([gone, extra], signal)
    assert found["r_recall"][0] == pytest.approx(1 - 10 / len(BEATS))
    assert found["r_precision"][0] == 1
    assert found["heart_rate_change"][0] == pytest.approx(-75 * 10 / (len(BEATS) - 1), abs=0.1)
    assert found["r_recall"][1] == 1
    assert found["r_precision"][1] == pytest.approx(len(BEATS) / (2 * len(BEATS) - 1), abs=0.02)
    assert found["heart_rate_change"][1] > 60


def test_shares_say_where_the_energy_is():
    signal = train(BEATS)
    t = np.arange(9000) / FS
    bumps = {}
    for name, offset in (("p", -0.16), ("qrs", 0.0), ("t", 0.2)):
        wave = sum(np.exp(-0.5 * ((t - beat - offset) / 0.01) ** 2) for beat in BEATS)
        bumps[f"{name}_share"] = 0.01 * wave
    found = pack(list(bumps.values()), signal)
    for row, name in enumerate(bumps):
        assert found[name][row] > 0.98
        others = [found[other][row] for other in bumps if other != name]
        assert max(others) < 0.02


def test_only_a_records_own_samples_count():
    signal = train(BEATS)
    change = 0.01 * np.sin(2 * np.pi * 5 * np.arange(9000) / FS)
    beyond = change.copy()
    beyond[6000:] = 40.0
    short, padded = pack([change], signal, 6000), pack([beyond], signal, 6000)
    for name in perceptibility.PERCEPTIBILITY_COLUMNS:
        np.testing.assert_array_equal(short[name], padded[name], err_msg=name)
    assert short["r_peaks"][0] < len(BEATS)


def test_nothing_changed_and_no_beats_leave_cells_empty():
    flat = perceptibility.perceptibility(
        np.zeros((1, 9000)), train(BEATS)[None], np.array([9000]), np.array([1.0]), fs=300
    )
    row = perceptibility.cells(flat, 0)
    assert row["max_change_mv"] == 0.0
    assert row["r_recall"] == 1.0
    assert row["ecg_band_share"] is None
    assert row["p_share"] is None
    assert row["r_peaks"] == len(BEATS)
    assert isinstance(row["r_peaks"], int)
    silent = pack([np.full(9000, 0.1)], np.zeros(9000))
    row = perceptibility.cells(silent, 0)
    assert row["r_peaks"] == 0
    assert [row[k] for k in ("r_recall", "heart_rate", "qrs_share")] == [None] * 3


def test_a_batch_equals_its_rows_and_leads_add_up():
    rng = np.random.default_rng(2)
    x = np.stack([train(BEATS, noise=0.1, seed=k) for k in range(4)])
    delta = 0.05 * rng.standard_normal(x.shape)
    lengths, scale = np.array([9000, 4000, 9000, 8000]), np.array([1.0, 0.3, 0.2, 0.5])
    together = perceptibility.perceptibility(delta, x, lengths, scale, fs=300)
    for i in range(4):
        alone = perceptibility.perceptibility(
            delta[i : i + 1], x[i : i + 1], lengths[i : i + 1], scale[i : i + 1], fs=300
        )
        for name, values in alone.items():
            np.testing.assert_array_equal(values[0], together[name][i])
    # A second lead that is not perturbed changes no column; twice the same lead neither.
    for second in (np.zeros_like(delta), delta):
        leads = perceptibility.perceptibility(
            np.stack([delta, second], axis=1), np.stack([x, x], axis=1), lengths,
            np.stack([scale, scale], axis=1),
        fs=300)  # fmt: skip
        for name, values in leads.items():
            np.testing.assert_allclose(values, together[name], err_msg=name)


def test_a_case_costs_milliseconds():
    """2 ms on a quiet core; a detector that took a second would make batched runs crawl."""
    x = np.tile(train(BEATS, noise=0.05), (50, 1))
    args = (0.01 * x[:, ::-1], x, np.full(50, 9000), np.ones(50))
    perceptibility.perceptibility(*args, fs=300)
    started = time.process_time()
    perceptibility.perceptibility(*args, fs=300)
    assert (time.process_time() - started) / 50 < 0.03


def test_summaries_take_successful_cases_and_tables_without_the_columns():
    rows = [{"success": True, "r_recall": v} for v in (0.5, 0.9, 1.0, None)]
    rows += [{"success": False, "r_recall": 0.0}]
    found = summary.seen(rows)
    assert found["r_recall"] == {"median": 0.9, "q25": 0.7, "q75": 0.95}
    assert found["p_share"] == {"median": None, "q25": None, "q75": None}


def test_medians_are_metrics():
    row = {"status": "ok", "success": "true", "source": "A", "target": "N"}
    rows = [row | {"snr_db": s, "r_recall": r} for s, r in (("20", "1"), ("30", ""), ("inf", "0"))]
    rows += [row | {"success": "false", "snr_db": "-50", "r_recall": "0"}]
    found = content.case_metrics(rows)
    assert found["snr_db/median"] == 25
    assert found["r_recall/median"] == 0.5
    assert "t_share/median" not in found


@pytest.mark.slow
def test_a_run_writes_the_columns_and_is_read_without_them(tmp_path):
    """Of every attacked case, won or lost; and runs of earlier versions load all the same."""
    import json

    from helpers import in_process, small_world, table

    import ecgadv
    from ecgadv.report import write_report
    from ecgadv.store import CASE_COLUMNS

    code, folder = in_process(
        *small_world(tmp_path), "attack.steps=3", "metric=diff", f"paths.root={tmp_path}"
    )
    assert code == 0
    rows = table(folder)
    assert tuple(rows[0]) == CASE_COLUMNS
    assert CASE_COLUMNS[-12:] == (*perceptibility.PERCEPTIBILITY_COLUMNS, "goal")
    run = ecgadv.load_run(folder)
    wanted = perceptibility.perceptibility(run.delta, run.x, run.lengths, run.scale_mv, fs=300)
    assert {row["success"] for row in rows} == {"true", "false"}
    for i, row in enumerate(rows):
        for name, values in wanted.items():
            assert float(row[name] or "nan") == pytest.approx(values[i], rel=1e-4, nan_ok=True)
    np.testing.assert_allclose(
        run.cases["max_change_mv"], np.abs(run.delta).max(1) * run.scale_mv, rtol=1e-5
    )
    seen = json.loads((folder / "summary.json").read_text())["perceptibility"]
    won = run.cases[run.cases["success"]]
    assert seen["max_slope_mv_s"]["median"] == pytest.approx(won["max_slope_mv_s"].median())
    # As a run of an earlier version.
    old = run.cases.drop(columns=list(perceptibility.PERCEPTIBILITY_COLUMNS))
    old.to_csv(folder / "cases.csv", index=False)
    assert "r_recall" not in ecgadv.load_run(folder).cases
    assert content.metrics(folder)["n_cases"] == len(rows)
    assert write_report(folder).is_file()
