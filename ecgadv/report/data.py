"""Results as the report reads them: the table of cases, what counts as an attempt, the extremes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ecgadv.errors import EcgadvError, StoreError
from ecgadv.evaluate.distances import USUAL, Distance, known
from ecgadv.records.base import CLASSES
from ecgadv.records.preprocessing import FS
from ecgadv.store.columns import CASES
from ecgadv.store.reading import check_whole
from ecgadv.tracking.content import read_json

if TYPE_CHECKING:
    import pandas as pd

COLUMN_HELP = {
    "record": "name of the recording",
    "source": "its class, as the victim reads it unperturbed",
    "target": "the class wanted; any in an untargeted attack",
    "predicted": "what the victim says of the perturbed recording",
    "success": "whether the deployed pipeline confirms the target, with a margin",
    "p_target": "the victim's probability of the target after the attack",
    "margin": "lead of the target's logit over the best other one",
    **{own.column: own.help for own in USUAL},
    "l2_norm": "Euclidean norm of the perturbation, the root of d_l2",
    "linf": "largest absolute value of the perturbation, standardised units",
    "snr_db": "power of the recording over that of the perturbation, in dB; more is fainter",
    "prd_percent": "percent root-mean-square difference: 100 times the root of the inverse of that",
    "n_gradients": "gradients of the victim that the case took",
    "status": "ok: attacked to the end; failed: an error; skipped: unusable, or not read as source",
    "message": "the reason where it is not ok",
    "split": "whether the victim was trained on the recording or not (heldout)",
    "goal": "what counts as reached",
    "target_rate": "random onsets: share of those read right before that reach the target",
    "mean_power": "injected signals: mean square over the window, in variances of the ECG",
    "rms_mv": "root mean square over the window, in mV",
    "peak_mv": "largest amplitude, in mV",
    "n_records": "recordings that the signal was made from",
    "max_change_mv": "largest absolute change of the recording, in mV",
    "max_slope_mv_s": "largest step of the change between two samples, in mV/s",
    "ecg_band_share": "share of the change's energy from 0.5 to 40 Hz, a monitor's usual band",
    "r_peaks": "R peaks found in the original",
    "r_precision": "share of the perturbed recording's R peaks that the original has within 50 ms",
    "r_recall": "share of the original's R peaks that are still there within 50 ms",
    "heart_rate": "mean heart rate of the original, beats a minute",
    "heart_rate_change": "change of it, beats a minute",
    "p_share": "share of the change's energy where P waves are expected",
    "qrs_share": "share of the change's energy about the QRS complexes",
    "t_share": "share of the change's energy where T waves are expected",
    "job": "folder of the job in the sweep",
    "95 %": "interval of the rate, a bootstrap over recordings; – with fewer than three of them",
    "Wilson 95 %": "interval of the rate that takes cases (or readings) for independent",
    "metric": "how the size of a perturbation was measured",
}
"""What a column of the report's tables means, in a line."""


def read_cases(folder: Path) -> pd.DataFrame:
    """``cases.csv`` of a run; ``success`` is bool, empty cells are missing values.

    Raises:
        StoreError: there is none, or it is no table of cases.
    """
    file = folder / "cases.csv"
    try:
        cases = CASES.frame(file)
    except FileNotFoundError:
        raise StoreError(f"{folder} holds no cases.csv; give the folder of an attack run") from None
    except (OSError, ValueError) as error:
        raise StoreError(f"{file} is not readable: {str(error).splitlines()[0]}") from None
    missing = {"case_id", "source", "target", "success", "status"} - set(cases.columns)
    if missing:
        raise StoreError(f"{file} lacks the column {sorted(missing)[0]}")
    check_whole(file, len(cases))
    cases["success"] = cases["success"].astype(str).str.lower() == "true"
    # Shown as missing, whether a cell is text or number; "NA" may be a record's name.
    texts = [name for name in CASES.texts if name in cases]
    cases[texts] = cases[texts].where(cases[texts] != "")
    return with_distances(cases, known(read_json(folder / "summary.json")))


def with_distances(cases: pd.DataFrame, told: Mapping[str, Distance]) -> pd.DataFrame:
    """A table of cases that knows how its distances are called."""
    cases.attrs["distances"] = dict(told)
    return cases


def distances(cases: pd.DataFrame) -> dict[str, Distance]:
    """Column -> how it is called, of every distance of a table of cases."""
    told = cases.attrs.get("distances") or {own.column: own for own in USUAL}
    return {column: own for column, own in told.items() if column in cases}


def label(cases: pd.DataFrame, column: str) -> str:
    """How a column is written for people."""
    own = distances(cases).get(column)
    return column if own is None else own.label


def class_order(cases: pd.DataFrame) -> list[str]:
    """The classes of a table of cases: the usual ones where they are all, else as they appear."""
    named: dict[str, None] = {}
    for column in ("source", "target"):
        for name in cases[column].dropna():
            if name not in ("any", ""):
                named.setdefault(str(name))
    if set(named) <= set(CLASSES):
        return list(CLASSES)
    return list(named)


def attempted(cases: pd.DataFrame) -> pd.DataFrame:
    """The cases that count in a rate: attacked (``ok``) or broken (``failed``), not ``skipped``."""
    return cases[cases["status"].isin(["ok", "failed"])]


