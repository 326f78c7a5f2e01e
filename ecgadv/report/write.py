"""``report.html`` of a run or a sweep: one file, no network, nothing to install."""

from __future__ import annotations

import base64
import json
import math
import re
import shlex
import struct
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgadv.errors import StoreError
from ecgadv.report import data, pictures, study, tables, type2
from ecgadv.tracking.content import job_status, overrides, read_json, run_folders
from ecgadv.tracking.uris import hide_password

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 5000
"""Cases that a report lists; a larger table is cut, and the report says so."""

MOST_JOBS_DRAWN = 12
"""Jobs of a sweep whose extreme cases are shown; three pictures each."""

_HIDDEN = ("case_id", "seconds", "n_forwards")

_FIGURES = {
    "success_heatmap": "success rate of every source and target class",
    "distance_distributions": "distances of the successful cases by pair of classes",
    "robustness_curve": "success rate against the budget of the perturbation",
    "shift_position": "success against the onset of the injected signal",
    "loss_history": "loss against iterations",
    "spectrum": "power spectrum of perturbations and recordings",
    "type2_study": "rates of the jobs, with intervals over records",
}

CITE = (
    "The ecgadv developers. ecgadv: targeted adversarial perturbations of ECG classifiers, "
    "measured and verified.",
    "Huangxun Chen, Chenyu Huang, Qianyi Huang, Qian Zhang, Wei Wang. ECGadv: Generating "
    "Adversarial Electrocardiogram to Misguide Arrhythmia Classification System. AAAI 2020. "
    "arXiv:1901.03808.",
)
CITE_DATA = {
    "cinc2017": "Gari Clifford et al. AF Classification from a Short Single Lead ECG Recording: "
    "the PhysioNet/Computing in Cardiology Challenge 2017 (data: ODC-BY 1.0)."
}


def _slug(name: str) -> str:
    """A name as an HTML id."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", name).strip("-")


def _image(file: Path, caption: str = "", name: str = "") -> dict[str, Any]:
    """What the page needs of a PNG file; its size is there so that nothing moves while it loads."""
    content = file.read_bytes()
    width, height = struct.unpack(">II", content[16:24])
    return {
        "source": f"data:image/png;base64,{base64.b64encode(content).decode()}",
        "caption": caption or _spoken(file.stem),
        "width": width,
        "height": height,
        "id": name,
    }


def _spoken(stem: str) -> str:
    """The description of an overview figure, from its file's name: for those who cannot see it."""
    for known, words in _FIGURES.items():
        if stem.startswith(known):
            rest = stem.removeprefix(known).strip("_")
            return f"{words}, metric {rest}" if rest else words
    return stem.replace("_", " ")


def _cell(value: Any) -> dict[str, str]:
    """What a cell shows, and what it is sorted by where that differs: both, given as a pair."""
    if isinstance(value, tuple):
        text, key = value
        return {"text": text, "key": repr(float(key))}
    if isinstance(value, bool):
        return {"text": "yes" if value else "no", "key": ""}
    if isinstance(value, (int, float)):
        if math.isnan(value):
            return {"text": "", "key": "nan"}
        whole = float(value).is_integer() and abs(value) < 1e9
        return {"text": f"{value:.0f}" if whole else f"{value:.4g}", "key": repr(float(value))}
    return {"text": "" if value is None or value != value else str(value), "key": ""}


def _table(
    name: str,
    head: Sequence[str],
    body: Sequence[Sequence[Any]],
    *,
    filterable: bool = True,
    note: str = "",
) -> dict[str, Any]:
    """A table for the template; a row whose source is ``all`` is a total and stays below."""
    rows: list[dict[str, Any]] = [{"cells": [_cell(v) for v in row]} for row in body]
    for row in rows:
        row["total"] = any(cell["text"] == "all" for cell in row["cells"][:2])
    filters: list[list[str] | None] = []
    # A column of few different words gets a list to choose from, others a box to type into.
    for k in range(len(head) if filterable else 0):
        words = {row["cells"][k]["text"] for row in rows}
        numeric = any(row["cells"][k]["key"] for row in rows)
        filters.append(sorted(words - {""}) if len(words) <= 8 and not numeric else None)
    explained = {column: data.COLUMN_HELP[column] for column in head if column in data.COLUMN_HELP}
    return {
        "name": name,
        "id": _slug(name),
        "head": list(head),
        "rows": rows,
        "filters": filters,
        "note": note,
        "help": explained,
    }


