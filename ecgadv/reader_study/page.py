"""A blinded reading study: a page that runs offline, and its key.

The page holds signals under names that mean nothing; which of them was altered, and how, is in the
key, a file of its own that readers are not given. Every reader sees a recording once in the first
part: under which metric, rotates from reader to reader (a Latin square).
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgadv.errors import StoreError
from ecgadv.reader_study.answers import KEY_FORMAT
from ecgadv.records.base import CLASSES
from ecgadv.report import data
from ecgadv.report.paper import GAIN, busiest_start, limits, strip_gain
from ecgadv.store import write_atomic

if TYPE_CHECKING:
    pass

FOLDER = "reading_study"
"""Where page and key lie, in the folder of the run or sweep."""

PAGE, KEY = "study.html", "study_key.json"

STEP_MV = 0.001
"""Resolution of the signals in the page, mV: finer than a screen shows, and CinC 2017's own."""

FEWEST = 2
"""Recordings that a study needs at least."""


@dataclass(frozen=True)
class Candidate:
    """One recording altered toward one target under every metric.

    Attributes:
        record: its name.
        source: class letter.
        target: class letter, or ``any``.
        case_ids: metric -> case.
        signal: (n,) the original in mV, its own samples.
        deltas: metric -> (n,) perturbation in mV.
        fs: sampling rate in Hz.
    """

    record: str
    source: str
    target: str
    case_ids: dict[str, str]
    signal: np.ndarray
    deltas: dict[str, np.ndarray]
    fs: int


def candidates(runs: Mapping[str, Path], count: int, seed: int) -> list[Candidate]:
    """Recordings whose attack succeeded under every metric, at random, classes in turn.

    Of recordings with several leads the first is shown.

    Args:
        runs: metric -> folder of its run.
        count: how many at most; each recording once, toward a target drawn at random.
        seed: of the draw.

    Raises:
        StoreError: a run holds injected signals, its recordings cannot be read again, or too few
            recordings are shared.
    """
    tables = {}
    for metric, run in runs.items():
        if data.read_config(run).get("threat_model") == "type2":
            raise StoreError(f"{run}: a study needs edited recordings, not injected signals")
        cases = data.read_cases(run)
        won = cases[data.succeeded(cases)]
        keys = zip(
            won["record"].astype(str), won["source"].astype(str), won["target"].astype(str),
            strict=True,
        )  # fmt: skip
        tables[metric] = dict(zip(keys, won["case_id"].astype(str), strict=True))
    first = next(iter(tables.values()))
    shared = sorted(key for key in first if all(key in table for table in tables.values()))
    rng = np.random.default_rng([seed, 11])
    chosen = _draw(shared, count, rng)
    if len(chosen) < FEWEST:
        raise StoreError(
            f"{' and '.join(map(str, runs.values()))}: {len(chosen)} recordings were attacked with "
            f"success under every metric, a study needs at least {FEWEST}"
        )
    deltas = {
        metric: data.read_perturbations(run, [tables[metric][key] for key in chosen], lead=0)
        for metric, run in runs.items()
    }
    name0, run0 = next(iter(runs.items()))
    signals, problem = data.read_signals(run0, [tables[name0][key] for key in chosen], lead=0)
    if problem:
        raise StoreError(f"{run0}: the recordings cannot be read again: {problem}")
    fs = data.sampling_rate(run0)
    found = []
    for key in chosen:
        ids = {metric: table[key] for metric, table in tables.items()}
        x = signals[ids[name0]]
        _, scale = deltas[name0][ids[name0]]
        noises = {m: deltas[m][case][0][: x.size].astype(float) * scale for m, case in ids.items()}
        found.append(Candidate(*key, ids, x.astype(float) * scale, noises, fs))
    return found


def _draw(
    shared: Sequence[tuple[str, str, str]], count: int, rng: np.random.Generator
) -> list[tuple[str, str, str]]:
    """Each recording once, classes taking turns."""
    queues = []
    known = {key[1] for key in shared}
    # The usual order first; a victim may have classes of its own.
    for source in [*(c for c in CLASSES if c in known), *sorted(known - set(CLASSES))]:
        mine: dict[str, list[tuple[str, str, str]]] = {}
        for key in shared:
            if key[1] == source:
                mine.setdefault(key[0], []).append(key)
        picked = [keys[int(rng.integers(len(keys)))] for _, keys in sorted(mine.items())]
        queues.append([picked[i] for i in rng.permutation(len(picked))])
    chosen: list[tuple[str, str, str]] = []
    while any(queues) and len(chosen) < count:
        for queue in queues:
            if queue and len(chosen) < count:
                chosen.append(queue.pop())
    return chosen


