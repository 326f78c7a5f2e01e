"""Composing, checking, naming and signing configurations."""

import copy
import importlib
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ecgadv import config, making
from ecgadv.config import experiment, names, reference
from ecgadv.errors import ConfigError
from ecgadv.options import form_of, hints
from ecgadv.signature import signature
from ecgadv.victims.training import TrainSettings

CONF = config.conf_dir()
REPO = Path(__file__).resolve().parents[1]
FILES = sorted(
    f for f in CONF.glob("*/*.yaml") if f.parent.name not in ("hydra", "experiment")
)  # fmt: skip
EXPERIMENTS = sorted(f.stem for f in (CONF / "experiment").glob("*.yaml"))


@pytest.fixture
def compose(tmp_path, monkeypatch):
    """Compose a command line whose outputs lie in a scratch folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv: config.compose_checked([*argv, f"paths.root={tmp_path}"])


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}={f.stem}")
def test_every_option_composes_and_says_what_it_is(compose, file):
    group, option = file.parent.name, file.stem
    cfg = compose("--cfg", "job", f"{group}={option}").config
    node = cfg[group]
    assert (node["name"] if isinstance(node, dict) else node) == option


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_composes(compose, name):
    composed = compose("-m", f"experiment={name}")
    assert composed.is_multirun
    assert len(composed.jobs) > 1
    assert composed.folder.name.startswith(f"{name}-")


def test_type1_table_is_the_three_metrics(compose):
    jobs = compose("-m", "experiment=type1_table").jobs
    assert [j.config["metric"]["name"] for j in jobs] == ["l2", "diff", "diffl2"]
    jobs = compose("-m", "experiment=type1_table", "metric=diff", "attack=cw").jobs
    assert [(j.config["metric"]["name"], j.config["attack"]["name"]) for j in jobs] == [
        ("diff", "cw")
    ]


def test_defaults_are_the_documented_ones(compose):
    cfg = compose().config
    chosen = {
        g: cfg[g]["name"] if isinstance(cfg[g], dict) else cfg[g] for g in reference.GROUPS[:-1]
    }
    assert chosen == {
        "task": "attack",
        "data": "synthetic",
        "victim": "compact",
        "defence": "none",
        "threat_model": "type1",
        "deployment": "cloud",
        "metric": "l2",
        "target": "all",
        "goal": "exclusive",
        "attack": "minnorm",
        "eot": "none",
        "filter": "none",
        "selection": "quick",
        "tracking": "mlflow",
    }


def test_type2_selects_four_options_and_each_can_be_overridden(compose):
    def chosen(*argv):
        cfg = compose("--cfg", "job", "threat_model=type2", *argv).config
        return [cfg["deployment"], cfg["eot"]["name"], cfg["filter"]["name"], cfg["attack"]["name"]]

    assert chosen() == ["local", "shift", "rectangular", "eot"]
    assert chosen("deployment=cloud") == ["cloud", "shift", "rectangular", "eot"]
    assert chosen("eot=none") == ["local", "none", "rectangular", "eot"]
    assert chosen("filter=butterworth") == ["local", "shift", "butterworth", "eot"]
    assert chosen("attack=minnorm") == ["local", "shift", "rectangular", "minnorm"]


@pytest.mark.parametrize("file", [f for f in FILES if "_target_" in f.read_text()], ids=str)
def test_options_are_the_arguments_of_what_they_make(file):
    node = yaml.safe_load(file.read_text())
    module, _, attribute = node["_target_"].rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
    keys = set(node) - {"name", "_target_"}
    assert keys <= set(parameters)
    if file.parent.name in ("attack", "metric", "data"):
        # Every argument can be set, and the yaml says its real default.
        # What a data source is told of the victim is no option of its own.
        told = {"rate", "classes"} if file.parent.name == "data" else set()
        assert keys == set(parameters) - told - ({"ridge"} if "ridge" not in keys else set())
        assert {k: node[k] for k in keys} == {k: parameters[k].default for k in keys}


def test_training_options_are_the_settings_with_their_defaults(compose):
    train = compose("--cfg", "job", "task=train").config["train"]
    assert TrainSettings(**train) == TrainSettings()


def test_every_declared_option_is_a_key_that_exists():
    known = set()
    for file in [CONF / "config.yaml", *FILES]:
        is_global = "# @package _global_" in file.read_text() or file.parent == CONF
        prefix = "" if is_global else f"{file.parent.name}."
        known |= {prefix + key.path for key in reference.read_comments(file)[1]}
    assert set(hints(experiment.Experiment)) <= known
    for section, target in experiment.SECTIONS.items():
        declared = {f"{section}.{name}" for name in hints(making.resolve({"_target_": target}))}
        # What a selection or a training is told of its victim is no option of its own.
        assert declared - {"selection.classes"} <= known


@pytest.mark.parametrize("file", [CONF / "config.yaml", *FILES], ids=lambda f: f.stem)
def test_every_key_has_an_annotation_of_whoever_takes_it(compose, file):
    """The range of an option stands beside the option, not in a table."""
    group = file.parent.name
    argv = [] if file.parent == CONF else [f"{group}={file.stem}"]
    cfg = compose("--cfg", "job", *argv).config
    sections = set(cfg) if file.parent == CONF else {group} & set(cfg)
    known = experiment.accepted(cfg)
    told = {"name", "_target_", "victim"}
    missing = [
        path for path, _ in making.leaves({k: cfg[k] for k in sections})
        if path not in known and path.rpartition(".")[2] not in told
    ]  # fmt: skip
    assert missing == []


@pytest.mark.parametrize("file", FILES, ids=lambda f: f"{f.parent.name}={f.stem}")
def test_every_path_is_kept_as_it_is_written(compose, file):
    """Hydra's grammar would read 1e3 or true as something else."""
    cfg = compose("--cfg", "job", f"{file.parent.name}={file.stem}").config
    known = experiment.accepted(cfg)
    paths = {path for path, hint in known.items() if (form := form_of(hint)) and form.names}
    assert {"paths.root", "sweep"} <= paths <= set(names.TEXTS)