def _cases_table(cases: pd.DataFrame, shown_in: dict[str, str]) -> dict[str, Any]:
    """The cases, those of the gallery (case id -> id of the picture) with a link to it."""
    listed = cases.head(MOST_ROWS)
    shown = [c for c in cases.columns if c not in _HIDDEN and not cases[c].isna().all()]
    table = _table("cases", shown, listed[shown].astype(object).to_numpy().tolist())
    if "record" in shown:
        place = shown.index("record")
        for row, case in zip(table["rows"], listed["case_id"], strict=True):
            row["total"] = False
            if str(case) in shown_in:
                row["cells"][place]["link"] = shown_in[str(case)]
    return table


def _success_cells(row: tables.Row) -> list[Any]:
    """Cells of a row, sorted by what they say rather than by their letters."""
    source, target, count, rate, interval = tables.success_cells(row)
    keys = (row.n_success, row.rate, row.interval[0])
    return [source, target, *zip((count, rate, interval), keys, strict=True)]


def _distance_cells(row: tables.Row) -> list[Any]:
    source, target, *cells = tables.distance_cells(row)
    keys = [row.quartiles.get(column, (math.nan,) * 3)[1] for column in data.DISTANCE_NAMES]
    return [source, target, *zip(cells, keys, strict=True)]


def _result_tables(cases: pd.DataFrame) -> list[dict[str, Any]]:
    """Success and distances by pair; by metric first, where the cases come from several."""
    groups = [("", cases)]
    if "metric" in cases and cases["metric"].nunique() > 1:
        groups = [(str(name), mine) for name, mine in cases.groupby("metric", sort=False)]
    lead = ["metric"] if len(groups) > 1 else []
    found = [([name] if lead else [], row) for name, mine in groups for row in tables.rows(mine)]
    success = [[*first, *_success_cells(row)] for first, row in found]
    distances = [[*first, *_distance_cells(row)] for first, row in found]
    pooled = "; jobs of the same metric are pooled" if lead else ""
    return [
        _table("success", [*lead, *tables.SUCCESS_HEAD], success, filterable=bool(lead),
               note=f"with Wilson's intervals{pooled}"),
        _table("distances", [*lead, *tables.DISTANCE_HEAD], distances, filterable=bool(lead),
               note="median (25 % – 75 %) over the successful cases, standardised units" + pooled),
    ]  # fmt: skip


