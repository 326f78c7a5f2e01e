"""Names of records, classes and labels stay as they are written, whatever parsers make of them."""

import re

import numpy as np
import pytest

from ecgadv import config
from ecgadv.errors import ConfigError, DataError, EcgadvError, RecordError
from ecgadv.records.labels import check_label

CONF = config.conf_dir()
NUMBERS = ["10_1", "1e3", "0x10", "true", "1.50", "007", "null", "7_", "nan", "100"]


@pytest.fixture
def compose(tmp_path, monkeypatch):
    """Compose a command line whose outputs lie in a scratch folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *argv: config.compose_checked([*argv, f"paths.root={tmp_path}"])


@pytest.mark.parametrize("given", ["[{}]", "[ {} ]"])
def test_names_that_look_like_numbers_stay_as_they_are_written(compose, given):
    composed = compose("selection.records=" + given.format(",".join([*NUMBERS, "'a,b'", '"1e5"'])))
    assert composed.config["selection"]["records"] == [*NUMBERS, "a,b", "1e5"]
    again = compose(*composed.overrides).config["selection"]
    assert again["records"] == [*NUMBERS, "a,b", "1e5"], "Hydra reads the same overrides again"
    assert compose("selection.records=1e3").config["selection"]["records"] == ["1e3"]
    assert compose("selection.records=null").config["selection"]["records"] is None


def test_names_in_sweeps_stay_as_they_are_written(compose):
    for line in ("[10_1],[1e3,true],[A]", "choice([10_1],[1e3,true],[A])"):
        jobs = compose("-m", f"selection.records={line}").jobs
        found = [job.config["selection"]["records"] for job in jobs]
        assert found == [["10_1"], ["1e3", "true"], ["A"]]


def own_folder(tmp_path, group, text):
    folder = tmp_path / "own" / group
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.yaml").write_text(text)
    return f"--config-dir={tmp_path / 'own'}"


def test_names_in_yaml_files_stay_as_they_are_written(compose, tmp_path):
    names = ["10_1", "1e3", "0x10", "true", "1.50", "007", "yes", "100"]
    own = own_folder(
        tmp_path,
        "selection",
        (CONF / "selection/all.yaml")
        .read_text()
        .replace("records: null", f"records: [{', '.join(names)}]"),
    )
    composed = compose(own, "selection=mine")
    assert composed.config["selection"]["records"] == names
    with pytest.raises(ConfigError, match=r"selection\.records: .* put it in quotes"):
        compose(own, "-m", "selection=mine,all")
    own = own_folder(
        tmp_path, "experiment", "# @package _global_\nselection:\n  records: [10_1, x]\n"
    )
    assert compose(own, "experiment=mine").config["selection"]["records"] == ["10_1", "x"]


def test_classes_and_targets_that_look_like_numbers_are_names(compose):
    own = ["victim=keras", "victim.path=json:loads"]
    config = compose(*own, "victim.classes=[0,1]", "target=1").config
    assert (config["victim"]["classes"], config["target"]) == (["0", "1"], "1")
    config = compose(*own, "victim.classes=[1e3,true]", "target=1e3").config
    assert (config["victim"]["classes"], config["target"]) == (["1e3", "true"], "1e3")


def test_paths_and_texts_that_look_like_numbers(compose, tmp_path):
    (tmp_path / "1e3").mkdir()
    own = ["tracking.experiment=2024", "paths.outputs=10_1", "data=wfdb", "data.root=1e3"]
    found = compose(*own, "data.labels=1.50").config
    assert found["tracking"]["experiment"] == "2024"
    assert found["paths"]["outputs"] == str(tmp_path / "10_1")
    assert found["data"]["root"] == str(tmp_path / "1e3")
    assert found["data"]["labels"] == "1.50"
    assert compose("data.root=null").config["data"]["root"] is None


@pytest.fixture
def mapped(compose, tmp_path):
    np.savez(tmp_path / "x.npz", signals=np.zeros((1, 10)))
    return lambda *argv: compose("data=arrays", f"data.root={tmp_path}/x.npz", *argv)


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("{1: N, AFIB: A}", {"1": "N", "AFIB": "A"}),
        ("{'1': N, \"a b\": A}", {"1": "N", "a b": "A"}),
        ("{1.0: N, noise: A}", {"1": "N", "noise": "A"}),
        ("{164889003: A, true: N}", {"164889003": "A", "true": "N"}),
        ("{'a:b': noise}", {"a:b": "noise"}),
    ],
)
def test_keys_of_a_label_map_are_texts(mapped, given, right):
    composed = mapped(f"data.label_map={given}")
    assert composed.config["data"]["label_map"] == right
    again = mapped(*composed.overrides)
    assert again.config["data"]["label_map"] == right


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{1e3: N}", "1e3 would be read as another number"),
        ("{10_1: N}", "10_1 would be read as another number"),
        ("{1: N, 1.0: A}", "label 1 stands there twice"),
        ("{null: N}", "null is no label; write noise"),
        ("{Größe: N}", "a command line cannot hold the label Größe; write the map into a yaml"),
        ("{AF: Q}", r"data\.label_map\.AF=Q: map to A, N, O or noise"),
    ],
)
def test_a_label_that_cannot_be_kept_is_refused(mapped, given, words):
    with pytest.raises(EcgadvError, match=words):
        mapped(f"data.label_map={given}")


@pytest.mark.parametrize(
    "label",
    ["AF", "None", "yes", "0x10", "-1", "1.5", "true", "1.0", "R-on-T", "NSR ", "426783006"],
)
def test_a_map_that_a_message_proposes_can_be_given(mapped, label):
    with pytest.raises(RecordError) as refused:
        check_label(label)
    proposed = re.search(r'"(data\.label_map=.*)" would map it', str(refused.value))
    assert proposed is not None, refused.value
    assert check_label(label, mapped(proposed[1]).config["data"]["label_map"]) == "A"


@pytest.mark.parametrize(
    "label", ["null", "nan", "1e3", "010", "1_000", ".5", "1.50", "Größe", "a:b"]
)
def test_no_map_is_proposed_that_a_command_line_cannot_hold(label):
    with pytest.raises(RecordError, match=r"map it with data\.label_map in a yaml file of yours"):
        check_label(label)


def test_names_with_letters_beyond_ascii_are_kept(mapped):
    given = mapped("selection.records=[ä, Größe 1]").config["selection"]["records"]
    assert given == ["ä", "Größe 1"]


def test_an_unknown_unit_is_refused_before_any_file_is_read(mapped):
    with pytest.raises(DataError, match=r"data\.units=adu: must be V, mV, uV or nV, or none"):
        mapped("data.units=adu")
    assert mapped("data.units=none").config["data"]["units"] == "none"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("{yes: A, no: N}", r"data\.label_map: YAML reads yes as True.*put it in quotes"),
        ("{10_1: A}", r"data\.label_map: YAML reads 10_1 as 101"),
        ("{~: noise}", "put the key in quotes, and write noise for the class ~"),
    ],
)
def test_a_label_that_yaml_reads_otherwise_is_refused(compose, tmp_path, given, words):
    np.savez(tmp_path / "x.npz", signals=np.zeros((1, 10)))
    own = own_folder(tmp_path, "data", f"defaults: [arrays]\nlabel_map: {given}\n")
    with pytest.raises(ConfigError, match=words):
        compose(own, "data=mine", f"data.root={tmp_path}/x.npz")


@pytest.mark.parametrize(
    ("given", "seconds"), [("60", 60), ("60s", 60), ("'60 s'", 60), ("0.5", 0.5), ("1.5s", 1.5)]
)
def test_a_start_is_seconds(mapped, given, seconds):
    assert mapped(f"data.start={given}").config["data"]["start"] == seconds


@pytest.mark.parametrize("value", ["-1", "later", "inf", "null", "[1]"])
def test_a_start_that_is_none_is_refused(mapped, value):
    with pytest.raises(ConfigError, match=r"data\.start=.*: must be seconds, at least 0"):
        mapped(f"data.start={value}")


@pytest.mark.parametrize(
    ("line", "path", "value"),
    [
        ("data.units=µV", "data.units", "µV"),
        ("data.units=μV", "data.units", "μV"),
        ("data.root=/tmp/a=b", "data.root", "/tmp/a=b"),
        ("data.root=/tmp/it's (1) & more; #2", "data.root", "/tmp/it's (1) & more; #2"),
        ("data.root=/tmp/a~b", "data.root", "/tmp/a~b"),
    ],
)
def test_texts_that_the_grammar_has_other_uses_for(mapped, line, path, value, tmp_path):
    given = value.replace("/tmp", str(tmp_path))
    if path == "data.root":
        np.savez(f"{given}.npz", signals=np.ones((1, 8)), labels=["N"], fs=300)
        line, given = line.replace("/tmp", str(tmp_path)) + ".npz", f"{given}.npz"
    section, key = path.split(".")
    assert mapped("data=arrays", line).config[section][key] == given
