"""Muon for the hidden matrices, AdamW for the rest: the pair that made dense reading learn several times faster.

Muon (Keller Jordan, 2024) steps along the momentum's nearest orthogonal matrix, found in bfloat16 where
that is fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .bf16 import is_fast

_PARTS = {"qkv_proj.weight": 3, "gate_up_proj.weight": 2}
"""Fused matrices, stepped part by part."""

_NOT_HIDDEN = ("model.embed_tokens.", "position_embedding", "lm_head", "reader")


@dataclass(frozen=True)
class Rates:
    """Learning rates, before the schedule lowers them."""

    adam: float = 1.5e-3
    muon: float = 6e-3


class Optimiser:
    """Steps named parameters; its state can be saved and loaded."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], rates: Rates) -> None:
        self.rates = rates
        self._hidden: list[tuple[nn.Parameter, int]] = []
        others: list[nn.Parameter] = []
        for name, parameter in named:
            if parameter.ndim == 2 and min(parameter.shape) >= 64 and not any(part in name for part in _NOT_HIDDEN):
                parts = next((count for end, count in _PARTS.items() if name.endswith(end)), 1)
                self._hidden.append((parameter, parts))
            else:
                others.append(parameter)
        self._others = others
        self._adam = torch.optim.AdamW(others, lr=rates.adam, betas=(0.9, 0.98), weight_decay=0.0)
        self._momenta = [torch.zeros_like(parameter) for parameter, _ in self._hidden]

    def clear(self) -> None:
        """Forget the gradients."""
        for parameter in [*self._others, *(parameter for parameter, _ in self._hidden)]:
            parameter.grad = None

    @torch.no_grad()
    def step(self, share: float) -> None:
        """One step at `share` (0 to 1) of the full rates."""
        for group in self._adam.param_groups:
            group["lr"] = self.rates.adam * share
        torch.nn.utils.clip_grad_norm_(self._others, 1.0)
        self._adam.step()
        rate = self.rates.muon * share
        for (parameter, parts), momentum in zip(self._hidden, self._momenta, strict=True):
            if parameter.grad is None:
                continue
            momentum.mul_(0.95).add_(parameter.grad)
            steps = [_orthogonal(part) for part in parameter.grad.add(momentum, alpha=0.95).chunk(parts)]
            parameter.mul_(1 - 0.01 * rate)
            parameter.add_(torch.cat(steps), alpha=-0.2 * rate * max(steps[0].shape) ** 0.5)

    def state_dict(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {"adam": self._adam.state_dict(), "momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._adam.load_state_dict(state["adam"])
        for momentum, saved in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(saved)


def _orthogonal(gradient: Tensor, steps: int = 5) -> Tensor:
    """Newton-Schulz towards the nearest semi-orthogonal matrix."""
    a, b, c = 3.4445, -4.7750, 2.0315
    matrix: Tensor = gradient / (gradient.norm() + 1e-7)
    tall = matrix.shape[0] > matrix.shape[1]
    matrix = (matrix.T if tall else matrix).to(torch.bfloat16 if is_fast(matrix.device) else matrix.dtype)
    for _ in range(steps):
        square = matrix @ matrix.T
        matrix = a * matrix + (b * square + c * square @ square) @ matrix
    return (matrix.T if tall else matrix).to(gradient.dtype)
