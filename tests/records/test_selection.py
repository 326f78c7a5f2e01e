from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgadv.errors import ConfigError, DataError
from ecgadv.records import RecordSet, Selection, index_files, select
from ecgadv.records.selection import PAPER

LETTERS = "ANO~ANO~ANO~"
RELEASED = "0.0e+00,4.86e-01,3.0e+01,4.0e+00\n0.0e+00,8.35e-01,6.0e+01,5.0e+00\n"


@pytest.fixture
def records() -> RecordSet:
    rng = np.random.default_rng(0)
    rows = [(f"A{i + 1:05d}", c, rng.normal(size=300)) for i, c in enumerate(LETTERS)]
    rows[4] = ("A00005", "A", np.zeros(300))  # a flat line
    return RecordSet.pack("test", rows, skipped={"A00099": "its .mat file is missing"})


def names(records: RecordSet, selection: Selection, **known: Any) -> str:
    positions = select(records, known.pop("correct", None), selection, **known)
    assert positions.dtype == np.int64
    assert np.all(np.diff(positions) > 0), "record order"
    return " ".join(records.ids[i].lstrip("A0") for i in positions)


def test_everything_usable_by_default(records: RecordSet) -> None:
    assert names(records, Selection()) == "1 2 3 4 6 7 8 9 10 11 12"


def test_the_first_of_each_class_that_are_correct_and_usable(records: RecordSet) -> None:
    assert names(records, Selection(per_class=1)) == "1 2 3 4"
    correct = np.ones(12, dtype=bool)
    correct[[0, 1]] = False
    # Record 1 is wrong and 5 is flat, so 9 is the first A; 6 replaces 2.
    assert names(records, Selection(per_class=1), correct=correct) == "3 4 6 9"
    assert names(records, Selection(per_class={"N": 2, "noise": 1})) == "2 4 6"
    assert names(records, Selection(per_class={"N": 2, "A": 0})) == "2 6"


def test_sources_records_and_split_narrow_it_further(records: RecordSet) -> None:
    assert names(records, Selection(source=["A", "noise"])) == "1 4 8 9 12"
    assert names(records, Selection(records=["A00007", "A00002"])) == "2 7"
    split = np.array(["train", "heldout"] * 6)
    assert names(records, Selection(split="heldout"), split=split) == "2 4 6 8 10 12"
    chosen = Selection(split="train", source=["O"], per_class=1)
    assert names(records, chosen, split=split) == "3"


