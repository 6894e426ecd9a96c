"""GSPO."""

from __future__ import annotations

from rl.algo.corrections import correction_weights
from rl.algo.losses.common import Surrogate, clipped_surrogate, metric_sums, sum_of_means
from rl.algo.reference import reference_kl
from rl.algo.tokens import LossInputs, LossOutput, mean_per_sequence
from rl.config.objective import LossConfig


def gspo(inputs: LossInputs, config: LossConfig, normaliser: float) -> LossOutput:
    """Group Sequence Policy Optimization (arXiv 2507.18071, eq. 5 to 7).

    s = exp(mean over the sequence of (current - proximal)); each sequence contributes -min(s A, clip(s) A), averaged
    over its tokens with their correction weights. `normaliser` is the number of sequences of the whole update.
    """
    ratio_S = mean_per_sequence(inputs.current - inputs.proximal, inputs).exp()
    surrogate_S = clipped_surrogate(ratio_S, mean_per_sequence(inputs.advantages, inputs), config)
    weights, outside = correction_weights(inputs, config.correction)
    loss = -(mean_per_sequence(weights, inputs) * surrogate_S.objective).sum() / normaliser
    if config.reference is not None:
        penalty = sum_of_means(weights * reference_kl(inputs, config.reference), inputs)
        loss = loss + config.reference.coefficient * penalty / normaliser
    per_token = Surrogate(
        surrogate_S.objective[inputs.sequence],
        surrogate_S.clipped[inputs.sequence],
        None if surrogate_S.dual_clipped is None else surrogate_S.dual_clipped[inputs.sequence],
    )
    return LossOutput(loss, metric_sums(inputs, config, weights, outside, per_token))
