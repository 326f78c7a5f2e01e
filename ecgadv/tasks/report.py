"""``task=report``: ``report.html`` of a run, or of a sweep with its jobs merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ecgadv.errors import ConfigError


def run(cfg: dict[str, Any], folder: Path) -> int:
    """Write the report of ``report.run`` or of ``sweep``, or a study of it; say where it is.

    Args:
        cfg: the configuration; relative folders start at ``paths.root``.
        folder: this task's own folder, which stays as it is: the report lies beside the results.

    Returns:
        0.

    Raises:
        ConfigError: neither or both are given, or the folder does not exist.
        StoreError: it holds no results.
    """
    given = {
        "report.run": (cfg.get("report") or {}).get("run"),
        "sweep": cfg.get("sweep"),
    }
    wanted = {key: value for key, value in given.items() if value}
    if len(wanted) != 1:
        raise ConfigError(
            "task=report needs one of report.run=FOLDER (of a run) and sweep=FOLDER (of a sweep)"
        )
    ((key, value),) = wanted.items()
    root = Path(str((cfg.get("paths") or {}).get("root") or ".")).expanduser()
    place = root / Path(str(value)).expanduser()
    if not place.is_dir():
        raise ConfigError(f"{key}={value}: no such folder")

    report = cfg.get("report") or {}
    if report.get("study"):
        from ecgadv.reader_study import commands as reader_study

        return reader_study.write(cfg, place)
    from ecgadv.report.style import vector_copies
    from ecgadv.report.write import write_report, write_sweep_report

    is_run = key == "report.run" or (place / "cases.csv").is_file()
    with vector_copies(bool(report.get("vector"))):
        print(write_report(place) if is_run else write_sweep_report(place))
    return 0
