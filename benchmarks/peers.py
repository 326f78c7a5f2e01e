"""Other libraries' attacks on the same cases, for ``task=benchmark``.

    pip install "ecgadv[bench]"

Every peer sees the deployed pipeline, not the bare network: its model standardises the record over
its own samples before it classifies, so what it finds is judged by what it optimised. What these
libraries have no notion of is put into the model instead, the same for all of them:

- Records have different lengths, and some attacks re-batch their cases at will. So one sample is
  appended to every record that says which case it is; nothing depends on it smoothly, and its
  perturbation is dropped.
- A success must lead by a margin (``ecgadv.threat.goals.AIM_MARGIN``), and ours aim for it. So
  the target's logit is lowered by that margin: what a peer takes for the boundary is where the
  pipeline's verdict turns, and no peer loses cases to a margin that it did not know of.
- Bounds are those of the recordings, a quarter wider, so that clipping decides nothing.

All peers attack in batches of the same size as ours. Gradients and forwards are counted inside the
model, by rows.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ecgadv import backend
from ecgadv.attacks.engine import Solution
from ecgadv.threat.goals import AIM_MARGIN
from ecgadv.threat.objectives import Cases
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import standardise

PACKAGES = {
    "foolbox": ("foolbox", "foolbox"),
    "art": ("art", "adversarial-robustness-toolbox"),
    "cleverhans": ("cleverhans", "cleverhans"),
}
"""First word of a method -> module and distribution."""

SEARCH_STEPS = 5
"""Constants that foolbox's Carlini-Wagner tries; ``_STEPS`` counts iterations for each of them."""

BUDGETS = tuple(0.5 * 2.0 ** (k / 2) for k in range(10))
"""Euclidean norms that fixed-budget attacks go through, smallest first."""


class TaggedModel:
    """std(·) and the victim on records with a tag; gradients and forwards are counted.

    Args:
        victim: the classifier.
        cases: what the tags point to.
    """

    def __init__(self, victim: Victim, cases: Cases) -> None:
        import tensorflow as tf

        self.victim = victim
        count = len(cases.x)
        reach = 1.25 * float(np.abs(cases.x).max())
        self.bounds = (-reach, reach)
        # Well inside the bounds, where a change of variable keeps them apart.
        self.tags = (0.8 * reach * ((np.arange(count) + 0.5) / count * 2 - 1)).astype(np.float32)
        self.valid = tf.Variable(cases.valid.astype(np.float32), trainable=False)
        self.target = tf.Variable(cases.target.astype(np.int32), trainable=False)
        self.rows = tf.Variable(tf.zeros(count, tf.int64), trainable=False)
        self.back = tf.Variable(tf.zeros(count, tf.int64), trainable=False)
        # One trace for any number of rows: ART's line search asks for every number of them.
        signal = tf.TensorSpec((None, victim.n + 1, 1), tf.float32)
        which = tf.TensorSpec((None,), tf.int64)
        self._forward = tf.function(self._logits, input_signature=(signal, which))

    def set(self, cases: Cases) -> None:
        """Other cases in the same number: nothing is traced anew."""
        self.valid.assign(cases.valid.astype(np.float32))
        self.target.assign(cases.target.astype(np.int32))
        self.rows.assign(np.zeros(len(self.tags), np.int64))
        self.back.assign(np.zeros(len(self.tags), np.int64))

    def tagged(self, x: np.ndarray) -> np.ndarray:
        """(B, n) -> (B, n + 1, 1) float32."""
        return np.concatenate([x.astype(np.float32), self.tags[:, None]], axis=1)[..., None]

    def _which(self, x: Any) -> Any:
        import tensorflow as tf

        distance = tf.abs(tf.stop_gradient(x[:, -1, 0])[:, None] - self.tags[None])
        return tf.argmin(distance, axis=1)

    def _logits(self, x: Any, which: Any) -> Any:
        import tensorflow as tf

        valid = tf.gather(self.valid, which)
        logits = self.victim.forward(standardise(x[:, :-1, 0], valid))
        aim = AIM_MARGIN * tf.maximum(1.0, tf.reduce_max(tf.abs(tf.stop_gradient(logits)), 1))
        goal = tf.one_hot(tf.gather(self.target, which), logits.shape[1])
        return logits - aim[:, None] * goal

    def __call__(self, x: Any, training: bool = False) -> Any:
        """(B, n + 1, 1) -> (B, classes) logits, the target's lowered by the margin aimed for."""
        import tensorflow as tf

        x = tf.cast(x, tf.float32)
        which = self._which(x)
        one = tf.ones_like(which)

        @tf.custom_gradient
        def counted(values: Any) -> Any:
            self.rows.scatter_nd_add(which[:, None], one)

            def upstream(gradient: Any) -> Any:
                self.back.scatter_nd_add(which[:, None], one)
                return gradient

            return tf.identity(values), upstream

        return self._forward(counted(x), which)

    def solution(self, x: np.ndarray, perturbed: np.ndarray, free: np.ndarray) -> Solution:
        """What came out, in our own terms; forwards are those without a gradient."""
        delta = (perturbed[:, :-1, 0].astype(np.float64) - x).astype(np.float32)
        # What is not finite stays so: such a case is broken, and its delta would be another one.
        delta = np.where(free > 0, delta, 0.0).astype(np.float32)
        back, rows = self.back.numpy(), self.rows.numpy()
        return Solution(delta, np.zeros(len(x), bool), back, np.maximum(rows - back, 0))


