from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgadv.errors import DataError
from ecgadv.records import RecordSet, arrays

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=1200), RNG.normal(size=900)


def npz(folder: Path, **content: Any) -> Path:
    path = folder / "mine.npz"
    np.savez(path, **content)
    return path


def padded() -> np.ndarray:
    rows = np.full((2, 1200), np.nan)
    rows[0], rows[1, :900] = A, B
    return rows


def check(records: RecordSet) -> None:
    assert "".join(records.labels) == "N~"
    assert records.lengths.tolist() == [1200, 900]
    np.testing.assert_allclose(records[0].signal, A, rtol=1e-6)
    np.testing.assert_allclose(records[1].signal, B, rtol=1e-6)


def test_rows_padded_with_nan(tmp_path: Path) -> None:
    records = arrays.load(npz(tmp_path, signals=padded(), labels=["N", "noise"], fs=300))
    check(records)
    assert records.ids == ["R00001", "R00002"]


def test_rows_with_lengths_and_ids(tmp_path: Path) -> None:
    rows = np.nan_to_num(padded())
    content = {"ecg": rows, "labels": [b"N", b"~"], "lengths": [1200, 900], "ids": ["x", "y"]}
    records = arrays.load(npz(tmp_path, **content), fs=300, key="ecg")
    check(records)
    assert records.ids == ["x", "y"]


def test_an_array_for_each_record(tmp_path: Path) -> None:
    records = arrays.load(npz(tmp_path, p1=A, p2=B, labels=["N", "~"], fs=300.0))
    check(records)
    assert records.ids == ["p1", "p2"]