def _type2_table(jobs: Sequence[tuple[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Rates of Type II jobs on the record itself and on others; [] where there is no such job."""
    head = ["overrides", "tried on", "records", "readings", "target %", "95 % from", "to"]
    rows = []
    for name, evaluation in jobs:
        for kind, (words, _) in type2.KINDS.items():
            if kind in evaluation:
                total = evaluation[kind]["all"]
                low, high = (100 * v for v in total["ci95_records"])
                rate = 100 * total["success_rate"]
                counts = [total["n_records"], total["n_trials"]]
                rows.append([name, words, *counts, rate, low, high])
    return [_table("injected at random onsets", head, rows)] if rows else []


def _facts(summary: dict[str, Any], cases: pd.DataFrame) -> list[tuple[str, str]]:
    tried, won = data.attempted(cases), data.succeeded(cases)
    facts = [("cases", str(len(cases)))]
    if len(tried):
        low, high = tables.rows(cases)[-1].interval
        rate = 100 * won.sum() / len(tried)
        facts.append(("success", f"{int(won.sum())} of {len(tried)} ({rate:.1f} %)"))
        facts.append(("95 % interval", f"{100 * low:.1f} to {100 * high:.1f} %"))
    for status in ("failed", "skipped"):
        count = int((cases["status"] == status).sum())
        if count:
            facts.append((status, str(count)))
    for key, label in (
        ("gradients_per_case", "gradients a case"),
        ("cases_per_second", "cases a second"),
        ("seconds", "seconds"),
    ):
        value = summary.get(key)
        if isinstance(value, (int, float)) and math.isfinite(value):
            facts.append((label, f"{value:.3g}" if key != "seconds" else f"{value:.1f}"))
    victim = summary.get("victim")
    if isinstance(victim, dict):
        facts.append(("victim", str(victim.get("name", ""))))
    return facts


def _versions(summary: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [(str(k), str(v)) for k, v in (summary.get("versions") or {}).items()]
    victim = summary.get("victim")
    if isinstance(victim, dict) and victim.get("sha256"):
        rows.append(("victim sha256", str(victim["sha256"])))
    if summary.get("config_signature"):
        rows.append(("configuration signature", str(summary["config_signature"])))
    return rows


def _cite(config: dict[str, Any]) -> list[str]:
    node = config.get("data")
    name = str(node.get("name", "")) if isinstance(node, dict) else ""
    return [*CITE, *([CITE_DATA[name]] if name in CITE_DATA else [])]


def _headline(*configs: dict[str, Any]) -> str:
    """Metric, attack, data and threat model that configurations share, in a line."""
    words = []
    for key in ("data", "victim", "attack", "metric", "threat_model", "deployment", "target"):
        nodes = [config.get(key) for config in configs]
        values = {str((n.get("name") if isinstance(n, dict) else n) or "") for n in nodes}
        if len(values) == 1 and values != {""}:
            words.append(f"{key}={values.pop()}")
    return "  ".join(words)


def _render(context: dict[str, Any], file: Path) -> Path:
    import jinja2
    from markupsafe import Markup

    import ecgadv

    def part(name: str) -> str:
        return resources.files("ecgadv.report").joinpath(name).read_text("utf-8")

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    fixed = {"css": Markup(part("report.css")), "js": Markup(part("report.js"))}
    template = environment.from_string(part("template.html"))
    text = template.render(context | fixed | {"version": ecgadv.__version__})
    scratch = file.with_name(f".{file.name}.part")
    try:
        scratch.write_text(text, encoding="utf-8")
        scratch.replace(file)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror}") from None
    return file


def _command(words: Sequence[str], flag: str = "") -> str:
    """The command line of a run, without where things lie; "" for the plain default."""
    return shlex.join(["python", "run.py", *([flag] if flag else []), *_told(words)])


def _told(words: Sequence[str]) -> list[str]:
    """Overrides but for where things lie."""
    return [hide_password(w) for w in words if not w.startswith(("paths.", "tracking.uri="))]


def _gallery(drawn: pictures.Pictures, cases: pd.DataFrame) -> tuple[list[Any], dict[str, str]]:
    """Pictures by kind, and case id -> id of its picture."""
    case_of = {pictures.case_slug(str(case)): str(case) for case in cases["case_id"]}
    kinds, shown_in = [], {}
    for kind in pictures.GALLERY:
        images = []
        for file, caption in drawn.gallery.get(kind, []):
            name = f"case-{_slug(file.stem)}"
            images.append(_image(file, caption, name))
            slug = file.stem.split("_", 2)[-1]
            if slug in case_of:
                shown_in[case_of[slug]] = name
        if images:
            kinds.append((kind, images))
    return kinds, shown_in


def write_report(folder: Path) -> Path:
    """Write a run's figures and its ``report.html``.

    Args:
        folder: a run's folder; the recordings are read again from its data source for the gallery,
            and where they are gone the report says so.

    Returns:
        The report.

    Raises:
        StoreError: the folder holds no readable table of cases, or cannot be written.
    """
    folder = folder.resolve()
    cases, config = data.read_cases(folder), data.read_config(folder)
    summary = read_json(folder / "summary.json")
    drawn = pictures.write_figures(folder)
    gallery, shown_in = _gallery(drawn, cases)
    context = {
        "title": folder.name,
        "headline": _headline(config),
        "facts": _facts(summary, cases),
        "tables": _result_tables(cases),
        "overview": [_image(file) for file in drawn.overview],
        "comparisons": [],
        "gallery": gallery,
        "gallery_note": drawn.note,
        "ranking": data.DISTANCE_NAMES[data.ranking_column(config, cases)],
        "cases": _cases_table(cases, shown_in),
        "cut": max(0, len(cases) - MOST_ROWS),
        "command": _command(overrides(folder)) if (folder / ".hydra").is_dir() else "",
        "config": hide_password(json.dumps(config, indent=2)) if config else "",
        "versions": _versions(summary),
        "cite": _cite(config),
    }
    return _render(context, folder / "report.html")


def _sweep_gallery(jobs: Sequence[tuple[str, Path]]) -> list[Any]:
    """The best, the median and the worst case of every job, as its own report drew them."""
    kinds = []
    for kind in pictures.GALLERY[:3]:
        images = []
        for name, job in jobs[:MOST_JOBS_DRAWN]:
            for file in sorted((job / "figures").glob(f"{kind}_1_*.png")):
                case = file.stem.split("_", 2)[-1].replace("_", " ")
                images.append(_image(file, f"{name}: {kind} case, record {case}"))
        if images:
            kinds.append((kind, images))
    return kinds


def write_sweep_report(sweep: Path) -> Path:
    """Write ``report.html`` of a sweep: a table of its jobs, and their cases merged.

    Args:
        sweep: the sweep's folder; jobs without a table of cases are listed by their status.

    Raises:
        StoreError: no job there has a table of cases, or the folder cannot be written.
    """
    import pandas as pd

    sweep = sweep.resolve()
    jobs = run_folders(sweep)
    merged: list[Any] = []
    job_rows: list[list[Any]] = []
    by_metric: dict[str, Path] = {}
    by_signature: dict[str, str] = {}
    configs: list[dict[str, Any]] = []
    summary: dict[str, Any] = {}
    injected: list[tuple[str, dict[str, Any]]] = []
    finished: list[tuple[str, Path]] = []
    for job in jobs:
        name, set_by = str(job.relative_to(sweep)), " ".join(_told(overrides(job)))
        row: list[Any] = [name, set_by, job_status(job)]
        if not (job / "cases.csv").is_file():
            job_rows.append([*row, *[None] * 6])
            continue
        cases = data.read_cases(job)
        config, summary = data.read_config(job), read_json(job / "summary.json")
        # The same configuration is the same cases, which must not count twice.
        twin = by_signature.setdefault(str(summary.get("config_signature") or name), name)
        if twin != name:
            job_rows.append([name, set_by, f"same as {twin}", *[None] * 6])
            continue
        configs.append(config)
        finished.append((set_by or name, job))
        if summary.get("evaluation"):
            injected.append((set_by or name, summary["evaluation"]))
        metric = data.metric_of(config)
        merged.append(cases.assign(job=name, metric=metric))
        by_metric.setdefault(metric, job)
        total = tables.rows(cases)
        medians = (
            [total[-1].quartiles.get(c, (None,) * 3)[1] for c in data.DISTANCE_NAMES]
            if (total)
            else [None] * 3
        )
        rate = 100 * total[-1].rate if total else None
        job_rows.append([*row, len(cases), rate, *medians, summary.get("gradients_per_case")])
    if not merged:
        raise StoreError(f"{sweep}: no job with a cases.csv lies there")
    cases = pd.concat(merged, ignore_index=True)
    cases = cases[["job", "metric", *[c for c in cases.columns if c not in ("job", "metric")]]]
    place = sweep / "figures"
    drawn = []
    for metric, mine in cases.groupby("metric", sort=False):
        suffix = f"_{metric}" if metric else ""
        drawn += pictures.overview(mine, place, str(metric), suffix)
    drawn += pictures.compare_groups(cases, by_metric, place)
    if injected:
        drawn.insert(0, study.write_study(sweep)[1][-1])
    head = ["job", "overrides", "status", "cases", "success %", "d_l2 median"]
    head += ["d_smooth median", "d_smooth_l2 median", "gradients a case"]
    context = {
        "title": sweep.name,
        "headline": f"sweep of {len(jobs)} jobs  {_headline(*configs)}".strip(),
        "facts": [("jobs", str(len(jobs))), *_facts({}, cases)],
        "tables": [_table("jobs", head, job_rows), *_type2_table(injected), *_result_tables(cases)],
        "overview": [_image(file) for file in drawn],
        "comparisons": [
            _image(file, caption) for file, caption in pictures.compare_metrics(by_metric, place)
        ],
        "gallery": _sweep_gallery(finished),
        "gallery_note": "",
        "ranking": "the distance of each job's own metric",
        "cases": _cases_table(cases, {}),
        "cut": max(0, len(cases) - MOST_ROWS),
        "command": _command(data.sweep_overrides(sweep), "-m"),
        "config": hide_password(json.dumps(configs[0], indent=2)) if configs[0] else "",
        "versions": _versions(summary),
        "cite": _cite(configs[0]),
    }
    return _render(context, sweep / "report.html")
