"""The benchmark: its figures, its storage, its peers' models, and the task from end to end."""

import dataclasses
import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import beats, random_network

from ecgadv import config
from ecgadv.attacks.base import Problem
from ecgadv.attacks.engine import Engine
from ecgadv.attacks.registry import attack_kinds
from ecgadv.errors import ConfigError
from ecgadv.evaluate import benchmark
from ecgadv.evaluate.benchmark import Row
from ecgadv.evaluate.statistics import wilson
from ecgadv.records.base import RecordSet
from ecgadv.report import benchmark as report
from ecgadv.study.study import class_indices
from ecgadv.tasks import benchmark as task
from ecgadv.threat import metrics
from ecgadv.threat.channel import Channel
from ecgadv.threat.goals import AIM_MARGIN, Aim, Exclusive
from ecgadv.threat.objectives import Cases, Objective
from ecgadv.victims.pipeline import valid_mask

REPO = Path(__file__).resolve().parents[1]


def load_peers():
    spec = importlib.util.spec_from_file_location("peers", REPO / "benchmarks" / "peers.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("peers", module)
    spec.loader.exec_module(module)
    return module


def row(method, distance, success=None, metric="l2", **more):
    n = len(distance)
    values = {
        "metric": metric, "method": method, "case_id": [f"c{k}" for k in range(n)],
        "success": [True] * n if success is None else success, "distance": distance,
        "d_l2": distance, "gradients": [10] * n, "forwards": [0] * n, "seconds": 2.0 * n,
        "peak_mb": 900.0, "growth_mb": 10.0, "identity": {"victim": "v", "data": "d"},
        "origin": "measured", "machine": {},
    }  # fmt: skip
    return Row(**(values | more))


# --- figures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("q", [0, 10, 50, 90, 95, 100])
def test_percentiles_are_numpys_where_nothing_failed(q):
    values = np.random.default_rng(q).lognormal(size=17)
    assert benchmark.percentile(values, q) == pytest.approx(np.percentile(values, q))


def test_percentiles_count_failures_as_infinite():
    values = [1.0, 2.0, math.inf, math.inf]
    assert benchmark.percentile(values, 0) == 1.0
    assert benchmark.percentile(values, 50) == math.inf
    assert benchmark.percentile([1.0, 2.0, 3.0, math.inf], 50) == 2.5
    assert benchmark.percentile([math.inf], 50) == math.inf
    assert math.isnan(benchmark.percentile([], 50))


def test_ratios_are_paired_case_by_case_where_the_baseline_succeeds():
    ours = row("minnorm_100", [1.0, 3.0, 9.0, 1.0], [True, True, True, False])
    cw = row("cw", [2.0, 2.0, 3.0, 4.0], [True, True, False, True])
    assert benchmark.paired_ratios(ours, cw).tolist() == [0.5, 1.5, math.inf]
    # The order of the cases is of no account.
    mixed = dataclasses.replace(
        cw, case_id=cw.case_id[::-1], success=cw.success[::-1], distance=cw.distance[::-1]
    )
    assert sorted(benchmark.paired_ratios(ours, mixed)) == [0.5, 1.5, math.inf]


def test_a_distance_of_zero_divides_nothing():
    zero, some = row("cw", [0.0, 0.0]), row("minnorm_3", [0.0, 1.0])
    assert benchmark.paired_ratios(some, zero).tolist() == [1.0, math.inf]


def test_optimality_is_the_mean_share_of_the_best_known_distance():
    ours = row("minnorm_100", [1.0, 4.0, 9.0, 5.0], [True, True, True, False])
    peer = row("foolbox_ddn_100", [2.0, 3.0, 9.0, 5.0], [True, True, False, False])
    long = row("minnorm_1000", [0.5, 3.5], [True, True])
    best = benchmark.best_known([ours, peer, long])
    assert best["l2", "c0"] == 0.5
    assert best["l2", "c1"] == 3.0
    assert math.isinf(best["l2", "c3"])
    # c3 is known of no method, so it counts for none.
    assert benchmark.optimality(ours, best) == pytest.approx((0.5 + 0.75 + 1.0) / 3)
    assert benchmark.optimality(peer, best) == pytest.approx((0.25 + 1.0 + 0.0) / 3)


def test_metrics_do_not_mix():
    rows = [
        row("cw", [4.0]),
        row("cw", [0.2], metric="diff"),
        row("minnorm_30", [0.1], metric="diff"),
    ]
    table = benchmark.compare(rows)
    assert [line.ratio_median for line in table] == [1.0, 1.0, 0.5]
    assert [line.optimality for line in table] == [1.0, 0.5, 1.0]


def test_cases_of_one_record_are_drawn_together():
    names = [f"A{k:05d}_A_to_{t}" for k in range(8) for t in ("N", "O", "noise")]
    named = row("pgd", [1.0] * 24, case_id=[*names[:-1], "B_0001_N_to_noise"])
    assert benchmark.records_of(named)[-2:] == ["A00007", "B_0001"]
    (line,) = benchmark.compare([row("pgd", [1.0] * 24, case_id=names)])
    assert line.ci95_records == pytest.approx(wilson(8, 8))
    assert line.ci95 == pytest.approx(wilson(24, 24))


def test_markdown_shows_failures_and_where_figures_come_from():
    table = benchmark.compare(
        [
            row("minnorm_100", [1.0, 2.0]),
            row("cw", [2.0, 2.0], origin="imported", peak_mb=None, growth_mb=None),
            row("foolbox_fmn_100", [3.0, 3.0], [False, False], origin="resumed"),
        ]
    )
    text = report.markdown(
        table, table[:1], command="python run.py", machine="a machine", missing={"art_cw": "why"}
    )
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if "|" in line}
    assert (
        "| 2/2 | – | 34.2–100.0 % | 1.5 | 1.9 | 1.5 | 0.750 | 0.975 | 1.000 | 10 | 4 | – | 0.5 | "
        "900 |" in lines["minnorm_100"]
    )
    assert "| 0/2 | – | 0.0–65.8 % | ∞ | ∞ | – | ∞ | ∞ | 0.000 |" in lines["foolbox_fmn_100 ²"]
    assert lines["cw ¹"].endswith("| – |")
    assert "Not measured: art_cw (why)." in text
    assert all(line.count("|") == len(report.HEAD) + 1 for k, line in lines.items() if k in
               ("minnorm_100", "cw ¹", "method"))  # fmt: skip


