"""Robustness curves and the median minimal distance."""

import csv
import json
import math
from itertools import pairwise

import numpy as np
import pytest
from helpers import execute, run_folder
from scipy.stats import binom, binomtest

from ecgadv.evaluate import curves
from ecgadv.evaluate.distances import Distance
from ecgadv.threat import metrics

L2 = Distance.of(metrics.get("l2"))


def row(source, target, distance, success=True, status="ok"):
    return {
        "source": source, "target": target, "d_l2": distance, "success": success, "status": status,
    }  # fmt: skip


ROWS = [
    row("A", "N", 4.0),
    row("A", "N", 1.0),
    row("A", "N", 9.0, success=False),
    row("A", "O", 2.0),
    row("N", "O", 2.0),
    row("N", "O", 0.5),
    row("", "", None, success=False, status="skipped"),
    row("N", "A", None, success=False, status="failed"),
]


def test_the_curve_is_the_share_of_distances_within_the_budget():
    distances = curves.minimal_distances(ROWS, "d_l2")
    curve = curves.success_curve(distances)
    assert curve.n == 7
    assert curve.budget.tolist() == [0.5, 1.0, 2.0, 4.0]
    assert curve.successes.tolist() == [1, 2, 4, 5]
    for budget in (0.0, 0.49, 0.5, 1.7, 2.0, 3.9, 4.0, 8.9, 9.0, 1e9):
        assert curve.at(budget) == pytest.approx(np.mean(distances <= budget))


def test_a_failed_attempt_at_a_small_distance_is_no_success():
    # The last attempt of a failure is stored with its distance, and must not count.
    curve = curves.success_curve(curves.minimal_distances([row("A", "N", 0.1, False)], "d_l2"))
    assert curve.n == 1
    assert curve.at(1e6) == 0


def test_the_band_is_wilsons_interval_of_every_rate():
    for n in (1, 7, 60):
        low, high = curves.wilson_band(np.arange(n + 1), n)
        for k in range(n + 1):
            wanted = binomtest(k, n).proportion_ci(confidence_level=0.95, method="wilson")
            assert low[k] == pytest.approx(wanted.low, abs=1e-12)
            assert high[k] == pytest.approx(wanted.high, abs=1e-12)


def test_the_band_is_a_bootstrap_over_records():
    """The band at each budget is what drawing whole records gives; Wilson's is beside it."""
    from ecgadv.evaluate.statistics import record_interval

    rng = np.random.default_rng(4)
    size = rng.lognormal(size=40)
    records = [f"R{k // 4}" for k in range(40)]
    # Cases of a record resemble each other: 10 records are not 40 trials.
    distances = np.repeat(rng.lognormal(sigma=2.0, size=10), 4) * (1 + 0.01 * size)
    distances[::13] = math.inf
    curve = curves.success_curve(distances, records)
    for k in range(0, len(curve.budget), 5):
        hits = distances <= curve.budget[k]
        low, high = record_interval(hits, np.ones(40), records)
        assert curve.low[k] == pytest.approx(low, abs=0.04)
        assert curve.high[k] == pytest.approx(high, abs=0.04)
    middle = len(curve.budget) // 2
    low, high = (ends[middle] for ends in curve.wilson)
    assert curve.high[middle] - curve.low[middle] > 1.3 * (high - low)
    few = curves.success_curve(distances[:8], records[:8])
    assert np.isnan(few.low).all()
    assert np.isnan(few.zero)
    rows = curves.curve_rows({"all": few})
    assert [r["ci_low"] for r in rows] == [None] * len(rows)
    assert all(r["wilson_high"] > r["wilson_low"] for r in rows)


