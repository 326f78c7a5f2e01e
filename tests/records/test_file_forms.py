"""Files and labels in the forms that people have them: a row each, read right or refused in a line.

What is right comes from the arrays that were written, or from wfdb and scipy read directly.
"""

import os
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.signal import resample_poly
from small_sources import write_cinc

from ecgadv.errors import DataError
from ecgadv.records import arrays, cinc2017
from ecgadv.records import wfdb as reader
from ecgadv.records.base import RecordSet
from ecgadv.records.intake import longer_than

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 120000\n"
FOLDER_LFS = r"is a Git LFS pointer, not data.*git lfs pull"


@dataclass
class Seen:
    """What a row must give: the right records, or a line.

    Attributes:
        load: reads the source.
        right: record -> (label, signal in mV at 300 Hz), NaN where samples are missing.
        skipped: record -> pattern of its reason.
        notes: patterns of the notes, one each; none may be left over.
        error: pattern of the error in place of all these.
        atol: in mV.
    """

    load: Callable[[], RecordSet]
    right: dict[str, tuple[str, np.ndarray]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    error: str = ""
    atol: float = 1e-5


ROWS: dict[str, Callable[[Path], Seen]] = {}


def form(name: str) -> Callable[[Callable[[Path], Seen]], Callable[[Path], Seen]]:
    def keep(row: Callable[[Path], Seen]) -> Callable[[Path], Seen]:
        assert name not in ROWS
        ROWS[name] = row
        return row

    return keep


def ecg(samples: int = 1800, fs: float = 300, seed: int = 0) -> np.ndarray:
    """(samples,) float64 in mV: a beat each 0.8 s and a little noise, a multiple of 1 µV."""
    t = np.arange(samples) / fs + 0.1 * seed
    wave = 1.1 * np.exp(-0.5 * ((t % 0.8 - 0.4) / 0.012) ** 2)
    wave += 0.2 * np.exp(-0.5 * ((t % 0.8 - 0.65) / 0.05) ** 2)
    noise = 0.01 * np.random.default_rng(seed).standard_normal(samples)
    return np.round(wave + noise, 3)


X, Y = ecg(), ecg(1500, seed=1)


def at_300(signal: np.ndarray, fs: int) -> np.ndarray:
    return np.asarray(resample_poly(signal, 300, fs, padtype="line"))


def npz(folder: Path, **content: Any) -> Path:
    path = folder / "x.npz"
    np.savez(path, **content)
    return path


def one(folder: Path, signal: np.ndarray, label: Any = "N", fs: float = 300, **options: Any) -> Any:
    """A loader of one record in an npz file."""
    path = npz(folder, signals=np.asarray(signal)[None], labels=[label], fs=fs)
    return lambda: arrays.load(path, **options)


def labelled(folder: Path, given: Any, **options: Any) -> Any:
    """A loader of two records, X twice, with labels of some form."""
    path = npz(folder, signals=np.stack([X, X]), labels=np.asarray(given), fs=300)
    return lambda: arrays.load(path, **options)


def both(first: str, second: str) -> dict[str, tuple[str, np.ndarray]]:
    return {"R00001": (first, X), "R00002": (second, X)}


# --- arrays: signals ------------------------------------------------------------------------------


@form("npz: rows padded with NaN")
def _(d: Path) -> Seen:
    rows = np.full((2, 1800), np.nan)
    rows[0], rows[1, :1500] = X, Y
    path = npz(d, signals=rows, labels=["N", "A"], fs=300)
    return Seen(lambda: arrays.load(path), {"R00001": ("N", X), "R00002": ("A", Y)})


@form("npz: rows with lengths, garbage behind them")
def _(d: Path) -> Seen:
    rows = np.full((2, 1800), 77.0)
    rows[0], rows[1, :1500] = X, Y
    path = npz(d, signals=rows, lengths=np.uint16([1800, 1500]), labels=["N", "A"], fs=300)
    return Seen(lambda: arrays.load(path), {"R00001": ("N", X), "R00002": ("A", Y)})


@form("npz: an array a record, its name looks like a number")
def _(d: Path) -> Seen:
    path = npz(d, **{"1e3": X, "007": Y}, labels=["N", "A"], fs=300)
    return Seen(lambda: arrays.load(path), {"1e3": ("N", X), "007": ("A", Y)})


@form("npz: compressed, half precision")
def _(d: Path) -> Seen:
    np.savez_compressed(d / "x.npz", signals=X[None].astype("f2"), labels=["N"], fs=300)
    right = {"R00001": ("N", X.astype("f2").astype("f8"))}
    return Seen(lambda: arrays.load(d / "x.npz"), right)


@form("npz: big-endian integers in Fortran order")
def _(d: Path) -> Seen:
    rows = np.asfortranarray(np.round(np.stack([X, X]) * 1000).astype(">i2"))
    path = npz(d, signals=rows, labels=["N", "A"], fs=300)
    return Seen(lambda: arrays.load(path, units="uV"), both("N", "A"))


@form("npz: a trailing axis of one")
def _(d: Path) -> Seen:
    return Seen(one(d, X[:, None]), {"R00001": ("N", X)})


@form("npz: leads before samples")
def _(d: Path) -> Seen:
    return Seen(one(d, np.stack([X] * 12)), error=r"expected \(records, samples\).*leads\)")


@form("npz: Python objects")
def _(d: Path) -> Seen:
    rows = np.empty(2, object)
    rows[:] = [X, Y]
    path = npz(d, signals=rows, labels=["N", "A"], fs=300)
    return Seen(lambda: arrays.load(path), error="Python objects, which are not read")


@form("npz: signals under another name, no key given")
def _(d: Path) -> Seen:
    path = npz(d, X=np.stack([X, X]), y=np.array([0, 1]), fs=300)
    error = r"no array 'signals' but 'X' of shape \(2, 1800\).*data\.key=X"
    return Seen(lambda: arrays.load(path), error=error)


@form("npz: a pointer of Git LFS")
def _(d: Path) -> Seen:
    (d / "x.npz").write_text(LFS)
    return Seen(lambda: arrays.load(d / "x.npz"), error=FOLDER_LFS)


@form("npz: no sampling rate")
def _(d: Path) -> Seen:
    path = npz(d, signals=X[None], labels=["N"])
    return Seen(lambda: arrays.load(path), error=r"has no 'fs'; give the sampling rate.*data\.fs")


@form("npz: the rate as an array of one, 500 Hz")
def _(d: Path) -> Seen:
    signal = ecg(3000, 500)
    return Seen(one(d, signal, fs=np.array([500])), {"R00001": ("N", at_300(signal, 500))})


# --- units and amplitudes -------------------------------------------------------------------------


@form("microvolts with their unit, in all its spellings")
def _(d: Path) -> Seen:
    path = npz(d, signals=np.round(X[None] * 1000).astype("i2"), labels=["N"], fs=300)
    spellings = ["uV", "µV", "μV", "UV", " u V ", "microvolt", "Microvolts", "[uV]", "ÂµV"]

    def load() -> RecordSet:
        found = [arrays.load(path, units=units) for units in spellings]
        assert {records.digest for records in found} == {found[0].digest}
        return found[0]

    return Seen(load, {"R00001": ("N", X)})


@form("volts, nanovolts and millivolts of one recording")
def _(d: Path) -> Seen:
    def load() -> RecordSet:
        found = []
        for unit, factor in (("V", 1e-3), ("nV", 1e6), ("volt", 1e-3), ("millivolts", 1)):
            found.append(one(d, X * factor, units=unit)())
            np.testing.assert_allclose(found[-1][0].signal, X, atol=1e-6)
        return found[0]

    return Seen(load, {"R00001": ("N", X)})


@form("microvolts taken for millivolts")
def _(d: Path) -> Seen:
    load = one(d, np.round(X * 1000).astype("i2"))
    return Seen(load, error=r"1 of 1 records.*about 1\.1.*mV, which no ECG has.*data\.units=")


@form("volts taken for millivolts")
def _(d: Path) -> Seen:
    return Seen(one(d, X / 1000), error=r"0\.0011.* mV, which no ECG has.*data\.units=")


@form("a unit that nobody knows")
def _(d: Path) -> Seen:
    load = one(d, X, units="adu")
    return Seen(load, error=r"data\.units=adu: must be V, mV, uV or nV, or none for values without")


@form("values without a scale")
def _(d: Path) -> Seen:
    counts = np.round(X * 5000) + 2048
    return Seen(
        one(d, counts, units="none"), {"R00001": ("N", counts)},
        notes=(r"data\.units=none: the values have no scale",), atol=1e-2,
    )  # fmt: skip


@form("an offset of 300 mV, as DC-coupled converters have")
def _(d: Path) -> Seen:
    return Seen(one(d, X - 300), {"R00001": ("N", X - 300)}, atol=1e-3)


@form("artefacts of 500 mV in an ECG")
def _(d: Path) -> Seen:
    odd = X.copy()
    odd[[100, 900, 901]] = [500, -500, 480]
    return Seen(one(d, odd), {"R00001": ("N", odd)}, atol=1e-3)


@form("one of three records in another unit")
def _(d: Path) -> Seen:
    path = npz(d, a=X, b=1000 * X, c=Y, labels=["N", "N", "A"], fs=300)
    return Seen(
        lambda: arrays.load(path), {"a": ("N", X), "c": ("A", Y)},
        {"b": r"its amplitude is about 1\.1.*mV, which no ECG has \(data\.units\)"},
    )  # fmt: skip


# --- missing samples, padding, windows ------------------------------------------------------------


@form("a gap in a recording with an offset")
def _(d: Path) -> Seen:
    gap = X + 5
    gap[600:900] = np.nan

    def load() -> RecordSet:
        records = one(d, gap)()
        batch = records.batch([0])
        filled = np.where(np.isnan(gap), np.nanmean(gap), gap)
        expected = (filled - filled.mean()) / filled.std()
        np.testing.assert_allclose(batch.x[0, :1800], expected, atol=1e-4)
        np.testing.assert_allclose(batch.scale_mv, filled.std(), rtol=1e-4)
        return records

    note = r"1 of 1 records lack more than 1% of their samples \(R00001: 17%\).*record's mean"
    return Seen(load, {"R00001": ("N", gap)}, notes=(note,))


@form("infinities")
def _(d: Path) -> Seen:
    odd = X.copy()
    odd[[5, 6]] = np.inf, -np.inf
    right = X.copy()
    right[[5, 6]] = np.nan
    return Seen(one(d, odd), {"R00001": ("N", right)})


@form("a gap at another sampling rate")
def _(d: Path) -> Seen:
    signal = ecg(2160, 360) + 5
    bridged = signal.copy()
    bridged[720:1080] = np.linspace(signal[719], signal[1080], 362)[1:-1]
    right = at_300(bridged, 360)
    right[600:900] = np.nan
    signal[720:1080] = np.nan
    return Seen(
        one(d, signal, fs=360), {"R00001": ("N", right)}, notes=("lack more than 1%",)
    )  # fmt: skip


@form("a lead that was never recorded")
def _(d: Path) -> Seen:
    rows = np.stack([np.stack([X, X], 1)] * 2)
    rows[1, :, 1] = np.nan
    path = npz(d, signals=rows, labels=["N", "A"], fs=300)
    return Seen(
        lambda: arrays.load(path), {"R00001": ("N", np.stack([X, X], 1))},
        {"R00002": r"lead 2 of 2 is missing altogether \(NaN\)"}, notes=("lack more than 1%",),
    )  # fmt: skip


@form("a lead of which most is missing, the other whole")
def _(d: Path) -> Seen:
    rows = np.stack([X, X], 1)[None].repeat(2, 0)
    rows[1, :1200, 0] = np.nan
    path = npz(d, signals=rows, labels=["N", "A"], fs=300)
    return Seen(
        lambda: arrays.load(path), {"R00001": ("N", np.stack([X, X], 1))},
        {"R00002": "67% of the samples of lead 1 of 2 are missing"}, notes=("lack more than 1%",),
    )  # fmt: skip


@form("a long record whose beginning is missing")
def _(d: Path) -> Seen:
    long = ecg(20_000)
    long[:6000] = np.nan

    def load() -> RecordSet:
        records = one(d, long)()
        assert records.unusable(0) == "67% of the samples read are missing (NaN)"
        return records

    return Seen(load, {"R00001": ("N", long)}, notes=("lack more than 1%",))


@form("the mark of missing samples of 16-bit recorders, said")
def _(d: Path) -> Seen:
    microvolts = np.round(1000 * X).astype(np.int16)
    microvolts[300:400] = -32768
    note = r"1 of 1 records \(R00001\) hold the value -32768, which counts as signal.*write NaN"
    load = one(d, microvolts, units="uV")
    return Seen(load, {"R00001": ("N", microvolts / 1000.0)}, notes=(note,))


@form("rows padded with zeros, said")
def _(d: Path) -> Seen:
    padded = np.r_[X, np.zeros(900)]
    note = r"1 of 1 records \(R00001\).*1 s of exact zeros.*data\.trim_zeros=true"
    return Seen(one(d, padded), {"R00001": ("N", padded)}, notes=(note,))


@form("rows padded with zeros, cut off")
def _(d: Path) -> Seen:
    signal = ecg(3000, 500)
    padded = np.r_[signal, np.zeros(900)]
    load = one(d, padded, fs=500, trim_zeros=True)
    return Seen(load, {"R00001": ("N", at_300(signal, 500))})


@form("zeros at both ends of all leads, as in CODE-15")
def _(d: Path) -> Seen:
    leads = np.stack([X, 2 * X], 1) + 0.001
    padded = np.r_[np.zeros((500, 2)), leads, np.zeros((700, 2))]
    return Seen(one(d, padded, trim_zeros=True), {"R00001": ("N", leads)})


@form("nothing but zeros")
def _(d: Path) -> Seen:
    path = npz(d, a=X, b=np.zeros(900), labels=["N", "A"], fs=300)
    load = lambda: arrays.load(path, trim_zeros=True)  # noqa: E731
    return Seen(load, {"a": ("N", X)}, {"b": "it holds zeros only"})


@form("a later part of a long recording at 250 Hz")
def _(d: Path) -> Seen:
    signal = ecg(25_000, 250)
    right = {"R00001": ("N", at_300(signal[60 * 250 :], 250))}
    return Seen(one(d, signal, fs=250, start="60s"), right)


@form("a part that begins behind the end")
def _(d: Path) -> Seen:
    path = npz(d, a=ecg(12_000), b=X, labels=["N", "A"], fs=300)
    return Seen(
        lambda: arrays.load(path, start=10), {"a": ("N", ecg(12_000)[3000:])},
        {"b": r"it lasts 6 s, so nothing is left from data\.start=10 on"},
    )  # fmt: skip


@form("a part that begins before the recording")
def _(d: Path) -> Seen:
    return Seen(one(d, X, start=-1), error=r"data\.start=-1: must be seconds, at least 0")


# --- labels ---------------------------------------------------------------------------------------


@form("labels: whole numbers, mapped by numbers")
def _(d: Path) -> Seen:
    return Seen(labelled(d, [1, 2], label_map={1: "N", 2: "A"}), both("N", "A"))


@form("labels: floats, mapped by text")
def _(d: Path) -> Seen:
    return Seen(labelled(d, [1.0, 2.0], label_map={"1": "N", "2.0": "A"}), both("N", "A"))


@form("labels: SNOMED codes")
def _(d: Path) -> Seen:
    load = labelled(d, [164889003, 426783006], label_map={164889003: "A", "426783006": "N"})
    return Seen(load, both("A", "N"))


@form("labels: true and false")
def _(d: Path) -> Seen:
    return Seen(labelled(d, [True, False], label_map={True: "A", "False": "N"}), both("A", "N"))


@form("labels: bytes with blanks")
def _(d: Path) -> Seen:
    return Seen(labelled(d, [b" N ", b"noise"]), both("N", "~"))


@form("labels: ~ mapped by noise, noise by YAML's ~")
def _(d: Path) -> Seen:
    options = {"classes": ("good", "bad")}
    other = labelled(d, ["noise", "N"], label_map={None: "bad", "N": "good"}, **options)()
    assert list(other.labels) == ["bad", "good"]
    load = labelled(d, ["~", "N"], label_map={"noise": "bad", "N": "good"}, **options)
    return Seen(load, both("bad", "good"))


@form("labels: floats for classes that are numbers")
def _(d: Path) -> Seen:
    return Seen(labelled(d, [0.0, 1.0], classes=("0", "1")), both("0", "1"))


@form("labels: a map to classes that are numbers")
def _(d: Path) -> Seen:
    load = labelled(d, ["SR", "AF"], classes=("0", "1"), label_map={"SR": 0, "AF": 1.0})
    return Seen(load, both("0", "1"))


@form("labels: one that is mapped to two classes")
def _(d: Path) -> Seen:
    load = labelled(d, [1, 1], label_map={1: "N", "1": "A"})
    return Seen(load, error=r"data\.label_map: label 1 is mapped to N and to A")


@form("labels: one that is no class")
def _(d: Path) -> Seen:
    reason = (
        r"^label 'AF' is not one of A, N, O, noise; \"data\.label_map=\{AF: A\}\" would map it$"
    )
    return Seen(labelled(d, ["N", "AF"]), {"R00001": ("N", X)}, {"R00002": reason})


@form("labels: a column for each class")
def _(d: Path) -> Seen:
    load = labelled(d, [[1, 0, 0, 0], [0, 1, 0, 0]])
    return Seen(load, error=r"'labels' has shape \(2, 4\); one label a record is needed")


@form("labels: none for a record")
def _(d: Path) -> Seen:
    return Seen(labelled(d, ["N", ""]), {"R00001": ("N", X)}, {"R00002": "it has no label"})


@form("ids: one twice")
def _(d: Path) -> Seen:
    path = npz(d, signals=np.stack([X, X]), ids=["p", "p"], labels=["N", "A"], fs=300)
    return Seen(lambda: arrays.load(path), error="record p stands there twice; ids must be unique")


@form("labels in a table beside: semicolons, other order, a byte-order mark")
def _(d: Path) -> Seen:
    (d / "y.csv").write_bytes("\ufeffLabel;Record\r\nA;b\r\nN;a\r\n".encode())
    path = npz(d, a=X, b=Y, c=X, fs=300)
    return Seen(lambda: arrays.load(path, labels="y.csv"), {"a": ("N", X), "b": ("A", Y)},
                {"c": "the label file does not name it"})  # fmt: skip


# --- arrays: csv ----------------------------------------------------------------------------------


def csv(folder: Path, text: str, encoding: str = "utf-8") -> Callable[[], RecordSet]:
    (folder / "x.csv").write_bytes(text.encode(encoding))
    return lambda: arrays.load(folder / "x.csv", fs=300)


def cells(signal: np.ndarray, mark: str = ",", point: str = ".") -> str:
    return mark.join(f"{v:.3f}".replace(".", point) for v in signal)


@form("csv: byte-order mark, CRLF, blank lines, heading in capitals")
def _(d: Path) -> Seen:
    heading = "ID,LABEL," + ",".join(f"s{i}" for i in range(len(X)))
    text = f"\ufeff{heading}\r\n\r\np,N,{cells(X)}\r\n\r\n"
    return Seen(csv(d, text), {"p": ("N", X)})


@form("csv: semicolons and decimal commas")
def _(d: Path) -> Seen:
    return Seen(csv(d, f"p;N;{cells(X, ';', ',')}\n"), {"p": ("N", X)})


@form("csv: tabs")
def _(d: Path) -> Seen:
    return Seen(csv(d, "p\tnoise\t" + cells(X, "\t") + "\n"), {"p": ("~", X)})


@form("csv: UTF-16, as spreadsheets export")
def _(d: Path) -> Seen:
    return Seen(csv(d, f"p,N,{cells(X)}\n", "utf-16"), {"p": ("N", X)})


@form("csv: quoted fields with blanks")
def _(d: Path) -> Seen:
    return Seen(csv(d, f'"p, first" , "N",{cells(X)}\n'.replace('" , "', '","')),
                {"p, first": ("N", X)})  # fmt: skip


@form("csv: the index of pandas, label before id")
def _(d: Path) -> Seen:
    heading = ",label,id," + ",".join(map(str, range(len(X))))
    return Seen(csv(d, f"{heading}\n0,N,p,{cells(X)}\n1,A,q,{cells(X)}\n"),
                {"p": ("N", X), "q": ("A", X)})  # fmt: skip


@form("csv: a fold between label and samples")
def _(d: Path) -> Seen:
    heading = "id,label,fold," + ",".join(f"s{i}" for i in range(len(X)))
    error = r"column 'fold' is neither the id, the label nor a sample"
    return Seen(csv(d, f"{heading}\np,N,3,{cells(X)}\n"), error=error)


@form("csv: cells that say that they are missing")
def _(d: Path) -> Seen:
    right = X.copy()
    right[[0, 1, 2]] = np.nan
    return Seen(csv(d, f"p,N,NA,,nan,{cells(X[3:])}\n"), {"p": ("N", right)})


@form("csv: shorter rows")
def _(d: Path) -> Seen:
    right = {"p": ("N", X), "q": ("A", Y)}
    return Seen(csv(d, f"p,N,{cells(X)}\nq,A,{cells(Y)}\n"), right)


@form("csv: a record twice")
def _(d: Path) -> Seen:
    return Seen(csv(d, f"p,N,{cells(X)}\np,A,{cells(Y)}\n"), error="record p stands there twice")


# --- wfdb: signals --------------------------------------------------------------------------------


def record(
    folder: Path, name: str, leads: dict[str, np.ndarray], fs: float = 300,
    gain: str = "1000/mV", data: str = "", length: bool = True,
) -> None:  # fmt: skip
    """A record of format 16 by hand, so that a header may say anything."""
    data = data or f"{name}.dat"
    stacked = np.stack(list(leads.values()), 1)
    whole = np.where(np.isnan(stacked), -32768, np.round(np.nan_to_num(stacked) * 1000))
    whole.astype("<i2").tofile(folder / data)
    lines = [f"{name} {len(leads)} {fs}" + (f" {len(stacked)}" if length else "")]
    lines += [f"{data} 16 {gain} 16 0 0 0 0 {lead}".replace("  ", " ") for lead in leads]
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n", encoding="utf-8")


def wfdb_of(folder: Path, labels: str = "a,N\n", **options: Any) -> Callable[[], RecordSet]:
    (folder / "REFERENCE.csv").write_text(labels, encoding="utf-8")
    return lambda: reader.load(folder, **options)


def by_wfdb(path: Path, **options: Any) -> Any:
    import wfdb

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return wfdb.rdrecord(str(path), **options)


@form("wfdb: format 212 at 360 Hz, an odd number of samples")
def _(d: Path) -> Seen:
    import wfdb

    signal = ecg(2161, 360)
    wfdb.wrsamp("a", fs=360, units=["mV"], sig_name=["MLII"], p_signal=signal[:, None],
                fmt=["212"], write_dir=str(d))  # fmt: skip
    right = at_300(by_wfdb(d / "a").p_signal[:, 0], 360)
    return Seen(wfdb_of(d), {"a": ("N", right)})


@form("wfdb: signals in a .mat file")
def _(d: Path) -> Seen:
    from scipy.io import savemat

    savemat(d / "a.mat", {"val": np.round(X[None] * 1000).astype("i2")}, format="4")
    (d / "a.hea").write_text("a 1 300 1800\na.mat 16+24 1000/mV 16 0 0 0 0 II\n")
    assert np.allclose(by_wfdb(d / "a").p_signal[:, 0], X)
    return Seen(wfdb_of(d), {"a": ("N", X)})


@form("wfdb: a micro sign in the header, as UTF-8 and as Latin-1")
def _(d: Path) -> Seen:
    for name, unit, encoding in (
        ("a", "µV", "utf-8"), ("b", "μV", "utf-8"), ("c", "µV", "latin-1"),
    ):  # fmt: skip
        record(d, name, {"II": X})
        text = (d / f"{name}.hea").read_text().replace("1000/mV", f"1/{unit}")
        (d / f"{name}.hea").write_bytes(text.encode(encoding))
    return Seen(wfdb_of(d, "a,N\nb,N\nc,N\n"), {k: ("N", X) for k in "abc"})


@form("wfdb: volts in the header")
def _(d: Path) -> Seen:
    record(d, "a", {"II": X}, gain="1000000/V")
    return Seen(wfdb_of(d), {"a": ("N", X)})


@form("wfdb: a gain without a unit")
def _(d: Path) -> Seen:
    record(d, "a", {"II": X}, gain="1000(0)")
    assert by_wfdb(d / "a").units == ["mV"]
    return Seen(wfdb_of(d), {"a": ("N", X)})


@form("wfdb: no gain at all")
def _(d: Path) -> Seen:
    (np.round(X * 200)).astype("<i2").tofile(d / "a.dat")
    (d / "a.hea").write_text("a 1 300 1800\na.dat 16\n")
    right = by_wfdb(d / "a").p_signal[:, 0]
    return Seen(wfdb_of(d), {"a": ("N", right)}, notes=("without a gain: 200 units per mV",))


@form("wfdb: a lead that is no ECG")
def _(d: Path) -> Seen:
    record(d, "a", {"ABP": X}, gain="1000/mmHg")
    error = r"a: lead ABP: its unit is 'mmHg', not one of V, mV.*data\.lead=.*data\.units="
    return Seen(wfdb_of(d), error=error)


@form("wfdb: units that are wrong in the header")
def _(d: Path) -> Seen:
    record(d, "a", {"II": X}, gain="1/mV")
    with pytest.raises(DataError, match=r"no ECG has.*data\.units="):
        wfdb_of(d)()
    return Seen(wfdb_of(d, units="uV"), {"a": ("N", X)})


@form("wfdb: several samples a frame, at the lead's own rate")
def _(d: Path) -> Seen:
    signal = ecg(4000, 250)
    frames = np.c_[np.round(signal.reshape(-1, 4) * 1000), np.zeros(1000)]
    frames.astype("<i2").tofile(d / "a.dat")
    (d / "a.hea").write_text(
        "a 2 62.5 1000\na.dat 16x4 1000/mV 16 0 0 0 0 II\na.dat 16 1000/mV 16 0 0 0 0 RESP\n"
    )
    own = by_wfdb(d / "a", smooth_frames=False).e_p_signal[0]
    np.testing.assert_allclose(own, signal, atol=1e-9)
    return Seen(wfdb_of(d, lead="II"), {"a": ("N", at_300(own, 250))})


@form("wfdb: leads of different rates together")
def _(d: Path) -> Seen:
    slow, fast = ecg(1500, 150), ecg(3000, 300)
    frames = np.c_[np.round(fast.reshape(-1, 2) * 1000), np.round(slow * 1000)]
    frames.astype("<i2").tofile(d / "a.dat")
    (d / "a.hea").write_text(
        "a 2 150 1500\na.dat 16x2 1000/mV 16 0 0 0 0 I\na.dat 16 1000/mV 16 0 0 0 0 II\n"
    )
    right = np.stack([fast, at_300(slow, 150)], 1)
    return Seen(wfdb_of(d, lead="all"), {"a": ("N", right)})


@form("wfdb: fifteen frames a second, sixteen samples each")
def _(d: Path) -> Seen:
    signal = ecg(4000, 250)
    np.round(signal * 1000).astype("<i2").tofile(d / "a.dat")
    (d / "a.hea").write_text("a 1 15.625 250\na.dat 16x16 1000/mV 16 0 0 0 0 ECG\n")
    return Seen(wfdb_of(d), {"a": ("N", at_300(signal, 250))})


@form("wfdb: a rate that no ECG has")
def _(d: Path) -> Seen:
    record(d, "a", {"II": X}, fs=1)
    return Seen(wfdb_of(d), error="its sampling rate is 1 Hz, not between 30 and 100000")


@form("wfdb: segments one after the other")
def _(d: Path) -> Seen:
    record(d, "s1", {"I": X, "II": 2 * X})
    record(d, "s2", {"I": Y, "II": 2 * Y})
    (d / "a.hea").write_text("a/2 2 300 3300\ns1 1800\ns2 1500\n")
    right = by_wfdb(d / "a").p_signal
    np.testing.assert_allclose(right[:, 1], np.r_[2 * X, 2 * Y], atol=1e-9)
    return Seen(wfdb_of(d, lead="all"), {"a": ("N", right)})


@form("wfdb: segments of a variable layout, with a gap")
def _(d: Path) -> Seen:
    record(d, "s1", {"II": X, "I": X})
    record(d, "s2", {"I": Y, "II": 2 * Y})
    (d / "lay.hea").write_text("lay 2 300 0\n~ 0 1000/mV 16 0 0 0 0 I\n~ 0 1000/mV 16 0 0 0 0 II\n")
    (d / "a.hea").write_text("a/4 2 300 3900\nlay 0\ns1 1800\n~ 600\ns2 1500\n")
    right = by_wfdb(d / "a").p_signal
    assert np.isnan(right[1800:2400]).all()
    return Seen(wfdb_of(d, lead=["II", "I"]), {"a": ("N", right[:, ::-1])},
                notes=("lack more than 1%",))  # fmt: skip


@form("wfdb: a segment with other gains and units")
def _(d: Path) -> Seen:
    record(d, "s1", {"II": X})
    record(d, "s2", {"II": Y}, gain="1/uV")
    (d / "a.hea").write_text("a/2 1 300 3300\ns1 1800\ns2 1500\n")
    return Seen(wfdb_of(d), {"a": ("N", np.r_[X, Y])})


@form("wfdb: a segment of other leads")
def _(d: Path) -> Seen:
    record(d, "s1", {"I": X, "II": X})
    record(d, "s2", {"I": X, "V1": X})
    (d / "a.hea").write_text("a/2 2 300 3600\ns1 1800\ns2 1800\n")
    return Seen(wfdb_of(d, lead="II"), error="segment s2: its leads are I, V1, the record's I, II")


@form("wfdb: a segment at another rate")
def _(d: Path) -> Seen:
    record(d, "s1", {"II": X})
    record(d, "s2", {"II": X}, fs=250)
    (d / "a.hea").write_text("a/2 1 300 3600\ns1 1800\ns2 1800\n")
    return Seen(wfdb_of(d), error="segment s2: it is at 250 Hz, the record at 300 Hz")


@form("wfdb: a segment that is not there")
def _(d: Path) -> Seen:
    record(d, "s1", {"II": X})
    (d / "a.hea").write_text("a/2 1 300 3600\ns1 1800\ns2 1800\n")
    return Seen(wfdb_of(d), error=r"segment s2: its \.hea file is missing")


@form("wfdb: invalid samples beside a baseline")
def _(d: Path) -> Seen:
    gap = X.copy()
    gap[300:600] = np.nan
    record(d, "a", {"II": gap}, gain="1000(-2000)/mV")
    right = by_wfdb(d / "a").p_signal[:, 0]
    assert np.isnan(right[300:600]).all()
    np.testing.assert_allclose(right[600:], X[600:] + 2, atol=1e-9)
    return Seen(wfdb_of(d), {"a": ("N", right)}, notes=("lack more than 1%",))


@form("wfdb: no number of samples in the header, two signal files")
def _(d: Path) -> Seen:
    record(d, "a", {"II": X}, length=False)
    record(d, "b", {"II": Y}, data="other name.dat".replace(" ", "_"))
    return Seen(wfdb_of(d, "a,N\nb,A\n"), {"a": ("N", X), "b": ("A", Y)})


@form("wfdb: a truncated signal file")
def _(d: Path) -> Seen:
    record(d, "a", {"II": X})
    (d / "a.dat").write_bytes((d / "a.dat").read_bytes()[:999])
    return Seen(wfdb_of(d), error="its signal file is truncated or damaged")


@form("wfdb: pointers of Git LFS for header and signals")
def _(d: Path) -> Seen:
    record(d, "a", {"II": X})
    record(d, "b", {"II": X})
    record(d, "c", {"II": X}, length=False)
    for name in ("b.hea", "c.dat"):
        (d / name).write_text(LFS)
    why = {"b": rf"b\.hea {FOLDER_LFS}", "c": rf"c\.dat {FOLDER_LFS}"}
    return Seen(wfdb_of(d, "a,N\nb,N\nc,N\n"), {"a": ("N", X)}, why)


@form("wfdb: a record that is its own segment")
def _(d: Path) -> Seen:
    (d / "a.hea").write_text("a/2 1 300 3000\na 1500\na 1500\n")
    return Seen(wfdb_of(d), error="a: segment a: it consists of segments itself")


@form("wfdb: a pointer of git-annex")
def _(d: Path) -> Seen:
    record(d, "a", {"II": X})
    (d / "a.dat").write_text("/annex/objects/SHA256E-s120000--00.dat\n")
    return Seen(wfdb_of(d), error=r"a\.dat is a git-annex pointer, not data.*git annex get")


# --- wfdb: leads ----------------------------------------------------------------------------------


@form("leads: all, in another order in the second record")
def _(d: Path) -> Seen:
    record(d, "a", {"I": X, "II": 2 * X, "V1": 3 * X})
    record(d, "b", {"i": X, "V1": 3 * X, "II": 2 * X})
    right = np.stack([X, 2 * X, 3 * X], 1)
    return Seen(wfdb_of(d, "a,N\nb,A\n", lead="all"), {"a": ("N", right), "b": ("A", right)})


@form("leads: all, others in the second record")
def _(d: Path) -> Seen:
    record(d, "a", {"I": X, "II": X})
    record(d, "b", {"I": X, "V1": X})
    return Seen(wfdb_of(d, "a,N\nb,A\n", lead="all"), {"a": ("N", np.stack([X, X], 1))},
                {"b": "its leads are I, V1, those of the first record I, II"})  # fmt: skip


@form("leads: two of one name")
def _(d: Path) -> Seen:
    record(d, "a", {"ECG": X, "ECG ": 2 * X})
    error = r"it has 2 leads 'ECG', at 0 and 1; choose one by its position, data\.lead=0"
    assert wfdb_of(d, lead=1)()[0].signal.max() == pytest.approx(2 * X.max())
    return Seen(wfdb_of(d, lead="ECG"), error=error)


@form("leads: names that are digits, a number is a position")
def _(d: Path) -> Seen:
    record(d, "a", {"1": X, "0": 2 * X})
    named = wfdb_of(d, lead="0")()
    np.testing.assert_allclose(named[0].signal, 2 * X, atol=1e-5)
    return Seen(wfdb_of(d, lead=0), {"a": ("N", X)})


@form("leads: a position that is another lead in the second record")
def _(d: Path) -> Seen:
    record(d, "a", {"I": X, "II": 2 * X})
    record(d, "b", {"II": 2 * X, "I": X})
    note = r"data\.lead=0: lead 0 is I in 1, II in 1 records; a lead's name"
    right = {"a": ("N", X), "b": ("A", 2 * X)}
    return Seen(wfdb_of(d, "a,N\nb,A\n"), right, notes=(note,))


# --- wfdb: label files ----------------------------------------------------------------------------


def table(name: str, text: str, encoding: str = "utf-8", **rest: Any) -> None:
    """A row about a label file of records a, b, c of which all are X."""

    @form(f"labels: {name}")
    def _(d: Path) -> Seen:
        for one in "abc":
            record(d, one, {"II": X})
        options = {k: rest[k] for k in ("label_map", "classes") if k in rest}
        (d / "REFERENCE.csv").write_bytes(text.encode(encoding))
        right = {k: (v, X) for k, v in rest.get("right", {}).items()}
        notes = rest.get("notes", ())
        return Seen(lambda: reader.load(d, **options), right, rest.get("skipped", {}), notes,
                    rest.get("error", ""))  # fmt: skip


table("heading in capitals, tabs, blanks and CRLF",
      "Record Name\tRHYTHM\r\n a \t N \r\n\r\nb\tA\r\n", right={"a": "N", "b": "A"})  # fmt: skip
table("a fold before the label", "record,fold,label\na,0,1\nb,1,0\n", classes=("0", "1"),
      right={"a": "1", "b": "0"},
      notes=("records from column 'record', labels from 'label'",))  # fmt: skip
table("the index of pandas", ",record,label\n0,a,N\n1,b,A\n", right={"a": "N", "b": "A"})
table("records in the index of pandas", ",label\na,N\nb,A\n", right={"a": "N", "b": "A"})
table("three of them, as in CPSC 2018",
      "Recording,First_label,Second_label,Third_label\na,AF,RBBB,\nb,N,,\nc,N,N,\n",
      label_map={"AF": "A"}, right={"b": "N", "c": "N"}, notes=("labels from 'First_label, ",),
      skipped={"a": r"it has several labels \(AF, RBBB\), one is needed"})  # fmt: skip
table("codes in a row without quotes", "a,AF,RBBB\nb,N\n", right={"b": "N"},
      skipped={"a": r"it has several labels \(AF, RBBB\)"})  # fmt: skip
table("three columns without a heading", "a,0,N\nb,1,A\n",
      error="more than two columns and no heading.*'record' and 'label'")  # fmt: skip
table("PTB-XL's own table",
      "ecg_id,patient_id,scp_codes,filename_lr\n1,15709,\"{'NORM': 100.0}\",a\n",
      error=r"is PTB-XL's table.*the columns record \(its filename_lr.*and label")  # fmt: skip
table("columns that say nothing", "record,age,sex\na,60,1\n",
      error="has the columns record, age, sex, none of which is called 'label'")  # fmt: skip
table("a record twice, the same", "a,N\nb,A\na,N\n", right={"a": "N", "b": "A"})
table("a record twice, not the same", "a,N\nb,A\na,A\n", right={"b": "A"},
      skipped={"a": "it is listed twice, with labels N and A"})  # fmt: skip
table("file names for records, UTF-16", "a.hea,N\nb.dat,A\n", "utf-16",
      right={"a.hea": "N", "b.dat": "A"})  # fmt: skip
table("quotes with a line break within", '"a","N"\n"b\n",A\n', right={"a": "N", "b": "A"})
table("a row without a label", "a,N\nb\n", error="line 2 is not 'record,label'")
table("a pointer", LFS, error=FOLDER_LFS)
table("no text", "a,\xff\xfe", "latin-1", error="is not a text file")


@form("labels: paths with backslashes")
def _(d: Path) -> Seen:
    (d / "part").mkdir()
    record(d / "part", "a", {"II": X})
    return Seen(wfdb_of(d, "part\\a,N\n"), {"part\\a": ("N", X)})


# --- cinc2017 -------------------------------------------------------------------------------------


COUNTS = np.round(X * 1000).astype(np.int16)


@form("cinc2017: invalid samples of a 16-bit file")
def _(d: Path) -> Seen:
    gap = COUNTS.copy()
    gap[300:600] = -32768
    write_cinc(d / "t", {"A00001": gap, "A00002": COUNTS}, {"A00001": "N", "A00002": "A"})
    right = X.copy()
    right[300:600] = np.nan
    return Seen(lambda: cinc2017.load(d / "t"), {"A00001": ("N", right), "A00002": ("A", X)},
                notes=("lack more than 1%",))  # fmt: skip


@form("cinc2017: a later part")
def _(d: Path) -> Seen:
    write_cinc(d / "t", {"A00001": COUNTS}, {"A00001": "N"})
    return Seen(lambda: cinc2017.load(d / "t", start="2s"), {"A00001": ("N", X[600:])})


@form("cinc2017: a pointer for a recording")
def _(d: Path) -> Seen:
    write_cinc(d / "t", {"A00001": COUNTS, "A00002": COUNTS}, {"A00001": "N", "A00002": "A"})
    (d / "t" / "A00002.mat").write_text(LFS)
    return Seen(lambda: cinc2017.load(d / "t"), {"A00001": ("N", X)}, {"A00002": FOLDER_LFS})


@form("cinc2017: a pointer for the zip")
def _(d: Path) -> Seen:
    (d / "t.zip").write_text(LFS)
    return Seen(lambda: cinc2017.load(d / "t.zip"), error=FOLDER_LFS)


@form("cinc2017: a gain that makes no ECG")
def _(d: Path) -> Seen:
    write_cinc(d / "t", {"A00001": COUNTS}, {"A00001": "N"}, gain=1)
    return Seen(lambda: cinc2017.load(d / "t"), error="which no ECG has; correct the gain")


# --- the rows -------------------------------------------------------------------------------------


def test_there_are_enough_rows() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize("name", ROWS)
def test_a_form_is_read_right_or_refused_in_a_line(name: str, tmp_path: Path) -> None:
    seen = ROWS[name](tmp_path)
    if seen.error:
        with pytest.raises(DataError, match=seen.error) as caught:
            seen.load()
        assert "\n" not in str(caught.value)
        return
    for _ in range(2):  # The second time from the cache.
        records = seen.load()
        assert records.fs == 300
        assert dict(zip(records.ids, records.labels, strict=True)) == {
            name: label for name, (label, _) in seen.right.items()
        }
        for one, (_, signal) in seen.right.items():
            found = records[records.index(one)].signal
            np.testing.assert_allclose(found, signal, atol=seen.atol, rtol=1e-6)
        assert records.skipped.keys() == seen.skipped.keys()
        for gone, reason in seen.skipped.items():
            assert re.search(reason, records.skipped[gone]), records.skipped
        assert len(records.notes) == len(seen.notes), records.notes
        for note, wanted in zip(records.notes, seen.notes, strict=True):
            assert re.search(wanted, note), note


# --- what has changed since it was read -----------------------------------------------------------


@pytest.mark.parametrize("which", ["named otherwise", "segment", "lead of another file"])
def test_a_changed_file_of_a_record_is_read_again(tmp_path: Path, which: str) -> None:
    name = {"named otherwise": "a", "segment": "s1", "lead of another file": "a"}[which]
    record(tmp_path, name, {"II": X}, data="signals_e.dat")
    if which == "segment":
        (tmp_path / "a.hea").write_text("a/1 1 300 1800\ns1 1800\n")
    if which == "lead of another file":
        record(tmp_path, "b", {"II": X}, data="other.dat")
        (tmp_path / "a.hea").write_text(
            "a 2 300 1800\nsignals_e.dat 16 1000/mV 16 0 0 0 0 I\n"
            "other.dat 16 1000/mV 16 0 0 0 0 II\n"
        )
    load = wfdb_of(tmp_path, lead="II")
    assert load()[0].signal.max() == pytest.approx(X.max())
    file = tmp_path / ("other.dat" if which == "lead of another file" else "signals_e.dat")
    times = file.stat()
    np.round(3 * X * 1000).astype("<i2").tofile(file)
    # Same size and same times: only the content tells.
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert load()[0].signal.max() == pytest.approx(3 * X.max())


def test_large_sets_are_watched_by_size_and_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecgadv.records import files

    monkeypatch.setattr(files, "_HASHED_UP_TO", 0)
    monkeypatch.setattr(files, "_FRESH_SECONDS", -1e9)
    file = tmp_path / "a.dat"
    file.write_bytes(b"1" * 100)
    first = files.content_key([file])
    assert files.content_key([file]) == first
    times = file.stat()
    file.write_bytes(b"2" * 100)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert files.content_key([file]) != first, "the change of the inode tells"
    monkeypatch.setattr(files, "_FRESH_SECONDS", 1e9)
    assert files.content_key([file]) != files.content_key([])


def test_another_version_of_the_reader_reads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecgadv.records import cache

    built = []

    def build() -> RecordSet:
        built.append(1)
        return RecordSet.pack("test", [("a", "N", X)], notes=["said"])

    assert cache.cached("test", "k", build).notes == ("said",)
    assert cache.cached("test", "k", build).notes == ("said",)
    monkeypatch.setattr(cache, "reader_version", lambda: "another")
    cache.cached("test", "k", build)
    assert len(built) == 2


def test_records_longer_than_the_input_are_counted() -> None:
    records = RecordSet.pack("test", [("a", "N", X), ("b", "A", Y), ("c", "A", Y)])
    assert longer_than(records, 1800, True) == ""
    note = longer_than(records, 1500, True)
    assert re.search(r"^1 of 3 records are longer than the 5 s .* data\.start=SECONDS", note)
    assert "data.start" not in longer_than(records, 1000, False)
