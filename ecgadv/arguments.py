"""What the Python interface takes: arguments of any kind in, checked NumPy arrays out.

Pure functions. Each says in one line which argument is wrong, what it is and what would be right.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ecgadv.errors import ConfigError, DataError, EcgadvError
from ecgadv.options import check, hints, types_of
from ecgadv.records.base import class_letter
from ecgadv.threat.goals import UNTARGETED
from ecgadv.victims.pipeline import flatten

MEAN_LIMIT, SPREAD_LIMITS = 0.25, (0.75, 1.25)
"""Mean and standard deviation that a standardised record may have: short cuts of one stay inside,
recordings in mV or µV do not."""

LARGEST = 1e12
"""Largest value of a record that is not standardised: squares of larger ones leave float32."""

SEEDS = 2**32 - 1
"""Largest seed."""

_ADVICE = "ecgadv.preprocess(signal, fs) makes standardised records"


def array(name: str, value: Any, error: type[EcgadvError] = DataError) -> np.ndarray:
    """A NumPy array of an array, a nested list, or a tensor of any backend, wherever it lies.

    Raises:
        EcgadvError: of the class ``error``; it cannot be made an array, or has masked entries.
    """
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # NumPy has no bfloat16 of PyTorch's.
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise error(f"{name}: has masked entries, which stand for missing values")
    try:
        return np.asarray(value)
    except Exception:
        what = type(value).__name__
        raise error(f"{name}: a {what} that NumPy cannot read as one array of numbers") from None


def _numbers(name: str, value: Any, error: type[EcgadvError] = DataError) -> np.ndarray:
    """A real array, (…) float64 or its own integers."""
    given = array(name, value, error)
    # NumPy does not know the kind of jax's and TensorFlow's bfloat16.
    if "float" in given.dtype.name and given.dtype.kind == "V":
        given = given.astype(np.float64)
    if given.dtype.kind in "iu":
        return given
    if given.dtype.kind != "f":
        raise error(f"{name}: must be real numbers, not {_kind(given)}")
    return given.astype(np.float64)


def _kind(given: np.ndarray) -> str:
    kinds = {"b": "true and false", "c": "complex numbers", "U": "texts", "S": "bytes"}
    return kinds.get(given.dtype.kind, f"{given.dtype} values")


def signals(
    x: Any,
    n: int,
    leads: int = 1,
    over: str = "lead",
    lengths: np.ndarray | None = None,
) -> np.ndarray:
    """Records as the attack takes them.

    Args:
        x: (B, n) or (B, n, 1), or (B, n, leads), arrays or tensors; standardised and zero-padded.
        n: samples of the victim's input.
        leads: of the victim's input.
        over: what the victim standardises: each ``lead``, the whole ``record``, or ``none``.
        lengths: (B,) own samples; None where every sample is a record's own.

    Returns:
        (B, leads·n) float32, lead after lead; 0 after a record's own samples, whatever ``x`` holds.

    Raises:
        DataError: another shape, no real and finite numbers, a flat line, or values that are not
            standardised.
    """
    given = _numbers("x", x)
    if leads == 1 and given.ndim == 3 and given.shape[-1] == 1:
        given = given[..., 0]
    wanted = (n, leads) if leads > 1 else (n,)
    if given.ndim != len(wanted) + 1 or given.shape[1:] != wanted:
        expected = f"(B, {n}, {leads})" if leads > 1 else f"(B, {n}) or (B, {n}, 1)"
        raise DataError(f"x has shape {np.shape(x)}, expected {expected}")
    if not len(given):
        return flatten(given.astype(np.float32))
    values = given.reshape(len(given), n, leads).astype(np.float64)
    if lengths is not None:
        values[np.arange(n) >= np.asarray(lengths)[:, None]] = 0
    if not np.isfinite(values).all():
        raise DataError("x holds NaN or infinities; ecgadv.preprocess(signal, fs) removes them")
    largest = float(np.abs(values).max())
    if largest > LARGEST:
        raise DataError(f"x: holds {largest:.3g}, which no record does; {_ADVICE}")
    own = _own_samples(values, lengths, n)
    spread = values.std(axis=1)
    if not (spread > 0).all():
        row, lead = np.unravel_index(int(np.argmin(spread)), spread.shape)
        where = f" in lead {lead + 1}" if leads > 1 else ""
        raise DataError(f"x: row {row} is a flat line{where}")
    if over != "none":
        _standardised(values, own, over)
    return flatten(values.reshape(given.shape).astype(np.float32))


def _own_samples(values: np.ndarray, lengths: np.ndarray | None, n: int) -> np.ndarray:
    """(B,) samples before the padding; without ``lengths`` a tail of zeros is taken for it."""
    filled = (values != 0).any(axis=2)
    last = np.where(filled.any(axis=1), n - np.argmax(filled[:, ::-1], axis=1), n)
    if lengths is None:
        short = np.flatnonzero(n - last > max(2, n // 30))
        if len(short):
            warnings.warn(
                f"x: row {short[0]} ends in {n - last[short[0]]} zeros; without lengths=… they "
                "count as the record's own samples",
                stacklevel=5,
            )
        return np.asarray(last)
    return np.asarray(lengths)


def _standardised(values: np.ndarray, own: np.ndarray, over: str) -> None:
    """Raise where mean and standard deviation over the own samples are not those asked for."""
    leads = values.shape[2]
    for row, (record, length) in enumerate(zip(values, own, strict=True)):
        parts = record[:length].T if over == "lead" else [record[:length]]
        for lead, part in enumerate(parts):
            mean, spread = float(np.mean(part)), float(np.std(part))
            if abs(mean) > MEAN_LIMIT or not SPREAD_LIMITS[0] <= spread <= SPREAD_LIMITS[1]:
                where = f" lead {lead + 1}" if leads > 1 and over == "lead" else ""
                raise DataError(
                    f"x: row {row}{where} is not standardised (mean {mean:.3g}, standard deviation "
                    f"{spread:.3g} over its own samples); {_ADVICE}"
                )


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """A whole number of any type: ``10``, ``np.int64(10)``, ``10.0``, a tensor of one number.

    Raises:
        ConfigError: something else (also a text or a truth value), or out of range.
    """
    limits = "" if least is None else f", at least {least}"
    if least is not None and most is not None:
        limits = f", from {least} to {most}"
    wanted = ConfigError(f"{name}={_shown(value)}: must be a whole number{limits}")
    number = scalar(value)
    endless = isinstance(number, float) and not math.isfinite(number)
    if number is None or endless or number != int(number):
        raise wanted
    found = int(number)
    if (least is not None and found < least) or (most is not None and found > most):
        raise wanted
    return found


def number(name: str, value: Any) -> float:
    """A finite number of any type.

    Raises:
        ConfigError: something else, also a text or a truth value.
    """
    found = scalar(value)
    if found is None or not math.isfinite(found):
        raise ConfigError(f"{name}={_shown(value)}: must be a number")
    return float(found)


def flag(name: str, value: Any) -> bool:
    """``True`` or ``False``, also NumPy's.

    Raises:
        ConfigError: something else, such as a text, which Python takes for true.
    """
    if not isinstance(value, bool | np.bool_):
        raise ConfigError(f"{name}={_shown(value)}: must be True or False")
    return bool(value)


def choice(name: str, value: Any, known: Sequence[str]) -> str:
    """One of several words.

    Raises:
        ConfigError: anything else.
    """
    if not isinstance(value, str) or value not in known:
        raise ConfigError(f"{name}={_shown(value)}: must be one of {', '.join(known)}")
    return value


def scalar(value: Any) -> int | float | None:
    """The number in a Python number, a NumPy one, or an array or a tensor of no axes; else None."""
    if isinstance(value, bool | np.bool_ | str | bytes | complex) or value is None:
        return None
    if isinstance(value, int | float | np.integer | np.floating):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, list | tuple | Mapping) or not hasattr(value, "shape"):
        return None
    try:
        given = _numbers("", value)
    except EcgadvError:
        return None
    return given.item() if given.ndim == 0 else None


def _shown(value: Any) -> str:
    """A value in one short line."""
    text = " ".join((value if isinstance(value, str) else repr(value)).split())
    return text if len(text) <= 60 else f"{text[:57]}…"


def batch_size(value: Any) -> int | str:
    """Cases at once: a whole number, or ``auto``.

    Raises:
        ConfigError: anything else.
    """
    if isinstance(value, str) and value == "auto":
        return value
    try:
        return whole("batch_size", value, 1)
    except ConfigError as error:
        raise ConfigError(f"{error}, or auto") from None


def seed(value: Any) -> int:
    """A seed of everything random.

    Raises:
        ConfigError: not a whole number from 0 to 2³² - 1.
    """
    return whole("seed", value, 0, SEEDS)


def lengths(value: Any, count: int, n: int) -> np.ndarray:
    """Own samples of each record, (B,) int64.

    Args:
        value: (B,) whole numbers of any type, or None for all ``n``.
        count: B.
        n: samples of a record with its padding.

    Raises:
        DataError: no whole numbers, not one a record, or out of range.
    """
    if value is None:
        return np.full(count, n, dtype=np.int64)
    wanted = f"lengths: expected {count} numbers from 1 to {n}"
    try:
        given = _numbers("lengths", value)
    except DataError as error:
        raise DataError(f"{wanted} ({error})") from None
    own = given.reshape(-1)
    if own.shape != (count,) or (count and not (own.min() >= 1 and own.max() <= n)):
        raise DataError(wanted)
    fractions = np.flatnonzero(own != np.floor(own))
    if len(fractions):
        raise DataError(f"{wanted}, whole ones, not {own[fractions[0]]:g}")
    return own.astype(np.int64)


def mask(value: Any, count: int, n: int, leads: int = 1) -> np.ndarray:
    """Where a perturbation may be, (B, leads·n) float32 of 0 and 1.

    Args:
        value: (n,) or (B, n) of True and False, or of 1 and 0; of several leads also (n, leads) or
            (B, n, leads).
        count: B.
        n: samples of a record.
        leads: of a record.

    Raises:
        ConfigError: another shape, or other values (weights, positions, texts).
    """
    given = array("mask", value, ConfigError)
    if given.dtype.kind != "b":
        try:
            numbers = _numbers("mask", given, ConfigError)
        except ConfigError:
            raise ConfigError(f"mask: must be True and False, not {_kind(given)}") from None
        if not np.isin(numbers, (0, 1)).all():
            odd = numbers[~np.isin(numbers, (0, 1))].flat[0]
            raise ConfigError(f"mask: must be True and False or 1 and 0, it holds {odd:g}")
    given = given.astype(bool)
    if given.shape in ((n, leads), (1, n, leads), (count, n, leads)):
        return flatten(np.broadcast_to(given, (count, n, leads))).astype(np.float32)
    if given.shape not in ((n,), (1, n), (count, n)):
        raise ConfigError(f"mask: has shape {given.shape}, expected ({n},) or ({count}, {n})")
    return np.tile(np.broadcast_to(given, (count, n)), (1, leads)).astype(np.float32)


def universal(value: Any, count: int) -> int:
    """The number of records, of ``count``, that one signal is made from; True for all of them.

    Raises:
        ConfigError: no whole number from 1 to ``count``, or there are no records.
    """
    if not count:
        raise ConfigError("universal: there is no record to make a signal from")
    return count if value is True else whole("universal", value, 1, count)


def targets(target: Any, count: int, classes: Sequence[str]) -> np.ndarray:
    """The class wanted of each case, (B,) int64; :data:`UNTARGETED` where it shall be left.

    Args:
        target: one for all or one a case, in a list, an array or a tensor: class index, letter,
            name, or ``untargeted``.
        count: B.
        classes: letters or names of the victim's classes, in index order.

    Raises:
        ConfigError: no such class, or another number of targets than of cases.
    """
    if isinstance(target, Mapping | set | frozenset):
        raise ConfigError(f"target: a {type(target).__name__}; give one for all, or one a case")
    if isinstance(target, list | tuple):
        listed = list(target)
    else:
        # Words, numbers, and arrays and tensors of no axes are one for all.
        listed = list(target) if tuple(getattr(target, "shape", ())) else [target] * count
    nested = [one for one in listed if isinstance(one, list | tuple) or _axes(one)]
    if nested:
        raise ConfigError(f"target: holds {_shown(nested[0])}; give one for all, or one a case")
    if len(listed) != count:
        raise ConfigError(f"target: {len(listed)} given for {count} cases")
    return np.array([_target(one, classes) for one in listed], dtype=np.int64)


def _axes(value: Any) -> int:
    """Axes of an array or a tensor; 0 of anything else."""
    return len(tuple(getattr(value, "shape", ())))


def _target(one: Any, classes: Sequence[str]) -> int:
    if isinstance(one, np.ndarray) and one.ndim == 0 and one.dtype.kind in "UO":
        one = one.item()
    if isinstance(one, str):
        if one in ("untargeted", "any"):
            return UNTARGETED
        letter = class_letter(str(one))
        if letter not in classes:
            raise ConfigError(f"target={one}: unknown class, choose from {', '.join(classes)}")
        return list(classes).index(letter)
    try:
        return whole("target", one, 0, len(classes) - 1)
    except ConfigError:
        raise ConfigError(
            f"target={_shown(one)}: class indices go from 0 to {len(classes) - 1}"
        ) from None


def options(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of an attack as plain values: numbers of NumPy and tensors of no axes are Python's.

    Args:
        kind: a dataclass.
        given: values by name; those of unknown names pass through.

    Raises:
        ConfigError: a value that the option's annotation does not take.
    """
    known = hints(kind)
    out = {}
    for name, value in given.items():
        found = scalar(value)
        kinds = types_of(known.get(name))
        if int in kinds and isinstance(found, float) and found.is_integer():
            found = int(found)
        out[name] = value if found is None else found
        if bool in kinds:
            out[name] = flag(f"attack.{name}", value)
        elif name in known:
            check(f"attack.{name}", known[name], out[name], _shown)
    return out
