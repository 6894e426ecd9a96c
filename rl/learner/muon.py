"""Muon with AdamW for what is no matrix, as one optimizer over FSDP2 shards.

Muon (K. Jordan 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a weight matrix by the nearest
orthogonal matrix. Small models trained from scratch need far fewer steps with it. The update is scaled by
`0.2 * sqrt(max(rows, columns))`, so that its root mean square is about AdamW's and one learning rate serves both
(arXiv 2502.16982, section 2.2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.distributed.tensor import DTensor, distribute_tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration: five rounds bring singular values of 0.01 to 1 into about 0.7 to 1.2."""
ROUNDS = 5


class MuonAdamW(torch.optim.AdamW):
    """Muon for `matrices`, AdamW for `others`. Momentum is sharded as the parameters are; each update gathers it."""

    def __init__(
        self,
        matrices: Iterable[torch.Tensor],
        others: Iterable[torch.Tensor],
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        momentum: float,
    ) -> None:
        groups: list[dict[str, Any]] = [
            {"params": list(matrices), "matrix": True},
            {"params": list(others), "matrix": False},
        ]
        groups = [group for group in groups if group["params"]]
        super().__init__(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=True)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update. Collective where parameters are sharded: all ranks must hold gradients of the same ones."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["matrix"]]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = groups
        for group in groups:
            if group["matrix"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, float(group["lr"]), group["weight_decay"])
        return loss

    def _update(self, parameter: torch.Tensor, lr: float, weight_decay: float) -> None:
        assert parameter.grad is not None and parameter.dim() == 2
        state = self.state[parameter]
        if "momentum" not in state:
            # AdamW's own loading of a state asks each parameter for its step.
            state["step"], state["momentum"] = torch.tensor(0.0), torch.zeros_like(parameter.grad)
        state["step"] += 1
        buffer: torch.Tensor = state["momentum"]
        buffer.lerp_(parameter.grad, 1 - self.momentum)
        ahead = parameter.grad.lerp(buffer, self.momentum)  # Nesterov
        full = ahead.full_tensor() if isinstance(ahead, DTensor) else ahead
        update = orthogonalise(full).to(parameter.dtype)
        if isinstance(parameter, DTensor):
            # Every rank has worked out the whole matrix: each keeps its own rows, nothing is sent.
            update = distribute_tensor(update, parameter.device_mesh, parameter.placements, src_data_rank=None)
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(update, alpha=-lr * 0.2 * max(parameter.shape) ** 0.5)


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """`U V^T` of the singular value decomposition of a matrix [M, N], roughly, by Newton-Schulz; zeros stay zeros."""
    a, b, c = COEFFICIENTS
    turned = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if turned else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if turned else x
