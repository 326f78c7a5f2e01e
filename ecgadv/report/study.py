"""What a study ends in: one table and one figure over the jobs of its sweep.

For sweeps of injected signals (Type II) and of edited recordings that are read from random onsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgadv.evaluate.tables import Table
from ecgadv.records.base import CLASSES
from ecgadv.report import data, style
from ecgadv.report.type2 import KINDS, read_table
from ecgadv.tracking.content import read_json, run_folders, settings

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SIZES = dict.fromkeys(("mean_power", "rms_mv", "peak_mv", "snr_db", "d_l2"), float)

STUDY = Table(
    {
        "job": str, "setting": str, "tried_on": str, "pair": str, "n_perturbations": int,
        "n_records": int, "n_trials": int, "n_hits": int, "success_rate": float, "ci95_low": float,
        "ci95_high": float, "wilson_low": float, "wilson_high": float, **_SIZES,
        "seconds_per_case": float, "loss": float, "loss_at_nine_tenths": float,
    },
    empty=frozenset(
        {"success_rate", "ci95_low", "ci95_high", *_SIZES, "loss", "loss_at_nine_tenths"}
    ),
)  # fmt: skip
"""``study.csv``; columns from ``mean_power`` on are medians over the job's cases."""

ENDS = ("ci95_low", "ci95_high")
"""Ends of the interval over records; None where there are too few of them."""

EDITED = "edited"
"""Kind of the rows of edited recordings, beside those of :data:`KINDS`."""

SHORT = {
    "same_record": "own record", "other_records": "others of the class",
    "other_classes": "other classes", EDITED: "own record",
}  # fmt: skip
WORDS = {kind: words for kind, (words, _) in KINDS.items()} | {EDITED: "its own record"}


@dataclass(frozen=True)
class Job:
    """A job of a study.

    Attributes:
        name: its folder, relative to the sweep's.
        setting: the overrides in which it differs from the other jobs.
        rows: rows of the table, see :data:`STUDY`.
        history: rows of ``history.csv``; None without.
        settled: iteration from which on the power is within its limit, which falls until then; 0
            where it always is.
    """

    name: str
    setting: str
    rows: list[dict[str, Any]]
    history: pd.DataFrame | None
    settled: int = 0


def _settled(attack: Mapping[str, Any]) -> int:
    from ecgadv.attacks.eot import FALLING

    falls = attack.get("schedule") == "budget" and float(attack.get("start_power") or 1) > 1
    return round(FALLING * int(attack["steps"])) if falls else 0