def test_the_figure_joins_the_steps_of_a_method():
    rows = [row(f"minnorm_{s}", [d], gradients=[s]) for s, d in ((100, 2.0), (30, 3.0))]
    rows += [row("cw", [2.5], gradients=[1400]), row("art_cw_100", [1.0], [False])]
    figure = report.distance_against_gradients(benchmark.compare(rows))
    (axes,) = figure.axes
    drawn = {line.get_gid(): line for line in axes.get_lines()}
    assert set(drawn) == {"l2 minnorm", "l2 cw"}
    assert drawn["l2 minnorm"].get_xdata().tolist() == [30, 100]
    assert drawn["l2 minnorm"].get_ydata().tolist() == [3.0, 2.0]
    assert "art_cw_100" in axes.get_title(loc="left")
    figure.canvas.draw()


# --- methods and peers ----------------------------------------------------------------------------


def test_methods_are_a_name_and_steps():
    assert task.method_name("minnorm_100") == ("minnorm", 100)
    assert task.method_name("cw") == ("cw", None)
    assert task.method_name("foolbox_ddn_100") == ("foolbox_ddn", 100)
    # An attack of one's own may have any name that Python takes.
    assert task.method_name("Mine_30") == ("Mine", 30)
    for bad in ("minnorm_0", "3cw", "minnorm-3", "", "_3"):
        with pytest.raises(ConfigError, match="NAME or NAME_STEPS"):
            task.method_name(bad)


