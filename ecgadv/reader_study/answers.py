"""Answers of a reading study: the files that the page saves, and its key."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ecgadv.errors import StoreError
from ecgadv.evaluate.tables import Table

ANSWERS_FORMAT = "ecgadv reading study: answers"


KEY_FORMAT = "ecgadv reading study: key"


ANSWER_COLUMNS = (
    "study", "reader", "experience", "order_seed", "group", "place", "trial", "kind", "shown",
    "chosen", "confidence", "milliseconds",
)  # fmt: skip
"""Columns of the CSV that the page saves."""


JOINED = Table(
    {
        "reader": str, "experience": str, "place": int, "trial": str, "kind": str, "record": str,
        "source": str, "target": str, "metric": str, "correct": bool, "confidence": int,
        "milliseconds": float,
    },
    empty=frozenset({"correct"}),
)  # fmt: skip
"""``study_answers.csv``, the answers once the key is known; ``metric`` is the altered strip's
(``detect``) or the chosen one (``closest``), where no answer is right."""


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Answers of all readers, from a file that the page saved or a folder of such files.

    Of a reader who saved both JSON and CSV only one counts.

    Raises:
        StoreError: nothing is there, or a file is no file of answers.
    """
    files = [path]
    if path.is_dir():
        files = sorted(f for f in path.iterdir() if f.suffix.lower() in (".json", ".csv"))
        # The key may lie beside the answers.
        files = [f for f in files if not _is_key(f)]
    if not files or not path.exists():
        raise StoreError(f"{path}: holds no answers (.json or .csv, as the study page saves them)")
    rows: list[dict[str, Any]] = []
    seen: dict[tuple[str, str], Path] = {}
    for file in sorted(files, key=lambda f: (f.suffix.lower() != ".json", f.name)):
        mine = _read_csv(file) if file.suffix.lower() == ".csv" else _read_json(file)
        for reader in dict.fromkeys((row["study"], row["reader"]) for row in mine):
            if reader in seen and seen[reader].suffix == file.suffix:
                raise StoreError(
                    f"{file}: reader {reader[1]} has answered in {seen[reader].name} already"
                )
        rows += [row for row in mine if (row["study"], row["reader"]) not in seen]
        seen |= {
            reader: file
            for reader in ((row["study"], row["reader"]) for row in mine)
            if reader not in seen
        }
    return rows


def _is_key(file: Path) -> bool:
    try:
        return bool(json.loads(file.read_text("utf-8")).get("format") == KEY_FORMAT)
    except (OSError, ValueError, AttributeError):
        return False


def _read_json(file: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(file.read_text("utf-8"))
        if content["format"] != ANSWERS_FORMAT:
            raise KeyError("format")
        shared = {
            name: content[name] for name in ("study", "reader", "experience", "order_seed", "group")
        }
        return [
            {
                **shared,
                **{name: answer[name] for name in ANSWER_COLUMNS[5:]},
                "reader": str(content["reader"]),
                "confidence": int(answer["confidence"]),
                "milliseconds": float(answer["milliseconds"]),
            }
            for answer in content["answers"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(f"{file}: is no file of answers that the study page saved") from None


def _read_csv(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream))
        return [
            {
                **{name: row[name] for name in ANSWER_COLUMNS},
                "place": int(row["place"]),
                "shown": row["shown"].split(),
                "confidence": int(row["confidence"]),
                "milliseconds": float(row["milliseconds"]),
            }
            for row in rows
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise StoreError(f"{file}: is no file of answers that the study page saved") from None


def read_key(file: Path) -> dict[str, Any]:
    """The key of a study.

    Raises:
        StoreError: it is missing, or no key.
    """
    if not _is_key(file):
        raise StoreError(f"{file}: is no key of a study (study_key.json, written beside the page)")
    content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def join(answers: Sequence[Mapping[str, Any]], key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Answers with what was shown: rows under :data:`JOINED`.

    Raises:
        StoreError: an answer belongs to another study, or its strips are not those of the trial,
            or a reader answered a trial twice.
    """
    rows, seen = [], set()
    for answer in answers:
        who = f"reader {answer['reader']}, trial {answer['trial']}"
        if answer["study"] != key["study"]:
            raise StoreError(f"{who}: is of study {answer['study']}, the key of {key['study']}")
        trial = key["trials"].get(answer["trial"])
        if trial is None or trial["kind"] != answer["kind"]:
            raise StoreError(f"{who}: there is no such trial in study {key['study']}")
        if answer["chosen"] not in trial["strips"]:
            raise StoreError(f"{who}: strip {answer['chosen']} was not shown there")
        if (answer["reader"], answer["trial"]) in seen:
            raise StoreError(f"{who}: was answered twice")
        seen.add((answer["reader"], answer["trial"]))
        chosen = trial["strips"][answer["chosen"]]
        detect = trial["kind"] == "detect"
        (metric,) = set(trial["strips"].values()) - {"original"} if detect else (chosen,)
        rows.append(
            {
                **{name: answer[name] for name in ("reader", "experience", "place", "trial")},
                "kind": trial["kind"],
                "record": trial["record"],
                "source": trial["source"],
                "target": trial["target"],
                "metric": metric,
                "correct": chosen == metric if detect else None,
                "offered": sorted(set(trial["strips"].values()) - {"original"}),
                "confidence": answer["confidence"],
                "milliseconds": answer["milliseconds"],
            }
        )
    return rows
