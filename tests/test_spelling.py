"""Texts that spell numbers, true, false or null: the same runs as the plain values."""

from pathlib import Path

import pytest
import yaml

from ecgadv import config, making, options, spelling
from ecgadv.config import experiment
from ecgadv.errors import ConfigError

CONF = Path(__file__).resolve().parents[1] / "conf"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, value in {"STEPS": "50", "RATE": ".5", "YES": "True", "NONE": "null"}.items():
        monkeypatch.setenv(name, value)


SAME = [
    ("attack.steps=50", ["attack.steps='50'", "attack.steps=${oc.env:STEPS}", "attack.steps=50.0",
                         "attack.steps='50.0'", "attack.steps=' 50 '", "attack.steps=+50"]),
    ("attack.first_step=0.5", ["attack.first_step='0.5'", "attack.first_step=${oc.env:RATE}",
                               "attack.first_step='5e-1'"]),
    ("attack.perturb_padding=true", ["attack.perturb_padding='true'",
                                     "attack.perturb_padding=${oc.env:YES}"]),
    ("attack.peak=null", ["attack.peak='null'", "attack.peak=${oc.env:NONE}"]),
    ("attack.peak=1", ["attack.peak='1'"]),
    ("attack.band=[1,40]", ["attack.band=['1','40']", "attack.band=['1',40]"]),
    ("attack.mask=[[1,2],[3,4]]", ["attack.mask=[['1','2'],[3,'4']]"]),
    ("batch_size=8", ["batch_size='8'", "batch_size=8.0"]),
    ("batch_size=auto", ["batch_size='auto'"]),
    ("seed=3", ["seed='3'"]),
    ("threat_model=type2 window=3000", ["threat_model=type2 window='3000'"]),
    ("threat_model=type2 evaluation.mains=[60]", ["threat_model=type2 evaluation.mains=['60']"]),
    ("selection.per_class=3", ["selection.per_class='3'", "selection.per_class=3.0"]),
    ("selection.per_class={A:3}", ["selection.per_class={A:'3'}"]),
    ("selection.per_class=null", ["selection.per_class='null'"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("plain", "spelled"), [(p, s) for p, texts in SAME for s in texts], ids=lambda v: str(v)
)
def test_a_text_that_spells_a_value_is_the_same_run(plain, spelled):
    one = config.compose_checked(_split(plain))
    other = config.compose_checked(_split(spelled))
    assert other.signature == one.signature
    assert other.config == one.config
    assert other.folder == one.folder


def _split(line):
    head, _, last = line.rpartition(" ") if line.startswith("threat") else ("", "", line)
    return [part for part in (head, last) if part]


@pytest.mark.parametrize(
    "override",
    [
        "attack.steps=abc", "attack.steps=10.5", "attack.steps='10.5'", "attack.steps=nan",
        "attack.steps=inf", "attack.steps='0x10'", "attack.steps=''", "attack.steps='1 0'",
        "attack.steps='true'", "attack.steps='10,20'", "attack.steps='null'", "attack.peak='nan'",
        "attack.peak='inf'", "attack.peak=-inf", "seed='-1'", "seed=1e30", "seed='٣'",
        "attack.perturb_padding='1'", "attack.perturb_padding='yes'", "resume='maybe'",
        "attack.band='[1,40]'", "attack.band=['a','b']", "selection.per_class='x'",
        "selection.per_class='0'", "selection.per_class={A:'x'}", "batch_size='many'",
    ],
)  # fmt: skip
def test_a_text_that_spells_none_is_refused_by_name(override):
    key = override.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"^{key}(\.A)?=.*must be ") as caught:
        config.compose_checked([override])
    assert "\n" not in str(caught.value)


def test_what_is_a_text_stays_one():
    cfg = config.compose_checked(["tracking.experiment='10'"]).config
    assert cfg["tracking"]["experiment"] == "10"
    cfg = config.compose_checked(["selection.records=['0100']", "target='N'"]).config
    assert cfg["selection"]["records"] == ["0100"]


def test_every_number_and_truth_value_of_the_configuration_is_read():
    """A key without an annotation would keep the text."""
    missing = []
    for file in [CONF / "config.yaml", *sorted(CONF.glob("*/*.yaml"))]:
        if file.parent.name == "experiment":
            continue
        text = file.read_text(encoding="utf-8")
        node = yaml.safe_load(text) or {}
        for key in ("defaults", "hydra"):
            node.pop(key, None)
        is_global = "@package _global_" in text or file.parent == CONF
        cfg = node if is_global else {file.parent.name: node}
        known = experiment.accepted(cfg)
        for path, value in making.leaves(cfg):
            # A lead may have a number for a name.
            if not isinstance(value, int | float) or path == "data.lead":
                continue
            if path not in known or options.read(known[path], str(value)) != value:
                missing.append(path)
    assert missing == []


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("-7", -7), ("7.", 7.0), (".5", 0.5), ("1e3", 1000.0), ("1_000", "1_000"),
     ("nan", "nan"), ("1e", "1e"), ("--1", "--1"), (True, True), (None, None), (2.5, 2.5)],
)  # fmt: skip
def test_numbers(text, value):
    found = spelling.number(text)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("given", "value"), [(10.0, 10), (10.5, 10.5), ("1e3", 1000), (1e300, 1e300), (True, True)]
)
def test_whole_numbers(given, value):
    found = spelling.whole(given)
    assert (found, type(found)) == (value, type(value))
