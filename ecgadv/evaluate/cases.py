"""From selected records to cases, and from a solver's answer to verified rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgadv.attacks.engine import Solution
from ecgadv.errors import ConfigError
from ecgadv.evaluate.perceptibility import cells, perceptibility
from ecgadv.evaluate.statistics import distances
from ecgadv.evaluate.verification import Verdict, verify
from ecgadv.records.base import Batch, class_letter, class_name
from ecgadv.records.preprocessing import FS
from ecgadv.threat.objectives import UNTARGETED, Cases, draw_onsets
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import flatten, valid_mask

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


def build_cases(
    specs: Sequence[CaseSpec],
    batch: Batch,
    victim: Victim,
    *,
    seed: int,
    perturb_padding: bool = False,
    shifts: int = 0,
    mask: np.ndarray | None = None,
) -> Cases:
    """Arrays of a chunk; ``batch`` holds a row per case, in order."""
    n, leads = victim.n, victim.leads
    span = np.full(len(specs), n) if perturb_padding else batch.lengths
    valid = np.tile(valid_mask(span, n), (1, leads))
    free = valid if mask is None else valid * np.tile(np.asarray(mask, np.float32), leads)
    # Toward a target the class left does not matter, so one of many classes needs none.
    source = np.array([0 if s.source == ANY else victim.classes.index(s.source) for s in specs])
    target = np.array(
        [UNTARGETED if s.target == ANY else victim.classes.index(s.target) for s in specs]
    )
    seeds = [case_seed(seed, s.position, t) for s, t in zip(specs, target, strict=True)]
    onsets = draw_onsets(seeds, span, shifts)
    return Cases(flatten(batch.x), valid, free, source, target, span, onsets)


def check_band(attack: Any, victim: Victim) -> None:
    """Raise :class:`ConfigError` for a band of a perturbation where it would mean something else.

    Bands are kept on one signal at 300 Hz.
    """
    band = getattr(attack, "band", None)
    if band is not None and (victim.leads > 1 or victim.fs != FS):
        what = f"{victim.leads} lead(s) at {victim.fs} Hz"
        raise ConfigError(
            f"attack.band={list(band)}: victim {victim.name} reads {what}, a band needs one at "
            f"{FS} Hz"
        )


def case_seed(seed: int, position: int, target: int) -> int:
    """A seed of its own for every case, whatever batch it is in."""
    return int(np.random.SeedSequence([seed, position, target + 1]).generate_state(1)[0])


def evaluation_onsets(cases: Cases, specs: Sequence[CaseSpec], seed: int, count: int) -> np.ndarray:
    """(B, count) uniform onsets that no attack has seen (a stream of their own)."""
    rows = []
    for spec, target, length in zip(specs, cases.target, cases.lengths, strict=True):
        stream = np.random.SeedSequence([seed, spec.position, int(target) + 1, 1])
        rows.append(np.random.default_rng(stream).integers(0, int(length), count))
    return np.stack(rows)


def verified_rows(
    victim: Victim,
    specs: Sequence[CaseSpec],
    batch: Batch,
    cases: Cases,
    solution: Solution,
    splits: Sequence[str],
    seconds: float,
    onsets: np.ndarray | None = None,
    verdict: Verdict | None = None,
) -> list[dict[str, Any]]:
    """Rows of ``cases.csv``, judged by the deployed pipeline; the solver's own account is unused.

    A ``verdict`` that another protocol came to takes the place of the reading with ``onsets``.
    """
    if verdict is None:
        verdict = verify(
            victim, flatten(batch.x), solution.delta, cases.lengths, cases.source, cases.target,
            onsets=onsets,
        )  # fmt: skip
    x = flatten(batch.x)
    sizes = distances(solution.delta, x, batch.lengths, victim.leads)
    by_lead = (len(x), victim.leads, victim.n)
    seen = perceptibility(
        solution.delta.reshape(by_lead), x.reshape(by_lead), batch.lengths, batch.scale_mv,
        victim.fs,
    )  # fmt: skip
    rows = []
    for i, spec in enumerate(specs):
        rows.append(
            {
                "case_id": spec.case_id,
                "record": spec.record,
                "source": spec.source,
                "target": spec.target,
                "predicted": victim.classes[int(verdict.predicted[i])],
                "success": bool(verdict.success[i]),
                "p_target": float(verdict.p_target[i]),
                "margin": float(verdict.margin[i]),
                **{name: float(values[i]) for name, values in sizes.items()},
                "n_gradients": int(solution.gradients[i]),
                "n_forwards": int(solution.forwards[i]),
                "seconds": round(seconds / len(specs), 4),
                "status": "ok",
                "message": "",
                "split": splits[i],
                **cells(seen, i),
            }
            | ({} if onsets is None else {"target_rate": float(verdict.rate[i])})
        )
    return rows


def failed_rows(specs: Sequence[CaseSpec], message: str) -> list[dict[str, Any]]:
    """Rows of cases whose attack raised an error."""
    return [
        {
            "case_id": s.case_id,
            "record": s.record,
            "source": s.source,
            "target": s.target,
            "success": False,
            "status": "failed",
            "message": message,
        }
        for s in specs
    ]


def skipped_row(record: str, label: str, message: str) -> dict[str, Any]:
    """The row of a record that could not be used."""
    return {
        "case_id": record,
        "record": record,
        "source": label,
        "target": "",
        "success": False,
        "status": "skipped",
        "message": message,
    }