def test_an_unknown_method_is_named_with_those_there_are():
    with pytest.raises(ConfigError, match=r"methods=foolbox_xyz: unknown; there are minnorm, cw, "):
        task._peers(["foolbox_xyz"], "tensorflow", ["minnorm", "cw"])


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "art" else found(name, *a)
    )
    _, missing = task._peers(
        ["minnorm_3", "art_cw_10", "cleverhans_pgd_3"], "tensorflow", ["minnorm"]
    )
    assert list(missing) == ["art_cw_10"]
    assert "ecgadv[bench]" in missing["art_cw_10"]


def test_peers_are_left_out_on_another_backend():
    _, missing = task._peers(["minnorm_3", "cleverhans_pgd_3"], "jax", ["minnorm"])
    assert missing == {"cleverhans_pgd_3": "needs backend=tensorflow, not jax"}


def test_every_default_method_is_known():
    import yaml

    node = yaml.safe_load((config.conf_dir() / "task" / "benchmark.yaml").read_text())["benchmark"]
    names = {task.method_name(m)[0] for m in [*node["methods"], node["scaling_method"]]}
    assert names <= {*attack_kinds(), *load_peers().PEERS}


def short_cases(count=5, n=600):
    """Records of different lengths, zero-padded, each toward another class."""
    lengths = np.array([n, n, 450, 500, n])[:count]
    valid = valid_mask(lengths, n)
    x = beats(count, n) * valid
    own = x.sum(1) / lengths
    x = (x - own[:, None]) * valid
    x = x / np.sqrt((x**2).sum(1) / lengths)[:, None]
    source = np.zeros(count, int)
    views = Channel().draw([0] * count, lengths, 0)
    x, target = x.astype(np.float32), np.arange(count) % 4
    return Cases(x, valid, valid, source, target, lengths, views)


def test_peers_see_the_pipeline_and_the_margin_whatever_rows_they_ask_for():
    import tensorflow as tf

    victim, cases = random_network(), short_cases()
    model = load_peers().TaggedModel(victim, cases)
    tagged = model.tagged(cases.x)
    rng = np.random.default_rng(0)
    tagged[:, :-1, 0] += 0.3 * rng.standard_normal(cases.x.shape)
    logits = victim.pipeline(tagged[:, :-1, 0], cases.lengths)
    aim = AIM_MARGIN * np.maximum(1, np.abs(logits).max(1))
    wanted = logits.copy()
    wanted[np.arange(5), cases.target] -= aim
    for rows in (np.arange(5), np.array([3]), np.array([4, 2, 2, 0])):
        seen = model(tf.constant(tagged[rows])).numpy()
        np.testing.assert_allclose(seen, wanted[rows], atol=1e-4)
    # A class is reached exactly where the pipeline's margin is what solvers aim for.
    reached = wanted.argmax(1) == cases.target
    margin = Exclusive().margin(logits.astype(float), Aim(cases.source, cases.target))
    np.testing.assert_array_equal(reached, margin >= aim)


def test_the_tag_has_no_gradient_and_passes_are_counted_by_case():
    import tensorflow as tf

    cases = short_cases()
    model = load_peers().TaggedModel(random_network(), cases)
    model.set(cases)
    x = tf.constant(model.tagged(cases.x))
    with tf.GradientTape() as tape:
        tape.watch(x)
        total = tf.reduce_sum(model(x)[:, 1])
    gradient = tape.gradient(total, x).numpy()
    assert not gradient[:, -1].any()
    assert gradient[:, :-1].any(axis=(1, 2)).all()
    assert not gradient[2, 450:-1].any()
    part = tf.gather(x, [1, 3])
    with tf.GradientTape() as tape:
        tape.watch(part)
        total = tf.reduce_sum(model(part)[:, 1])
    tape.gradient(total, part)
    model(part)
    found = model.solution(cases.x, x.numpy(), cases.free)
    assert found.gradients.tolist() == [1, 2, 1, 2, 1]
    assert found.forwards.tolist() == [0, 1, 0, 1, 0]
    assert not found.delta.any()


