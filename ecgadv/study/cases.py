"""Which cases there are: a record toward a target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ecgadv.errors import ConfigError
from ecgadv.records.base import class_letter, class_name

ANY = "any"
"""Target of an untargeted case in tables, and source of a universal one of several classes."""


@dataclass(frozen=True)
class CaseSpec:
    """One record toward one target.

    Attributes:
        record: name of the record.
        position: of the record in its set.
        source: class letter, or ``any`` of a universal perturbation of several classes.
        target: class letter, or ``any``.
        universal: records that a universal perturbation is made from, of which ``record`` is the
            first; 0 for a perturbation of this record alone.
    """

    record: str
    position: int
    source: str
    target: str
    universal: int = 0

    @property
    def case_id(self) -> str:
        """Name of the case, safe in file names."""
        name = f"universal{self.universal}" if self.universal else self.record
        return f"{name}_{class_name(self.source)}_to_{class_name(self.target)}"


def enumerate_cases(
    records: Sequence[tuple[str, int, str]], target: str, classes: Sequence[str]
) -> list[CaseSpec]:
    """Cases of (record, position, source) triples toward ``all``, ``untargeted`` or one class.

    A record whose class is the target has no case. Raises :class:`ConfigError` where none is left.
    """
    specs = []
    for record, position, source in records:
        if target == "untargeted":
            wanted = [ANY]
        elif target == "all":
            wanted = [c for c in classes if c != source]
        else:
            wanted = [class_letter(target)] if class_letter(target) != source else []
        specs += [CaseSpec(record, position, source, t) for t in wanted]
    if not specs:
        raise ConfigError(f"target={target}: every selected record is of that class already")
    return specs