Runner = Callable[[TaggedModel, np.ndarray, np.ndarray], np.ndarray]
"""(model, (B, n + 1, 1) tagged records, (B,) targets) -> perturbed records of the same shape."""


def _foolbox(attack: Any) -> Runner:
    def run(model: TaggedModel, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        import foolbox
        import tensorflow as tf

        wrapped = foolbox.models.TensorFlowModel(model, model.bounds, device="/CPU:0")
        goal = foolbox.criteria.TargetedMisclassification(tf.constant(target, tf.int64))
        found: np.ndarray = attack.run(wrapped, tf.constant(x), goal).numpy()
        return found

    return run


def foolbox_ddn(steps: int) -> Runner:
    """Decoupled direction and norm (Rony et al. 2019), foolbox's defaults."""
    import foolbox

    return _foolbox(foolbox.attacks.DDNAttack(steps=steps))


def foolbox_fmn(steps: int) -> Runner:
    """Fast minimum norm (Pintor et al. 2021), foolbox's defaults."""
    import foolbox

    return _foolbox(foolbox.attacks.L2FMNAttack(steps=steps))


def foolbox_cw(steps: int) -> Runner:
    """Carlini and Wagner, foolbox's defaults but for the number of steps."""
    import foolbox

    return _foolbox(
        foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=SEARCH_STEPS, steps=steps)
    )


def foolbox_cw_all(steps: int) -> Runner:
    """The same without its early stop, which hangs on the loss of the whole batch."""
    import foolbox

    return _foolbox(
        foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=SEARCH_STEPS, steps=steps, abort_early=False
        )
    )


