"""The Python interface of an attack: arrays in, verified arrays out; neither Hydra nor MLflow."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import arguments, attacks
from ecgadv.attacks.base import Attack, DirectAttack, Problem
from ecgadv.attacks.engine import Engine, choose_precision, chunk_size
from ecgadv.attacks.eot import EOT
from ecgadv.errors import ConfigError, DataError
from ecgadv.evaluate.cases import case_seed, check_band
from ecgadv.evaluate.type2 import Protocol, stack_verdicts, verdict_of_logits
from ecgadv.evaluate.verification import verify
from ecgadv.threat import metrics
from ecgadv.threat.injection import Injection
from ecgadv.threat.objectives import Cases, Objective, draw_onsets
from ecgadv.threat.transforms import FrontEnd, draw_views, window_samples
from ecgadv.victims.loading import Victim, load_victim
from ecgadv.victims.pipeline import unflatten, valid_mask


@dataclass(frozen=True)
class AttackResult:
    """Verified outcome, one entry per case.

    Attributes:
        delta: (B, n), or (B, n, leads), float32 perturbations in standardised units; the last
            attempt where it failed.
        success: (B,) bool, by the deployed pipeline in float32.
        distance: (B,) float64, the metric's value of δ.
        n_gradients: (B,) gradient evaluations spent.
        n_forwards: (B,) forward evaluations spent without a gradient.
        predicted: (B,) class index of x + δ.
        p_target: (B,) probability of the target (untargeted: of leaving the class).
        margin: (B,) lead of the target's logit.
    """

    delta: np.ndarray
    success: np.ndarray
    distance: np.ndarray
    n_gradients: np.ndarray
    n_forwards: np.ndarray
    predicted: np.ndarray
    p_target: np.ndarray
    margin: np.ndarray


def attack_kinds() -> dict[str, type[Attack | DirectAttack]]:
    """Every attack of the package by name: a new one is found by being a module there."""
    for module in pkgutil.iter_modules(attacks.__path__):
        import_module(f"{attacks.__name__}.{module.name}")
    found: dict[str, type[Attack | DirectAttack]] = {}
    queue: list[type] = [Attack, DirectAttack]
    while queue:
        below: list[Any] = queue.pop().__subclasses__()
        for kind in below:
            queue.append(kind)
            if "name" in vars(kind) and kind.__module__.startswith(attacks.__name__):
                found[kind.name] = kind
    return found


def make_attack(method: str | Attack | DirectAttack, **options: Any) -> Attack | DirectAttack:
    """An attack by name with its options; ``None`` values mean the attack's own defaults.

    Raises:
        ConfigError: unknown attack or option.
    """
    if isinstance(method, Attack | DirectAttack):
        return method
    known = attack_kinds()
    if not isinstance(method, str) or method not in known:
        raise ConfigError(f"method={method}: unknown; there are {', '.join(known)}")
    given = {k: v for k, v in options.items() if v is not None}
    given = arguments.options(known[method], given)
    try:
        return known[method](**given)
    except TypeError as error:
        raise ConfigError(f"method={method}: {error}") from None


def attack(
    victim: Any,
    x: np.ndarray,
    target: Any = "untargeted",
    metric: str | metrics.Quadratic = "l2",
    method: str | Attack | DirectAttack = "minnorm",
    steps: int | None = None,
    lengths: Sequence[int] | np.ndarray | None = None,
    mask: np.ndarray | None = None,
    batch_size: int | str = "auto",
    perturb_padding: bool = False,
    seed: int = 0,
    precision: str = "float32",
    **options: Any,
) -> AttackResult:
    """Perturb standardised records so that the victim reads them as the target.

    Args:
        victim: anything :func:`ecgadv.load_victim` takes.
        x: (B, n) or (B, n, 1) standardised records, zero-padded at the end; for a victim of
            several leads (B, n, leads). Arrays, lists, or tensors of any backend.
        target: one for all or one a case: class index, letter, name, or ``untargeted`` (away from
            what the victim says of ``x``).
        metric: ``l2``, ``diff``, ``diffl2`` or a quadratic metric.
        method: ``minnorm``, ``cw``, or with a fixed ``budget`` ``pgd``, ``ch_fgm``, ``ch_pgd``,
            ``ch_mim``; ``eot`` for injected signals; or an attack object.
        steps: budget; the attack's own default where None.
        lengths: (B,) own samples; None means that every sample is the record's own. What ``x``
            holds after them counts as 0.
        mask: (n,) or (B, n), true where δ may be nonzero, in every lead; of several leads also
            (n, leads) or (B, n, leads). None means all own samples. (The option ``attack.mask`` of
            the command line gives the same in seconds.)
        batch_size: cases at once, or ``auto``.
        perturb_padding: whether the padding may be perturbed too.
        seed: of everything random.
        precision: of the gradients: ``float32``, ``bfloat16`` or ``auto``; success is judged in
            float32.
        **options: further options of the attack, such as ``band`` and ``peak`` (Hz, standard
            deviations) of all but cleverhans' ones. ``eot`` also takes ``window`` (samples, a time
            such as ``10s``, or None for all), ``shifts`` an iteration (8; 0 takes the onset for
            known), ``filter`` (the front end as the attack models it: ``rectangular``,
            ``butterworth``, ``none``), ``evaluation_filter`` (the real one, ``butterworth``) and
            ``evaluation_shifts`` (100).

    Returns:
        Arrays in the order of ``x``. Of ``eot``: δ at onset 0, a success where at least half of the
        random onsets reach the target, ``predicted`` the most frequent class, probability and
        margin as means over onsets.

    Raises:
        ConfigError: an option or a target is unknown, has the wrong type or does not fit.
        DataError: ``x`` has the wrong shape, holds NaN or no real numbers, or is not standardised.
        VictimError: the victim cannot be used.
    """
    seed, batch_size = arguments.seed(seed), arguments.batch_size(batch_size)
    perturb_padding = arguments.flag("perturb_padding", perturb_padding)
    arguments.choice("precision", precision, ("float32", "bfloat16", "auto"))
    x = arguments.array("x", x)
    # A bare callable does not tell the length of its input; the records do.
    subject = _subject(victim, np.shape(x))
    form = metrics.get(metric).over(subject.leads)
    if method == "eot" or isinstance(method, EOT):
        if perturb_padding or mask is not None or precision == "bfloat16":
            raise ConfigError("method=eot: takes a window, no mask; and computes in float32")
        return _inject(subject, x, target, form, method, steps, lengths, batch_size, seed, options)
    solver = make_attack(method, steps=steps, perturb_padding=perturb_padding, **options)
    signals, own = _records(x, lengths, subject)
    count, n, leads = len(signals), subject.n, subject.leads
    span = np.full(count, n) if perturb_padding else own
    valid = np.tile(valid_mask(span, n), (1, leads))
    free = valid if mask is None else valid * arguments.mask(mask, count, n, leads)
    if not free.any(axis=1).all():
        raise ConfigError("mask: leaves no sample of some case free")
    check_band(solver, subject)
    if isinstance(solver, Attack):
        solver.limits.check_free(free)
    source = subject.logits(signals).argmax(1) if count else np.zeros(0, int)
    goals = arguments.targets(target, count, subject.classes)
    cases = Cases(signals, valid, free, source, goals, span, draw_onsets([seed] * count, span, 0))
    size = chunk_size(subject, batch_size, count)
    arithmetic, _ = choose_precision(precision, solver, subject, count, size)
    exact = Objective(subject) if arithmetic != "float32" else None
    objective = Objective(subject.with_precision(arithmetic))
    engine = Engine(solver, Problem(objective, form, seed, exact))
    deltas, gradients, forwards = [], [], []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        kept = min(size, count - start)
        found = engine.run(Cases(*(part[rows] for part in cases)))
        deltas.append(found.delta[:kept])
        gradients.append(found.gradients[:kept])
        forwards.append(found.forwards[:kept])
    delta = np.concatenate(deltas) if deltas else np.zeros((0, n * leads), np.float32)
    verdict = verify(subject, signals, delta, span, source, goals)
    return AttackResult(
        delta=unflatten(delta, leads),
        success=verdict.success,
        distance=form.value(delta.astype(np.float64)),
        n_gradients=np.concatenate(gradients) if gradients else np.zeros(0, int),
        n_forwards=np.concatenate(forwards) if forwards else np.zeros(0, int),
        predicted=verdict.predicted,
        p_target=verdict.p_target,
        margin=verdict.margin,
    )


def _inject(
    subject: Victim,
    x: np.ndarray,
    target: Any,
    form: metrics.Quadratic,
    method: str | Attack | DirectAttack,
    steps: int | None,
    lengths: Sequence[int] | np.ndarray | None,
    batch_size: int | str,
    seed: int,
    options: dict[str, Any],
) -> AttackResult:
    """Type II through the Python interface: signals injected at an unknown onset."""
    if subject.leads > 1 or subject.over == "none":
        what = f"reads {subject.leads} leads" if subject.leads > 1 else "does not standardise"
        raise ConfigError(f"method=eot: victim {subject.name} {what}; one lead, standardised")
    signals, own = _records(x, lengths, subject)
    count, n = signals.shape
    if (own < n).any():
        raise DataError(f"method=eot: attacks records of at least {n} samples only")
    window = window_samples(options.pop("window", None), n, subject.fs)
    shifts = arguments.whole("shifts", options.pop("shifts", 8))
    front_end = FrontEnd.from_config({"name": options.pop("filter", "rectangular")}, subject.fs)
    device = FrontEnd.from_config(
        {"name": options.pop("evaluation_filter", "butterworth")}, subject.fs
    )
    judged = arguments.whole("evaluation_shifts", options.pop("evaluation_shifts", 100))
    protocol = Protocol(device, window, judged)
    if shifts < 0 or protocol.shifts < 1:
        raise ConfigError("method=eot: shifts must be at least 0, evaluation_shifts at least 1")
    solver = make_attack(method, steps=steps, **options)
    assert isinstance(solver, Attack)
    solver.limits.check_span(window)
    source = subject.logits(signals).argmax(1) if count else np.zeros(0, int)
    goals = arguments.targets(target, count, subject.classes)
    free = np.tile((np.arange(n) < window).astype(np.float32), (count, 1))
    seeds = [case_seed(seed, row, int(goal)) for row, goal in enumerate(goals)]
    rounds = min(solver.max_steps(), 1024)
    views = draw_views(seeds, window, n, rounds=rounds, shifts=shifts) if count else free
    full = np.full(count, n)
    cases = Cases(signals, np.ones_like(free), free, source, goals, full, views)
    engine = Engine(solver, Problem(Injection(subject, front_end, shifts), form, seed))
    size = chunk_size(subject, batch_size, count, max(1, shifts))
    found = []
    for start in range(0, count, size):
        rows = np.minimum(np.arange(start, start + size), count - 1)
        part = engine.run(Cases(*(array[rows] for array in cases)))
        kept = min(size, count - start)
        found.append((part.delta[:kept], part.gradients[:kept], part.forwards[:kept]))
    if not found:
        none = np.zeros(0)
        return AttackResult(np.zeros((0, n), np.float32), none > 0, *[none] * 6)
    delta, gradients, forwards = (np.concatenate(parts) for parts in zip(*found, strict=True))
    verdicts = []
    for row, goal in enumerate(goals):
        onsets = protocol.onsets([seed, row, int(goal) + 1, 2], n)
        logits = protocol.logits(subject, signals[row], delta[row], onsets)
        verdicts.append(verdict_of_logits(logits, int(source[row]), int(goal)))
    verdict = stack_verdicts(verdicts)
    return AttackResult(
        delta=delta,
        success=verdict.success,
        distance=form.value(delta.astype(np.float64)),
        n_gradients=gradients,
        n_forwards=forwards,
        predicted=verdict.predicted,
        p_target=verdict.p_target,
        margin=verdict.margin,
    )


def _subject(victim: Any, shape: tuple[int, ...]) -> Victim:
    """The victim; a bare callable does not tell the shape of its input, so the records do."""
    if isinstance(victim, Victim | str | Path) or len(shape) < 2:
        return load_victim(victim)
    loaded = load_victim(victim, check=False)
    if loaded.model is None and shape[1:] not in (loaded.shape, (loaded.n, 1)):
        return load_victim(victim, n=shape[1], leads=shape[2] if len(shape) == 3 else 1)
    return load_victim(loaded)


def _records(
    x: Any, lengths: Sequence[int] | np.ndarray | None, victim: Victim
) -> tuple[np.ndarray, np.ndarray]:
    """The records, (B, leads·n), and the own samples of each, (B,)."""
    shape = np.shape(x)
    own = arguments.lengths(lengths, shape[0], victim.n) if lengths is not None and shape else None
    signals = arguments.signals(x, victim.n, victim.leads, victim.over, own)
    return signals, arguments.lengths(own, len(signals), victim.n)
