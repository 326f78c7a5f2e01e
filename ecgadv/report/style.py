"""The look of every figure: colours told apart by colour-blind readers and in grey print."""

from __future__ import annotations

import contextlib
import functools
import io
import math
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MM_PER_INCH = 25.4

ORIGINAL = "#000000"
ADVERSARIAL = "#0072B2"
PERTURBATION = "#B2410A"
GHOST = "#8C8C8C"
PAPER_MINOR = "#F6D5D2"
PAPER_MAJOR = "#E3A29C"
"""Okabe and Ito's hues, darkened so that lines differ from the paper in grey as well."""

SERIES = ("#000000", "#0072B2", "#B2410A", "#1B7F5C", "#8C5A9E", "#6B6B6B")
DASHES: tuple[tuple[float, ...], ...] = (
    (), (5, 1.5), (1.5, 1.2), (6, 1.5, 1.5, 1.5), (3, 3), (8, 2),
)  # fmt: skip
"""Colours and dashes of several lines in one panel, used together: where two colours come close in
grey print, the dashes differ."""

METRIC_LINES = {"l2": 2, "diff": 1, "diffl2": 3}
"""Place in :data:`SERIES` of each metric, so that it looks the same in every figure."""

GRID = "#DDDDDD"
SHADE = "#EBEBEB"

VECTOR = ".pdf"
"""Ending of the vector file beside a PNG, where one is wanted."""

RATE_MAP = "cividis"
"""Colour map of rates: monotone in lightness."""

SETTINGS: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 8.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "lines.linewidth": 0.8,
    "lines.solid_joinstyle": "round",
    "svg.fonttype": "none",
    "svg.hashsalt": "ecgadv",
    "pdf.fonttype": 42,
    "path.simplify": False,
}

_P = ParamSpec("_P")
_R = TypeVar("_R")


def styled(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Run a figure function under :data:`SETTINGS`, whatever the caller's matplotlib is set to."""

    @functools.wraps(function)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        import matplotlib

        with matplotlib.rc_context(SETTINGS):
            return function(*args, **kwargs)

    return wrapped


def new_figure(width_mm: float, height_mm: float) -> Figure:
    """A figure of this size in print, drawn by Agg; no pyplot state, safe in any thread."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_mm / MM_PER_INCH, height_mm / MM_PER_INCH), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def series(rank: int) -> dict[str, Any]:
    """Colour and dashes of the ``rank``-th line of a panel, for matplotlib's ``plot``."""
    dashes = DASHES[rank % len(DASHES)]
    style = {"color": SERIES[rank % len(SERIES)]}
    return style | ({"dashes": dashes} if dashes else {"linestyle": "-"})


def metric_rank(name: str, rank: int) -> int:
    """Place of a metric in :data:`SERIES`; of an unknown one by its rank."""
    return METRIC_LINES.get(name, 4 + rank)


def metric_series(name: str, rank: int) -> dict[str, Any]:
    """:func:`series` of a metric; of an unknown one by its rank."""
    return series(metric_rank(name, rank))


def log_axis(axes: Axes, low: float, high: float) -> None:
    """A logarithmic abscissa from ``low`` to ``high`` whose labels have room in a small panel."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    decades = math.log10(high / low)
    subs = (1.0, 2.0, 5.0) if decades < 2 else (1.0, 3.0) if decades < 3 else (1.0,)
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


_copies: ContextVar[bool] = ContextVar("vector copies of figures", default=False)


@contextlib.contextmanager
def vector_copies(wanted: bool = True) -> Iterator[None]:
    """Within it :func:`save_figure` writes vector graphics beside every PNG."""
    token = _copies.set(wanted)
    try:
        yield
    finally:
        _copies.reset(token)


def save_figure(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Write a figure of a report: a PNG, and within :func:`vector_copies` a PDF beside it.

    Returns:
        The PNG.
    """
    if _copies.get():
        save(figure, path.with_suffix(VECTOR))
    return save(figure, path.with_suffix(".png"), dpi)


@styled
def save(figure: Figure, path: Path, dpi: int = 110) -> Path:
    """Write a figure by the ending of its name (png, svg, pdf), atomically.

    No date goes into the file, so equal figures give equal bytes.
    """
    kind = path.suffix.removeprefix(".") or "png"
    buffer = io.BytesIO()
    metadata = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    figure.savefig(buffer, format=kind, dpi=dpi, metadata=metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.part")
    scratch.write_bytes(buffer.getvalue())
    scratch.replace(path)
    return path