def test_the_seed_of_the_data_is_not_the_seed_of_the_attack(compose):
    assert compose("seed=7").config["data"]["seed"] == 0
    assert compose("--cfg", "job", "task=train", "seed=7").config["train"]["seed"] == 7


# --- paths ----------------------------------------------------------------------------------------


def test_relative_paths_start_at_the_working_directory_and_outputs_at_the_root(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "records").mkdir()
    cfg = config.compose_checked(
        ["data=wfdb", "data.root=records", "paths.root=here/below", "paths.data=../cache"]
    ).config
    assert cfg["data"]["root"] == str(tmp_path / "records")
    assert cfg["paths"]["root"] == str(tmp_path / "here" / "below")
    assert cfg["paths"]["outputs"] == str(tmp_path / "here" / "below" / "outputs")
    assert cfg["paths"]["data"] == str(tmp_path.parent / "cache")
    outputs = config.compose_checked(["paths.root=here", "paths.outputs=res"]).folder
    assert outputs.parent == tmp_path / "here" / "res"


def test_nothing_is_written_by_checking(compose, tmp_path):
    compose("-m", "metric=l2,diff")
    assert list(tmp_path.iterdir()) == []


def test_lists_may_be_written_as_one_word_and_numbers_are_names(compose):
    selection = compose("selection.source=N", "selection.records=[100,00101]").config["selection"]
    assert selection["source"] == ["N"]
    assert selection["records"] == ["100", "00101"]


def test_named_records_are_not_cut_to_the_number_of_the_option(compose, tmp_path):
    assert compose("selection.records=[S1,S2]").config["selection"]["per_class"] is None
    (tmp_path / "index.csv").write_text("0,0.9,30,5\n")
    assert compose("selection.file=index.csv").config["selection"]["per_class"] is None
    both = compose("selection.records=[S1,S2]", "selection.per_class=1").config["selection"]
    assert both["per_class"] == 1
    assert compose().config["selection"]["per_class"] == 2


# --- names and signatures -------------------------------------------------------------------------


