"""A run's diary in MLflow. It never makes a job fail: what goes wrong is one warning line."""

from __future__ import annotations

import atexit
import json
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ecgadv.errors import ConfigError
from ecgadv.store.reading import check_whole
from ecgadv.tracking import content, database, memory
from ecgadv.tracking.description import description
from ecgadv.tracking.messages import one_line, warn
from ecgadv.tracking.uris import artifact_root, hide_password, resolve_uri
from ecgadv.tracking.writing import log_batch, log_table, next_step

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

STATUSES = ("FINISHED", "FAILED", "KILLED")

_PROGRESS_SECONDS = 2.0  # at most one write of progress in this time
_LOCKED_RETRIES = 5


class NullTracker:
    """Does nothing (``tracking=none``). :class:`Tracker` has the same methods."""

    uri: str = ""
    run_id: str | None = None

    def start(self, dataset: Mapping[str, Any] | None = None) -> None:
        """Begin, or go on with, the folder's run.

        Args:
            dataset: what was attacked: ``name``, ``digest``, and anything else that describes it
                (``root``, ``n_records``, counts by class).
        """

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after ``step`` cases; written every two seconds at most."""

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """One epoch of a training, numbers nested as they come; ``row["epoch"]`` is the step."""

    def finish(self, status: str = "FINISHED", *, with_results: bool | None = None) -> None:
        """Log what the run's folder holds and end the run; a second call does nothing.

        Args:
            status: ``FINISHED``, ``FAILED`` or ``KILLED``.
            with_results: log the folder's results; by default unless the run was killed.
        """

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run where nobody has: KILLED after an interrupt, FAILED after an error."""
        if isinstance(error, KeyboardInterrupt):
            self.finish("KILLED")
        elif isinstance(error, SystemExit):
            # SystemExit is what a SIGTERM handler raises; exit status 0 is no kill.
            self.finish("KILLED" if error.code else "FINISHED")
        else:
            self.finish("FAILED" if error is not None else "FINISHED")


