"""The recordings that injected signals are made from, and those that they are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ecgadv.errors import ConfigError
from ecgadv.records.base import RecordSet, class_name
from ecgadv.records.selection import Selection, select
from ecgadv.study.cases import ANY, CaseSpec
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import flatten


@dataclass(frozen=True)
class Audience:
    """The recordings that injected signals are made from, and those that they are tried on.

    Attributes:
        eligible: (R,) bool, records that may be attacked or tried: classified correctly, and at
            least as long as a classifier input.
        training: class letter -> positions of the records of a universal perturbation; {} without.
        most: other records of each class that a signal is tried on; None for all.
    """

    eligible: np.ndarray
    training: dict[str, np.ndarray]
    most: int | None = None

    def trained_on(self, spec: CaseSpec) -> np.ndarray:
        """Positions of the records that a universal perturbation is made from."""
        if spec.source == ANY:
            return np.concatenate(list(self.training.values()))
        return self.training[spec.source]

    def pool(self, records: RecordSet, victim: Victim) -> np.ndarray | None:
        """(K, leads·n) standardised records of universal training, class after class."""
        if not self.training:
            return None
        rows = np.concatenate(list(self.training.values()))
        return flatten(records.batch(rows, victim.n, victim.over).x)

    def seen(self, specs: Sequence[CaseSpec]) -> np.ndarray | None:
        """(B, 2) first record and number of records of the pool that each case is made from."""
        if not self.training:
            return None
        starts, first = {ANY: 0}, 0
        for letter, rows in self.training.items():
            starts[letter], first = first, first + len(rows)
        return np.array([(starts[s.source], len(self.trained_on(s))) for s in specs])

    def others(self, records: RecordSet, spec: CaseSpec) -> list[int]:
        """Unseen records of the perturbation's class; of a universal one the other classes too."""
        seen = {spec.position}
        if spec.universal:
            seen = {int(i) for i in self.trained_on(spec)}
        classes = [spec.source] if spec.source != ANY else []
        if spec.universal:
            classes += [
                c
                for c in dict.fromkeys(str(label) for label in records.labels)
                if c not in (spec.source, spec.target)
            ]
        chosen = []
        for letter in classes:
            rows = np.flatnonzero(self.eligible & (records.labels == letter))
            chosen += [int(i) for i in rows if int(i) not in seen][: self.most]
        return chosen


def audience(
    cfg: Mapping[str, Any],
    victim: Victim,
    records: RecordSet,
    correct: np.ndarray,
    split: np.ndarray,
    train_records: int = 0,
) -> Audience:
    """The recordings of a run.

    Raises:
        ConfigError: no record is long enough, or fewer than a universal perturbation needs.
    """
    n = victim.n
    eligible = np.asarray(correct, bool) & (records.lengths >= n)
    if not eligible.any():
        raise ConfigError(
            f"threat_model=type2: no record of {records.name} that lasts at least "
            f"{n / victim.fs:g} s is classified correctly"
        )
    training = {}
    if cfg["universal"]:
        training = _training_records(
            cfg, records, victim.classes, eligible, split, train_records, n
        )
    return Audience(eligible, training, cfg["evaluation"]["max_records"])


def _training_records(
    cfg: Mapping[str, Any],
    records: RecordSet,
    classes: Sequence[str],
    eligible: np.ndarray,
    split: np.ndarray,
    count: int,
    n: int,
) -> dict[str, np.ndarray]:
    """The first ``count`` records of each source class that has a case.

    With ``universal=all`` so many in all, shared out evenly over the classes.
    """
    selection = replace(Selection.from_config(cfg["selection"], classes), per_class=count)
    rows = select(records, eligible, selection, split, n)
    found = {str(c) for c in records.labels[rows]}
    letters = [c for c in classes if c in found and class_name(c) != cfg["target"]]
    share = dict.fromkeys(letters, count)
    if cfg["universal"] == "all":
        share = {c: (count + len(letters) - 1 - i) // len(letters) for i, c in enumerate(letters)}
    training = {}
    for letter, wanted in share.items():
        mine = rows[records.labels[rows] == letter][:wanted]
        total = int((eligible & (records.labels == letter)).sum())
        if len(mine) < wanted or total <= wanted:
            raise ConfigError(
                f"attack.train_records={count}: only {min(len(mine), total - 1)} correctly "
                f"classified records of class {class_name(letter)} that fill an input can be used"
            )
        if wanted:
            training[letter] = mine
    return training


def universal_specs(
    heard: Audience, specs: Sequence[CaseSpec], records: RecordSet, together: bool = False
) -> list[CaseSpec]:
    """One case a pair of classes instead of one a record; named after the first training record.

    With ``universal=all`` one a target class, its source ``any``.
    """
    pairs = dict.fromkeys((ANY if together else s.source, s.target) for s in specs)
    out = []
    for source, target in pairs:
        spec = CaseSpec("", 0, source, target)
        rows = heard.trained_on(spec)
        first = int(rows[0])
        out.append(CaseSpec(records.ids[first], first, source, target, universal=len(rows)))
    return out