def test_the_median_over_records_is_wider_than_over_cases_that_resemble_each_other():
    rng = np.random.default_rng(5)
    distances = np.repeat(rng.lognormal(size=12), 6)
    records = [k // 6 for k in range(72)]
    low, high = curves.median_over_records(distances, records)
    middle, least, most = curves.median_with_interval(distances)
    assert low <= middle <= high
    assert high - low > most - least
    assert curves.median_over_records(distances[:12], records[:12]) is None


def test_curves_of_pairs_partition_that_of_all_cases():
    found = curves.pair_curves(ROWS, "d_l2")
    assert list(found) == ["all", "A>N", "A>O", "N>O", "N>A"]
    for budget in (0.5, 1.5, 2.0, 5.0):
        counted = sum(c.at(budget) * c.n for pair, c in found.items() if pair != "all")
        assert counted == pytest.approx(found["all"].at(budget) * found["all"].n)
    rows = curves.curve_rows(found)
    assert tuple(rows[0]) == tuple(curves.CURVES.columns)
    assert [r["n_success"] for r in rows if r["pair"] == "A>N"] == [1, 2]
    assert not [r for r in rows if r["pair"] == "N>A"]


@pytest.mark.parametrize("n", [6, 9, 20, 59, 60, 300])
def test_the_interval_of_the_median_covers_at_least_95_percent_and_is_the_shortest(n):
    values = np.arange(1.0, n + 1)
    middle, low, high = curves.median_with_interval(values)
    assert middle == np.median(values)
    # P(x_(j) <= median <= x_(n+1-j)) = 1 - 2·P(Binomial(n, 1/2) < j).
    rank = int(low)
    assert high == n + 1 - rank
    assert 1 - 2 * binom.cdf(rank - 1, n, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(rank, n, 0.5) < 0.95


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        _, low, high = curves.median_with_interval(rng.lognormal(size=25))
        hits += low <= 1.0 <= high
    assert 0.945 <= hits / 2000 <= 0.975


def test_few_cases_and_failures_give_no_finite_interval():
    assert curves.median_with_interval(np.array([1.0, 2.0, 3.0])) == (2.0, 0.0, math.inf)
    assert math.isnan(curves.median_with_interval(np.zeros(0))[0])
    half_lost = np.array([1.0] * 10 + [math.inf] * 10)
    assert curves.median_with_interval(half_lost) == (math.inf, 1.0, math.inf)
    few_lost = np.concatenate([np.arange(1.0, 19.0), [math.inf, math.inf]])
    assert curves.median_with_interval(few_lost) == (10.5, 6.0, 15.0)


def test_robustness_is_plain_json_with_none_for_infinite():
    summary = curves.robustness(ROWS, L2)
    assert summary == {
        "metric": "l2", "column": "d_l2", "n": 7, "median_distance": 2.0,
        "ci95_records": [1.0, None], "ci95": [0.5, None],
    }  # fmt: skip
    lost = curves.robustness([row("A", "N", 3.0, False)] * 8, L2)
    assert lost["median_distance"] is None
    assert lost["ci95"] == [None, None]
    json.dumps([summary, lost], allow_nan=False)


def test_the_figure_shows_every_pair_as_a_rising_step_within_its_band():
    from ecgadv.report.curves import robustness_figure

    found = curves.pair_curves(ROWS, "d_l2")
    figure = robustness_figure(found, "d_l2")
    lines = {line.get_gid(): line for axes in figure.axes for line in axes.get_lines()}
    bands = {c.get_gid() for axes in figure.axes for c in axes.collections}
    assert set(found) == {gid for gid in lines if gid in found}
    # Two cases of two records say nothing of others.
    assert {pair for pair, curve in found.items() if curve.n < 3} == {"A>O", "N>O", "N>A"}
    assert {f"band {pair}" for pair in ("all", "A>N")} == bands - {None}
    drawn = lines["A>N"].get_ydata()
    assert drawn[0] == 0
    assert drawn[-1] == pytest.approx(2 / 3)
    assert all(b >= a for a, b in pairwise(drawn))
    figure.canvas.draw()


def test_the_figure_of_failures_only_is_flat():
    from ecgadv.report.curves import robustness_figure

    figure = robustness_figure(curves.pair_curves([row("A", "N", 1.0, False)], "d_l2"), "d_l2")
    lines = [line for axes in figure.axes for line in axes.get_lines() if line.get_gid() == "A>N"]
    assert not lines[0].get_ydata().any()
    figure.canvas.draw()


def test_a_run_writes_its_robustness_and_a_run_of_a_fixed_budget_does_not(tmp_path):
    options = ["tracking=none", "data.per_class=4", "selection.per_class=1", "target=N"]
    folders = {}
    for attack in ("attack=minnorm attack.steps=8", "attack=pgd attack.steps=3"):
        done = execute(
            *options, *attack.split(), f"paths.root={tmp_path}", f"paths.data={tmp_path}"
        )
        folders[attack.split("=")[1].split()[0]] = run_folder(done)
    mine = folders["minnorm"]
    summary = json.loads((mine / "summary.json").read_text())["robustness"]
    with (mine / "cases.csv").open() as file:
        table = list(csv.DictReader(file))
    won = sorted(float(r["d_l2"]) if r["success"] == "true" else math.inf for r in table)
    assert summary["metric"] == "l2"
    assert summary["n"] == len(won) == 3
    assert summary["median_distance"] == pytest.approx(won[1], rel=1e-6)
    with (mine / "robustness.csv").open() as file:
        steps = [r for r in csv.DictReader(file) if r["pair"] == "all"]
    assert [float(r["budget"]) for r in steps] == pytest.approx(
        [d for d in won if math.isfinite(d)], rel=1e-6
    )
    assert (mine / "figures" / "robustness_curve.png").stat().st_size > 10_000
    assert "robustness" not in json.loads((folders["pgd"] / "summary.json").read_text())
    assert not (folders["pgd"] / "robustness.csv").exists()
