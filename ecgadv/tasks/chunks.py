"""The chunks of an attack run: attacked, judged and stored one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecgadv.errors import EcgadvError
from ecgadv.evaluate.cases import case_rows, left_out
from ecgadv.evaluate.tables import Row
from ecgadv.evaluate.trials import Beside
from ecgadv.records.base import RecordSet
from ecgadv.report.progress import Progress
from ecgadv.store import Part, RunStore
from ecgadv.study.audience import Audience
from ecgadv.study.cases import CaseSpec
from ecgadv.study.study import Chunk, Study, class_indices
from ecgadv.tasks import type2
from ecgadv.tasks.common import say
from ecgadv.tracking import NullTracker
from ecgadv.victims.pipeline import flatten, unflatten


@dataclass(frozen=True)
class Setup:
    """Everything an attack run is made of.

    Attributes:
        records: of the data source.
        study: attack, victim and judge.
        splits: record name -> ``train`` or ``heldout``.
        heard: recordings of injected signals; None where recordings are edited.
    """

    records: RecordSet
    study: Study
    splits: Mapping[str, str]
    heard: Audience | None = None


def attack_all(
    store: RunStore,
    setup: Setup,
    chunks: list[list[CaseSpec]],
    mine: range,
    tracker: NullTracker,
    precision: str,
) -> None:
    """Attack every chunk of ``mine`` that is not stored yet."""
    total = sum(len(chunks[number]) for number in mine)
    width = max(len(chunk) for chunk in chunks)
    stored = [row for row in store.rows() if row["target"]]
    if stored:
        say(f"resuming: {len(stored)} of {total} cases are stored")
    absent = sum(row["status"] == "skipped" for row in stored)
    cases, won = len(stored) - absent, sum(bool(row["success"]) for row in stored)
    study = setup.study
    with Progress(f"{study.attack.name} {study.metric.name}", total) as progress:
        for number in mine:
            if number in store.parts:
                continue

            def tick(
                finished: int, step: int, base: int = cases, gone: int = absent, hits: int = won
            ) -> None:
                rate = f"success {hits}/{base}" if base else "first batch"
                progress.update(min(base + gone + finished, total), f"{rate}, step {step}")

            part = _attack_chunk(setup, chunks[number], width, precision, tick)
            store.keep(number, part)
            store.export()
            cases += sum(row["status"] != "skipped" for row in part.rows)
            absent += sum(row["status"] == "skipped" for row in part.rows)
            won += sum(bool(row["success"]) for row in part.rows)
            progress.update(cases + absent, f"success {won}/{cases}")
            tracker.progress(
                cases, {"cases_done": cases, "success_so_far": won / cases if cases else 0.0}
            )
    none = [row for row in store.rows() if row["status"] == "skipped" and row["target"]]
    if none:
        say(
            f"note: {len(none)} of {total} cases are left out (status skipped in cases.csv), "
            f"such as {none[0]['case_id']}: {none[0]['message']}"
        )


def _attack_chunk(
    setup: Setup, specs: list[CaseSpec], width: int, precision: str, tick: Any
) -> Part:
    """One chunk, attacked and judged; an error becomes rows that say so."""
    study, heard = setup.study, setup.heard
    victim, goal = study.victim, study.judge.goal.name
    try:
        batch = setup.records.batch([s.position for s in specs], victim.n, victim.over)
        chunk = Chunk(
            flatten(batch.x), batch.lengths, *class_indices(specs, victim.classes),
            seen=heard.seen(specs) if heard else None,
        )  # fmt: skip
        outcome = study.run(chunk, width=width, precision=precision, tick=tick)
        extras: list[Row] = []
        verdicts, tables = [], []
        for i, spec in enumerate(specs):
            verdict, cells = outcome.trials[i] if outcome.trials else None, {}
            if outcome.status[i] == "ok" and study.judge.channel.moving:
                everyone = heard or Audience(np.zeros(len(setup.records), bool), {})
                table, verdict = type2.tried(
                    study.judge, setup.records, everyone, spec, outcome.delta[i], verdict
                )
                tables.append(table)
                cells = {"target_rate": verdict.rate}
                if heard:
                    scale = batch.scale_mv[i]
                    cells |= type2.signal_cells(outcome.delta[i], study.own, scale, spec)
                    tables.append(type2.learning(spec, outcome, i))
            verdicts.append(verdict)
            extras.append(cells)
        splits = [setup.splits[s.record] for s in specs]
        rows = case_rows(victim, study.metric, specs, batch, outcome, splits, verdicts, extras)
        rows = [row | {"goal": goal} for row in rows]
    except (EcgadvError, MemoryError, ArithmeticError, ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
        say(f"error: {specs[0].case_id} and {len(specs) - 1} more cases failed: {reason}")
        rows = [left_out(spec, "failed", reason) | {"goal": goal} for spec in specs]
        return Part.of(rows, np.zeros((0, *victim.shape)), np.zeros(0))
    kept = np.array([row["status"] == "ok" for row in rows])
    delta = unflatten(outcome.delta, victim.leads)[kept]
    return Part.of(rows, delta, batch.scale_mv[kept], Beside.joined(tables))