def _intervals(part: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("n_perturbations", "n_records", "n_trials", "n_hits", "success_rate")
    low, high = part["ci95_records"] or (None, None)
    wilson = dict(zip(("wilson_low", "wilson_high"), part["ci95_trials"], strict=True))
    return {key: part[key] for key in keys} | {"ci95_low": low, "ci95_high": high} | wilson


def _edited(cases: pd.DataFrame, shifts: int) -> dict[str, dict[str, Any]]:
    """Pair -> rates of edited recordings over onsets, as :func:`rates` has them; ``all`` first.

    Of runs by version 1 of the attack, which have no ``evaluation.csv``: all onsets count.
    """
    from ecgadv.evaluate.trials import rates

    rows = [
        {
            "perturbation_case": case["case_id"], "victim_record": case["record"],
            "same_record": True, "n_shifts": shifts, "success_rate": case["target_rate"],
            "pair": f"{case['source']}>{case['target']}",
        }
        for case in cases.to_dict("records")
        if case["status"] == "ok" and case["target_rate"] == case["target_rate"]
    ]  # fmt: skip
    if not rows:
        return {}
    pairs = list(dict.fromkeys(str(row["pair"]) for row in rows))
    return {"all": rates(rows)} | {p: rates([r for r in rows if r["pair"] == p]) for p in pairs}


def _losses(history: pd.DataFrame | None) -> dict[str, float]:
    """Median loss of the last tenth of the iterations, and of the tenth before it."""
    if history is None:
        return {}
    last = history["iteration"].max()
    late = history[history["iteration"] > 0.9 * last]
    before = history[(history["iteration"] > 0.8 * last) & (history["iteration"] <= 0.9 * last)]
    found = {"loss": float(late["loss"].median())}
    return found | ({"loss_at_nine_tenths": float(before["loss"].median())} if len(before) else {})


def _varied(folder: Path) -> set[str]:
    """Keys that the configuration of a job's sweep varies by itself, as an experiment's does."""
    import yaml

    try:
        hydra = yaml.safe_load((folder / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))[
            "hydra"
        ]
        return set(hydra["sweeper"]["params"] or ())
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return set()


def read_study(*sweeps: Path) -> list[Job]:
    """The jobs of sweeps that were tried at random onsets; [] where there is none.

    Args:
        sweeps: folders of one sweep, or of several that are one study.
    """
    place = {f: sweep for sweep in sweeps for f in run_folders(sweep)}
    folders = [f for f in place if (f / "summary.json").is_file()]
    given = {folder: settings(folder) for folder in folders}
    shared = set.intersection(*map(set, given.values())) if given else set()
    if len(given) == 1:
        varied = _varied(folders[0])
        shared = {o for o in shared if varied and o.partition("=")[0] not in varied}
    jobs = []
    for folder, own in given.items():
        summary, config = read_json(folder / "summary.json"), data.read_config(folder)
        name = str(folder.relative_to(place[folder]))
        setting = " ".join(o for o in own if o not in shared) or name
        kinds: dict[str, dict[str, Any]] = dict(summary.get("evaluation") or {})
        tried = kinds or config.get("deployment") == "local"
        if not tried or not (folder / "cases.csv").is_file():
            continue
        cases = data.read_cases(folder)
        if not kinds and "target_rate" in cases:
            shifts = int((config.get("evaluation") or {}).get("shifts") or 1)
            edited = _edited(cases, shifts)
            kinds = {EDITED: edited} if edited else {}
        if not kinds:
            continue
        history = read_table(folder / "history.csv")
        done = cases[cases["status"].eq("ok")]
        sizes = {c: float(done[c].median()) for c in _SIZES if c in done and done[c].notna().any()}
        sizes["seconds_per_case"] = float(done["seconds"].mean())
        rows = [
            {"job": name, "setting": setting, "tried_on": kind, "pair": pair}
            | _intervals(part) | sizes | _losses(history)
            for kind, parts in kinds.items()
            for pair, part in parts.items()
        ]  # fmt: skip
        jobs.append(Job(name, setting, rows, history, _settled(config.get("attack") or {})))
    return jobs


def _lines(jobs: Sequence[Job]) -> list[tuple[Job, dict[str, Any]]]:
    """What is shown of each job: its pairs where jobs have several, else all its cases together."""
    chosen = []
    for job in jobs:
        for kind in dict.fromkeys(row["tried_on"] for row in job.rows):
            mine = [row for row in job.rows if row["tried_on"] == kind]
            pairs = [row for row in mine if row["pair"] != "all"]
            chosen += [(job, row) for row in (pairs if len(pairs) > 1 else mine[:1])]
    shown = [row["pair"] for _, row in chosen if row["tried_on"] == chosen[0][1]["tried_on"]]
    if "all" in shown or len(set(shown)) < len(shown):
        return chosen
    # Every job has pairs of its own: together they are one table, in class order.
    order = {name: k for k, name in enumerate([*CLASSES, "any"])}
    return sorted(
        chosen,
        key=lambda line: (
            list(WORDS).index(line[1]["tried_on"]),
            *((order.get(c, len(order)), c) for c in line[1]["pair"].split(">")),
        ),
    )


def _label(job: Job, row: Mapping[str, Any], jobs: Sequence[Job]) -> str:
    if row["pair"] == "all":
        return job.setting
    pair = str(row["pair"]).replace(">", " → ")
    others = [r["pair"] for j in jobs if j is not job for r in j.rows]
    return f"{job.setting}  {pair}" if row["pair"] in others else pair


HEAD = ["setting", "tried on", "signals", "records", "hits", "rate", "95 %", "Wilson 95 %"]
HEAD += ["power", "rms mV", "SNR dB", "s/case"]


def table(jobs: Sequence[Job]) -> list[list[str]]:
    """Cells under :data:`HEAD`, for a terminal, Markdown or HTML."""

    def number(row: Mapping[str, Any], key: str, digits: int) -> str:
        return "–" if row.get(key) is None else f"{row[key]:.{digits}f}"

    return [
        [
            _label(job, row, jobs),
            SHORT[row["tried_on"]],
            str(row["n_perturbations"]),
            str(row["n_records"]),
            f"{row['n_hits']}/{row['n_trials']}",
            number(row, "success_rate", 3),
            "–" if row["ci95_low"] is None else f"{row['ci95_low']:.2f}–{row['ci95_high']:.2f}",
            f"{row['wilson_low']:.3f}–{row['wilson_high']:.3f}",
            number(row, "mean_power", 2),
            number(row, "rms_mv", 3),
            number(row, "snr_db", 1),
            number(row, "seconds_per_case", 1),
        ]
        for job, row in _lines(jobs)
    ]


def markdown(jobs: Sequence[Job]) -> str:
    """The table in Markdown."""
    align = ["---", "---", *["---:"] * (len(HEAD) - 2)]
    body = [HEAD, align, *table(jobs)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in body)


def _number(setting: str) -> tuple[str, float] | None:
    """Key and value of a setting of one number, seconds included; None for anything else."""
    key, _, text = setting.partition("=")
    try:
        return key, float(text.removesuffix("s"))
    except ValueError:
        return None


@style.styled
def figure(jobs: Sequence[Job]) -> Figure:
    """Rates with bootstrap intervals over records; beside them the loss, where it is kept.

    Where the jobs differ in one number, the rates are drawn against it.
    """
    lines = _lines(jobs)
    kinds = [k for k in WORDS if any(row["tried_on"] == k for _, row in lines)]
    colours = {kind: colour for kind, (_, colour) in KINDS.items()} | {EDITED: style.ADVERSARIAL}
    numbers = [_number(job.setting) for job in jobs]
    plain = all(row["pair"] == "all" or len(kinds) == len(job.rows) for job, row in lines)
    keys = {found[0] for found in numbers if found is not None}
    numeric = len(jobs) > 1 and None not in numbers and len(keys) == 1 and plain
    histories = [(job, job.history) for job in jobs if job.history is not None]
    wide = bool(histories)
    labels = list(dict.fromkeys(_label(job, row, jobs) for job, row in lines))
    height = 66.0 if numeric else max(60.0, 30.0 + 7.5 * len(labels))
    width = 210 if wide else 130
    out = style.new_figure(width, height)
    bottom, top = 13 / height, 1 - 13 / height
    first = 0.08 if numeric else min(0.32, (9 + 1.5 * max(map(len, labels))) / width)
    axes = out.add_axes((first, bottom, (0.56 if wide else 0.97) - first, top - bottom))
    for k, kind in enumerate(kinds):
        mine = [(job, row) for job, row in lines if row["tried_on"] == kind]
        word = WORDS[kind]
        style_of: dict[str, Any] = {"color": colours[kind], "marker": "o", "ms": 3.5}
        if numeric:
            points = sorted(
                (_number(job.setting)[1], row) for job, row in mine  # type: ignore[index]
            )  # fmt: skip
            axes.plot([x for x, _ in points], [r["success_rate"] for _, r in points], label=word,
                      **style_of)  # fmt: skip
            for x, row in points:
                ends = [float("nan") if row[e] is None else row[e] for e in ENDS]
                axes.plot([x, x], ends, color=colours[kind])
        else:
            aside = 0.22 * (k - (len(kinds) - 1) / 2)
            at = [labels.index(_label(job, row, jobs)) + aside for job, row in mine]
            axes.plot([r["success_rate"] for _, r in mine], at, ls="none", label=word, **style_of)
            for a, (_, row) in zip(at, mine, strict=True):
                ends = [float("nan") if row[e] is None else row[e] for e in ENDS]
                axes.plot(ends, [a, a], color=colours[kind])
    if numeric:
        values = [found[1] for found in numbers if found is not None]
        if max(values) > 20 * max(min(values), 1e-9):
            axes.set_xscale("log")
            axes.set_xticks(values, [f"{v:g}" for v in values])
            axes.minorticks_off()
        axes.set_xlabel(_axis(keys.pop()))
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("share that reaches the target")
    else:
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_yticks(range(len(labels)), labels)
        axes.set_xlabel("share of readings that reach the target")
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=3, fontsize=6.5)
    if wide:
        _draw_losses(out.add_axes((0.68, bottom, 0.3, top - bottom)), histories)
    return out