def art_cw(steps: int) -> Runner:
    """Carlini and Wagner with ART's line search, its defaults but for the number of steps."""

    def run(model: TaggedModel, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings():
            # ART warns of every optional package that is absent.
            warnings.simplefilter("ignore")
            from art.attacks.evasion import CarliniL2Method
            from art.estimators.classification import TensorFlowV2Classifier

        classes = len(model.victim.classes)
        wrapped = TensorFlowV2Classifier(
            model=model, nb_classes=classes, input_shape=x.shape[1:], clip_values=model.bounds
        )
        # Its constant only doubles from try to try, so its usual ten tries are needed.
        attack = CarliniL2Method(
            wrapped, targeted=True, max_iter=steps, batch_size=len(x), verbose=False
        )
        found: np.ndarray = attack.generate(x, np.eye(classes, dtype=np.float32)[target])
        return found

    return run


def _over_budgets(step: Callable[[TaggedModel, Any, float, Any], Any]) -> Runner:
    """The smallest of :data:`BUDGETS` at which each case succeeds, as peers without a norm go."""

    def run(model: TaggedModel, x: np.ndarray, target: np.ndarray) -> np.ndarray:
        import tensorflow as tf

        records, goal = tf.constant(x), tf.constant(target, tf.int32)
        best = x.copy()
        done = np.zeros(len(x), bool)
        for budget in BUDGETS:
            moved = step(model, records, budget, goal)
            hit = model(moved).numpy().argmax(1) == target
            # Until a case succeeds its last attempt stands.
            best[~done] = moved.numpy()[~done]
            done |= hit
            if done.all():
                break
        return best

    return run


def cleverhans_fgm(steps: int) -> Runner:
    """One gradient step for each budget; ``steps`` means nothing here."""

    def step(model: TaggedModel, x: Any, budget: float, goal: Any) -> Any:
        from cleverhans.tf2.attacks.fast_gradient_method import fast_gradient_method

        return fast_gradient_method(model, x, budget, 2, y=goal, targeted=True)

    return _over_budgets(step)


def cleverhans_pgd(steps: int) -> Runner:
    """Projected gradient descent of ``steps`` steps for each budget."""

    def step(model: TaggedModel, x: Any, budget: float, goal: Any) -> Any:
        from cleverhans.tf2.attacks import projected_gradient_descent as module

        size = min(1.0, 2.5 / steps) * budget
        return module.projected_gradient_descent(
            model, x, budget, size, steps, 2, y=goal, targeted=True, rand_init=False
        )

    return _over_budgets(step)


def cleverhans_mim(steps: int) -> Runner:
    """Momentum iterative method of ``steps`` steps for each budget."""

    def step(model: TaggedModel, x: Any, budget: float, goal: Any) -> Any:
        from cleverhans.tf2.attacks.momentum_iterative_method import momentum_iterative_method

        size = min(1.0, 2.5 / steps) * budget
        return momentum_iterative_method(
            model, x, budget, size, steps, 2, y=goal, targeted=True, sanity_checks=False
        )

    return _over_budgets(step)


PEERS: dict[str, tuple[Callable[[int], Runner], int]] = {
    "foolbox_ddn": (foolbox_ddn, 100),
    "foolbox_fmn": (foolbox_fmn, 100),
    "foolbox_cw": (foolbox_cw, 1000),
    "foolbox_cw_all": (foolbox_cw_all, 1000),
    "art_cw": (art_cw, 20),
    "cleverhans_fgm": (cleverhans_fgm, 1),
    "cleverhans_pgd": (cleverhans_pgd, 20),
    "cleverhans_mim": (cleverhans_mim, 20),
}
"""Method -> what makes it, and its steps where none are given."""


def unavailable(name: str) -> str:
    """Why a peer cannot be measured here; "" where it can."""
    module, distribution = PACKAGES[name.partition("_")[0]]
    if importlib.util.find_spec(module) is None:
        return f'{distribution} is not installed, pip install "ecgadv[bench]"'
    return ""


def version(name: str) -> str:
    """Distribution and version of a peer."""
    distribution = PACKAGES[name.partition("_")[0]][1]
    return f"{distribution} {importlib.metadata.version(distribution)}"


def make(name: str, steps: int | None, victim: Victim) -> Callable[[Cases], Solution]:
    """A peer as a solver of chunks of one shape."""
    maker, usual = PEERS[name]
    runner = maker(steps or usual)
    held: dict[int, TaggedModel] = {}

    def solve(cases: Cases) -> Solution:
        # Tags and bounds come from the first chunk; later ones are of the same size.
        count = len(cases.x)
        if count not in held or np.abs(cases.x).max() > held[count].bounds[1]:
            held[count] = TaggedModel(victim, cases)
        model = held[count]
        model.set(cases)
        perturbed = runner(model, model.tagged(cases.x), np.asarray(cases.target))
        return model.solution(cases.x, backend.to_numpy(perturbed), cases.free)

    return solve
