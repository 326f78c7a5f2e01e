"""Options that check themselves: from an annotation to what is read, refused and said."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import Field

from ecgadv import config, options
from ecgadv.attacks.minnorm import MinNorm
from ecgadv.attacks.pgd import PGD
from ecgadv.errors import ConfigError, DataError
from ecgadv.options import Band, Frequencies, Name, Place, Seed, Spans

HINTS = [
    (Annotated[int, Ge(1)], "a whole number, at least 1", [1, 7], [0, 1.5, True, "1", None, [1]]),
    (int, "a whole number", [-3], [0.5, "x"]),
    (Seed, "a whole number, from 0 to 4294967295", [0, 2**32 - 1], [-1, 2**32]),
    (Annotated[float, Gt(0)], "a number above 0", [1, 0.1], [0, -1, float("inf"), float("nan")]),
    (Annotated[float, Ge(0), Lt(1)], "a number of at least 0 and below 1", [0, 0.9], [1, True]),
    (Annotated[float, Gt(0), Le(2)], "a number above 0 and at most 2", [2], [2.1, 0]),
    (Annotated[float, Ge(1), Le(30)], "a number from 1 to 30", [1, 30], [0.5, 31]),
    (float, "a number", [1, -1.5], ["1", None]),
    (bool, "true or false", [True, False], [0, 1, "true"]),
    (Literal["a", "b"], "one of a, b", ["a"], ["c", 1, None]),
    (Annotated[int, Ge(1)] | Literal["auto"], "a whole number, at least 1, or auto", [1, "auto"],
     [0, "Auto"]),
    (Annotated[float, Gt(0)] | None, "a number above 0, or null", [None, 1], [0, "null"]),
    (Name, "a word or a text", ["x"], ["", 1]),
    (Place | None, "a path, or null", ["a/b", None], [" ", 1]),
    (Band, "two numbers, [low,high] with low below high", [[0, 1], (0.5, 40)],
     [[1, 0], [1], [1, 1], "12", [True, 2], [-1, 2]]),
    (Spans, "spans in seconds, [from,to] or [[from,to],[from,to]]", [[1, 2], [[1, 2], [3, 4]]],
     [[], [3, 2], [[1, 2, 3]], "12"]),
    (Frequencies, "a list of frequencies in Hz such as [50,60]", [[50], []], [50, ["50"]]),
]  # fmt: skip


@pytest.mark.parametrize(("hint", "wanted", "fine", "wrong"), HINTS, ids=lambda v: None)
def test_an_annotation_says_what_it_wants_and_takes_nothing_else(hint, wanted, fine, wrong):
    assert options.wanted(hint) == wanted
    for value in fine:
        options.check("a.b", hint, value)
    for value in wrong:
        with pytest.raises(ConfigError) as caught:
            options.check("a.b", hint, value)
        assert str(caught.value).startswith("a.b=")
        assert str(caught.value).endswith(f": must be {wanted}")


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (int, "50.0", 50), (int, "1e3", 1000), (int, "x", "x"), (float, "5e-1", 0.5),
        (bool, "True", True), (bool, "1", "1"), (float | None, "null", None), (int, "null", "null"),
        (Name, "50", "50"), (Name | None, "null", "null"), (Literal["a"], "1", "1"),
        (Band, ["1", "40"], [1, 40]), (Annotated[int, Ge(1)] | Literal["auto"], "8", 8),
    ],
)  # fmt: skip
def test_a_text_is_read_as_the_annotation_means_it(hint, text, value):
    found = options.read(hint, text)
    assert (found, type(found)) == (value, type(value))


@dataclass(frozen=True)
class Own:
    """Somebody's own class."""

    count: Annotated[int, Ge(1)] = 1
    shares: Mapping[str, float] | None = None
    label: str = ""
    anything: Any = None
    unknown: "Nowhere" = None  # noqa: F821


def test_what_somebody_declares_is_what_is_checked():
    assert set(options.hints(Own)) == {"count", "shares", "label"}
    options.check_all(Own, {"count": 2, "shares": {"a": 0.5}, "unknown": 3, "more": 1}, "attack")
    with pytest.raises(ConfigError, match=r"^attack\.count=0: must be a whole number, at least 1$"):
        options.check_all(Own, {"count": 0}, "attack")
    with pytest.raises(ConfigError, match=r"^attack\.shares=\{a:x\}: must be ") as caught:
        options.check_all(Own, {"shares": {"a": "x"}}, "attack")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        options.check_all(Own, {"count": 0}, "data", DataError)