class Tracker(NullTracker):
    """Logs one run folder to one MLflow run.

    Args:
        uri: resolved address of the store.
        experiment: name of the experiment.
        cfg: the whole configuration.
        folder: the run's absolute folder; its ``mlflow_run.json`` keeps the run's id, so that a
            resumed case goes on in the same MLflow run.
        artifacts: absolute folder of the artifacts (unused where a server keeps them).
        signature: of the configuration; a folder whose run has another one starts a new run.
        system_metrics: sample CPU, memory, disk, network and GPU every five seconds.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        cfg: Mapping[str, Any],
        folder: Path,
        artifacts: Path,
        *,
        signature: str = "",
        system_metrics: bool = False,
    ) -> None:
        self.uri = uri
        self.experiment = experiment
        self.cfg = cfg
        self.folder = folder
        self.artifacts = artifacts
        self.signature = signature
        self.system_metrics = system_metrics
        self.run_id: str | None = None
        self.failed = False
        self._api: MlflowClient | None = None
        self._monitor: Any = None
        self._ended = False
        self._step = 0
        self._followed: set[str] = set()  # metrics with a history
        self._pending: dict[str, float] = {}
        self._last_write = 0.0
        self._progress_works = True
        self._process = os.getpid()

    # -- never fail ---------------------------------------------------------------------------
    def _try(self, what: str, action: Callable[[], None]) -> bool:
        for attempt in range(_LOCKED_RETRIES):
            try:
                action()
                return True
            except Exception as error:  # a store can fail in any way; the job must go on
                locked = "database is locked" in str(error)
                if locked and attempt + 1 < _LOCKED_RETRIES:
                    time.sleep(0.2 * 2**attempt)
                    continue
                self.failed = True
                warn(
                    f"MLflow at {hide_password(self.uri)}: {what} ({one_line(error)}); "
                    f"results are in {self.folder}, upload them later with task=track"
                )
                return False
        return False

    # -- a run's life -------------------------------------------------------------------------
    def start(self, dataset: Mapping[str, Any] | None = None) -> None:
        """Begin, or go on with, the folder's run; see :meth:`NullTracker.start`."""
        if self.run_id is not None:
            return
        if self._try("the run was not started", lambda: self._start(dataset)):
            atexit.register(self._at_exit)
            if self.system_metrics:
                self._try("system metrics are off", self._start_monitor)
        else:
            self._api = None

    def _start(self, dataset: Mapping[str, Any] | None) -> None:
        experiment_id = database.prepare(self.uri, self.experiment, self.artifacts)
        self._api = api = database.client(self.uri)
        tags = content.tags(self.cfg, self.folder, self.signature)
        parent = memory.parent_of(self.folder, self.uri)
        if parent:
            tags["mlflow.parentRunId"] = parent
            tags["sweep"] = memory.sweep_of(self.folder, self.uri)
        run = self._known_run(api, experiment_id)
        if run is None:
            run = api.create_run(experiment_id, run_name=self.folder.name, tags=tags)
            memory.remember(
                self.folder / memory.RUN_FILE,
                self.uri,
                run_id=run.info.run_id,
                experiment_id=experiment_id,
                uploaded=None,
            )
        else:
            api.update_run(run.info.run_id, status="RUNNING")
            log_batch(api, run.info.run_id, tags=tags)
        self.run_id = run.info.run_id
        # A parameter cannot change in MLflow, so a resumed run adds only those it lacks.
        params = {k: v for k, v in content.flatten(self.cfg).items() if k not in run.data.params}
        log_batch(api, run.info.run_id, params=params)
        if dataset and not (run.inputs and run.inputs.dataset_inputs):
            api.log_inputs(run.info.run_id, datasets=[_dataset(dataset)])

    def _known_run(self, api: MlflowClient, experiment_id: str) -> Run | None:
        from mlflow.exceptions import MlflowException

        run_id = memory.recall(self.folder / memory.RUN_FILE, self.uri).get("run_id")
        if not run_id:
            return None
        try:
            run = api.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        same = (
            run.info.lifecycle_stage == "active"
            and run.info.experiment_id == experiment_id
            and (not self.signature or run.data.tags.get("signature") in (None, self.signature))
        )
        return run if same else None

    def _start_monitor(self) -> None:
        logging.getLogger("mlflow.system_metrics").setLevel(logging.ERROR)
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        self._monitor = SystemMetricsMonitor(
            self.run_id, sampling_interval=5, resume_logging=True, tracking_uri=self.uri
        )
        self._monitor.start()

    def progress(self, step: int, metrics: Mapping[str, float]) -> None:
        """Metrics after ``step`` cases; see :meth:`NullTracker.progress`."""
        if self._api is None or self._ended:
            return
        self._step = max(self._step, step)
        self._pending = dict(metrics)
        if time.monotonic() - self._last_write >= _PROGRESS_SECONDS:
            self._write_progress()

    def _write_progress(self) -> None:
        if not self._pending or not self._progress_works:
            return
        values, self._pending = self._pending, {}
        self._progress_works = self._try("progress is no longer shown", lambda: self._log(values))
        self._last_write = time.monotonic()

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """One epoch of a training; see :meth:`NullTracker.log_epoch`."""
        if self._api is None or self._ended or not self._progress_works:
            return
        values = content.leaves("", row)
        step = int(values.pop("epoch", self._step + 1))
        self._step = max(self._step, step)
        self._progress_works = self._try(
            "epochs are no longer shown", lambda: self._log(values, step)
        )

    def finish(self, status: str = "FINISHED", *, with_results: bool | None = None) -> None:
        """Log the folder and end the run; see :meth:`NullTracker.finish`."""
        status = status.upper()
        if status not in STATUSES:
            raise ValueError(f"status {status} is none of {', '.join(STATUSES)}")
        if self._api is None or self._ended or os.getpid() != self._process:
            return
        if self._monitor is not None:
            monitor, self._monitor = self._monitor, None
            self._try("system metrics were cut", monitor.finish)
        self._write_progress()
        # Time is short after SIGTERM; the results follow when the run is resumed or uploaded.
        wanted = status != "KILLED" if with_results is None else with_results
        complete = wanted and self._try("the results were not logged", self._log_folder)
        self._try("the run was not ended", lambda: self._end(status))
        self._ended = True
        if complete:
            mark = content.fingerprint(self.folder)
            self._try(
                "mlflow_run.json was not written",
                lambda: memory.remember(self.folder / memory.RUN_FILE, self.uri, uploaded=mark),
            )
        atexit.unregister(self._at_exit)

    def _running(self) -> tuple[MlflowClient, str]:
        if self._api is None or self.run_id is None:
            raise RuntimeError("the tracker has not been started")
        return self._api, self.run_id

    def _end(self, status: str) -> None:
        api, run_id = self._running()
        api.set_terminated(run_id, status)

    def _at_exit(self) -> None:
        # Reached only where nobody called finish: the process was told to stop.
        self.finish("KILLED")

    # -- what is logged -----------------------------------------------------------------------
    def _log(self, values: Mapping[str, float], step: int | None = None) -> None:
        api, run_id = self._running()
        log_batch(api, run_id, metrics=values, step=self._step if step is None else step)
        self._followed |= values.keys()

    def _log_folder(self) -> None:
        """Metrics and tags in one batch, then the table, then files."""
        api, run_id = self._running()
        folder = self.folder
        summary = content.read_json(folder / "summary.json")
        tags = {f"version.{k}": str(v) for k, v in (summary.get("versions") or {}).items()}
        victim = summary.get("victim")
        if isinstance(victim, Mapping) and victim.get("sha256"):
            tags["victim.sha256"] = str(victim["sha256"])
        if summary.get("config_signature"):
            tags["signature"] = str(summary["config_signature"])
        note = description(folder)
        if note:
            tags["mlflow.note.content"] = note
        metrics = content.metrics(folder)
        # At step 0 the UI draws bars, at others lines; results logged anew must come after.
        step = next_step(api, run_id, "n_cases")
        followed = {key: metrics.pop(key) for key in self._followed & metrics.keys()}
        log_batch(api, run_id, metrics=metrics, tags=tags, step=step)
        log_batch(api, run_id, metrics=followed, step=max(step, self._step))
        rows = content.read_cases(folder)
        if rows:
            check_whole(folder / "cases.csv", len(rows))
            log_table(api, run_id, rows, "cases.json")
        for path, kept in content.artifacts(folder):
            api.log_artifact(run_id, str(path), kept or None)
        if not (folder / "config.json").is_file():
            text = json.dumps(_plain(self.cfg), indent=1, default=str)
            api.log_text(run_id, hide_password(text), "config.json")