def test_an_index_file_names_the_records(records: RecordSet, tmp_path: Path) -> None:
    file = tmp_path / "data_select_N.csv"
    file.write_text("".join(f"1.0,0.9,30.0,{n}.0\n" for n in (2, 6, 10)))
    assert names(records, Selection(file=str(file))) == "2 6 10"
    # The default number of a class is for records that nobody named.
    assert names(records, Selection(per_class=1, file=str(file))) == "2 6 10"
    assert names(records, Selection(per_class=1, records=["A00002", "A00006"])) == "2 6"
    assert names(records, Selection(file=str(file), start=1)) == "6 10"
    assert names(records, Selection(file=str(file), start=1, stop=2)) == "6"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": ["X"]}, r"selection\.source=\[X\]: unknown class 'X', choose from A, N, O, no"),
        ({"source": ["A", "noisy"]}, r"selection\.source=\[A,noisy\]: unknown class 'noisy'"),
        ({"source": []}, r"selection\.source=\[\]"),
        ({"per_class": 0}, r"selection\.per_class=0: must be a whole number, at least 1"),
        ({"per_class": 1.5}, r"selection\.per_class=1\.5"),
        ({"per_class": True}, r"selection\.per_class=True"),
        ({"per_class": {"Q": 1}}, r"selection\.per_class=.*unknown class 'Q'"),
        ({"per_class": {"A": -1}}, r"selection\.per_class\.A=-1: .* at least 0"),
        ({"records": "A00001"}, r"selection\.records=A00001: write a list"),
        ({"records": []}, r"selection\.records=\[\]"),
        ({"split": "test"}, r"selection\.split=test: one of all, heldout, train"),
        ({"file": "x.csv", "records": ["A1"]}, r"selection\.file and selection\.records exclude"),
        ({"start": 1}, r"selection\.start=1 counts rows of selection\.file"),
        ({"file": "x.csv", "start": -1}, r"selection\.start=-1: a row number"),
        ({"file": "x.csv", "start": 5, "stop": 5}, r"selection\.stop=5: must be above .*start=5"),
    ],
)
def test_a_contradiction_names_its_option(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        Selection(**fields)
    assert "\n" not in str(caught.value)


def test_a_configuration_node_is_taken_as_it_is() -> None:
    node = {"name": "quick", "per_class": 2, "source": None, "split": "all"}
    assert Selection.from_config(node) == Selection(per_class=2)
    with pytest.raises(ConfigError, match=r"selection\.per_clas: no such option; known: per_class"):
        Selection.from_config({"per_clas": 2})


def test_unknown_records_are_named_with_the_nearest(records: RecordSet) -> None:
    with pytest.raises(ConfigError, match=r"test has no record a00001, did you mean A00001\?"):
        select(records, None, Selection(records=["a00001"]))
    with pytest.raises(ConfigError, match=r"A00099 of test was skipped: its \.mat file"):
        select(records, None, Selection(records=["A00099"]))


def test_nothing_left_says_where_it_went(records: RecordSet) -> None:
    correct = np.zeros(12, dtype=bool)
    with pytest.raises(ConfigError) as caught:
        select(records, correct, Selection(source=["noise"]))
    assert str(caught.value) == (
        "selection: no record is left of 12: 3 of class [noise], then 0 classified correctly by "
        "the victim, then 0 usable and within selection.per_class"
    )
    with pytest.raises(ConfigError, match="no record is left"):
        select(records, None, Selection(records=["A00005"]))
    with pytest.raises(ConfigError, match=r"selection\.split=heldout: the victim's card does not"):
        select(records, None, Selection(split="heldout"))


def test_the_paper_takes_the_first_360_and_220(real: RecordSet) -> None:
    correct = np.random.default_rng(0).random(len(real)) < 0.9
    positions = select(real, correct, Selection(per_class=PAPER))
    labels = real.labels[positions]
    assert {c: int((labels == c).sum()) for c in "ANO~"} == {"A": 360, "N": 360, "O": 360, "~": 220}
    for letter, count in PAPER.items():
        first = np.flatnonzero((real.labels == letter) & correct)[:count]
        np.testing.assert_array_equal(positions[labels == letter], first)


def test_an_index_file_in_the_released_layout(tmp_path: Path) -> None:
    file = tmp_path / "data_select_A.csv"
    file.write_text(RELEASED)
    first, second = index_files.read(file)
    assert (first.record, first.label, first.seconds) == ("A00004", "A", 30.0)
    assert first.confidence == pytest.approx(0.486)
    assert (second.record, second.seconds) == ("A00005", 60.0)


def test_start_and_stop_count_as_the_released_scripts_do(tmp_path: Path) -> None:
    file = tmp_path / "data_select_A.csv"
    file.write_text("".join(f"0.0,0.9,30.0,{n}.0\n" for n in range(1, 448)))
    chosen = index_files.read(file, 1, 360)
    assert len(chosen) == 359
    assert (chosen[0].record, chosen[-1].record) == ("A00002", "A00360")
    assert len(index_files.read(file)) == 447
    assert len(index_files.read(file, stop=1000)) == 447


@pytest.mark.parametrize(
    "row", ["0,0.9,30", "4,0.9,30,7", "0.5,0.9,30,7", "0,0.9,30,1.5", "0,0.9,30,0", "a,b,c,d"]
)
def test_a_row_that_is_none_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    file = tmp_path / "index.csv"
    file.write_text(RELEASED + row + "\n")
    with pytest.raises(DataError, match=r"selection\.file=.*index\.csv line 3: expected"):
        index_files.read(file)


def test_index_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"selection\.file=.*no\.csv cannot be read"):
        index_files.read(tmp_path / "no.csv")
    file = tmp_path / "index.csv"
    file.write_text(RELEASED)
    with pytest.raises(DataError, match=r"has 2 rows, none from selection\.start=2"):
        index_files.read(file, 2)
    file.write_text(RELEASED + RELEASED)
    with pytest.raises(DataError, match="line 3: A00004 is on line 1 already"):
        index_files.read(file)
    file.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="not a text file"):
        index_files.read(file)
