"""Which records of a data source are attacked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import numpy as np

from ecgadv.errors import ConfigError
from ecgadv.options import Form, Place, list_of
from ecgadv.records import index_files
from ecgadv.records.base import CLASSES, RecordSet, class_letter, class_name
from ecgadv.records.preprocessing import N_SAMPLES
from ecgadv.spelling import whole

SPLITS = ("all", "heldout", "train")

PAPER = {"A": 360, "N": 360, "O": 360, "~": 220}
"""Records of each class in the paper's evaluation (the first correctly classified ones)."""


_NAMES = list_of("names", lambda name: isinstance(name, str), empty=True)
_COUNTS = Form("whole numbers", lambda v: True, whole)
"""Read as numbers; what else there is to say of them, :class:`Selection` says."""


@dataclass(frozen=True)
class Selection:
    """What to attack; every field but ``per_class`` narrows it further.

    Attributes:
        per_class: the first so many of each class: one number, a number for each class (a class
            that is not named gets none), or ``None`` for no limit. Does not apply where ``records``
            or ``file`` names the records.
        source: classes attacked, as letters or ``noise``; ``None`` means all.
        records: names of the records attacked, in any order; ``None`` means all.
        split: ``all``, or the ``heldout`` or ``train`` part of the victim's training.
        file: index file in the released layout, see :mod:`ecgadv.records.index_files`.
        start: first row used of ``file``, from zero.
        stop: first row of ``file`` not used any more.
        classes: of the classifier.

    Raises:
        ConfigError: a field is out of range or contradicts another; the message names its option.
    """

    per_class: Annotated[int | Mapping[str, int], _COUNTS] | None = None
    source: Annotated[Sequence[str], _NAMES] | None = None
    records: Annotated[Sequence[str], _NAMES] | None = None
    split: str = "all"
    file: Place | None = None
    start: Annotated[int, _COUNTS] | None = None
    stop: Annotated[int, _COUNTS] | None = None
    classes: Sequence[str] = CLASSES

    def __post_init__(self) -> None:
        _ = self.limits
        for name in self.sources:
            _letter("selection.source", name, self.source, self.classes)
        if self.source is not None and not self.sources:
            known = ", ".join(class_name(c) for c in self.classes)
            raise ConfigError(f"selection.source=[]: name at least one of {known}, or null")
        if self.records is not None and isinstance(self.records, str):
            raise ConfigError(f"selection.records={self.records}: write a list, [{self.records}]")
        if self.records is not None and not len(self.records):
            raise ConfigError("selection.records=[]: name at least one record, or null for all")
        if self.split not in SPLITS:
            raise ConfigError(f"selection.split={self.split}: one of {', '.join(SPLITS)}")
        if self.file is not None and self.records is not None:
            raise ConfigError("selection.file and selection.records exclude each other: drop one")
        for name in ("start", "stop"):
            value = getattr(self, name)
            if value is None:
                continue
            if self.file is None:
                raise ConfigError(
                    f"selection.{name}={value} counts rows of selection.file, which is not given"
                )
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise ConfigError(f"selection.{name}={value}: a row number, at least 0")
        if self.stop is not None and self.stop <= (self.start or 0):
            raise ConfigError(
                f"selection.stop={self.stop}: must be above selection.start={self.start or 0} "
                "(stop itself is excluded)"
            )

    @classmethod
    def from_config(cls, node: Mapping[str, Any], classes: Sequence[str] = CLASSES) -> Selection:
        """Build from the ``selection`` group of a configuration; its ``name`` is dropped."""
        fields = {key: value for key, value in node.items() if key != "name"}
        known = [name for name in cls.__dataclass_fields__ if name != "classes"]
        unknown = set(fields) - set(known)
        if unknown:
            raise ConfigError(
                f"selection.{min(unknown)}: no such option; known: {', '.join(known)}"
            )
        return cls(**fields, classes=tuple(classes))

    @property
    def sources(self) -> tuple[str, ...]:
        """Class letters attacked."""
        if self.source is None:
            return tuple(self.classes)
        names = [self.source] if isinstance(self.source, str) else list(self.source)
        return tuple(class_letter(str(name)) for name in names)

    @property
    def limits(self) -> dict[str, int | None]:
        """Class letter -> largest number of records, ``None`` for no limit.

        Raises:
            ConfigError: ``per_class`` is no count, or names an unknown class.
        """
        given = self.per_class
        if given is None:
            return dict.fromkeys(self.classes)
        if not isinstance(given, Mapping):
            return dict.fromkeys(self.classes, _count("selection.per_class", given))
        limits: dict[str, int | None] = dict.fromkeys(self.classes, 0)
        for name, count in given.items():
            letter = _letter("selection.per_class", str(name), dict(given), self.classes)
            limits[letter] = _count(f"selection.per_class.{name}", count, zero=True)
        return limits


