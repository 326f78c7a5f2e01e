"""What a victim reads and answers, as its configuration and the card beside its file say it.

Known before the model is loaded, so that a command line can be checked and recordings resampled
without it. Nothing heavy is imported.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge

from ecgadv.errors import VictimError
from ecgadv.options import check_all, list_of
from ecgadv.records.base import CLASSES, class_letter
from ecgadv.records.preprocessing import FS
from ecgadv.spelling import whole

KEYS = ("classes", "fs", "n", "leads", "channels", "standardise", "preprocess")
"""Keys of a victim's configuration that say this."""

RESERVED = ("any", "all", "untargeted", "failed", "")
"""Words that name something else where a class could stand."""


Classes = Annotated[
    Sequence[str],
    list_of("names", lambda name: isinstance(name, str | int) and not isinstance(name, bool)),
]
Rate = Annotated[int, Ge(1)]
Samples = Annotated[int, Ge(8)]
Leads = Annotated[int, Ge(1)]
Channels = Literal["last", "first"]
Standardise = Literal["lead", "record", "none"]


@dataclass(frozen=True)
class Reading:
    """What a victim reads and answers.

    Attributes:
        classes: class names in output order.
        fs: sampling rate of its input, Hz.
        n: samples of its input; None where only the model knows.
        leads: leads of its input; None where only the model knows.
        channels: where the leads are, ``last`` (B, n, leads) or ``first`` (B, leads, n).
        standardise: one of :data:`ecgadv.victims.pipeline.STANDARDISE`.
        preprocess: ``module:function`` between standardisation and network, or None.
        card: the card beside the file, {} where there is none.
    """

    classes: tuple[str, ...] = CLASSES
    fs: Rate = FS
    n: Samples | None = None
    leads: Leads | None = None
    channels: Channels = "last"
    standardise: Standardise = "lead"
    preprocess: Any = None
    card: dict[str, Any] | None = None

    @property
    def seconds_30(self) -> int:
        """Samples of 30 s, taken where nobody says how long an input is."""
        return 30 * self.fs


def is_included(name: Any) -> bool:
    """Whether a victim's weights come with the package."""
    known = (file.stem for file in (Path(__file__).parent / "weights").glob("*.npz"))
    return isinstance(name, str) and name in known


def card_beside(path: str | Path | None) -> dict[str, Any]:
    """The model card of a model file, {} where there is none.

    Raises:
        VictimError: it is no JSON.
    """
    if path is None or is_function(path):
        return {}
    file = Path(path).with_suffix(".json")
    if not file.is_file():
        return {}
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise VictimError(f"{file}: the card beside the model is damaged ({error})") from None
    # Another tool's file of that name is no card, and no reason to refuse the model.
    return card if isinstance(card, dict) and isinstance(card.get("data", {}), dict) else {}


def is_function(path: Any) -> bool:
    """Whether a path is ``module:function`` and not a file."""
    module, colon, name = str(path).partition(":")
    words = [*module.split("."), *name.split(".")]
    return bool(colon) and all(word.isidentifier() for word in words) and not Path(path).exists()


def declared(node: Mapping[str, Any]) -> Reading:
    """Read the ``victim`` group of a configuration (and the card beside its file).

    Args:
        node: any of :data:`KEYS`, and ``path``; None and what is missing mean the card's value,
            else the usual one.

    Raises:
        VictimError: a value that no victim can have; the message names its key.
    """
    card = card_beside(node.get("path"))
    said = {
        "classes": card.get("classes"), "fs": card.get("fs"), "n": card.get("n_samples"),
        "leads": card.get("leads"), "channels": card.get("channels"),
        "standardise": card.get("standardise"),
    }  # fmt: skip
    both = {key: said.get(key) if node.get(key) is None else node[key] for key in KEYS}
    given: dict[str, Any] = {key: value for key, value in both.items() if value is not None}
    if "classes" in given:
        given["classes"] = check_classes(given["classes"])
    given |= {key: whole(value) for key, value in given.items() if isinstance(value, float)}
    check_all(Reading, {k: given[k] for k in given if k != "classes"}, "victim", VictimError)
    hook = given.get("preprocess")
    if isinstance(hook, str) and not is_function(hook):
        raise VictimError(f"victim.preprocess={hook}: must be written as module:function")
    return Reading(**given, card=card)


def check_classes(names: Any) -> tuple[str, ...]:
    """Class names in output order, ``noise`` as ``~``.

    Raises:
        VictimError: fewer than two, one twice, or one that cannot be part of a file name.
    """
    listed = [names] if isinstance(names, str) or not isinstance(names, Sequence) else list(names)
    letters = tuple(class_letter(str(name)) for name in listed)
    shown = f"victim.classes=[{','.join(map(str, listed))}]"
    if len(letters) < 2:
        raise VictimError(f"{shown}: a list of at least two names, in the order of the outputs")
    for letter in letters:
        plain = letter == "~" or (
            len(letter) <= 32 and all(c.isalnum() or c in "_-+." for c in letter)
        )
        if not plain or letter in RESERVED:
            raise VictimError(
                f"{shown}: {letter!r} is no name of a class; letters, digits, _ - + and . make one"
            )
    if len(set(letters)) != len(letters):
        raise VictimError(f"{shown}: a name stands there twice")
    return letters