@pytest.mark.parametrize("name", ["cleverhans_fgm", "cleverhans_pgd", "cleverhans_mim"])
def test_cleverhans_finds_the_smallest_budget_of_its_grid(name):
    victim, cases, peers = random_network(), short_cases(), load_peers()
    target = victim.pipeline(cases.x, cases.lengths).argsort(1)[:, -2]
    cases = cases._replace(target=target)
    found = peers.make(name, 5, victim)(cases)
    logits = victim.pipeline(cases.x + found.delta, cases.lengths)
    size = np.linalg.norm(found.delta, axis=1)
    assert np.isclose(size[:, None], peers.BUDGETS, rtol=2e-3).any(1).all()
    won = logits.argmax(1) == target
    assert won.any()
    assert not (found.delta * (1 - cases.free)).any()
    # What a case cost is every budget up to the first at which all cases succeed.
    each = 1 if name == "cleverhans_fgm" else 5
    tried = peers.BUDGETS.index(min(peers.BUDGETS, key=lambda b: abs(b - size.max()))) + 1
    assert (found.gradients == each * tried).all()


@pytest.mark.parametrize(
    "name", ["foolbox_ddn", "foolbox_fmn", "foolbox_cw", "foolbox_cw_all", "art_cw"]
)
def test_peers_perturb_toward_the_target(name):
    peers = load_peers()
    if peers.unavailable(name):
        pytest.skip(peers.unavailable(name))
    victim, cases = random_network(), short_cases()
    target = victim.pipeline(cases.x, cases.lengths).argsort(1)[:, -2]
    cases = cases._replace(target=target)
    found = peers.make(name, 30, victim)(cases)
    logits = victim.pipeline(cases.x + found.delta, cases.lengths)
    assert (logits.argmax(1) == target).mean() >= 0.6
    assert (found.gradients > 0).all()
    assert not (found.delta * (1 - cases.free)).any()


# --- the task -------------------------------------------------------------------------------------


@pytest.fixture
def run_benchmark(tmp_path, monkeypatch):
    """Run the task in this process on few records of a small network."""
    monkeypatch.chdir(tmp_path)
    victim = random_network(9000)
    victim.sha256 = "of a random network"
    # Two records of each class as the network reads them, so that all of them can be attacked.
    signals = beats(60, 9000, seed=6)
    read = victim.pipeline(signals).argmax(1)
    chosen = [row for k in range(4) for row in np.flatnonzero(read == k)[:2]]
    records = RecordSet.pack(
        "read", [(f"S{row:05d}", "ANO~"[read[row]], 0.2 * signals[row]) for row in chosen]
    )
    assert len(records) == 8
    monkeypatch.setattr(task, "open_victim", lambda cfg: victim)
    monkeypatch.setattr(task, "open_records", lambda cfg: records)

    class Everything:
        correct = np.ones(len(records), bool)
        split = np.full(len(records), "heldout")

    monkeypatch.setattr(task, "predict_all", lambda *a: (Everything, []))

    def run(*overrides, folder="run"):
        argv = ["task=benchmark", "tracking=none", f"paths.root={tmp_path}", "batch_size=4",
                "benchmark.scaling=[]", "benchmark.per_class=1", f"benchmark.out={tmp_path}/rows",
                "benchmark.methods=[minnorm_4,cw_6]", "benchmark.metrics=[l2]"]  # fmt: skip
        cfg = config.compose_checked([*argv, *overrides]).config
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        assert task.run(cfg, place) == 0
        return json.loads((place / "benchmark.json").read_text())

    return run


def test_a_benchmark_measures_verifies_and_writes(run_benchmark, tmp_path):
    found = run_benchmark("benchmark.metrics=[l2,diff]", "benchmark.scaling=[1,2]",
                          "benchmark.scaling_method=minnorm_3")  # fmt: skip
    compared = [(r["metric"], r["method"], r["n"]) for r in found["comparison"]]
    assert compared == [("l2", "minnorm_4", 12), ("l2", "cw_6", 12), ("diff", "minnorm_4", 12),
                        ("diff", "cw_6", 12)]  # fmt: skip
    assert [(r["metric"], r["n"]) for r in found["scaling"]] == [
        ("l2", 12), ("l2", 24), ("diff", 12), ("diff", 24),
    ]  # fmt: skip
    stored = task.read_row(tmp_path / "rows" / "l2-minnorm_4-12.json")
    assert stored.gradients == [4] * 12
    assert stored.seconds > 0
    assert stored.peak_mb > 100
    assert stored.origin == "measured"
    assert sum(stored.success) == found["comparison"][0]["n_success"]
    assert (tmp_path / "run" / "benchmark.md").read_text().count("| minnorm_4 |") == 2
    assert (tmp_path / "run" / "figures" / "benchmark.png").stat().st_size > 5_000


