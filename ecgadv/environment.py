"""What a process finds around it: streams, variables, warnings. None of it may change a result.

The command line runs within :func:`settled`. A finished run stays finished whatever becomes of what
it prints: letters that a stream cannot show are spelled in ASCII, and output that cannot be written
is dropped and remembered.
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from typing import Any, TextIO, cast

from ecgadv.errors import ConfigError

DEFAULTS = {"TF_CPP_MIN_LOG_LEVEL": "3", "MLFLOW_DISABLE_TELEMETRY": "true"}
"""Variables that are set where the user has not."""

OURS = {
    # Figures are drawn by Agg; a notebook's own choice may name a package that is not here.
    "MPLBACKEND": "agg",
    # A folder that cannot be: keras.json may hold another number format or axis order, or damage.
    "KERAS_HOME": os.path.join(os.devnull, "keras"),
}
"""Variables that have this value while the command line runs, whatever the user has set."""

FOREIGN = ("PYTHONWARNINGS", "KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
"""Variables that would change a run from outside its configuration: unset while it runs."""

NARROWEST = 60
"""Columns that the tables of results need; ``COLUMNS`` below that would cut them off."""

_SPELLED = {
    "–": "-", "—": "-", "−": "-", "…": "...", "×": "x", "·": "*", "±": "+/-", "≤": "<=", "≥": ">=",
    "→": "->", "≈": "~", "µ": "u", "μ": "u", "δ": "delta", "Δ": "delta", "ε": "eps", "τ": "tau",
    "σ": "sigma", "ρ": "rho", "√": "sqrt", "ß": "ss", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE",
    "‘": "'", "’": "'", "“": '"', "”": '"', "█": "#", "━": "-", "─": "-", "│": "|", "┃": "|",
}  # fmt: skip

_HANDLER = "ecgadv.ascii"


def _spell(error: UnicodeError) -> tuple[str | bytes, int]:
    """Codec error handler: the nearest ASCII for what an encoding lacks."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if 0xDC80 <= ord(letter) <= 0xDCFF:
        # A byte of a file name that is no text, kept by Python in this form.
        return bytes([ord(letter) - 0xDC00]), error.start + 1
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return _SPELLED.get(letter, plain or "?"), error.start + 1


codecs.register_error(_HANDLER, _spell)


class Forgiving:
    """A text stream that never fails: what cannot be written is dropped.

    Attributes:
        lost: why output was dropped; None where all of it was written.
    """

    def __init__(self, stream: TextIO, lost: OSError | None = None) -> None:
        self._stream = stream
        self.lost = lost
        # Other handlers than these two are the user's own choice, and do not fail.
        if getattr(stream, "errors", None) in ("strict", "surrogateescape", "backslashreplace"):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                cast("Any", stream).reconfigure(errors=_HANDLER)

    def write(self, text: str) -> int:
        """Write a text, in ASCII where need be."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError as error:
            # A byte of a file name that is no text cannot be decoded again either.
            shown = text.encode(error.encoding, _HANDLER).decode(error.encoding, "replace")
            return self._stream.write(shown)
        except OSError as error:
            self._give_up(error)
        except ValueError:
            if not self._stream.closed:
                raise
        return len(text)

    def writelines(self, lines: Any) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._give_up(error)
        except ValueError:
            if not self._stream.closed:
                raise

    def _give_up(self, error: OSError) -> None:
        self.lost = self.lost or error
        # What is still buffered must go nowhere, now and when the interpreter ends.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._stream)


def _open_descriptors() -> None:
    """Fill the places of closed standard streams, or the next file opened would take one.

    Native code writes to descriptors 1 and 2 whatever they are: to a run's own file, then.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                # The lowest free number is taken, which is this one.
                os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _forgiving(name: str) -> None:
    stream = getattr(sys, name)
    if isinstance(stream, Forgiving):
        return
    lost = None
    if stream is None:
        lost = OSError(errno.EBADF, "it is closed")
        stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, for good
    setattr(sys, name, Forgiving(stream, lost))


@contextlib.contextmanager
def settled() -> Iterator[None]:
    """Streams that do not fail, variables and warnings that do not matter; as before at the end."""
    _open_descriptors()
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, for good
    for key, value in DEFAULTS.items():
        os.environ.setdefault(key, value)
    columns = os.environ.get("COLUMNS", "")
    narrow = ["COLUMNS"] if columns.isdecimal() and int(columns) < NARROWEST else []
    before = {name: os.environ.get(name) for name in (*OURS, *FOREIGN, *narrow)}
    os.environ.update(OURS)
    for name in (*FOREIGN, *narrow):
        os.environ.pop(name, None)
    streams = sys.stdout, sys.stderr
    _forgiving("stdout")
    _forgiving("stderr")
    try:
        with _usual_warnings():
            yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = (
            old if old is not None else new
            for old, new in zip(streams, (sys.stdout, sys.stderr), strict=True)
        )
        for name, old in before.items():
            os.environ.pop(name, None)
            if old is not None:
                os.environ[name] = old


@contextlib.contextmanager
def _usual_warnings() -> Iterator[None]:
    """Python's own filters where the user's make errors of warnings: libraries warn at will."""
    if not any("error" in option for option in sys.warnoptions):
        yield
        return
    with warnings.catch_warnings():
        filters = cast("list[Any]", warnings.filters)
        others = [one for one in filters if one[0] != "error"]
        options = sys.warnoptions[:]
        warnings.resetwarnings()
        filters[:] = others
        # Processes started from here are given these options.
        sys.warnoptions[:] = []
        try:
            yield
        finally:
            sys.warnoptions[:] = options


def lost_output() -> OSError | None:
    """Why standard output was dropped; None where all of it was written."""
    if isinstance(sys.stdout, Forgiving):
        sys.stdout.flush()
        return sys.stdout.lost
    return None


def check_folder() -> None:
    """Raise :class:`ConfigError` where the working folder has been deleted."""
    try:
        os.getcwd()
    except OSError:
        raise ConfigError(
            "the folder that this command was started in is no longer there; cd to another one"
        ) from None