def _plain(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {str(k): _plain(v) for k, v in node.items()}
    return [_plain(v) for v in node] if isinstance(node, (list, tuple)) else node


def _dataset(described: Mapping[str, Any]) -> Any:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    rest = {k: v for k, v in described.items() if k not in ("name", "digest")}
    dataset = Dataset(
        name=str(described.get("name") or "records")[:500],
        digest=str(described.get("digest") or "unknown")[:36],
        source_type="local",
        source=json.dumps({"uri": str(described.get("root") or described.get("name") or "")}),
        profile=json.dumps(rest, default=str),
    )
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "attack")])


def open_tracker(
    settings: Mapping[str, Any],
    cfg: Mapping[str, Any],
    folder: Path,
    *,
    root: Path,
    signature: str = "",
) -> NullTracker:
    """The tracker that ``tracking`` asks for; imports MLflow only when it is started.

    Args:
        settings: ``cfg["tracking"]``: ``name`` (``mlflow`` or ``none``), ``uri``, ``experiment``,
            ``system_metrics``.
        cfg: the whole configuration, plain.
        folder: the run's folder.
        root: ``paths.root``; the default store is ``mlflow.db``, its artifacts ``mlartifacts``.
        signature: of the configuration.

    Raises:
        ConfigError: an unknown tracker, or an address that MLflow cannot serve.
    """
    name = settings.get("name", "mlflow")
    if name == "none":
        return NullTracker()
    if name != "mlflow":
        raise ConfigError(f"tracking={name} is not one of mlflow, none")
    return Tracker(
        resolve_uri(settings.get("uri"), root),
        str(settings.get("experiment") or "ecgadv"),
        cfg,
        folder.resolve(),
        artifact_root(root),
        signature=signature,
        system_metrics=bool(settings.get("system_metrics", False)),
    )