def _axis(key: str) -> str:
    names = {
        "window": "window (s)",
        "attack.power": "mean power (variances of the ECG)",
        "attack.train_records": "records that the signal is made from",
    }
    return names.get(key, key)


LEAST_LOSS = 1e-6


def _short(setting: str) -> str:
    """A setting without its number of recordings, which jobs put together may differ in."""
    return " ".join(w for w in setting.split() if not w.startswith("selection.per_class"))


def _draw_losses(axes: Any, histories: Sequence[tuple[Job, pd.DataFrame]]) -> None:
    """Median loss of each job against iterations."""
    import matplotlib

    colours = matplotlib.colormaps["cividis"](np.linspace(0, 0.85, max(2, len(histories))))
    for (job, history), colour in zip(histories, colours, strict=False):
        middle = history.groupby("iteration")["loss"].median()
        # Losses are stored with six decimals: what is smaller lies on the axis.
        values = np.maximum(middle.to_numpy(), LEAST_LOSS)
        axes.plot(middle.index, values, color=colour, label=_short(job.setting))
    axes.set_yscale("log")
    axes.set_xlabel("iteration")
    axes.set_ylabel("cross-entropy, median")
    size = 6.0 if len(histories) <= 8 else 5.0
    for at in {job.settled for job, _ in histories if job.settled}:
        axes.axvline(at, color="#777777", linestyle=":", linewidth=0.8)
        axes.annotate(
            "limit of power reached", (at, 0.02), xycoords=("data", "axes fraction"), rotation=90,
            ha="right", va="bottom", fontsize=5.5, color="#777777",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.8},
        )  # fmt: skip
    short = max(len(_short(job.setting)) for job, _ in histories) < 24
    if short and len(histories) <= 6:
        # Above the axes, where it hides no line.
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=size)
    else:
        axes.legend(frameon=False, loc="upper right", ncols=2 if short else 1, fontsize=size)