def reversed_keys(node):
    """The same mapping with every level's keys in the opposite order."""
    if isinstance(node, dict):
        return {k: reversed_keys(node[k]) for k in reversed(node)}
    return node


def test_signature_does_not_depend_on_the_order_of_keys(compose):
    cfg = compose("metric=diff").config
    assert list(reversed_keys(cfg)) != list(cfg)
    assert signature(reversed_keys(cfg)) == signature(cfg)


@pytest.mark.parametrize(
    "argv",
    [
        ["tracking=none"],
        ["tracking.experiment=other"],
        ["resume=false"],
        ["paths.outputs=elsewhere"],
        ["paths.data=cache"],
        ["hydra.verbose=true"],
        ["batch_size=auto"],
    ],
    ids=" ".join,
)
def test_signature_leaves_out_what_changes_no_result(compose, argv):
    assert compose(*argv).signature == compose().signature


@pytest.mark.parametrize(
    "argv",
    [
        ["seed=1"],
        ["metric=diff"],
        ["attack.steps=30"],
        ["attack=cw"],
        ["data.seed=1"],
        ["selection.per_class=3"],
        ["target=N"],
        ["deployment=local"],
        ["deployment=local", "eot=shift"],
        ["precision=float32"],
        ["backend=jax"],
        ["evaluation.shifts=10"],
    ],
    ids=" ".join,
)
def test_signature_and_folder_change_with_what_changes_results(compose, argv):
    changed, usual = compose(*argv), compose()
    assert changed.signature != usual.signature
    assert changed.folder != usual.folder


def test_signature_counts_a_victim_by_its_content(compose, tmp_path):
    def sign(name, content):
        (tmp_path / name).write_bytes(b"\x89HDF\r\n\x1a\n" + content)
        return compose("victim=keras", f"victim.path={name}").signature

    first = sign("a.h5", b"one")
    assert sign("b.h5", b"one") == first
    assert sign("a.h5", b"two") != first


