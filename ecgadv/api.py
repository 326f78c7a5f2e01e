"""The Python interface of an attack: arrays in, verified arrays out; neither Hydra nor MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ecgadv import arguments
from ecgadv.attacks.base import Attack, DirectAttack
from ecgadv.attacks.eot import EOT
from ecgadv.attacks.registry import make_attack
from ecgadv.errors import ConfigError, DataError
from ecgadv.study.setting import Setting
from ecgadv.study.study import Chunk, Outcome, Study, chunks
from ecgadv.study.universal import Universal
from ecgadv.threat import front_ends, goals, metrics
from ecgadv.victims.loading import Victim, load_victim
from ecgadv.victims.pipeline import unflatten

THREATS, DEPLOYMENTS = ("type1", "type2"), ("cloud", "local")


@dataclass(frozen=True)
class AttackResult:
    """Verified outcome, one entry per case.

    Attributes:
        delta: (B, n), or (B, n, leads), float32 perturbations in standardised units; the last
            attempt where it failed.
        success: (B,) bool, by the deployed pipeline in float32.
        distance: (B,) float64, the metric's value of δ; NaN where δ is not finite.
        n_gradients: (B,) gradient evaluations spent.
        n_forwards: (B,) forward evaluations spent without a gradient.
        predicted: (B,) class index of x + δ.
        p_target: (B,) probability of the target (untargeted: of leaving the class).
        margin: (B,) lead of the target's logit.
        status: (B,) ``ok``; ``skipped`` where the deployment does not read the unperturbed record
            as its class, or reads it as the target already; ``failed`` where δ or a gradient is
            not finite.
        message: (B,) the reason where it is not ``ok``.
        target_rate: (B,) share of the onsets at which the record is read as its class before that
            reach the target; 0 or 1 where the onset is fixed, NaN where ``status`` is not ``ok``.
    """

    delta: np.ndarray
    success: np.ndarray
    distance: np.ndarray
    n_gradients: np.ndarray
    n_forwards: np.ndarray
    predicted: np.ndarray
    p_target: np.ndarray
    margin: np.ndarray
    status: np.ndarray
    message: np.ndarray
    target_rate: np.ndarray


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
    perturb_padding: bool | None = None,
    seed: int = 0,
    precision: str = "float32",
    threat_model: str | None = None,
    deployment: str | None = None,
    goal: str | goals.Goal = "exclusive",
    universal: int | bool = False,
    **options: Any,
) -> AttackResult:
    """Perturb standardised records so that the victim reads them as the target.

    Args:
        victim: anything :func:`ecgadv.load_victim` takes.
        x: (B, n) or (B, n, 1) standardised records, zero-padded at the end; for a victim of
            several leads (B, n, leads). Arrays, lists, or tensors of any backend. The class of
            each is what the deployment reads.
        target: one for all or one a case: class index, letter, name, or ``untargeted`` (away from
            the class).
        metric: ``l2``, ``diff``, ``diffl2`` or a quadratic metric.
        method: ``minnorm``, ``cw``, or with a fixed ``budget`` ``pgd``, ``ch_fgm``, ``ch_pgd``,
            ``ch_mim``; ``eot`` for injected signals; or an attack object, whose options hold where
            none is given here.
        steps: budget; the attack's own where None.
        lengths: (B,) own samples; None means that every sample is the record's own. What ``x``
            holds after them counts as 0.
        mask: (n,) or (B, n), true where δ may be nonzero, in every lead; of several leads also
            (n, leads) or (B, n, leads). None means all own samples. (An attack's own ``mask`` gives
            the same in seconds; both hold.)
        batch_size: cases at once, or ``auto``.
        perturb_padding: whether the padding may be perturbed too; the attack's own where None.
        seed: of everything random.
        precision: of the gradients: ``float32``, ``bfloat16`` or ``auto``; success is judged in
            float32.
        threat_model: ``type1``, the recording is edited, or ``type2``, a signal is injected; by
            default the one that the method is made for.
        deployment: ``cloud``, the recording is classified as it is stored, or ``local``, by a
            device from an onset of its own; by default ``cloud`` of ``type1``, ``local`` of
            ``type2``.
        goal: what counts as reached: ``exclusive``, the target's logit ahead of every other one,
            or a :class:`ecgadv.threat.goals.Goal`.
        universal: K, of ``method="eot"``: one signal a target for the first K records together
            (True: for all of ``x``), tried on the others that are read as a class of those that it
            is made from. ``target`` then is one, or a list of them.
        **options: further options of the attack, such as ``band`` and ``peak`` (Hz, standard
            deviations) of all but cleverhans' ones; where the onset is random also ``shifts``,
            onsets that the attack averages over in an iteration (8; 0 takes it for known), and
            ``evaluation_shifts`` (100), those of the verdict; of ``type2`` also ``window``
            (samples, a time such as ``10s``, or None for all), ``filter`` (the front end as the
            attack models it: ``rectangular``, ``butterworth``, ``none``, or a
            :class:`ecgadv.threat.front_ends.FrontEnd`) and ``evaluation_filter`` (the real one,
            ``butterworth``).

    Returns:
        Arrays in the order of ``x``, of ``universal`` signals in that of ``target``. Where the
        onset is random, a success is a ``target_rate`` of at least one half, ``predicted`` the most
        frequent class, probability and margin means over onsets; δ of ``type2`` is at onset 0.

    Raises:
        ConfigError: an option or a target is unknown, has the wrong type or does not fit.
        DataError: ``x`` has the wrong shape, holds NaN or no real numbers, or is not standardised.
        VictimError: the victim cannot be used.
    """
    seed, batch_size = arguments.seed(seed), arguments.batch_size(batch_size)
    if perturb_padding is not None:
        perturb_padding = arguments.flag("perturb_padding", perturb_padding)
    arguments.choice("precision", precision, ("float32", "bfloat16", "auto"))
    x = arguments.array("x", x)
    # A bare callable does not tell the length of its input; the records do.
    subject = _subject(victim, np.shape(x))
    form = metrics.get(metric).over(subject.leads)
    injects = method == "eot" or isinstance(method, EOT)
    threat = threat_model or ("type2" if injects else "type1")
    place = deployment or ("local" if threat == "type2" else "cloud")
    arguments.choice("threat_model", threat, THREATS)
    arguments.choice("deployment", place, DEPLOYMENTS)
    given_shifts = "shifts" in options
    setting = _setting(subject, threat, place, seed, goals.get(goal), options)
    if "train_records" in options:
        raise ConfigError(f"train_records={options['train_records']}: say universal=… instead")
    own = {"steps": steps, "perturb_padding": perturb_padding}
    own = {key: value for key, value in own.items() if value is not None}
    solver = make_attack(method, **own, **options)
    if given_shifts and setting.shifts and getattr(solver, "schedule", None) == "paper":
        raise ConfigError(
            f"shifts={setting.shifts}: schedule=paper has a number of its own; leave it out"
        )
    if threat == "type2" and not isinstance(solver, Attack):
        raise ConfigError(f"method={solver.name}: takes no injected signals (threat_model=type2)")
    if isinstance(solver, EOT) and threat == "type1":
        raise ConfigError("method=eot: is for injected signals: threat_model=type2")
    study = setting.study(subject, form, solver)
    injected = study.channel.injected
    if injected and np.ndim(x) > 1:
        whole_ones = arguments.lengths(lengths, len(x), subject.n) == subject.n
        if not whole_ones.all():
            raise DataError(
                f"threat_model=type2: attacks records of at least {subject.n} samples only"
            )
    signals, own_samples = _records(x, lengths, subject)
    count, n, leads = len(signals), subject.n, subject.leads
    if injected and mask is not None:
        raise ConfigError("mask: threat_model=type2 takes a window, or attack.mask in seconds")
    if injected and study.padding:
        raise ConfigError("perturb_padding: threat_model=type2 has no padding; leave it out")
    if universal:
        wanted = arguments.universal(universal, count)
        if not isinstance(solver, EOT):
            raise ConfigError(f"universal={wanted} method={solver.name}: needs method=eot")
        several = target if isinstance(target, list | tuple) or np.ndim(target) else [target]
        aims = arguments.targets(several, len(several), subject.classes)
        together = Universal(study, signals, wanted, aims)
        found = _solved(study, together.chunk, batch_size, precision)
        return _result([together.judged(found)], form, leads, n)
    whole = Chunk(
        signals, own_samples, None, arguments.targets(target, count, subject.classes),
        None if mask is None else arguments.mask(mask, count, n, leads),
    )  # fmt: skip
    return _result(_solved(study, whole, batch_size, precision), form, leads, n)


def _solved(study: Study, whole: Chunk, batch_size: int | str, precision: str) -> list[Outcome]:
    """What comes of cases, chunk after chunk."""
    count = len(whole.x)
    size = study.size(batch_size, count)
    arithmetic, _ = study.precision(precision, count, size)
    return [
        study.run(whole.rows(rows), width=size, precision=arithmetic)
        for rows in chunks(count, size)
    ]


def _setting(
    subject: Victim, threat: str, place: str, seed: int, goal: goals.Goal, options: dict[str, Any]
) -> Setting:
    """What is asked for; takes its options out."""
    setting = Setting(threat, place, goal, seed=seed)
    if threat == "type1" and place == "cloud":
        return setting
    setting = replace(
        setting,
        shifts=arguments.whole("shifts", options.pop("shifts", 8), 0),
        tried=arguments.whole("evaluation_shifts", options.pop("evaluation_shifts", 100), 1),
    )
    if threat == "type1":
        return setting
    if subject.over == "none":
        raise ConfigError(
            f"threat_model=type2: victim {subject.name} does not standardise, so the power of "
            "a signal has no unit"
        )
    window = options.pop("window", None)
    if window is not None and not isinstance(window, str):
        window = arguments.whole("window", window, 1)
    for key in ("filter", "evaluation_filter"):
        if place == "cloud" and options.get(key, "none") != "none":
            raise ConfigError(f"{key}={options[key]}: deployment=cloud has no filter; leave it out")
    ends = [
        front_ends.get(options.pop(key, usual if place == "local" else "none"), subject.fs)
        for key, usual in (("filter", "rectangular"), ("evaluation_filter", "butterworth"))
    ]
    return replace(setting, window=window, modelled=ends[0], device=ends[1])


def _result(found: list[Outcome], form: metrics.Quadratic, leads: int, n: int) -> AttackResult:
    """What came of all chunks, case by case."""
    if found:
        delta = np.concatenate([one.delta for one in found])
    else:
        delta = np.zeros((0, n * leads), np.float32)
    trials = [t for one in found for t in one.trials or ()]
    status = [s for one in found for s in one.status]
    done = np.array([s == "ok" for s in status], bool)
    sound = np.isfinite(delta).all(axis=1)
    distance = form.value(np.where(sound[:, None], delta, 0).astype(np.float64))
    whole = np.zeros(0, np.int64)
    return AttackResult(
        delta=unflatten(delta, leads),
        success=np.array([t.success for t in trials], bool) & done,
        distance=np.where(sound, distance, np.nan),
        n_gradients=np.concatenate([whole, *(one.gradients for one in found)]),
        n_forwards=np.concatenate([whole, *(one.forwards for one in found)]),
        predicted=np.array([t.predicted for t in trials], np.int64),
        p_target=np.array([t.p_target for t in trials], np.float64),
        margin=np.array([t.margin for t in trials], np.float64),
        status=np.array(status, dtype="U7"),
        message=np.array([m for one in found for m in one.message], dtype="U"),
        target_rate=np.where(done, np.array([t.rate for t in trials], np.float64), np.nan),
    )


def _subject(victim: Any, shape: tuple[int, ...]) -> Victim:
    """The victim; a bare callable does not tell the shape of its input, so the records do."""
    if isinstance(victim, Victim | str | Path) or len(shape) < 2:
        return load_victim(victim)
    loaded = load_victim(victim, check=False)
    if loaded.open_length and shape[1:] not in (loaded.shape, (loaded.n, 1)):
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
