"""KL(current || reference), estimated per token from the sampled one."""

from __future__ import annotations

import torch

from rl.algo.tokens import LossInputs
from rl.config.objective import ReferenceKLConfig


def reference_kl(inputs: LossInputs, config: ReferenceKLConfig) -> torch.Tensor:
    """float [N], with the gradient that the config asks for.

    With d = current - reference (Schulman, joschu.net/blog/kl-approx.html): k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d.
    The mean gradient of k1 is zero and that of k3 is the one of the divergence only to first order in d; `unbiased`
    gives the value of the estimator the gradient of k2, d times that of the logprob (arXiv 2510.01555).
    """
    assert inputs.reference is not None, "the config has a KL penalty and the inputs lack reference logprobs"
    difference = inputs.current - inputs.reference
    square = 0.5 * difference.square()
    if config.estimator == "k1":
        value = difference
    elif config.estimator == "k2":
        value = square
    else:
        value = torch.exp(-difference) - 1 + difference
    if config.gradient == "unbiased":
        return value.detach() + square - square.detach()
    return value
