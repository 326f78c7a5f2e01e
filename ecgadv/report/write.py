"""``report.html`` of a run or a sweep: one file, no network, nothing to install."""

from __future__ import annotations

import base64
import json
import shlex
import struct
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgadv.errors import StoreError
from ecgadv.evaluate.distances import Distance
from ecgadv.evaluate.distances import known as known_distances
from ecgadv.report import blocks, data, injected, pictures, study
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
    "shift_position": "class read against the onset",
    "loss_history": "loss against iterations",
    "spectrum": "power spectrum of perturbations and recordings",
    "type2_study": "rates of the jobs, with intervals over records",
    "injected_rates": "rates at random onsets, on own and on other recordings",
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


def _cases_table(cases: pd.DataFrame, shown_in: dict[str, str]) -> dict[str, Any]:
    """The cases, those of the gallery (case id -> id of the picture) with a link to it."""
    listed = cases.head(MOST_ROWS)
    shown = [c for c in cases.columns if c not in _HIDDEN and not cases[c].isna().all()]
    table = blocks.page_table(
        "cases",
        shown,
        listed[shown].astype(object).to_numpy().tolist(),
        more_help={column: own.help for column, own in data.distances(cases).items()},
    )
    if "record" in shown:
        place = shown.index("record")
        for row, case in zip(table["rows"], listed["case_id"], strict=True):
            row["total"] = False
            if str(case) in shown_in:
                row["cells"][place]["link"] = shown_in[str(case)]
    return table


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
    keys = ("data", "victim", "defence", "attack", "metric", "goal", "threat_model", "deployment")
    for key in (*keys, "target"):
        nodes = [config.get(key) for config in configs]
        values = {str((n.get("name") if isinstance(n, dict) else n) or "") for n in nodes}
        usual = {"defence": {"none"}, "goal": {"exclusive"}}.get(key)
        if len(values) == 1 and values not in ({""}, usual):
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
            name = f"case-{blocks.slug(file.stem)}"
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
    evaluation = injected.read_evaluation(folder)
    rates = [] if evaluation is None else injected.rates(evaluation)
    gallery, shown_in = _gallery(drawn, cases)
    context = {
        "title": folder.name,
        "headline": _headline(config),
        "facts": blocks.facts(summary, cases, rates),
        "tables": [*blocks.injected_table(rates), *blocks.result_tables(cases)],
        "overview": [_image(file) for file in drawn.overview],
        "comparisons": [],
        "gallery": gallery,
        "gallery_note": drawn.note,
        "ranking": data.label(cases, data.ranking_column(config, cases)),
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
    tried: list[tuple[str, dict[str, Any]]] = []
    finished: list[tuple[str, Path]] = []
    named: dict[str, Distance] = {}
    for job in jobs:
        named |= known_distances(read_json(job / "summary.json"))
    columns = list(named)
    head = ["job", "overrides", "status", *blocks.job_head(columns), "gradients a case"]
    no_cells = [None] * (len(head) - 3)
    for job in jobs:
        name, set_by = str(job.relative_to(sweep)), " ".join(_told(overrides(job)))
        row: list[Any] = [name, set_by, job_status(job)]
        if not (job / "cases.csv").is_file():
            job_rows.append([*row, *no_cells])
            continue
        cases = data.read_cases(job)
        config, summary = data.read_config(job), read_json(job / "summary.json")
        # The same configuration is the same cases, which must not count twice.
        twin = by_signature.setdefault(str(summary.get("config_signature") or name), name)
        if twin != name:
            job_rows.append([name, set_by, f"same as {twin}", *no_cells])
            continue
        configs.append(config)
        finished.append((set_by or name, job))
        if summary.get("evaluation"):
            tried.append((set_by or name, summary["evaluation"]))
        metric = data.metric_of(config)
        merged.append(cases.assign(job=name, metric=metric))
        by_metric.setdefault(metric, job)
        row += blocks.job_cells(cases, columns)
        job_rows.append([*row, summary.get("gradients_per_case")])
    if not merged:
        raise StoreError(f"{sweep}: no job with a cases.csv lies there")
    cases = pd.concat(merged, ignore_index=True)
    cases = data.with_distances(cases, named)
    cases = cases[["job", "metric", *[c for c in cases.columns if c not in ("job", "metric")]]]
    place = sweep / "figures"
    drawn = []
    for metric, mine in cases.groupby("metric", sort=False):
        suffix = f"_{metric}" if metric else ""
        drawn += pictures.overview(mine, place, str(metric), suffix)
    drawn += pictures.compare_groups(cases, by_metric, place)
    if tried:
        drawn.insert(0, study.write_study(sweep)[1][-1])
    context = {
        "title": sweep.name,
        "headline": f"sweep of {len(jobs)} jobs  {_headline(*configs)}".strip(),
        "facts": [("jobs", str(len(jobs))), *blocks.facts({}, cases)],
        "tables": [
            blocks.page_table("jobs", head, job_rows),
            *blocks.injected_jobs(tried),
            *blocks.result_tables(cases),
        ],
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