def test_measurements_are_reused_until_they_are_of_something_else(run_benchmark, tmp_path):
    run_benchmark()
    files = {f: f.stat().st_mtime_ns for f in (tmp_path / "rows").iterdir()}
    assert len(files) == 2
    run_benchmark(folder="again")
    assert {f: f.stat().st_mtime_ns for f in files} == files
    run_benchmark("seed=3", folder="other")
    assert all(f.stat().st_mtime_ns > before for f, before in files.items())
    (tmp_path / "rows" / "l2-cw_6-12.json").write_text("{ half of a")
    found = run_benchmark("seed=3", folder="damaged")
    assert found["comparison"][1]["origin"] == "measured"


def test_the_configurations_own_attack_and_metric_keep_their_options(run_benchmark, tmp_path):
    methods = "benchmark.methods=[minnorm_30]"
    plain = run_benchmark(methods)["comparison"]
    banded = run_benchmark(methods, "attack.band=[1,20]", folder="band")["comparison"]
    assert banded[0]["median_d_l2"] > plain[0]["median_d_l2"]
    usual = ("benchmark.metrics=[diffl2]", "metric=diffl2", methods)
    paper = run_benchmark(*usual, folder="paper")["comparison"]
    heavy = run_benchmark(*usual, "metric.k=1", folder="heavy")["comparison"]
    # The same file held the first; a distance with another k is another measurement.
    assert heavy[0]["median_d_l2"] < paper[0]["median_d_l2"]


def test_a_killed_measurement_goes_on_with_the_next_chunk(run_benchmark, tmp_path):
    run_benchmark("benchmark.methods=[minnorm_4]")
    file = tmp_path / "rows" / "l2-minnorm_4-12.json"
    whole = task.read_row(file)
    keys = ("case_id", "success", "distance", "d_l2", "gradients", "forwards")
    cut = {k: getattr(whole, k)[:4] for k in keys}
    file.write_text(json.dumps(dataclasses.asdict(dataclasses.replace(whole, **cut))))
    found = run_benchmark("benchmark.methods=[minnorm_4]", folder="resumed")
    again = task.read_row(file)
    for key in keys:
        assert getattr(again, key) == getattr(whole, key)
    assert found["comparison"][0]["origin"] == "resumed"
    # Seconds of the first part stay, those of the rest are added.
    assert again.seconds > whole.seconds


def test_the_best_known_distance_comes_from_every_stored_row(run_benchmark, tmp_path):
    first = run_benchmark("benchmark.methods=[minnorm_4]")["comparison"][0]["optimality"]
    run_benchmark("benchmark.methods=[minnorm_25]", folder="long")
    second = run_benchmark("benchmark.methods=[minnorm_4]")["comparison"][0]["optimality"]
    assert first is None or first == 1.0
    assert second is None or second < 1.0


def test_imported_rows_are_taken_as_they_are(run_benchmark, tmp_path):
    run_benchmark("benchmark.methods=[cw_6]")
    file = tmp_path / "rows" / "l2-cw_6-12.json"
    mine = task.read_row(file)
    setting = {k: mine.identity[k] for k in ("victim", "data", "cases")}
    other = dataclasses.replace(mine, origin="imported", identity=setting, seconds=123.0)
    file.write_text(json.dumps(dataclasses.asdict(other)))
    found = run_benchmark("benchmark.methods=[cw_6]", folder="imported")
    assert found["comparison"][0]["seconds"] == 123.0
    wrong = dataclasses.replace(other, identity=setting | {"victim": "another"})
    file.write_text(json.dumps(dataclasses.asdict(wrong)))
    found = run_benchmark("benchmark.methods=[cw_6]", folder="wrong")
    assert found["comparison"][0]["origin"] == "measured"


