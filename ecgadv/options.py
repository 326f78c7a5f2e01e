"""Options that check themselves: what an annotation accepts, and what is said of another value.

An option is an argument or a field with an annotation such as ``Annotated[int, Ge(1)]``; its ranges
stand nowhere else. Pydantic checks them, also those that a class of somebody's own declares with
Pydantic's types. The wording of the error follows from the annotation, so that a command line and
Python say the same.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, GroupedMetadata, Gt, Le, Lt

from ecgadv import spelling
from ecgadv.errors import ConfigError, EcgadvError

SEEDS = 2**32 - 1
"""Largest seed."""


def _as_is(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Form:
    """A form of values of its own, beside an annotation's type.

    Attributes:
        wanted: completes "must be …" in the error.
        accepts: whether a value is fine; the annotation's type does not count then.
        read: what a text means; anything that is none stays.
        names: ``file`` where it names a file or a folder, ``source`` where it may be
            ``module:function`` as well.
    """

    wanted: str
    accepts: Callable[[Any], bool]
    read: Callable[[Any], Any] = _as_is
    names: Literal["", "file", "source"] = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        """Pydantic's way to ask: this form decides alone."""
        from pydantic_core import core_schema

        def check(value: Any) -> Any:
            if not self.accepts(value):
                raise ValueError(self.wanted)
            return value

        return core_schema.no_info_plain_validator_function(check)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_span(value: Any) -> bool:
    """Whether it is two numbers, the first not negative and below the second."""
    return (
        isinstance(value, Sequence)
        and len(value) == 2
        and all(map(is_number, value))
        and 0 <= value[0] < value[1]
    )


def list_of(what: str, accepts: Callable[[Any], bool], *, empty: bool = False, **more: Any) -> Form:
    """A list, of which every item must be accepted."""

    def fits(value: Any) -> bool:
        listed = isinstance(value, list | tuple) and (empty or bool(value))
        return listed and all(map(accepts, value))

    return Form(f"a list of {what} in [ ]", fits, **more)


Seed = Annotated[int, Ge(0), Le(SEEDS)]
Name = Annotated[str, Form("a word or a text", lambda v: isinstance(v, str) and v != "")]
_PATH = Form("a path", lambda v: isinstance(v, Path) or (isinstance(v, str) and v.strip() != ""))
Place = Annotated[str | Path, replace(_PATH, names="file")]
Source = Annotated[str | Path, replace(_PATH, names="source")]
Band = Annotated[
    Sequence[float], Form("two numbers, [low,high] with low below high", is_span, spelling.number)
]
Spans = Annotated[
    Sequence[float] | Sequence[Sequence[float]],
    Form(
        "spans in seconds, [from,to] or [[from,to],[from,to]]",
        lambda v: is_span(v) or (isinstance(v, list | tuple) and bool(v) and all(map(is_span, v))),
        spelling.number,
    ),
]
Frequencies = Annotated[
    Sequence[float],
    Form(
        "a list of frequencies in Hz such as [50,60]",
        lambda v: isinstance(v, list | tuple) and all(map(is_number, v)),
        spelling.number,
    ),
]


@functools.cache
def hints(target: Any) -> Mapping[str, Any]:
    """Annotations of the arguments of a function or a class, those of a class's ancestors included.

    An argument without an annotation, or with one that cannot be read here, is missing.
    """
    found: dict[str, Any] = {}
    # A subclass of a dataclass may have an ``__init__`` that names some of its fields again.
    kinds = reversed(target.__mro__) if isinstance(target, type) else ()
    for kind in kinds:
        found |= _read_hints(vars(kind).get("__annotations__", {}), kind)
        found |= _read_hints(getattr(vars(kind).get("__init__"), "__annotations__", {}), kind)
    if not isinstance(target, type):
        found = _read_hints(getattr(target, "__annotations__", {}), target)
    try:
        known = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return found
    return {name: hint for name, hint in found.items() if name in known and hint is not Any}


def _read_hints(written: Mapping[str, Any], owner: Any) -> dict[str, Any]:
    names = vars(sys.modules.get(owner.__module__, object))
    out = {}
    for name, hint in written.items():
        try:
            out[name] = eval(hint, names) if isinstance(hint, str) else hint
        except Exception:
            continue
    return out


def like(value: Any) -> Any:
    """The annotation of a key that nobody declares, from its value in a yaml file; None if any."""
    return type(value) if isinstance(value, bool | int | float | str | list) else None


def form_of(hint: Any) -> Form | None:
    """The form that an annotation, or one of its alternatives, names."""
    for part in _alternatives(hint):
        for mark in getattr(part, "__metadata__", ()):
            if isinstance(mark, Form):
                return mark
    return None


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def types_of(hint: Any) -> set[Any]:
    """The plain types of an annotation's alternatives."""
    return {_bare(part) for part in _alternatives(hint)}


def read(hint: Any, value: Any) -> Any:
    """The number, truth value or null that a text spells, where an annotation takes one."""
    form = form_of(hint)
    kinds = types_of(hint)
    spelt = {int, float, bool} & kinds
    if (spelt or (form and form.read is not _as_is)) and NoneType in kinds:
        value = spelling.null(value)
    if form is not None:
        value = form.read(value)
    if bool in spelt:
        value = spelling.flag(value)
    if float in spelt:
        return spelling.number(value)
    return spelling.whole(value) if int in spelt else value


def wanted(hint: Any) -> str:
    """Completes "must be …" for an annotation."""
    parts = _alternatives(hint)
    words = [_words(part) for part in parts if _bare(part) not in (NoneType, None)]
    if not all(words):
        return ""
    return ", or ".join([*words, "null"] if len(words) < len(parts) else words)