def write_study(sweep: Path) -> tuple[list[Job], list[Path]]:
    """Write ``study.csv``, ``study.md`` and ``figures/study.png`` of a sweep.

    Args:
        sweep: the sweep's folder.

    Returns:
        The jobs and the files; nothing where no job was tried at random onsets.

    Raises:
        StoreError: the folder cannot be written.
    """
    from ecgadv.store import write_atomic, write_csv

    jobs = read_study(sweep)
    if not jobs:
        return [], []
    rows = [row for job in jobs for row in job.rows]
    write_csv(sweep / "study.csv", rows, STUDY)
    write_atomic(sweep / "study.md", markdown(jobs) + "\n")
    drawn = style.save_figure(figure(jobs), sweep / "figures" / "study.png")
    return jobs, [sweep / "study.csv", sweep / "study.md", drawn]


def show(sweep: Path) -> None:
    """Write a sweep's study and print its table; nothing where it is none."""
    jobs, files = write_study(sweep)
    if not jobs:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table(title="success at random onsets", title_justify="left", box=box.SIMPLE)
    for k, name in enumerate(HEAD[:7]):
        shown.add_column(name, justify="left" if k < 2 else "right")
    for cells in table(jobs):
        shown.add_row(*(Text(cell) for cell in cells[:7]))
    Console().print(shown)
    print(f"table: {files[0]}\nfigure: {files[-1]}")
