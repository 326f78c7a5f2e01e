"""Reading studies: the page and its key (``task=report``), and the scores (``task=evaluate``)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ecgadv.errors import ConfigError, StoreError
from ecgadv.reader_study.answers import JOINED, join, read_answers, read_key
from ecgadv.reader_study.figure import scores_figure
from ecgadv.reader_study.page import FOLDER, KEY, write_study
from ecgadv.reader_study.scores import score
from ecgadv.report import data, style
from ecgadv.signature import signature
from ecgadv.store import write_atomic, write_csv
from ecgadv.store.identity import IDENTITY
from ecgadv.tracking.content import run_folders

WORDS = {"detect": "altered?", "closest": "closest?"}
"""The two questions, in short."""


def runs_by_metric(place: Path) -> dict[str, Path]:
    """Metric -> folder of its first job; of a run itself where ``place`` is one.

    Raises:
        StoreError: there is no run.
    """
    is_run = (place / "cases.csv").is_file()
    folders = [place] if is_run else [f for f in run_folders(place) if (f / "cases.csv").is_file()]
    found: dict[str, Path] = {}
    for folder in folders:
        found.setdefault(data.metric_of(data.read_config(folder)) or folder.name, folder)
    if not found:
        raise StoreError(f"{place}: no run with a cases.csv lies there")
    return found


def write(cfg: Mapping[str, Any], place: Path) -> int:
    """Write page and key of a study of a run or sweep, and say where they are."""
    report = cfg["report"]
    page, key = write_study(
        runs_by_metric(place), place, records=int(report["study_records"]),
        seconds=float(report["study_seconds"]), seed=int(cfg["seed"]),
    )  # fmt: skip
    content = read_key(key)
    kinds = [trial["kind"] for trial in content["trials"].values()]
    print(
        f"study {content['study']}: {content['records']} recordings, {len(content['metrics'])} "
        f"metrics; each reader answers {content['records']} times, "
        f"{kinds.count('closest')} of them in the second part"
    )
    print(f"for readers: {page}")
    print(f"for you alone: {key}")
    return 0


def key_file(cfg: Mapping[str, Any], answers: Path) -> Path:
    """The key that the configuration names, or the one that lies where keys lie.

    Raises:
        ConfigError: there is none.
    """
    given = cfg["evaluate"].get("study_key")
    if given:
        return Path(given)
    places = [answers if answers.is_dir() else answers.parent]
    places += [Path(p) / FOLDER for p in (cfg["evaluate"].get("run"), cfg.get("sweep")) if p]
    for place in places:
        if (place / KEY).is_file():
            return place / KEY
    raise ConfigError(
        f"evaluate.study={answers}: no {KEY} lies beside it; give evaluate.study_key=FILE, or the "
        "run or sweep that the study is of"
    )


def evaluate(cfg: Mapping[str, Any], folder: Path) -> int:
    """Score answers: writes ``study_answers.csv``, ``study_scores.json`` and a figure.

    Raises:
        ConfigError: the key is not found.
        StoreError: answers or key are not readable, or do not belong together.
    """
    answers = Path(cfg["evaluate"]["study"])
    key = read_key(key_file(cfg, answers))
    rows = join(read_answers(answers), key)
    scores = {"study": key["study"], "study_seed": key["seed"], **score(rows, int(cfg["seed"]))}
    mine = {"signature": signature(cfg)}
    write_atomic(folder / IDENTITY, json.dumps(mine) + "\n")
    answers_only = [{k: v for k, v in row.items() if k != "offered"} for row in rows]
    write_csv(folder / "study_answers.csv", answers_only, JOINED)
    write_atomic(folder / "study_scores.json", json.dumps(scores, indent=1) + "\n")
    with style.vector_copies():
        style.save_figure(scores_figure(scores), folder / "figures" / "study_scores.png")
    show(scores)
    print(f"results: {folder}")
    return 0


def show(scores: Mapping[str, Any]) -> None:
    """Print the scores as a table, and what they come to."""
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{scores['n_answers']} answers of {scores['n_readers']} readers on "
        f"{scores['n_records']} recordings",
        title_justify="left",
    )
    for column in ("question", "metric", "answers", "share", "95 %", "95 %, over readers"):
        table.add_column(column, justify="left" if column in ("question", "metric") else "right")
    for kind, words in WORDS.items():
        for metric, mine in scores.get(kind, {}).items():
            count = mine["n_correct"] if kind == "detect" else mine["n_chosen"]
            table.add_row(
                words, metric, f"{count}/{mine['n']}", _percent(mine["share"]),
                _range(mine["ci95"]), _range(mine["ci95_readers_records"]),
            )  # fmt: skip
        table.add_section()
    Console().print(table)
    for kind, words in WORDS.items():
        if kind in scores:
            least = scores["least_noticeable"][kind]
            told = "apart from every other" if least["separate"] else "not told apart from all"
            print(f"least noticeable by '{words}' {least['metric']}, {told} (bootstrap, 95 %)")


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _range(ends: list[float | None]) -> str:
    low, high = ends
    return "–" if low is None or high is None else f"{100 * low:.1f} – {100 * high:.1f} %"
