"""Hydra callback: one parent run for a sweep, whatever launches its jobs."""

from __future__ import annotations

import atexit
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ecgadv.tracking.messages import one_line, warn


class SweepCallback(Callback):
    """Prepares the store and the parent run before the jobs start, and completes it after them.

    Add it to Hydra's configuration as ``hydra.callbacks.sweep._target_``. A single run is left
    alone. Jobs find the parent by ``mlflow_parent.json`` in the sweep's folder, never by an
    environment variable, which would make every process log into one run.
    """

    def __init__(self) -> None:
        self._open: tuple[dict[str, Any], Path, Path] | None = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create or upgrade the database, create or reuse the parent run."""
        try:
            found = _places(config)
            if found is None:
                return
            from ecgadv.tracking.sweep import start_parent

            start_parent(*found)
        except Exception as error:  # tracking never stops a sweep
            warn(f"MLflow: the sweep gets no parent run ({one_line(error)})")
            return
        self._open = found
        # Hydra skips on_multirun_end where a job failed or the launcher was stopped.
        atexit.register(self._finish, False)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Log the table of jobs and end the parent run."""
        self._finish(True)

    def _finish(self, clean: bool) -> None:
        if self._open is None:
            return
        found, self._open = self._open, None
        atexit.unregister(self._finish)
        try:
            from ecgadv.tracking.sweep import finish_parent

            finish_parent(*found, clean=clean)
        except Exception as error:  # tracking never stops a sweep
            warn(f"MLflow: the sweep's parent run was not completed ({one_line(error)})")


def _places(config: DictConfig) -> tuple[dict[str, Any], Path, Path] | None:
    """Tracking settings, the sweep's folder and ``paths.root``, absolute; ``None`` if untracked."""
    tracking = OmegaConf.select(config, "tracking")
    if tracking is None or tracking.get("name") != "mlflow":
        return None
    settings = OmegaConf.to_container(tracking, resolve=True)
    assert isinstance(settings, dict)
    try:
        here = Path(str(OmegaConf.select(config, "hydra.runtime.cwd") or Path.cwd()))
    except OmegaConfBaseException:
        here = Path.cwd()
    root = here / Path(str(OmegaConf.select(config, "paths.root") or ".")).expanduser()
    sweep = here / Path(str(config.hydra.sweep.dir)).expanduser()
    return {str(k): v for k, v in settings.items()}, sweep.resolve(), root.resolve()