def _marks(hint: Any) -> list[Any]:
    """What an annotation says beside its type; groups of marks one by one."""
    found = []
    for mark in getattr(hint, "__metadata__", ()):
        inside = getattr(mark, "metadata", None)
        if isinstance(mark, GroupedMetadata):
            found += list(mark)
        else:
            found += [mark] if inside is None else list(inside)
    return found


def _words(hint: Any) -> str:
    """Completes "must be …" for one alternative; "" where only Pydantic has words for it."""
    kind, marks = _bare(hint), _marks(hint)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return f"one of {', '.join(map(str, choices))}" if len(choices) > 1 else str(choices[0])
    for mark in marks:
        if isinstance(mark, Form):
            return mark.wanted
    if any(not isinstance(mark, Ge | Gt | Le | Lt) for mark in marks):
        return ""
    simple = {bool: "true or false", str: "a word or a text", list: "a list"}
    if kind not in (int, float):
        return simple.get(kind, "") if not marks else ""
    limits = {type(mark): mark for mark in marks}
    low, high = getattr(limits.get(Ge), "ge", None), getattr(limits.get(Le), "le", None)
    if kind is int:
        low = limits[Gt].gt + 1 if Gt in limits else low
        high = limits[Lt].lt - 1 if Lt in limits else high
        if low is not None and high is not None:
            return f"a whole number, from {low} to {high}"
        least = f", at least {low}" if low is not None else ""
        return "a whole number" + (least or (f", at most {high}" if high is not None else ""))
    said = [f"above {limits[Gt].gt:g}"] if Gt in limits else []
    said += [f"of at least {low:g}"] if low is not None and high is None else []
    said += [f"from {low:g} to {high:g}"] if low is not None and high is not None else []
    said += [f"at most {high:g}"] if high is not None and low is None else []
    said += [f"below {limits[Lt].lt:g}"] if Lt in limits else []
    return " ".join(["a number", " and ".join(said)]).strip()


def _is_plainly_fine(hint: Any, value: Any) -> bool:
    """Whether a value needs no Pydantic, whose import takes as long as all other checks together.

    Pydantic alone refuses.
    """
    for part in _alternatives(hint):
        kind, form = _bare(part), form_of(part)
        marks = getattr(part, "__metadata__", ())
        if form is not None:
            fine = form.accepts(value)
        elif get_origin(kind) is Literal:
            fine = isinstance(value, str) and value in get_args(kind)
        elif kind is float:
            fine = is_number(value) and all(_is_inside(value, mark) for mark in marks)
        else:
            fine = type(value) is kind and all(_is_inside(value, mark) for mark in marks)
        if fine:
            return True
    return False


def _is_inside(value: Any, mark: Any) -> bool:
    return (
        (isinstance(mark, Ge) and value >= mark.ge)
        or (isinstance(mark, Gt) and value > mark.gt)
        or (isinstance(mark, Le) and value <= mark.le)
        or (isinstance(mark, Lt) and value < mark.lt)
    )


def _adapter(hint: Any) -> Any:
    from pydantic import ConfigDict, TypeAdapter

    # Only what a yaml can hold is taken as it is: a list may stand for a tuple, a text for a path.
    strict = bool({int, float, bool, str} & types_of(hint))
    return TypeAdapter(
        hint, config=ConfigDict(strict=strict, allow_inf_nan=False, arbitrary_types_allowed=True)
    )


def check(
    option: str,
    hint: Any,
    value: Any,
    shown: Callable[[Any], str] = spelling.show,
    error: type[EcgadvError] = ConfigError,
) -> None:
    """Raise where a value is not what an annotation wants.

    Args:
        option: as it is written on a command line.
        hint: the annotation.
        value: already read.
        shown: the value in the message.
        error: its kind.

    Raises:
        EcgadvError: one line that names the option, its value and what it must be.
    """
    if _is_plainly_fine(hint, value):
        return
    from pydantic import ValidationError
    from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError

    try:
        adapter = _adapter(hint)
    except (PydanticUserError, PydanticUndefinedAnnotation, TypeError):
        return  # An annotation for readers only; what takes the value checks it.
    try:
        adapter.validate_python(value)
    except ValidationError as found:
        if {one["type"] for one in found.errors()} == {"is_instance_of"}:
            return  # A class that no yaml can hold; what takes the value makes it.
        said = f"must be {wanted(hint)}" if wanted(hint) else _plain(found)
        raise error(f"{option}={shown(value)}: {said}") from None


def _plain(error: Any) -> str:
    """Pydantic's own words for a type or a mark that is not one of ours."""
    said = str(error.errors()[0]["msg"])
    return said.replace("Input should be", "must be", 1).replace("List should", "should", 1)


def check_all(
    target: Any, values: Mapping[str, Any], section: str, error: type[EcgadvError] = ConfigError
) -> None:
    """:func:`check` for several arguments of a function or a class, see :func:`hints`."""
    known = hints(target)
    for name, value in values.items():
        if name in known:
            check(f"{section}.{name}", known[name], value, error=error)


def check_fields(made: Any, section: str) -> None:
    """:func:`check` for every field of a dataclass's instance; for its ``__post_init__``.

    Numbers of NumPy become Python's, whole ones with a decimal point whole.
    """
    known = hints(made.__class__)
    for name in made.__dataclass_fields__:
        if name not in known:
            continue
        value = getattr(made, name)
        plain = value.tolist() if type(value).__module__ == "numpy" else value
        if isinstance(plain, float) and int in types_of(known[name]):
            plain = spelling.whole(plain)
        if plain is not value:
            object.__setattr__(made, name, plain)
        check(f"{section}.{name}", known[name], plain)