def test_labels_from_a_file_beside(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("id,label\np2,~\np1,N\n")
    check(arrays.load(npz(tmp_path, p1=A, p2=B, fs=300), labels="labels.csv"))


@pytest.mark.parametrize("header", ["", "id,label,s0,s1\n"])
def test_csv_with_a_record_a_row(tmp_path: Path, header: str) -> None:
    path = tmp_path / "mine.csv"
    rows = [("p1", "N", A, ""), ("p2", "noise", B, "," * 300)]
    text = "".join(f"{i},{c},{','.join(map(repr, map(float, s)))}{e}\n" for i, c, s, e in rows)
    path.write_text(header + text)
    records = arrays.load(path, fs=300)
    check(records)
    assert records.ids == ["p1", "p2"]


def test_units_and_sampling_rate_are_converted(tmp_path: Path) -> None:
    t = np.arange(2000) / 500
    wave = 700 * np.sin(2 * np.pi * 3 * t)
    records = arrays.load(npz(tmp_path, signals=wave[None], labels=["A"], fs=500), units="uV")
    assert records.lengths.tolist() == [1200]
    expected = 0.7 * np.sin(2 * np.pi * 3 * np.arange(1200) / 300)
    np.testing.assert_allclose(records[0].signal[30:-30], expected[30:-30], atol=2e-3)


def test_bad_records_are_listed(tmp_path: Path) -> None:
    rows = np.tile(A, (4, 1))
    rows[1, :700] = np.nan
    rows[2] = np.nan
    records = arrays.load(npz(tmp_path, signals=rows, labels=["N", "A", "O", "AFIB"], fs=300))
    assert records.ids == ["R00001"]
    assert records.skipped == {
        "R00002": "58% of its samples are missing (NaN)",
        "R00003": "it holds no samples",
        "R00004": "label 'AFIB' is not one of A, N, O, noise; "
        '"data.label_map={AFIB: A}" would map it',
    }


def test_a_sample_that_is_no_number_spoils_its_row_only(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("p1,N,1,2,x\np2,N,1,2,3\n")
    records = arrays.load(path, fs=300)
    assert records.ids == ["p2"]
    assert records.skipped == {"p1": "a sample of it is not a number"}


GOOD = {"signals": A[None], "labels": ["N"], "fs": 300}


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ({"signals": A[None], "labels": ["N"]}, {}, r"has no 'fs'; give .* data\.fs="),
        (GOOD, {"fs": 250}, r"data\.fs=250 contradicts .* says fs=300: drop one"),
        (GOOD, {"fs": 0}, r"data\.fs=0: sampling rate is 0 Hz"),
        (GOOD, {"fs": "fast"}, r"data\.fs=fast: sampling rate 'fast' is not one number"),
        (GOOD | {"fs": [300, 300]}, {}, r"'fs': sampling rate .* is not one number"),
        (GOOD | {"fs": -5}, {}, r"'fs': sampling rate is -5 Hz"),
        (GOOD, {"units": "adu"}, r"data\.units=adu: must be V, mV, uV or nV"),
        (GOOD, {"key": "ecg"}, r"data\.key=ecg: .* only signals, labels, fs"),
        (GOOD | {"labels": ["N", "A"]}, {}, "'labels' has 2 entries for 1 records"),
        (GOOD | {"ids": ["a", "b"]}, {}, "'ids' has 2 entries for 1 records"),
        (GOOD | {"lengths": [5000]}, {}, "'lengths' must be whole numbers of 0 to 1200"),
        ({"signals": A[None], "fs": 300}, {}, "no array 'labels'"),
        (GOOD | {"labels": ["VT"]}, {}, r"no record can be used \(R00001: label 'VT'"),
        (GOOD | {"signals": np.zeros((2, 3, 12))}, {}, r"expected \(records, samples\), one lead"),
        (GOOD | {"signals": np.array([["a"]])}, {}, "'signals' holds <U1, not numbers"),
        ({"fs": 300, "labels": ["N"]}, {}, r"no array 'signals', .* data\.key="),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, content: dict[str, Any], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(DataError, match=words) as caught:
        arrays.load(npz(tmp_path, **content), **options)
    assert "\n" not in str(caught.value)


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    ragged = np.empty(2, dtype=object)
    ragged[:] = [A, B]
    with pytest.raises(DataError, match="'signals' holds Python objects, which are not read"):
        arrays.load(npz(tmp_path, signals=ragged, labels=["N", "N"], fs=300))


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs data\.root=FILE"):
        arrays.load()
    with pytest.raises(DataError, match="does not exist"):
        arrays.load(tmp_path / "no.npz")
    with pytest.raises(DataError, match="is a folder"):
        arrays.load(tmp_path)
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(DataError, match=r"reads \.npz and \.csv"):
        arrays.load(tmp_path / "x.txt")
    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(DataError, match=r"not a readable \.npz"):
        arrays.load(tmp_path / "x.npz")
    (tmp_path / "x.csv").write_text("p1,N,1,2\n")
    with pytest.raises(DataError, match=r"data\.fs="):
        arrays.load(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("p1,N\n")
    with pytest.raises(DataError, match="line 1: expected id,label,sample"):
        arrays.load(tmp_path / "x.csv", fs=300)


def test_a_few_records_in_too_small_a_unit_are_said(tmp_path):
    time = np.arange(3000) / 300
    wave = np.exp(-0.5 * ((time % 0.8 - 0.4) / 0.02) ** 2)
    signals = np.stack([wave, wave, wave, 0.002 * wave])
    np.savez(tmp_path / "x.npz", signals=signals, labels=["N"] * 4, fs=300, ids=list("abcd"))
    found = arrays.load(tmp_path / "x.npz")
    assert len(found) == 4
    (note,) = found.notes
    assert note.startswith("1 of 4 records (d) move by less than 0.01 mV")
    assert "data.units" in note


def test_ids_that_are_whole_floats_are_the_names_of_a_label_file(tmp_path):
    time = np.arange(3000) / 300
    wave = np.exp(-0.5 * ((time % 0.8 - 0.4) / 0.02) ** 2)
    np.savez(tmp_path / "x.npz", signals=np.stack([wave, wave]), fs=300, ids=np.array([1.0, 2.5]))
    (tmp_path / "labels.csv").write_text("1,N\n2.5,A\n")
    found = arrays.load(tmp_path / "x.npz", labels="labels.csv")
    assert found.ids == ["1", "2.5"]
    assert found.labels.tolist() == ["N", "A"]