def test_reports_of_different_runs_have_different_signatures(compose, tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    signatures = {compose("task=report", f"report.run={n}").signature for n in ("one", "two")}
    assert len(signatures) == 2


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ([], "attack-synthetic-compact-l2-minnorm"),
        (["metric=diff", "attack=cw"], "attack-synthetic-compact-diff-cw"),
        (["target=noise"], "attack-synthetic-compact-l2-minnorm-to-noise"),
        (["deployment=local"], "attack-synthetic-compact-l2-minnorm-local"),
        (["task=train"], "train-compact-synthetic"),
        (["task=evaluate", "evaluate.run=before"], "evaluate-synthetic-compact"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else v,
)
def test_folder_is_a_readable_name_and_ten_digits(compose, tmp_path, argv, name):
    (tmp_path / "before").mkdir()
    composed = compose(*argv)
    assert composed.name == name
    assert composed.folder == tmp_path / "outputs" / f"{name}-{composed.signature[:10]}"
    assert composed.extra == (f"hydra.run.dir='{composed.folder}'", "hydra.output_subdir=null")


def test_resume_false_counts_up(compose):
    first = compose("resume=false").folder
    assert first == compose().folder
    first.mkdir(parents=True)
    assert compose().folder == first
    assert compose("resume=false").folder.name == f"{first.name}-2"
    (first.parent / f"{first.name}-2").mkdir()
    assert compose("resume=false").folder.name == f"{first.name}-3"


def test_a_folder_of_the_users_own_wins(compose, tmp_path):
    assert compose("hydra.run.dir=mine/${metric.name}").folder == tmp_path / "mine" / "l2"
    assert compose("-m", "metric=l2,diff", "hydra.sweep.dir=all").folder == tmp_path / "all"


# --- sweeps ---------------------------------------------------------------------------------------


def exclude_keys(composed):
    """The keys that stay out of job folders."""
    line = next(e for e in composed.extra if "exclude_keys" in e)
    return {k.strip("'") for k in line.partition("=")[2].strip("[]").split(",") if k}


def test_sweep_folder_is_named_by_what_its_jobs_share_and_differ_in(compose, tmp_path):
    composed = compose("-m", "metric=l2,diff", "attack.steps=10")
    assert composed.folder.parent == tmp_path / "multirun_outputs"
    assert composed.folder.name.startswith("attack-synthetic-compact-minnorm-by-metric-")
    assert composed.folder == compose("-m", "metric=l2,diff", "attack.steps=10").folder
    assert composed.folder == compose("-m", "attack.steps=10", "metric=choice(l2,diff)").folder
    assert composed.folder != compose("-m", "metric=diff,l2", "attack.steps=10").folder
    assert composed.folder != compose("-m", "metric=l2,diff", "attack.steps=11").folder
    assert exclude_keys(composed) == {"attack.steps", "paths.root"}
    assert "hydra.sweep.subdir='${hydra.job.num}_${hydra.job.override_dirname}'" in composed.extra


def test_sweep_over_paths_makes_no_nested_folders(compose, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    composed = compose("-m", "data=wfdb", f"data.root={tmp_path}/a,{tmp_path}/b", "seed=1,2")
    assert "data.root" in exclude_keys(composed)
    assert "seed" not in exclude_keys(composed)
    assert len(composed.jobs) == 4


def test_every_job_of_a_sweep_is_checked(compose):
    with pytest.raises(ConfigError, match=r"attack\.steps=0"):
        compose("-m", "attack.steps=10,20,0")
    with pytest.raises(ConfigError, match="attack=minnorm has no such key"):
        compose("-m", "attack=cw,minnorm", "attack.kappa=1")


def test_jobs_carry_their_own_values(compose):
    jobs = compose("-m", "metric=l2,diff", "seed=range(0,2)").jobs
    found = [(j.config["metric"]["name"], j.config["seed"]) for j in jobs]
    assert found == [("l2", 0), ("l2", 1), ("diff", 0), ("diff", 1)]
    assert len({j.signature for j in jobs}) == 4


def test_joblib_launcher_composes(compose):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    composed = compose("-m", "metric=l2,diff", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert composed.folder == compose("-m", "metric=l2,diff").folder


# --- options of the user's own --------------------------------------------------------------------


@pytest.fixture
def own_options(tmp_path):
    """A folder with an attack and a preset of the user's."""
    folder = tmp_path / "mine"
    (folder / "attack").mkdir(parents=True)
    (folder / "preset").mkdir()
    (folder / "attack" / "own.yaml").write_text(
        "name: own\n_target_: json.JSONDecoder\nsteps: 3\nstrict: true\n"
    )
    (folder / "preset" / "fast.yaml").write_text("# @package _global_\nattack:\n  steps: 5\n")
    return folder


def test_code_of_ones_own_counts_in_the_signature(compose, tmp_path, monkeypatch):
    folder = tmp_path / "own" / "goal"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("name: mine\n_target_: my_goal_of_test_config.Mine\n")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "my_goal_of_test_config.py"

    def digest():
        return signature(compose("--config-dir", str(tmp_path / "own"), "goal=mine").config)

    file.write_text("class Mine:\n    margin = 1\n")
    first = digest()
    assert digest() == first
    file.write_text("class Mine:\n    margin = 2\n")
    assert digest() != first


def test_options_from_a_search_path(compose, own_options):
    path = f"hydra.searchpath=[file://{own_options}]"
    cfg = compose("attack=own", "attack.strict=false", path).config
    assert cfg["attack"] == {
        "name": "own",
        "_target_": "json.JSONDecoder",
        "steps": 3,
        "strict": False,
    }
    with pytest.raises(ConfigError, match="did you mean own"):
        compose("attack=owm", path)
    with pytest.raises(ConfigError, match=r"attack\.strikt: attack=own has no such key"):
        compose("attack=own", "attack.strikt=1", path)
    with pytest.raises(ConfigError, match=r"attack\.strict=3: must be true or false"):
        compose("attack=own", "attack.strict=3", path)


def test_options_from_a_config_dir(compose, own_options):
    assert compose("--config-dir", str(own_options), "attack=own").config["attack"]["steps"] == 3


def test_a_group_of_the_users_own_is_added(compose, own_options):
    path = f"hydra.searchpath=[file://{own_options}]"
    assert compose("+preset=fast", path).config["attack"]["steps"] == 5
    with pytest.raises(ConfigError, match="additional group"):
        compose("preset=fast", path)


def test_a_misspelt_key_in_an_experiment_is_refused(compose, tmp_path):
    (tmp_path / "x" / "experiment").mkdir(parents=True)
    (tmp_path / "x" / "experiment" / "mine.yaml").write_text(
        "# @package _global_\nattack:\n  stepz: 5\n"
    )
    with pytest.raises(ConfigError, match=r"experiment=mine: attack\.stepz.*attack\.steps"):
        compose("experiment=mine", f"hydra.searchpath=[file://{tmp_path}/x]")


# --- objects --------------------------------------------------------------------------------------


def test_instantiate_passes_keys_and_extras_but_not_the_name():
    node = {"name": "x", "_target_": "fractions.Fraction", "numerator": 3}
    assert making.instantiate(node, denominator=4) == 0.75
    assert making.instantiate(node | {"denominator": 9}, denominator=4) == 0.75


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"_target_": "nosuchmodule.Thing"}, "cannot import nosuchmodule"),
        ({"_target_": "fractions.Fractoin"}, "has no Fractoin; did you mean Fraction"),
        ({"_target_": "math.pi"}, "must be a class or a function"),
        ({"_target_": "Thing"}, "dotted name"),
        ({"_target_": None}, "dotted name"),
        ({"_target_": "os.path; rm"}, "dotted name"),
        ({"_target_": "textwrap.shorten", "text": "a", "widht": 3}, "did you mean width"),
        ({"_target_": "ecgadv.victims.training.Trained"}, "needs model, card, history"),
    ],
)
def test_instantiate_says_what_is_wrong_in_one_line(node, message):
    if "widht" in node:
        # textwrap.shorten takes any keyword, so a closed signature stands in for it.
        node = {"_target_": "ecgadv.spelling.suggestion", "word": "a", "knwon": []}
        message = "takes no knwon; did you mean known"
    with pytest.raises(ConfigError, match=message) as caught:
        making.instantiate(node)
    assert "\n" not in str(caught.value)


