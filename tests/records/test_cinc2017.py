import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from small_sources import beat, write_cinc, zip_folder

from ecgadv.errors import DataError, RecordError
from ecgadv.records import RecordSet, cinc2017

Make = Callable[..., Path]


def test_folder_and_zip_hold_the_same_set(small_cinc: Make, tmp_path: Path) -> None:
    folder = small_cinc()
    archive = zip_folder(folder, tmp_path / "some.zip")
    sets = [cinc2017.load(place) for place in (folder, folder.parent, archive)]
    assert [s.ids for s in sets] == [["A00001", "A00002", "A00003", "A00004"]] * 3
    assert "".join(sets[0].labels) == "ANO~"
    assert len({s.digest for s in sets}) == 1
    assert sets[0].lengths.tolist() == [3000, 3300, 3600, 3900]
    np.testing.assert_array_equal(sets[2][1].signal, (beat(3300, 1) / 1000.0).astype(np.float32))


def test_another_content_or_label_gives_another_digest(small_cinc: Make) -> None:
    folder = small_cinc()
    first = cinc2017.load(folder).digest
    reference = folder / "REFERENCE-v3.csv"
    reference.write_text(reference.read_text().replace("A00001,A", "A00001,N"))
    assert cinc2017.load(folder).digest != first


def test_gain_of_the_header_is_applied(tmp_path: Path) -> None:
    folder = write_cinc(tmp_path, {"A00001": beat(600)}, {"A00001": "N"}, gain=500)
    np.testing.assert_allclose(cinc2017.load(folder)[0].signal, beat(600) / 500, rtol=1e-6)


@pytest.mark.parametrize("zipped", [False, True])
def test_one_bad_record_does_not_stop_the_others(
    small_cinc: Make, tmp_path: Path, zipped: bool
) -> None:
    folder = small_cinc()
    mat = folder / "A00002.mat"
    mat.write_bytes(mat.read_bytes()[:1000])
    (folder / "A00003.mat").unlink()
    with (folder / "REFERENCE-v3.csv").open("a") as file:
        file.write("A00005,X\n")
    shutil.copy(folder / "A00001.mat", folder / "A00005.mat")
    records = cinc2017.load(zip_folder(folder, tmp_path / "z.zip") if zipped else folder)
    assert records.ids == ["A00001", "A00004"]
    assert re.search("truncated or damaged", records.skipped["A00002"])
    assert records.skipped["A00003"] == "its .mat file is missing"
    assert records.skipped["A00005"] == "label 'X' is not one of A, N, O, ~"
    again = cinc2017.load(folder)
    assert again.skipped == records.skipped, "a cached set must still say what it lacks"


def test_wrong_sampling_rate_is_said(tmp_path: Path) -> None:
    folder = write_cinc(tmp_path, {"A00001": beat(600)}, {"A00001": "N"}, fs=250)
    with pytest.raises(DataError, match=r"no usable record \(A00001: sampled at 250 Hz"):
        cinc2017.load(folder)


def test_fewer_samples_than_announced_is_truncated(small_cinc: Make) -> None:
    folder = small_cinc()
    header = folder / "A00001.hea"
    header.write_text(header.read_text().replace("300 3000", "300 9000"))
    assert cinc2017.load(folder).skipped["A00001"] == "its .mat file holds 3000 of 9000 samples"


def test_flat_and_missing_samples(tmp_path: Path) -> None:
    gap = beat(3000).astype(np.float64)
    gap[100:200] = np.nan
    signals = {"A00001": np.zeros(3000, np.int16), "A00002": gap}
    records = cinc2017.load(write_cinc(tmp_path, signals, {"A00001": "N", "A00002": "N"}))
    assert "flat line" in records.unusable(0)
    assert records.unusable(1) == ""
    assert np.isnan(records[1].signal[100:200]).all()
    batch = records.batch([1])
    # Missing samples count as the mean of the others, which is 0 after standardisation.
    np.testing.assert_allclose(batch.x[0, 100:200], 0, atol=1e-6)
    filled = np.where(np.isnan(gap), np.nanmean(gap), gap) / 1000
    assert batch.scale_mv[0] == pytest.approx(filled.std(), rel=1e-5)
    with pytest.raises(RecordError, match="record A00001: flat line"):
        records.batch([0])


def test_original_labels_are_accepted_and_said(
    small_cinc: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    cinc2017.load(small_cinc(reference="REFERENCE.csv"))
    assert "note: labels from REFERENCE.csv, not REFERENCE-v3.csv" in capsys.readouterr().err


@pytest.mark.parametrize("zipped", [False, True])
def test_revised_labels_beside_the_source_are_preferred(
    small_cinc: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool
) -> None:
    folder = small_cinc(reference="REFERENCE.csv")
    place = zip_folder(folder, tmp_path / "z.zip") if zipped else tmp_path
    (tmp_path / "REFERENCE-v3.csv").write_text("A00001,O\nA00002,N\n")
    records = cinc2017.load(place)
    assert "".join(records.labels) == "ON"
    assert capsys.readouterr().err == ""
    (tmp_path / "REFERENCE-v3.csv").write_text("A00001,A\nA00002,N\n")
    assert "".join(cinc2017.load(place).labels) == "AN", "the cache must notice new labels"
    assert len(cinc2017.load(place, labels="REFERENCE.csv")) == 4


def test_what_is_no_source(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=.*nowhere does not exist"):
        cinc2017.load(tmp_path / "nowhere")
    fake = tmp_path / "fake.zip"
    fake.write_bytes(b"this is no zip")
    with pytest.raises(DataError, match=r"data\.root=.*fake\.zip is not a readable zip file"):
        cinc2017.load(fake)
    with pytest.raises(DataError, match="no label file"):
        cinc2017.load(tmp_path)
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    with pytest.raises(DataError, match="no label file"):
        cinc2017.load(tmp_path / "empty.zip")


def test_the_real_set(real: RecordSet) -> None:
    assert len(real) == 8528
    assert real.skipped == {}
    counts = {c: int((real.labels == c).sum()) for c in "ANO~"}
    assert counts == {"A": 758, "N": 5076, "O": 2415, "~": 279}
    # From the header of A00001: "16+24 1000/mV 16 0 -127 0 0", its first sample is -127.
    assert real[0].signal[0] == np.float32(-0.127)
    assert real.lengths.min() >= 9 * 300
    assert real.lengths.max() < 62 * 300


def test_real_records_from_folder_and_zip(cinc2017_root: Path, tmp_path: Path) -> None:
    if cinc2017_root.is_dir():
        pytest.skip("the recordings are a folder here")
    names = [f"A{i:05d}" for i in range(1, 6)]
    folder = tmp_path / "part"
    folder.mkdir()
    with zipfile.ZipFile(cinc2017_root) as archive:
        members = {Path(name).name: name for name in archive.namelist()}
        for name in names:
            for suffix in (".mat", ".hea"):
                content = archive.read(members[name + suffix])
                (folder / (name + suffix)).write_bytes(content)
        rows = archive.read(members["REFERENCE-v3.csv"]).decode().splitlines()
    (folder / "REFERENCE-v3.csv").write_text("\n".join(rows[:5]))
    packed = zip_folder(folder, tmp_path / "part.zip")
    assert cinc2017.load(folder).digest == cinc2017.load(packed).digest
    assert cinc2017.load(folder).lengths.tolist() == [9000, 9000, 18000, 9000, 18000]
