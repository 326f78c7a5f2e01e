"""From what a user says of threat, deployment and goal to a study and its judge."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ecgadv.attacks.base import Attack, DirectAttack
from ecgadv.making import instantiate
from ecgadv.study.judge import Judge
from ecgadv.study.study import Study
from ecgadv.threat import goals
from ecgadv.threat.channel import Channel
from ecgadv.threat.front_ends import FrontEnd, Through, from_config
from ecgadv.threat.goals import Exclusive, Goal
from ecgadv.threat.metrics import Quadratic
from ecgadv.threat.transforms import window_samples
from ecgadv.victims.loading import Victim


@dataclass(frozen=True)
class Setting:
    """One threat, as a command line or a call of the interface states it.

    Attributes:
        threat_model: ``type1`` or ``type2``.
        deployment: ``cloud`` or ``local``.
        goal: what counts as reached.
        window: of an injected signal, see :func:`window_samples`.
        modelled: the front end that the attacker believes in; without effect but at a device that
            reads injected signals.
        device: the real one, likewise.
        order: see :class:`Channel`.
        shifts: random onsets that the attack averages over; 0 takes the onset for known.
        tried: random onsets of the verdict.
        seed: of everything random.
    """

    threat_model: str = "type1"
    deployment: str = "cloud"
    goal: Goal = field(default_factory=Exclusive)
    window: int | str | None = None
    modelled: FrontEnd = field(default_factory=Through)
    device: FrontEnd = field(default_factory=Through)
    order: str = "shift_filter"
    shifts: int = 0
    tried: int = 100
    seed: int = 0

    @classmethod
    def of(cls, cfg: Mapping[str, Any], fs: float) -> Setting:
        """That of a configuration, for a victim's sampling rate in Hz.

        Raises:
            ConfigError: a goal or a front end cannot be made of its options.
        """
        evaluation, eot = cfg["evaluation"], cfg["eot"]
        own = Setting(
            cfg["threat_model"], cfg["deployment"], window=cfg["window"],
            goal=goals.from_config(cfg.get("goal")),
            order=evaluation["order"], tried=int(evaluation["shifts"]), seed=int(cfg["seed"]),
            shifts=int(eot.get("shifts") or 0) if eot["name"] == "shift" else 0,
        )  # fmt: skip
        if not own.filters:
            return own
        return replace(
            own, modelled=from_config(cfg["filter"], fs), device=from_config(device(cfg), fs)
        )

    @property
    def filters(self) -> bool:
        """Whether a front end has a part in it."""
        return self.threat_model == "type2" and self.deployment == "local"

    def judge(self, victim: Victim) -> Judge:
        """The deployment as it will be.

        Raises:
            ConfigError: the window does not fit.
        """
        channel = Channel(moving=self.deployment == "local", leads=victim.leads)
        if self.threat_model == "type2":
            channel = Channel(
                True, True, window_samples(self.window, victim.n, victim.fs),
                self.device if self.filters else Through(), self.order, victim.leads,
            )  # fmt: skip
        return Judge(victim, channel, self.goal, self.tried, self.seed)

    def study(self, victim: Victim, metric: Quadratic, attack: Attack | DirectAttack) -> Study:
        """An attack under this threat, on a metric over the victim's leads.

        Raises:
            ConfigError: an option does not fit the victim or the deployment.
        """
        judge = self.judge(victim)
        believed = self.modelled if self.filters else Through()
        channel = replace(judge.channel, front_end=believed, order="shift_filter")
        return Study(
            victim, metric, attack, judge, seed=self.seed, shifts=self.shifts, channel=channel
        )


def open_study(cfg: Mapping[str, Any], victim: Victim, attack: Attack | DirectAttack) -> Study:
    """Attack and judge of a configuration.

    Raises:
        ConfigError: an option does not fit the victim or the deployment.
    """
    metric: Quadratic = instantiate(cfg["metric"])
    return Setting.of(cfg, victim.fs).study(victim, metric.over(victim.leads), attack)


def device(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The option of ``filter`` that ``evaluation.filter`` names, with what ``evaluation`` says."""
    evaluation = cfg["evaluation"]
    node = dict(evaluation.get("front_end") or {"name": evaluation["filter"]})
    said = {key: evaluation.get(key) for key in ("high_pass", "mains")}
    return node | {key: value for key, value in said.items() if value is not None}
