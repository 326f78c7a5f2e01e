"""From a command line to Hydra, which starts one job or a sweep of them."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from ecgadv import config, environment
from ecgadv.cli.jobs import CODES, job
from ecgadv.cli.said import say
from ecgadv.cli.stopping import BROKEN_PIPE, INTERRUPTED, closed_pipe, termination_raises
from ecgadv.cli.sweeps import refuse_other_sweep, sweep
from ecgadv.config import hydra_api
from ecgadv.errors import ConfigError

# Our options of hydra/launcher bear the names of the plugins' own, whose types they keep to.
warnings.filterwarnings("ignore", r"\s*'hydra/launcher/\w+' is validated against")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: that of the process) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    with environment.settled():
        return _guarded(arguments)


def _guarded(arguments: list[str]) -> int:
    """:func:`_main` with every error said in one line."""
    try:
        with termination_raises():
            return _main(arguments)
    except BrokenPipeError:
        return closed_pipe()
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except Exception as error:
        return say(error, None)


def _main(arguments: list[str]) -> int:
    environment.check_folder()
    args = hydra_api.parse_arguments(arguments)
    if args.help or args.hydra_help or args.shell_completion:
        return _show(_flags(args), args.overrides)
    composed = config.compose_checked(arguments)
    overrides = [*composed.overrides, *composed.extra]
    if composed.shown_only:
        return _show(_flags(args), composed.overrides)
    if composed.is_multirun:
        refuse_other_sweep(composed)
    while True:
        # The same error that Hydra would print as a traceback, before it gets there.
        composed.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            composed.folder.mkdir(exist_ok=bool(composed.config["resume"]))
            break
        except FileExistsError:
            taken = composed.folder
            composed = config.compose_checked(arguments)
            overrides = [*composed.overrides, *composed.extra]
            if composed.folder == taken:
                break  # a folder of the user's own choice
            # Another command took this new folder in between: the next number then.
    for note in composed.notes:
        print(f"note: {note}", file=sys.stderr)
    CODES.clear()
    if composed.is_multirun:
        code = sweep(composed, functools.partial(_hydra, _flags(args), overrides))
    else:
        _hydra(_flags(args), overrides)
        code = CODES[-1] if CODES else 1
    lost = environment.lost_output()
    if lost is not None and lost.errno not in (errno.EPIPE, errno.EBADF):
        print(f"note: standard output was dropped: {lost.strerror}", file=sys.stderr)
    return code


def _show(flags: Sequence[str], overrides: Sequence[str]) -> int:
    """Let Hydra print what was asked for; unlike a run's, this output is all there is."""
    with contextlib.suppress(SystemExit):  # Hydra's way to end --help
        _hydra(flags, overrides)
    lost = environment.lost_output()
    if lost is None:
        return 0
    if lost.errno == errno.EPIPE:
        return BROKEN_PIPE
    raise ConfigError(f"standard output cannot be written: {lost.strerror}")


def _flags(args: argparse.Namespace) -> list[str]:
    flags = [f"--{f.replace('_', '-')}" for f in ("help", "hydra_help", "resolve", "multirun")]
    flags = [f for f in flags if getattr(args, f[2:].replace("-", "_"))]
    flags += ["--shell-completion"] if args.shell_completion else []
    for name in ("cfg", "package", "info"):
        if getattr(args, name) is not None:
            flags += [f"--{name}", getattr(args, name)]
    if args.config_dir is not None:
        flags += ["--config-dir", str(Path(args.config_dir).absolute())]
    return flags


def _hydra(flags: Sequence[str], overrides: Sequence[str]) -> None:
    """Hand over to Hydra, whose errors come back as exceptions instead of as its own texts."""
    import hydra

    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv = [sys.argv[0], *flags, *overrides]
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(config.conf_dir()), config_name="config")(
            job
        )()
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = before[1]
