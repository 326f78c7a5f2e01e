"""``task=track``: upload results that lie on disk to MLflow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ecgadv.errors import ConfigError


def run(cfg: dict[str, Any], folder: Path) -> int:
    """Upload the runs below ``track.run`` (default: all of ``paths.root``) that the store lacks.

    Args:
        cfg: the configuration; a relative folder starts at ``paths.root``.
        folder: this task's own folder; it is no run to upload.

    Returns:
        0 if all that could be uploaded was, 1 if the store refused one.

    Raises:
        ConfigError: ``tracking=none``, or no run lies there.
    """
    from ecgadv.tracking import resolve_uri, ui_command, upload

    root = Path(str((cfg.get("paths") or {}).get("root") or ".")).expanduser().resolve()
    place = (cfg.get("track") or {}).get("run") or cfg.get("sweep")
    where = root / Path(str(place)).expanduser() if place else root
    if not where.is_dir():
        raise ConfigError(f"track.run={place}: no such folder")
    settings = cfg["tracking"]
    done = upload(where, settings, root=root, leave_out=[folder])
    print(f"uploaded {len(done.uploaded)}, unchanged {len(done.unchanged)}")
    for run_folder in done.running:
        print(f"left out, it is still running: {run_folder}", file=sys.stderr)
    for run_folder in done.failed:
        print(f"not uploaded: {run_folder}", file=sys.stderr)
    print(ui_command(resolve_uri(settings.get("uri"), root)))
    return 1 if done.failed else 0
