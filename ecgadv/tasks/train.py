"""``task=train``: train a victim on the data source, score it on records it has not seen."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ecgadv.errors import StoreError
from ecgadv.records.base import RecordSet
from ecgadv.signature import signature
from ecgadv.store import RunStore
from ecgadv.store.identity import IDENTITY, refuse_other
from ecgadv.tasks.common import open_records, say
from ecgadv.tracking import open_tracker
from ecgadv.victims.training import TrainSettings, train


def run(cfg: Mapping[str, Any], folder: Path) -> int:
    """Train or go on training; ``victim.keras`` and ``victim.json`` (the card) come out.

    The folder's file is used with ``victim=keras victim.path=<folder>/victim.keras``.
    """
    return prepare(cfg, folder)()


def prepare(cfg: Mapping[str, Any], folder: Path) -> Callable[[], int]:
    """Open the records; nothing is written before what is returned is called.

    Raises:
        RefusedError: the folder holds a training on other data.
    """
    settings = TrainSettings(**cfg["train"])
    records = open_records(cfg)
    mine = {"signature": signature(cfg), "data": records.digest}
    refuse_other(folder, **mine)
    return partial(_run, cfg, folder, settings, records, mine)


def _run(
    cfg: Mapping[str, Any],
    folder: Path,
    settings: TrainSettings,
    records: RecordSet,
    mine: Mapping[str, str],
) -> int:
    with RunStore(folder) as store:
        tracker = open_tracker(
            cfg["tracking"], cfg, folder, root=Path(cfg["paths"]["root"]), signature=signature(cfg)
        )
        with tracker:
            store.write_json("config.json", dict(cfg))
            store.write_json(IDENTITY, mine)
            tracker.start(
                {"name": records.name, "digest": records.digest, "records": len(records),
                 "root": cfg["data"].get("root")}
            )  # fmt: skip
            say(f"training {settings.architecture} on {len(records)} records of {records.name}")

            def progress(row: dict[str, Any]) -> None:
                say(
                    f"epoch {row['epoch']}/{settings.epochs}: loss {row['loss']:.4f}, held-out "
                    f"N/A/O mean F1 {row['heldout_f1_nao_mean']:.4f}, {row['seconds']:.0f} s"
                )
                tracker.log_epoch(row)

            command = "python run.py " + shlex.join(sys.argv[1:])
            trained = train(
                records, settings, folder, command=command, labels_version=_labels(cfg),
                progress=progress,
            )  # fmt: skip
            try:
                trained.model.save(folder / "victim.keras")
            except OSError as error:
                raise StoreError(f"{folder}: cannot be written ({error.strerror})") from None
            store.write_json("victim.json", trained.card)
            scores = trained.card["heldout_scores"]
            store.write_json(
                "summary.json",
                {
                    "config_signature": signature(cfg),
                    "scores": scores,
                    "victim": trained.card["data"]
                    | {"heldout": None, "parameters": trained.card["parameters"]},
                },
            )
            print(json.dumps({k: v for k, v in scores.items() if k != "confusion"}))
            _print_confusion(scores["confusion"], trained.card["classes"])
            print(f"use it: victim=keras victim.path={folder / 'victim.keras'}")
    return 0


def _labels(cfg: Mapping[str, Any]) -> str:
    return str(cfg["data"].get("labels") or "the data source's own")


def _print_confusion(confusion: list[list[int]], classes: list[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="held-out records: rows are true classes, columns predicted ones")
    for column in ("", *classes):
        table.add_column(column, justify="right")
    for letter, row in zip(classes, confusion, strict=True):
        table.add_row(letter, *(str(count) for count in row))
    Console().print(table)
