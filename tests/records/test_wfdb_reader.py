from pathlib import Path

import numpy as np
import pytest

from ecgadv.errors import DataError, RecordError
from ecgadv.records import wfdb as reader

T = np.arange(3600) / 360
SIGNAL = 0.8 * np.sin(2 * np.pi * 5 * T) + 0.2 * np.sin(2 * np.pi * 1.0 * T)


def write(folder: Path, name: str, *leads: np.ndarray, fs: int = 360, unit: str = "mV") -> None:
    import wfdb

    folder.mkdir(exist_ok=True)
    n = len(leads)
    wfdb.wrsamp(
        name,
        fs=fs,
        units=[unit] * n,
        sig_name=["MLII", "V1", "V5"][:n],
        p_signal=np.stack(leads, 1),
        fmt=["16"] * n,
        write_dir=str(folder),
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "db"
    write(place, "100", SIGNAL, 0.5 * SIGNAL)
    write(place, "101", SIGNAL * 1000, unit="uV")
    (place / "REFERENCE.csv").write_text("record,label\n100,N\n101,noise\n")
    return place


def test_resamples_to_300_hz_in_mv(folder: Path) -> None:
    records = reader.load(folder)
    assert records.ids == ["100", "101"]
    assert "".join(records.labels) == "N~"
    assert records.lengths.tolist() == [3000, 3000]
    t = np.arange(3000) / 300
    expected = 0.8 * np.sin(2 * np.pi * 5 * t) + 0.2 * np.sin(2 * np.pi * 1.0 * t)
    for i in range(2):
        np.testing.assert_allclose(records[i].signal[30:-30], expected[30:-30], atol=0.005)


@pytest.mark.parametrize("lead", ["V1", "v1", 1, "1"])
def test_lead_by_name_or_position(folder: Path, lead: int | str) -> None:
    records = reader.load(folder, lead=lead)
    assert records.ids == ["100"]
    assert records[0].signal.std() == pytest.approx(SIGNAL.std() / 2, rel=0.02)
    assert "lead" in records.skipped["101"]


def test_a_lead_that_no_record_has(folder: Path) -> None:
    with pytest.raises(DataError, match=r"none of 2 records .*no lead 'aVR', only MLII, V1"):
        reader.load(folder, lead="aVR")


def test_leads_without_names_are_chosen_by_position(tmp_path: Path) -> None:
    (tmp_path / "r.hea").write_text("r 2 300 3000\nr.dat 16 1000/mV\nr.dat 16 1000/mV\n")
    np.tile(np.array([1000, 2000], "<i2"), 3000).tofile(tmp_path / "r.dat")
    assert reader.read_record(tmp_path / "r", 1).max() == pytest.approx(2.0)
    with pytest.raises(RecordError, match="no lead 'II': its 2 leads have no names; choose one by"):
        reader.read_record(tmp_path / "r", "II")


def test_labels_of_the_source_are_mapped(folder: Path) -> None:
    (folder / "REFERENCE.csv").write_text("100,AFIB\n101,SR\n")
    with pytest.raises(DataError, match="label 'AFIB' is not one of A, N, O, noise"):
        reader.load(folder)
    records = reader.load(folder, label_map={"AFIB": "A", "SR": "N"})
    assert "".join(records.labels) == "AN"
    with pytest.raises(DataError, match=r"data\.label_map\.SR=Q"):
        reader.load(folder, label_map={"SR": "Q"})


def test_truncated_missing_and_unlabelled_records_are_listed(folder: Path) -> None:
    for name in ("102", "103", "104"):
        write(folder, name, SIGNAL)
    data = folder / "102.dat"
    data.write_bytes(data.read_bytes()[:1000])
    (folder / "103.dat").unlink()
    (folder / "REFERENCE.csv").write_text("100,N\n102,N\n103,N\n104,VT\n105,N\n")
    records = reader.load(folder)
    assert records.ids == ["100"]
    assert "truncated or damaged" in records.skipped["102"]
    assert "missing" in records.skipped["103"]
    assert "label 'VT'" in records.skipped["104"]
    assert records.skipped["105"] == "its .hea file is missing"


def test_missing_samples_stay_missing_unless_they_are_most(folder: Path) -> None:
    some, most = SIGNAL.copy(), SIGNAL.copy()
    some[360:720] = np.nan
    most[:1900] = np.nan
    write(folder, "102", some)
    write(folder, "103", most)
    (folder / "REFERENCE.csv").write_text("102,N\n103,N\n")
    records = reader.load(folder)
    assert records.skipped["103"] == "53% of its samples are missing (NaN)"
    signal = records[0].signal
    assert np.isnan(signal[300:600]).mean() > 0.99
    rest = np.r_[signal[:299], signal[602:]]
    assert np.isfinite(rest).all(), "a gap must not spread through the resampling filter"
    assert np.abs(rest).max() < 1.1
    assert records.unusable(0) == ""


def test_a_changed_file_is_read_again(folder: Path) -> None:
    before = reader.load(folder)[0].signal.std()
    write(folder, "100", SIGNAL * 2)
    assert reader.load(folder)[0].signal.std() == pytest.approx(2 * before, rel=1e-2)


def test_what_is_no_source(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data=wfdb needs data\.root="):
        reader.load()
    with pytest.raises(DataError, match="does not exist"):
        reader.load(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is a file"):
        reader.load(folder / "100.dat")
    with pytest.raises(DataError, match=r"data\.labels=other\.csv: cannot read"):
        reader.load(folder, labels="other.csv")
    with pytest.raises(DataError, match=r"data\.fs=500"):
        reader.load(folder, fs=500)
    (folder / "REFERENCE.csv").write_text("100\n")
    with pytest.raises(DataError, match=r"REFERENCE\.csv line 1 is not 'record,label'"):
        reader.load(folder)


def plain(folder, name, header, *columns):
    """A record of 16-bit columns under a header of its own."""
    (folder / f"{name}.hea").write_text(header, encoding="utf-8")
    np.stack(columns, 1).astype("<i2").tofile(folder / f"{name}.dat")


def beat(samples=3000, fs=300):
    return 800 * np.exp(-0.5 * ((np.arange(samples) / fs % 0.8 - 0.4) / 0.02) ** 2)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("r 1 300 3000\n../other.dat 16 1000/mV 16 0 0 0 0 II\n", "cannot be read"),
        ("r 0 300 3000\n", "announces 0 signals"),
        ("r 2 300 3000\nr.dat 16 1000/mV 16 0 0 0 0 II\n", "announces 2 signals and describes 1"),
        ("r 1 300 3000\nr.dat 16 2.0E+02/mV 16 0 0 0 0 II\n", "gain 200 is read as 2"),
        ("r 1 300 3000\nr.dat 16 1000/none 16 0 0 0 0 II\n", "its unit is 'none'"),
    ],
)
def test_a_header_that_cannot_be_meant_is_one_line(tmp_path, header, message):
    plain(tmp_path, "r", header, beat())
    with pytest.raises(RecordError, match=message) as caught:
        reader.read_record(tmp_path / "r")
    assert "\n" not in str(caught.value)


def test_a_header_without_a_rate_is_said(tmp_path):
    plain(tmp_path, "r", "r 1\nr.dat 16 1000/mV 16 0 0 0 0 II\n", beat(3000, 250))
    (tmp_path / "labels.csv").write_text("r,N\n")
    found = reader.load(tmp_path, "labels.csv")
    assert any("250 Hz" in note for note in found.notes)
    assert found.lengths[0] == 3600


def test_leads_of_two_rates_lose_the_same_seconds_of_zeros(tmp_path):
    first, second = beat(3000), np.repeat(beat(3000), 2)
    first[:300], second[:1800] = 0, 0
    frames = np.column_stack([first, second[0::2], second[1::2]])
    (tmp_path / "r.hea").write_text(
        "r 2 300 3000\nr.dat 16 1000/mV 16 0 0 0 0 I\nr.dat 16x2 1000/mV 16 0 0 0 0 II\n"
    )
    frames.astype("<i2").tofile(tmp_path / "r.dat")
    (tmp_path / "labels.csv").write_text("r,N\n")
    found = reader.load(tmp_path, "labels.csv", lead="all", trim_zeros=True)[0].signal
    own = np.flatnonzero(first.astype("<i2"))
    assert len(found) == pytest.approx(own[-1] - own[0], abs=3)
    later = slice(1600, 2500)
    assert np.corrcoef(found[later, 0], found[later, 1])[0, 1] > 0.98