def test_peers_run_beside_ours(run_benchmark):
    methods = "benchmark.methods=[minnorm_4,cleverhans_fgm]"
    found = run_benchmark(methods, "benchmark.metrics=[l2,diff]")
    compared = [(r["metric"], r["method"]) for r in found["comparison"]]
    # cleverhans knows no smoothness.
    assert compared == [("l2", "minnorm_4"), ("l2", "cleverhans_fgm"), ("diff", "minnorm_4")]
    assert found["comparison"][1]["gradients"] >= 1


def test_a_metric_of_ones_own_is_compared_too(run_benchmark, tmp_path, monkeypatch):
    from test_own_metric import TOLD, own_metric

    (tmp_path / "own").mkdir()
    own = own_metric(tmp_path / "own", monkeypatch, TOLD, "my_benchmark_metric")[:-1]
    found = run_benchmark(*own, "benchmark.metrics=[late]", "benchmark.methods=[minnorm_4]")
    stored = task.read_row(tmp_path / "rows" / "late-minnorm_4-12.json")
    distance, energy = np.array(stored.distance), np.array(stored.d_l2)
    # Weights of 9 and 1: the first half counts more, and is not all.
    assert (energy < distance).all()
    assert (distance < 9 * energy).all()
    assert found["comparison"][0]["metric"] == "late"
    with pytest.raises(ConfigError, match=r"must be a list of l2, diff, diffl2, late"):
        run_benchmark(*own, "benchmark.metrics=[early]")


def test_nothing_to_compare_is_said_before_anything_is_read(run_benchmark, monkeypatch):
    monkeypatch.setattr(task, "open_records", lambda cfg: pytest.fail("the records were read"))
    with pytest.raises(ConfigError, match="none of them can be measured here"):
        run_benchmark("benchmark.methods=[cleverhans_fgm]", "benchmark.metrics=[diff]")
    with pytest.raises(ConfigError, match="unknown; there are minnorm"):
        run_benchmark("benchmark.methods=[minnorm_3]", "benchmark.scaling_method=other_3")


def test_what_the_engine_runs_is_what_is_measured(run_benchmark, tmp_path):
    """The row's distances are those of the attack called by hand on the same cases."""
    from ecgadv.api import make_attack

    run_benchmark("benchmark.methods=[minnorm_4]", "batch_size=12")
    stored = task.read_row(tmp_path / "rows" / "l2-minnorm_4-12.json")
    argv = ["task=benchmark", "batch_size=12", "benchmark.per_class=1", f"paths.root={tmp_path}"]
    cfg = config.compose_checked(argv).config
    victim, records = task.open_victim(cfg), task.open_records(cfg)
    bench = task.Bench(cfg, records, victim, task.predict_all()[0], tmp_path)
    specs = bench.specs(1)
    assert [s.case_id for s in specs] == stored.case_id
    batch = records.batch([s.position for s in specs], victim.n)
    form = metrics.get("l2")
    engine = Engine(make_attack("minnorm", steps=4), Problem(Objective(victim), form, 0))
    source, target = class_indices(specs, victim.classes)
    valid = valid_mask(batch.lengths, victim.n)
    views = Channel().draw([0] * 12, batch.lengths, 0)
    found = engine.run(Cases(batch.x, valid, valid, source, target, batch.lengths, views))
    np.testing.assert_allclose(
        form.value(found.delta.astype(np.float64)), stored.distance, rtol=1e-5
    )


def test_the_documentation_has_one_place_for_results():
    spec = importlib.util.spec_from_file_location("docs", REPO / "benchmarks" / "update_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = (REPO / "docs" / "benchmarks.md").read_text()
    first = module.replaced(page, "| a | table |")
    assert first.count("| a | table |") == 1
    second = module.replaced(first, r"| \1 other |")
    assert "| a | table |" not in second
    assert r"| \1 other |" in second
    assert second.split("<!-- results: begin -->")[0] == page.split("<!-- results: begin -->")[0]
