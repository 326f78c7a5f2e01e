"""The tracking store: made or upgraded once, by one process at a time."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import url2pathname

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
    if found is not None and artifact_location is not None:
        follow(uri, str(found.experiment_id), artifact_location)
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


def follow(uri: str, experiment_id: str, here: str) -> None:
    """Let the artifacts of an experiment lie beside its database, where it was moved with them.

    MLflow keeps absolute places, and its ``Default`` experiment would write into the folder in
    which the database was opened first.

    Args:
        uri: resolved address of a database.
        experiment_id: of the experiment.
        here: address of the folder of artifacts that the project has, ``file://…/mlartifacts``.
    """
    import sqlalchemy
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(uri)
    try:
        with engine.begin() as db:
            of = {"id": int(experiment_id), "here": here}
            query = sqlalchemy.text(
                "SELECT artifact_location FROM experiments WHERE experiment_id = :id"
            )
            was = str(db.execute(query, of).scalar() or "")
            old, new = _folder(was), _folder(here)
            if was == here or old is None or new is None:
                return
            query = sqlalchemy.text("SELECT run_uuid FROM runs WHERE experiment_id = :id")
            runs = [str(row[0]) for row in db.execute(query, of)]
            mine = [run for run in runs if (new / run).is_dir()]
            file = sqlite_file(uri)
            moved = file is not None and file.parent == new.parent and old.name == new.name
            moved = moved and (bool(mine) or not old.exists())
            if not moved and old.parts[-2:] != ("mlruns", "0"):
                return
            db.execute(
                sqlalchemy.text(
                    "UPDATE experiments SET artifact_location = :here WHERE experiment_id = :id"
                ),
                of,
            )
            for run in mine:
                db.execute(
                    sqlalchemy.text("UPDATE runs SET artifact_uri = :at WHERE run_uuid = :run"),
                    {"at": f"{here}/{run}/artifacts", "run": run},
                )
    finally:
        engine.dispose()


def _folder(uri: str) -> Path | None:
    """The local folder that an artifact location names, else ``None``."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri) if uri.startswith("/") else None
    return Path(url2pathname(rest)) if scheme == "file" else None


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
