"""The tracking store: made or upgraded once, by one process at a time."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ecgadv.errors import EcgadvError
from ecgadv.tracking.uris import hide_password, is_database, sqlite_file

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_log = logging.getLogger("ecgadv.tracking")

_LOCK_SECONDS = 180.0  # a fresh database takes about 10 s, a slow disk several times that


def quiet_environment() -> None:
    """Settings that MLflow reads from the environment; what the user has set stays.

    A server that does not answer costs seconds instead of MLflow's default of many minutes.
    """
    for name, value in (
        ("MLFLOW_DISABLE_TELEMETRY", "true"),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "10"),
        ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1"),
        ("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1"),
        ("MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT", "120"),
        ("GIT_PYTHON_REFRESH", "quiet"),
    ):
        os.environ.setdefault(name, value)


def client(uri: str) -> MlflowClient:
    """A client on a resolved address; touches nothing global."""
    quiet_environment()
    from mlflow.tracking import MlflowClient

    # Its progress and retry notes would interleave with ours; errors reach us as exceptions.
    for name in ("mlflow", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.ERROR)

    return MlflowClient(tracking_uri=uri)


def _migrate(uri: str) -> None:
    """Create the tables of a new database, or bring those of an older MLflow up to date."""
    from mlflow.store.db import utils

    file = sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = utils.create_sqlalchemy_engine_with_retry(uri)
    try:
        found = utils._get_schema_version(engine)
        if found is None:
            utils._initialize_tables(engine)
            return
        if found == utils._get_latest_schema_revision():
            return
        if file is not None:
            # Migrations are not transactional on sqlite; the copy is the way back.
            backup = file.with_name(f"{file.name}.before-upgrade-from-{found}")
            if not backup.exists():
                shutil.copy2(file, backup)
        _log.info("upgrading the MLflow database %s", hide_password(uri))
        utils._upgrade_db(engine)
    finally:
        engine.dispose()


def _experiment(uri: str, name: str, artifact_location: str | None) -> str:
    from mlflow.exceptions import MlflowException

    api = client(uri)
    found = api.get_experiment_by_name(name)
    if found is None:
        try:
            return str(api.create_experiment(name, artifact_location=artifact_location))
        except MlflowException:
            # On a server, another machine may have made it in between.
            found = api.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage == "deleted":
        api.restore_experiment(found.experiment_id)
    return str(found.experiment_id)


def prepare(uri: str, experiment: str, artifact_root: Path) -> str:
    """Make the store ready: database created or upgraded, experiment there. Safe in any number of
    processes at once, since MLflow's own migration is not.

    Args:
        uri: resolved address (:func:`ecgadv.tracking.uris.resolve_uri`).
        experiment: name of the experiment.
        artifact_root: absolute folder of the artifacts; a server keeps its own instead.

    Returns:
        The experiment's id.

    Raises:
        EcgadvError: another process holds the lock for minutes.
        Exception: whatever MLflow raises on a store that it cannot open.
    """
    quiet_environment()
    if not is_database(uri):
        return _experiment(uri, experiment, None)

    import filelock

    file = sqlite_file(uri)
    lock = file.with_name(f"{file.name}.lock") if file else artifact_root.parent / "mlflow.db.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    levels = {name: logging.getLogger(name).level for name in ("alembic", "mlflow.store.db.utils")}
    try:
        with filelock.FileLock(lock, timeout=_LOCK_SECONDS):
            import mlflow.store.db.utils  # noqa: F401  (sets the log levels that are lowered here)

            for name in levels:
                logging.getLogger(name).setLevel(logging.WARNING)
            _migrate(uri)
            return _experiment(uri, experiment, artifact_root.as_uri())
    except filelock.Timeout:
        raise EcgadvError(
            f"{lock} has been locked by another process for {_LOCK_SECONDS:.0f} s; "
            "remove it if none runs"
        ) from None
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