def test_an_import_that_fails_is_a_configuration_error(tmp_path, monkeypatch):
    (tmp_path / "broken_attack.py").write_text("import nosuchdependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="nosuchdependency"):
        making.instantiate({"_target_": "broken_attack.Attack"})


# --- reference and weight -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "file", [CONF / "config.yaml", *FILES], ids=lambda f: f"{f.parent.name}/{f.stem}"
)
def test_every_file_and_every_key_is_described(file):
    head, keys = reference.read_comments(file)
    assert head
    named = {"name", "_target_", file.parent.name}
    assert [k.path for k in keys if not k.comment and k.value and k.path not in named] == []


def test_the_reference_names_every_option_and_is_up_to_date():
    text = reference.reference(CONF)
    for file in FILES:
        assert f"### `{file.parent.name}={file.stem}`" in text
    assert "| `attack.steps` | `100` |" in text
    assert (REPO / "docs" / "configuration.md").read_text(encoding="utf-8") == text


def test_checking_imports_nothing_heavy(tmp_path):
    code = (
        "import sys, json; from ecgadv.config import compose_checked;"
        "compose_checked(['-m', 'metric=l2,diff', 'attack=cw,minnorm', 'selection.source=[A]']);"
        "print(json.dumps(sorted(m.partition('.')[0] for m in sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=_environment(),
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    loaded = set(json.loads(run.stdout))
    heavy = {
        "tensorflow",
        "keras",
        "mlflow",
        "scipy",
        "matplotlib",
        "wfdb",
        "pandas",
        "torch",
        "jax",
    }
    assert loaded & heavy == set()


def _environment():
    return os.environ | {"PYTHONPATH": str(REPO)}


def test_normalise_leaves_its_argument_alone(compose):
    cfg = compose("--cfg", "job").config
    cfg["paths"]["root"], before = "relative", copy.deepcopy(cfg)
    before["paths"]["root"] = "relative"
    config.normalise(cfg)
    assert cfg == before
