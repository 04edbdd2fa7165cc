"""Training on several cores or GPUs at once: `torchrun --nproc-per-node N -m phi3v.export.nano.train ...`.

Every worker draws its own samples; the gradients are averaged, so all stay equal.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed


class Workers:
    """This process's place among those that train together; alone where torchrun did not start it."""

    def __init__(self) -> None:
        self.count = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0"))
        if self.count > 1 and not distributed.is_initialized():
            distributed.init_process_group("gloo")

    def agree(self, value: float) -> float:
        """The mean of a number over the workers, the same for all."""
        shared = torch.tensor(value, dtype=torch.float64)
        if self.count > 1:
            distributed.all_reduce(shared)
        return float(shared) / self.count

    def average(self, gradients: Iterable[Tensor | None]) -> None:
        """Replace gradients by their mean over the workers."""
        if self.count == 1:
            return
        there = [gradient for gradient in gradients if gradient is not None]
        flat = torch.cat([gradient.flatten() for gradient in there])
        distributed.all_reduce(flat)
        flat /= self.count
        for gradient, mean in zip(there, flat.split([g.numel() for g in there]), strict=True):  # type: ignore[no-untyped-call]
            gradient.copy_(mean.view_as(gradient))