def _count(option: str, value: Any, *, zero: bool = False) -> int:
    least = 0 if zero else 1
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{option}={value}: must be a whole number, at least {least}")
    return value


def _letter(option: str, name: str, given: Any, classes: Sequence[str]) -> str:
    letter = class_letter(name)
    if letter not in classes:
        known = ", ".join(class_name(c) for c in classes)
        shown = given if isinstance(given, Mapping) else _listed(given)
        raise ConfigError(f"{option}={shown}: unknown class {name!r}, choose from {known}")
    return letter


def _listed(values: Any) -> str:
    names = [values] if isinstance(values, str) else list(values)
    return f"[{','.join(class_name(str(v)) for v in names)}]"


def _named(records: RecordSet, option: str, names: Sequence[str]) -> np.ndarray:
    """(R,) bool: is the record among ``names``?"""
    wanted = {str(name) for name in names}
    for name in names:
        if str(name) in records.skipped:
            why = records.skipped[str(name)]
            raise ConfigError(f"{option}: record {name} of {records.name} was skipped: {why}")
    missing = sorted(wanted - set(records.ids))
    if missing:
        near = get_close_matches(missing[0], records.ids, n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise ConfigError(f"{option}: {records.name} has no record {missing[0]}{more}{hint}")
    return np.array([name in wanted for name in records.ids], dtype=bool)


def select(
    records: RecordSet,
    correct: np.ndarray | None,
    selection: Selection,
    split: np.ndarray | None = None,
    n: int = N_SAMPLES,
) -> np.ndarray:
    """Positions of the records to attack, in record order.

    Args:
        records: R records.
        correct: (R,) bool, which the victim classifies correctly; ``None`` takes all.
        selection: what is wanted.
        split: (R,) of ``"train"``, ``"heldout"`` or ``""``, as the victim's card says; needed where
            ``selection.split`` is not ``all``.
        n: samples of an input: what lies behind them does not matter.

    Returns:
        (M,) int64 positions, ascending, M >= 1: those that are named, or of each class the first
        ``per_class``, in the split, correctly classified and usable (neither empty nor a flat
        line).

    Raises:
        ConfigError: an unknown record, a split that is not known, or nothing left to attack; the
            message says what emptied it.
    """
    keep = np.isin(records.labels, selection.sources)
    steps = [(f"of class {_listed(selection.sources)}", keep.sum())]
    if selection.records is not None:
        keep &= _named(records, "selection.records", selection.records)
        steps.append(("named by selection.records", keep.sum()))
    if selection.file is not None:
        rows = index_files.read(selection.file, selection.start, selection.stop)
        option = f"selection.file={selection.file}"
        keep &= _named(records, option, [row.record for row in rows])
        steps.append(("named by selection.file", keep.sum()))
    if selection.split != "all":
        if split is None:
            raise ConfigError(
                f"selection.split={selection.split}: the victim's card does not say which records "
                "of this data source it was trained on; use selection.split=all"
            )
        keep &= np.asarray(split) == selection.split
        steps.append((f"in selection.split={selection.split}", keep.sum()))
    if correct is not None:
        keep &= np.asarray(correct, dtype=bool)
        steps.append(("classified correctly by the victim", keep.sum()))
    # Named records are all meant, whatever the default number of a class is.
    named = selection.records is not None or selection.file is not None
    limits = dict.fromkeys(selection.classes) if named else selection.limits
    chosen: list[int] = []
    taken = dict.fromkeys(selection.classes, 0)
    for position in np.flatnonzero(keep):
        letter = str(records.labels[position])
        limit = limits[letter]
        # Usability reads the signal, so it is asked last and only as often as needed.
        if (limit is None or taken[letter] < limit) and not records.unusable(int(position), n):
            taken[letter] += 1
            chosen.append(int(position))
    if not chosen:
        steps.append(("usable" if named else "usable and within selection.per_class", 0))
        story = ", then ".join(f"{int(count)} {what}" for what, count in steps)
        raise ConfigError(f"selection: no record is left of {len(records)}: {story}")
    return np.array(chosen, dtype=np.int64)
