"""What a case is stored as."""

import re

from ecgadv.errors import ConfigError
from ecgadv.evaluate.distances import USUAL, Distance
from ecgadv.evaluate.perceptibility import PERCEPTIBILITY_COLUMNS
from ecgadv.evaluate.tables import Table

_CASE = {
    "case_id": str, "record": str, "source": str, "target": str, "predicted": str, "success": bool,
    "p_target": float, "margin": float, "d_l2": float, "d_smooth": float, "d_smooth_l2": float,
    "l2_norm": float, "linf": float, "snr_db": float, "prd_percent": float, "n_gradients": int,
    "n_forwards": int, "seconds": float, "status": str, "message": str, "split": str,
    "target_rate": float, "mean_power": float, "rms_mv": float, "peak_mv": float, "n_records": int,
    **dict.fromkeys(PERCEPTIBILITY_COLUMNS, float), "goal": str,
}  # fmt: skip

CASES = Table(_CASE, empty=frozenset(_CASE) - {"case_id", "source", "target", "success", "status"})
"""``cases.csv``; columns after ``message`` were added to the contract's first 20. A case that was
not attacked to its end has no numbers."""

CASE_COLUMNS: tuple[str, ...] = tuple(CASES.columns)

PART_KEYS = ("case_id", "delta", "scale_mv")
"""Arrays of ``perturbations.npz`` and of every part, a row for each ``ok`` case."""


def case_table(distance: Distance) -> Table:
    """``cases.csv`` of a run: a distance that the usual columns lack has one at the end.

    Raises:
        ConfigError: its column is no plain name, or one that means something else.
    """
    where = f"metric={distance.metric}: its column {distance.column}"
    if not re.fullmatch(r"[A-Za-z]\w*(\.\w+)*", distance.column):
        raise ConfigError(f"{where} is no plain name")
    if any(distance.told() | {"help": own.help} == own.told() for own in USUAL):
        return CASES
    if distance.column in CASES.columns:
        raise ConfigError(f"{where} means something else in cases.csv; give it another name")
    return CASES.extended({distance.column: float})
