"""Success, decided after the attack by the deployed pipeline in float32."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecgadv.threat.objectives import UNTARGETED, margin_array, required_margin
from ecgadv.victims.loading import Victim
from ecgadv.victims.pipeline import shift_indices

SUCCESS_RATE = 0.5
"""Share of onsets that must reach the target in a deployment with random onsets."""


@dataclass(frozen=True)
class Verdict:
    """What the deployed pipeline says of a perturbed record, a row per case.

    Attributes:
        predicted: (B,) class index; the most frequent one where there are several onsets.
        success: (B,) bool.
        p_target: (B,) softmax probability of the target (untargeted: of leaving the source).
        margin: (B,) lead of the target's logit (untargeted: of the best other class's).
        rate: (B,) share of onsets with success; 0 or 1 where the onset is fixed.
        hits: (B, C) onsets at which each class is predicted.
    """

    predicted: np.ndarray
    success: np.ndarray
    p_target: np.ndarray
    margin: np.ndarray
    rate: np.ndarray
    hits: np.ndarray


def softmax(logits: np.ndarray) -> np.ndarray:
    """(…, C) -> (…, C) in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def judge(logits: np.ndarray, source: np.ndarray, target: np.ndarray) -> Verdict:
    """Verdicts of single readings, (B, C) logits."""
    lead = margin_array(logits, source, target)
    rows = np.arange(len(logits))
    probability = softmax(logits)
    p = np.where(target == UNTARGETED, 1.0 - probability[rows, source], probability[rows, target])
    success = lead >= required_margin(logits)
    predicted = logits.argmax(1)
    hits = np.eye(logits.shape[1], dtype=np.int64)[predicted]
    return Verdict(predicted, success, p, lead, success.astype(np.float64), hits)


def verify(
    victim: Victim,
    x: np.ndarray,
    delta: np.ndarray,
    lengths: np.ndarray,
    source: np.ndarray,
    target: np.ndarray,
    *,
    onsets: np.ndarray | None = None,
) -> Verdict:
    """Judge stored perturbations through the pipeline.

    Args:
        victim: the classifier.
        x: (B, leads·n) float32 standardised records, lead after lead.
        delta: (B, leads·n) float32 perturbations, as stored.
        lengths: (B,) samples that std(·) counts (n where the padding is perturbed too).
        source: (B,) class indices.
        target: (B,) class indices, ``UNTARGETED`` for any other class.
        onsets: (B, S) random onsets of a local deployment; None reads the recording as stored.

    Returns:
        One row per case; with onsets ``success`` asks for a rate of at least 0.5.
    """
    signal = x.astype(np.float64) + delta.astype(np.float64)
    if onsets is None:
        return judge(victim.logits(victim.standardise_array(signal, lengths)), source, target)
    n, count = signal.shape[1], onsets.shape[1]
    rows = []
    for case in range(len(signal)):
        z = victim.standardise_array(signal[case : case + 1], lengths[case : case + 1])[0]
        index = shift_indices(onsets[case : case + 1], lengths[case : case + 1], n)[0]
        logits = victim.logits(z[index])
        single = judge(logits, np.repeat(source[case], count), np.repeat(target[case], count))
        classes = np.bincount(single.predicted, minlength=logits.shape[1])
        rate = float(single.success.mean())
        rows.append(
            (
                int(classes.argmax()),
                rate >= SUCCESS_RATE,
                float(single.p_target.mean()),
                float(single.margin.mean()),
                rate,
                classes,
            )
        )
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    return Verdict(*columns)
