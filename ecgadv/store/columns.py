"""What a case is stored as."""

from ecgadv.evaluate.perceptibility import PERCEPTIBILITY_COLUMNS

CASE_COLUMNS = (
    "case_id", "record", "source", "target", "predicted", "success", "p_target", "margin", "d_l2",
    "d_smooth", "d_smooth_l2", "l2_norm", "linf", "snr_db", "prd_percent", "n_gradients",
    "n_forwards", "seconds", "status", "message", "split",
    "target_rate", "mean_power", "rms_mv", "peak_mv", "n_records", *PERCEPTIBILITY_COLUMNS,
    "goal",
)  # fmt: skip
"""Columns of ``cases.csv``; those after ``message`` were added to the contract's first 20."""

TEXT_COLUMNS = (
    "case_id", "record", "source", "target", "predicted", "status", "message", "split",
    "goal",
)  # fmt: skip
"""Those of them that are texts, whatever they look like: a record may be called 007 or 1e3."""

PART_KEYS = ("case_id", "delta", "scale_mv")
"""Arrays of ``perturbations.npz`` and of every part, a row for each ``ok`` case."""