def succeeded(cases: pd.DataFrame) -> pd.Series:
    """(rows,) bool: attacked to the end and successful."""
    return cases["success"].astype(str).str.lower().eq("true") & cases["status"].eq("ok")


def metric_of(config: dict[str, Any]) -> str:
    """Name of the metric of a configuration, "" where it names none."""
    node = config.get("metric")
    return str(node.get("name", "")) if isinstance(node, dict) else str(node or "")


def ranking_column(config: dict[str, Any], cases: pd.DataFrame) -> str:
    """The distance by which cases of a run are ranked: that of its own metric."""
    # A metric whose options make it another distance comes after the usual one of its name.
    own = [d.column for d in distances(cases).values() if d.metric == metric_of(config)]
    return own[-1] if own else USUAL[0].column


def extremes(cases: pd.DataFrame, column: str, each: int = 3) -> dict[str, list[str]]:
    """Ids of the least, the middle and the most perturbed successful cases, no case twice.

    Returns:
        ``best``, ``median`` and ``worst`` -> at most ``each`` case ids.
    """
    won = cases[succeeded(cases)].dropna(subset=[column]).sort_values([column, "case_id"])
    ids = [str(i) for i in won["case_id"]]
    # Few cases are shared out: the best get the first, the worst the second, the median the third.
    n_best, n_worst = min(each, (len(ids) + 2) // 3), min(each, (len(ids) + 1) // 3)
    best, worst = ids[:n_best], ids[::-1][:n_worst]
    rest = ids[n_best : len(ids) - n_worst]
    middle = max(0, (len(rest) - each) // 2)
    return {"best": best, "median": rest[middle : middle + each], "worst": worst}


def drawn_lead(delta: np.ndarray) -> int:
    """The lead of a perturbation (n, leads) that is changed most; 0 where there is one lead."""
    return int((delta.astype(np.float64) ** 2).sum(0).argmax()) if delta.ndim == 2 else 0


def read_perturbations(
    folder: Path, case_ids: list[str], lead: int | None = None
) -> dict[str, tuple[np.ndarray, float]]:
    """Perturbation (n,) in standardised units and mV per unit, by case; those that are stored.

    Of several leads ``lead`` is taken, by default the one that is changed most.
    """
    file = folder / "perturbations.npz"
    if not file.is_file():
        return {}
    from ecgadv.store import load_run

    run = load_run(folder, mapped=True)
    rows = {str(case): row for row, case in enumerate(run.case_ids)}
    found = {}
    for case in case_ids:
        if case in rows:
            one, unit = np.array(run.delta[rows[case]]), run.scale_mv[rows[case]]
            if one.ndim == 2:
                taken = drawn_lead(one) if lead is None else lead
                one, unit = one[:, taken], unit[taken]
            found[case] = (one, float(unit))
    return found


def read_signals(
    folder: Path, case_ids: list[str], lead: int | None = None
) -> tuple[dict[str, np.ndarray], str]:
    """Standardised records (own samples only) by case, read again from the run's data source.

    Of several leads ``lead`` is taken, by default the one that is changed most.

    Returns:
        The signals, and "" or why there are none: a report can do without.
    """
    try:
        from ecgadv.store import load_run

        run = load_run(folder, mapped=True)
        rows = {str(case): row for row, case in enumerate(run.case_ids)}
        wanted = [case for case in case_ids if case in rows]
        found = {}
        if wanted:
            x, lengths = run.inputs_of(wanted)
            for case, whole, length in zip(wanted, x, lengths, strict=True):
                one = whole[: int(length)]
                if one.ndim == 2:
                    one = one[:, drawn_lead(run.delta[rows[case]]) if lead is None else lead]
                found[case] = one
    except (EcgadvError, OSError) as error:
        return {}, str(error).splitlines()[0]
    return found, ""


def read_leads(folder: Path, case_ids: list[str]) -> dict[str, str]:
    """``lead 3 of 12`` by case, for records of several leads; {} otherwise."""
    file = folder / "perturbations.npz"
    if not file.is_file():
        return {}
    with np.load(file, allow_pickle=False) as stored:
        delta, ids = stored["delta"], [str(case) for case in stored["case_id"]]
    if delta.ndim != 3:
        return {}
    return {
        case: f"lead {drawn_lead(one) + 1} of {one.shape[1]}"
        for case, one in zip(ids, delta, strict=True)
        if case in case_ids
    }


def confidences(folder: Path) -> dict[str, float]:
    """The victim's probability of its own answer on each unperturbed record, where it is stored."""
    import csv

    try:
        with (folder / "predictions.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return {row["record"]: float(row["p_predicted"]) for row in rows if row.get("p_predicted")}
    except (OSError, KeyError, ValueError):
        return {}


def sampling_rate(folder: Path) -> int:
    """Sampling rate of a run's recordings in Hz; runs of the first version did not say theirs."""
    return int((read_json(folder / "summary.json").get("input") or {}).get("fs") or FS)


def read_config(folder: Path) -> dict[str, Any]:
    """``config.json`` of a run; {} where it is missing."""
    return read_json(folder / "config.json")


def sweep_overrides(sweep: Path) -> list[str]:
    """What was set on the command line for a sweep; [] where that is not known."""
    import yaml

    try:
        found = yaml.safe_load((sweep / "multirun.yaml").read_text(encoding="utf-8"))
        told = found["hydra"]["overrides"]["task"]
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return []
    return [str(item) for item in told] if isinstance(told, list) else []
