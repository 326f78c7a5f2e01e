"""A stored run, read back."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgadv.errors import StoreError
from ecgadv.making import instantiate
from ecgadv.records.base import CLASSES
from ecgadv.records.opening import open_source
from ecgadv.records.preprocessing import FS, N_SAMPLES
from ecgadv.store.columns import CASES, PART_KEYS
from ecgadv.store.files import read_object

if TYPE_CHECKING:
    import pandas as pd


AGAIN = "the command that made the run writes it again from its parts"


def check_whole(file: Path, count: int) -> None:
    """Raise where a run's ``cases.csv`` was cut off.

    Args:
        file: the table.
        count: its rows, as they were read.

    Raises:
        StoreError: it ends within a line, or has not the rows that ``summary.json`` counted.
    """
    with file.open("rb") as stream:
        stream.seek(0, 2)
        stream.seek(max(0, stream.tell() - 1))
        if stream.read() != b"\n":
            raise StoreError(f"{file}: is cut off, its last line has no end; {AGAIN}")
    summary = read_object(file.parent / "summary.json")
    attacked, skipped = summary.get("n_cases"), summary.get("n_skipped")
    if isinstance(attacked, int) and isinstance(skipped, int) and attacked + skipped != count:
        whole = attacked + skipped
        raise StoreError(f"{file}: is cut off, it holds {count} of {whole} cases; {AGAIN}")


@dataclass(frozen=True)
class Run:
    """A stored run.

    Attributes:
        folder: where it lies.
        summary: ``summary.json``.
        config: the composed configuration.
        case_ids: (M,) names of the rows of ``delta``.
        delta: (M, n), or (M, n, leads), float32 in standardised units.
        scale_mv: (M,), or (M, leads), mV per standardised unit.
    """

    folder: Path
    summary: dict[str, Any]
    config: dict[str, Any]
    case_ids: np.ndarray
    delta: np.ndarray
    scale_mv: np.ndarray

    @cached_property
    def cases(self) -> pd.DataFrame:
        """``cases.csv`` with ``success`` as bool.

        Raises:
            StoreError: it is cut off, or no table of cases.
        """
        file = self.folder / "cases.csv"
        try:
            table = CASES.frame(file)
            table["success"]
        except (OSError, ValueError, KeyError) as error:
            why = str(error).splitlines()[0]
            raise StoreError(f"{file}: is no table of cases ({why}); {AGAIN}") from None
        check_whole(file, len(table))
        table["success"] = table["success"].astype(str).str.lower() == "true"
        return table

    @cached_property
    def _inputs(self) -> tuple[np.ndarray, np.ndarray]:
        return self.inputs_of(self.case_ids.tolist())

    def inputs_of(self, case_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Standardised records (K, n) float32 of some cases, and (K,) their own samples.

        Raises:
            StoreError: the run does not say where its recordings are, or they have changed.
        """
        if "data" not in self.config:
            raise StoreError(f"{self.folder}: no config.json, so its recordings are not known")
        said = self.summary.get("input", {})
        records = open_source(
            self.config["data"], instantiate, said.get("fs", FS), said.get("classes", CLASSES)
        )
        digest = self.summary.get("data", {}).get("digest")
        if digest and records.digest != digest:
            raise StoreError(
                f"{self.folder}: the recordings of data={records.name} have changed since this run"
            )
        known = dict(zip(self.cases["case_id"], self.cases["record"], strict=True))
        rows = [records.index(known[str(case)]) for case in case_ids]
        n = self.delta.shape[1] if self.delta.ndim > 1 and self.delta.shape[1] else N_SAMPLES
        batch = records.batch(rows, n, said.get("standardise", "lead"))
        return batch.x, batch.lengths

    @property
    def x(self) -> np.ndarray:
        """(M, n), or (M, n, leads), float32 records of the rows of ``delta``, read again."""
        return self._inputs[0]

    @property
    def lengths(self) -> np.ndarray:
        """(M,) own samples of the same records."""
        return self._inputs[1]


def _mapped(file: Path, name: str) -> np.ndarray:
    """An array of an ``.npz`` that is read where it is looked at (not checked), if plain."""
    with zipfile.ZipFile(file) as archive, archive.open(f"{name}.npy") as member:
        info = archive.getinfo(f"{name}.npy")
        version = np.lib.format.read_magic(member)
        if info.compress_type != zipfile.ZIP_STORED or version != (1, 0):
            with np.load(file, allow_pickle=False) as stored:
                return np.asarray(stored[name])
        shape, _, dtype = np.lib.format.read_array_header_1_0(member)
        inside = member.tell()
    with open(file, "rb") as stream:
        stream.seek(info.header_offset + 26)
        sizes = stream.read(4)
    start = (
        info.header_offset + 30 + sum(int.from_bytes(sizes[k : k + 2], "little") for k in (0, 2))
    )
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "c", start + inside, shape)


def load_run(folder: str | Path, mapped: bool = False) -> Run:
    """Read a run's folder.

    Args:
        folder: where it lies.
        mapped: read perturbations only where they are looked at, without checking them for damage;
            for a few of thousands.

    Raises:
        StoreError: it is no run, or one of its files is damaged.
    """
    place = Path(folder)
    if not (place / "cases.csv").is_file():
        raise StoreError(f"{place}: no cases.csv, so this is not the folder of a run")
    try:
        with np.load(place / "perturbations.npz", allow_pickle=False) as stored:
            kept = [key for key in PART_KEYS if not (mapped and key == "delta")]
            arrays = {key: stored[key] for key in kept}
        if mapped:
            arrays["delta"] = _mapped(place / "perturbations.npz", "delta")
    except FileNotFoundError:
        raise StoreError(
            f"{place}: perturbations.npz is missing; start the run again to resume it"
        ) from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StoreError(f"{place}: perturbations.npz is damaged ({error})") from None
    return Run(
        place.resolve(), read_object(place / "summary.json"), read_object(place / "config.json"),
        arrays["case_id"], arrays["delta"], arrays["scale_mv"],
    )  # fmt: skip
