"""What an attack differentiates: a twin of the victim, its batch normalisations folded away.

The twin answers as the victim does but for rounding, and its gradient costs less. What is reported
of a victim, its logits and all verdicts, comes from the victim itself in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import numpy as np

from ecgadv.errors import VictimError
from ecgadv.victims.files import one_line
from ecgadv.victims.preflight import Reference, reference
from ecgadv.victims.victim import Victim, digest_weights

CLOSE = 1e-4
"""Share of max(1, max|Z|) by which the twin's logits may differ from the victim's."""

COSINE, LENGTH = 0.999, 0.01
"""What the twin's gradient keeps: cosine to the victim's, and share by which lengths may differ."""

ITSELF = "the network itself"
"""What is differentiated where there is no twin."""


@dataclass
class _Twins:
    """What there is of a victim.

    Attributes:
        digest: of the weights that it was made from.
        exact: the victim with its normalisations folded, in float32; None where it has none that
            can be folded, or where it would answer otherwise.
        about: a sentence for logs.
        coarse: by precision, the same in coarser arithmetic.
    """

    digest: str
    exact: Victim | None
    about: str
    coarse: dict[str, Victim] = field(default_factory=dict)


_MADE: WeakKeyDictionary[Victim, _Twins] = WeakKeyDictionary()


def twin_of(victim: Victim, precision: str = "float32") -> Victim:
    """What to differentiate in the victim's place; made at the first call, then kept.

    The twin has weights of its own, the victim stays as it is. Where there is nothing to fold, or
    folding fails, float32 gives the victim itself; a failure is noted in ``victim.notes``.

    Args:
        victim: the classifier attacked.
        precision: of the twin's arithmetic; weights and logits stay float32.

    Raises:
        VictimError: the victim is no Keras model, or one that cannot be made in that arithmetic.
    """
    if precision != "float32" and victim.model is None:
        raise VictimError(f"precision={precision}: victim {victim.name} is no Keras model")
    twins = _twins(victim)
    if precision == "float32":
        return twins.exact or victim
    if precision not in twins.coarse:
        from ecgadv.victims.rebuilding import head_layer, rebuilt

        model = (twins.exact or victim).model
        try:
            # The last layer keeps its arithmetic, so that logits are not rounded.
            network = rebuilt(model, f"mixed_{precision}", keep=head_layer(model))
        except Exception as error:  # a layer of the user's may raise anything when it is made again
            raise VictimError(
                f"precision={precision}: victim {victim.name} cannot be made in it "
                f"({one_line(error)})"
            ) from None
        twins.coarse[precision] = victim.with_network(network)
    return twins.coarse[precision]


def about_twin(victim: Victim) -> str:
    """What an attack differentiates, for logs and summaries: a clause."""
    return _twins(victim).about


def _twins(victim: Victim) -> _Twins:
    digest = digest_weights(_weights(victim))
    held = _MADE.get(victim)
    if held is None or held.digest != digest:
        held = _MADE[victim] = _Twins(digest, *_folded(victim))
    return held


def _is_module(victim: Victim) -> bool:
    """Whether the victim's network is a module of PyTorch."""
    return hasattr(victim.network, "state_dict")


def _weights(victim: Victim) -> list[np.ndarray]:
    if victim.model is not None:
        return [np.asarray(w) for w in victim.model.get_weights()]
    if _is_module(victim):
        from ecgadv.victims.torch_files import weights

        return weights(victim.network)
    return []


def _folded(victim: Victim) -> tuple[Victim | None, str]:
    """The victim with its normalisations folded where that goes, and what was done."""
    if victim.model is None and not _is_module(victim):
        return None, ITSELF
    try:
        if victim.model is not None:
            from ecgadv.victims.folding import folded

            network, gone, there = folded(victim.model)
        else:
            from ecgadv.victims.torch_files import folded_module

            network, gone, there = folded_module(victim.network)
        if not gone:
            left = f", none of its {there} batch normalisations can be folded" if there else ""
            return None, f"{ITSELF}{left}"
        twin = victim.with_network(network)
        apart = _difference(victim, twin)
    except Exception as error:  # a layer of the user's may raise anything when it is made again
        apart = f"it cannot be made ({one_line(error)})"
    if apart:
        victim.notes += (
            f"no twin with batch normalisations folded: {apart}; attacked as it is, which takes "
            "longer",
        )
        return None, f"{ITSELF} ({apart})"
    return twin, f"a twin with {gone} of {there} batch normalisations folded"


def _difference(victim: Victim, twin: Victim) -> str:
    """How a twin answers otherwise, "" where it does not."""
    other = reference(twin)
    apart = ""
    # What was seen at loading may be of other weights than the network has at this moment.
    for kept in (victim.reference, None):
        own = kept or reference(victim)
        apart = _apart(own, other)
        if not apart or kept is None:
            break
    return apart


def _apart(own: Reference, other: Reference) -> str:
    largest = np.maximum(1.0, np.abs(own.logits).max(axis=1, keepdims=True))
    gap = float((np.abs(own.logits - other.logits) / largest).max())
    if not gap <= CLOSE:
        return f"its logits would be {gap:.1g} of the largest apart"
    one, two = own.gradient.astype(np.float64), other.gradient.astype(np.float64)
    sizes = np.linalg.norm(one, axis=1), np.linalg.norm(two, axis=1)
    cosine = float(((one * two).sum(axis=1) / np.maximum(sizes[0] * sizes[1], 1e-300)).min())
    length = float(np.abs(sizes[1] / np.maximum(sizes[0], 1e-300) - 1.0).max())
    if not (cosine >= COSINE and length <= LENGTH):
        return f"its gradient would differ (cosine {cosine:.4g}, lengths by {length:.1g})"
    return ""
