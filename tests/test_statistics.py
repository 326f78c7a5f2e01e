"""Intervals of rates whose cases share records."""

import numpy as np
import pytest

from ecgadv.evaluate.statistics import case_interval, record_interval, wilson
from ecgadv.evaluate.summary import rate, summarise


def interval(hits, records, **more):
    return record_interval(hits, np.ones(len(hits)), records, **more)


@pytest.mark.parametrize("hit", [0, 1])
@pytest.mark.parametrize(("records", "each"), [(8, 9), (3, 1), (40, 3)])
def test_where_all_records_agree_there_are_as_many_trials_as_records(hit, records, each):
    found = interval([hit] * records * each, [k // each for k in range(records * each)])
    assert found == pytest.approx(wilson(hit * records, records), abs=1e-9)


def test_72_of_72_from_eight_recordings_is_not_certain():
    low, high = interval([1] * 72, [k // 9 for k in range(72)])
    assert low == pytest.approx(0.6756, abs=1e-4)
    assert high == 1.0


def test_equal_rates_within_records_are_no_certainty_either():
    low, high = interval([1, 0] * 10, [k // 2 for k in range(20)])
    assert (low, high) == pytest.approx(wilson(5, 10), abs=1e-9)


@pytest.mark.parametrize("records", [0, 1, 2])
def test_nothing_is_said_below_three_records(records):
    assert interval([1, 0] * records, [k // 2 for k in range(2 * records)]) is None


def test_rows_without_a_trial_count_neither_as_trials_nor_as_records():
    hits, trials, names = [3, 0, 5, 0], [10, 0, 10, 10], ["a", "b", "c", "d"]
    kept = [0, 2, 3]
    wanted = record_interval(*([part[k] for k in kept] for part in (hits, trials, names)))
    assert record_interval(hits, trials, names) == wanted
    assert record_interval(hits[:3], trials[:3], names[:3]) is None


def test_it_is_the_percentile_bootstrap_and_the_same_every_time():
    rng = np.random.default_rng(1)
    record = np.sort(rng.integers(0, 15, 90))
    hits = rng.random(90) < rng.uniform(0.2, 0.9, 15)[record]
    found = interval(hits, record.tolist())
    assert found == interval(hits, record.tolist())
    means = []
    for _ in range(4000):
        drawn = rng.choice(np.unique(record), 15)
        means.append(np.concatenate([hits[record == r] for r in drawn]).mean())
    assert found == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])), abs=0.015)


def test_it_covers_the_truth_where_wilsons_does_not():
    """Records with rates of their own, nine cases each: the mean rate is 0.7."""
    rng = np.random.default_rng(2)
    covered = {"records": 0, "wilson": 0}
    rounds = 300
    names = np.repeat(np.arange(40), 9).tolist()
    for _ in range(rounds):
        rates = rng.beta(0.7, 0.3, 40)
        hits = rng.random(360) < np.repeat(rates, 9)
        for kind, (low, high) in (
            ("records", interval(hits, names)),
            ("wilson", wilson(int(hits.sum()), 360)),
        ):
            covered[kind] += low <= 0.7 <= high
    assert covered["records"] / rounds > 0.9
    assert covered["wilson"] / rounds < 0.75


def test_signals_and_records_are_drawn_each_on_its_own():
    signals = np.repeat(np.arange(6), 10)
    records = np.tile(np.arange(10), 6).tolist()
    # All of the difference lies between the signals.
    hits = np.isin(signals, [0, 1, 2]) * 20
    trials = np.full(60, 20)
    low, high = record_interval(hits, trials, records, signals.tolist())
    assert high - low > 0.6
    # Without them, every record has the same rate.
    assert record_interval(hits, trials, records) == pytest.approx(wilson(5, 10), abs=1e-9)


def test_one_case_a_record_agrees_with_wilson_in_meaning():
    hits = np.arange(100) < 60
    low, high = interval(hits, list(range(100)))
    assert (low, high) == pytest.approx(wilson(60, 100), abs=0.02)


def row(record, success, status="ok", **more):
    distances = dict.fromkeys(("d_l2", "d_smooth", "d_smooth_l2", "l2_norm", "snr_db"), 1.0)
    return distances | {
        "record": record, "success": success, "status": status, "seconds": 1.0, "n_gradients": 5,
    } | more  # fmt: skip


def test_the_summary_has_both_intervals_of_all_cases_and_of_each_pair():
    rows = [row(f"R{k}", True, target=t) for k in range(8) for t in "NO~"]
    skipped = [row("R9", False, "skipped", source="A", target="N")] * 2
    pairs = {f"A>{t}": [r for r in rows if r["target"] == t] for t in "NO~"}
    pairs["A>N"] = pairs["A>N"][:2]
    found = summarise(rows + skipped, pairs)
    assert found["n_cases"] == 24
    assert found["n_skipped"] == 2
    assert found["n_records"] == 8
    assert found["ci95_records"] == pytest.approx(wilson(8, 8), abs=1e-6)
    assert found["ci95"] == pytest.approx(wilson(24, 24), abs=1e-6)
    assert found["pairs"]["A>O"]["ci95_records"] == pytest.approx(wilson(8, 8), abs=1e-6)
    assert found["pairs"]["A>N"]["ci95_records"] is None
    assert found["pairs"]["A>N"]["n_records"] == 2
    assert case_interval(rows) == pytest.approx(wilson(8, 8), abs=1e-6)


def test_rows_that_name_no_record_have_wilsons_only():
    found = rate([{"success": True}] * 5)
    assert found["ci95_records"] is None
    assert found["n_records"] is None
    assert found["ci95"] == pytest.approx(wilson(5, 5), abs=1e-6)