class _Names:
    """Names that mean nothing, none twice."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.used: set[str] = set()

    def __call__(self) -> str:
        while (name := f"{self.rng.integers(16**8):08x}") in self.used:
            pass
        self.used.add(name)
        return name


def _packed(signal: np.ndarray) -> str:
    """(samples,) mV as base64 of 16-bit integers in :data:`STEP_MV`, little-endian."""
    counts = np.clip(np.rint(signal / STEP_MV), -32768, 32767).astype("<i2")
    return base64.b64encode(counts.tobytes()).decode()


def _window(
    candidate: Candidate, energy: np.ndarray, seconds: float
) -> tuple[slice, dict[str, np.ndarray]]:
    fs, size = candidate.fs, candidate.signal.size
    start = round(busiest_start(energy, size, seconds, fs) * fs)
    shown = slice(start, min(size, start + round(seconds * fs)))
    strips = {"original": candidate.signal[shown]}
    strips |= {m: candidate.signal[shown] + d[shown] for m, d in candidate.deltas.items()}
    return shown, strips


def _paper(signals: Sequence[np.ndarray]) -> dict[str, float]:
    """Gain and ends of the strips of a trial, alike for all of them."""
    values = np.concatenate(list(signals))
    gain = strip_gain(values)
    low, high = limits(values, (-0.5 * GAIN / gain, 1.0 * GAIN / gain), gain)
    return {"gain": gain, "low": round(low, 6), "high": round(high, 6)}


def trials(
    found: Sequence[Candidate], seed: int, seconds: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The trials of a study, and what is behind them.

    With several metrics a third of the recordings goes to the second part, in which the original is
    shown and the closest of its altered versions is looked for; with one metric there is no second
    part. In the first part every recording has one trial for each metric, in groups of readers of
    their own.

    Args:
        found: the recordings.
        seed: of names, sides and allocation.
        seconds: how much of a recording is shown, from where the perturbation is strongest.

    Returns:
        Trials as the page holds them, in an order that means nothing, and trial -> what the key
        says of it.
    """
    rng = np.random.default_rng([seed, 13])
    name = _Names(rng)
    metrics = list(found[0].deltas)
    n_closest = len(found) // 3 if len(metrics) > 1 else 0
    shown: list[dict[str, Any]] = []
    behind: dict[str, Any] = {}

    def add(candidate: Candidate, kind: str, group: int | None, names: list[str], view: slice,
            strips: Mapping[str, np.ndarray]) -> None:  # fmt: skip
        trial, ids = name(), {what: name() for what in names}
        order = [names[i] for i in rng.permutation(len(names))]
        signals = [strips[what] for what in ("original", *names)]
        entry: dict[str, Any] = {
            "id": trial, "kind": kind, "group": group, **_paper(signals),
            "strips": [{"id": ids[what], "data": _packed(strips[what])} for what in order],
        }  # fmt: skip
        if kind == "closest":
            entry["reference"] = _packed(strips["original"])
        shown.append(entry)
        behind[trial] = {
            "kind": kind, "group": group, "record": candidate.record, "source": candidate.source,
            "target": candidate.target, "start_s": view.start / candidate.fs,
            "cases": {what: candidate.case_ids[what] for what in names if what != "original"},
            "strips": {ids[what]: what for what in order},
        }  # fmt: skip

    # The last of the list go to the second part: classes take turns, so both parts hold all.
    for position, candidate in enumerate(found):
        if position < len(found) - n_closest:
            for rank, metric in enumerate(metrics):
                view, strips = _window(candidate, candidate.deltas[metric], seconds)
                group = (rank - position) % len(metrics)
                add(candidate, "detect", group, ["original", metric], view, strips)
        else:
            together = np.sqrt(sum(np.square(d) for d in candidate.deltas.values()))
            view, strips = _window(candidate, together, seconds)
            add(candidate, "closest", None, metrics, view, strips)
    return [shown[i] for i in rng.permutation(len(shown))], behind


def write_study(
    runs: Mapping[str, Path],
    folder: Path,
    *,
    records: int = 24,
    seconds: float = 10.0,
    seed: int = 0,
) -> tuple[Path, Path]:
    """Write the page of a study and its key.

    Args:
        runs: metric -> folder of its run; of one metric alone only the first question is asked.
        folder: of the run or sweep; files go to :data:`FOLDER` in it.
        records: recordings at most.
        seconds: how much of each is shown.
        seed: of everything that is drawn; it is stored in the key, not in the page.

    Returns:
        Page and key.

    Raises:
        StoreError: see :func:`candidates`, or the files cannot be written.
    """
    import jinja2

    found = candidates(runs, records, seed)
    shown, behind = trials(found, seed, seconds)
    content: dict[str, Any] = {
        "fs": found[0].fs,
        "step": STEP_MV,
        "groups": len(runs),
        "trials": shown,
    }
    content["study"] = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]
    key = {
        "format": KEY_FORMAT, "study": content["study"], "seed": seed, "seconds": seconds,
        "records": len(found), "metrics": {m: str(run) for m, run in runs.items()},
        "trials": behind,
    }  # fmt: skip
    assets = resources.files("ecgadv.reader_study")
    text = {kind: assets.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js")}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(assets.joinpath("page.html").read_text("utf-8"))
    # Encoded as a whole: nothing of a trial can be read in the page's source.
    payload = base64.b64encode(json.dumps(content, separators=(",", ":")).encode()).decode()
    place = folder / FOLDER
    try:
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise StoreError(f"{place}: cannot be written ({error.strerror})") from None
    style_text, script = (jinja2.utils.markupsafe.Markup(text[kind]) for kind in ("css", "js"))
    page = template.render(style=style_text, script=script, payload=payload)
    write_atomic(place / PAGE, page)
    write_atomic(place / KEY, json.dumps(key, indent=1) + "\n")
    return place / PAGE, place / KEY