def test_pydantic_types_of_somebodys_own_are_checked_too():
    pydantic = pytest.importorskip("pydantic")

    def load(
        share: Annotated[float, pydantic.Field(gt=0, le=1)] = 1, step: pydantic.PositiveInt = 1
    ):
        return share, step

    options.check_all(load, {"share": 0.5, "step": 2}, "data")
    for wrong in ({"share": 1.5}, {"share": 0}, {"step": 0}, {"step": "2"}):
        (name,) = wrong
        with pytest.raises(ConfigError, match=rf"^data\.{name}=.*: must be a "):
            options.check_all(load, wrong, "data")


@pytest.mark.parametrize(
    ("kind", "argv", "name", "value"),
    [
        (MinNorm, [], "first_step", 3.0), (MinNorm, [], "steps", 1), (MinNorm, [], "starts", 9),
        (MinNorm, [], "peak", 0), (PGD, ["attack=pgd"], "budget", 0),
        (PGD, ["attack=pgd"], "step_size", -0.5),
    ],
)  # fmt: skip
def test_a_command_line_and_python_say_the_same(kind, argv, name, value):
    with pytest.raises(ConfigError) as python:
        kind(**{name: value})
    with pytest.raises(ConfigError) as line:
        config.compose_checked([*argv, f"attack.{name}={value}"])
    assert str(python.value) == str(line.value)


def test_numbers_of_numpy_are_numbers():
    made = MinNorm(steps=np.int64(30), first_step=np.float32(0.5), band=np.array([1, 40]))
    assert (type(made.steps), made.first_step, list(made.band)) == (int, 0.5, [1, 40])
    assert MinNorm(steps=30.0).steps == 30


def test_a_class_of_ones_own_is_one_line_before_anything_is_attacked(tmp_path, monkeypatch, capsys):
    from ecgadv import cli

    (tmp_path / "my_smooth.py").write_text(
        "from dataclasses import dataclass\n"
        "from typing import Annotated\n"
        "from annotated_types import Ge\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Smooth:\n"
        "    samples: Annotated[int, Ge(1)] = 3\n\n"
        "    def __call__(self, victim):\n"
        "        return victim\n"
    )
    place = tmp_path / "conf" / "defence"
    place.mkdir(parents=True)
    (place / "smooth.yaml").write_text("name: smooth\n_target_: my_smooth.Smooth\nsamples: 3\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("ecgadv.backend.configure", lambda name: None)
    argv = ["--config-dir", "conf", "defence=smooth", "tracking=none"]
    assert cli.main([*argv, "defence.samples=0"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "error: defence.samples=0: must be a whole number, at least 1"


@pytest.mark.parametrize(
    "argv",
    [
        ["attack.band=[0.5,200]"],
        ["threat_model=type2", "attack.band=[0.5,200]", "window=12000"],
        ["threat_model=type2", "filter.mains=[180]", "evaluation.mains=[180]"],
        ["attack.mask=[31,35]"],
    ],
    ids=" ".join,
)
def test_ranges_follow_the_victims_input(tmp_path, monkeypatch, argv):
    """Half of 500 Hz is 250, and 40 s hold 20,000 samples."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.keras").write_bytes(b"")
    monkeypatch.setattr("ecgadv.config.check._check_victim", lambda cfg: None)
    own = ["victim=keras", "victim.path=net.keras", "victim.fs=500", "victim.n=20000"]
    assert config.compose_checked([*own, *argv]).jobs
    with pytest.raises(ConfigError):
        config.compose_checked(argv)


@pytest.mark.parametrize(
    ("hint", "value", "said"),
    [
        (Annotated[int, Gt(0)], 0, "must be a whole number, at least 1"),
        (Annotated[int, Field(ge=3)], 2, "must be a whole number, at least 3"),
        (Annotated[float, Field(gt=0, lt=5)], 7.0, "must be a number above 0 and below 5"),
        (Annotated[int, MultipleOf(2)], 3, "must be a multiple of 2"),
        (float | tuple[float, float], "x", "must be a valid number"),
    ],
)
def test_every_mark_of_an_annotation_shows_in_the_message(hint, value, said):
    with pytest.raises(ConfigError, match=rf"^attack\.own={value}: {said}$"):
        options.check("attack.own", hint, value)


@pytest.mark.parametrize(
    ("hint", "value"), [(Path, "folder"), (tuple[float, ...], [1.0, 2.0]), (np.ndarray, [1, 2])]
)
def test_what_no_yaml_can_hold_is_left_to_the_class(hint, value):
    options.check("attack.own", hint, value)
