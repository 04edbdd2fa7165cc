"""bfloat16 where the hardware multiplies it faster: on GPUs, and on CPUs that have instructions for it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def _cpu_has_bf16() -> bool:
    """PyTorch knows, but does not promise to go on telling."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def is_fast(device: torch.device) -> bool:
    """Whether matrix products are to be computed in bfloat16 there."""
    return device.type == "cuda" or _cpu_has_bf16()


def autocast(device: torch.device) -> torch.autocast:
    """Matrix products in bfloat16 where that is fast, everything else in float32."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_fast(device))


def attend(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mixed values [B, heads, L, size]; `mask` [B, L, L] is true where a row may look."""
    if queries.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        mixed: Tensor = _Attention.apply(queries, keys, values, mask)  # type: ignore[no-untyped-call]
        return mixed
    return functional.scaled_dot_product_attention(queries, keys, values, None if mask is None else mask[:, None])


class _Attention(torch.autograd.Function):
    """Attention by bfloat16 products, a sample at a time, so that its scores stay in the cache.

    PyTorch 2.13's own bfloat16 attention is slower on a CPU than its float32 one, above all on the way back.
    """

    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        scale = queries.shape[-1] ** -0.5
        queries, keys, values = (part.bfloat16().contiguous() for part in (queries, keys, values))
        shares, mixed = [], torch.empty_like(queries)
        for number in range(len(queries)):
            scores = torch.bmm(queries[number], keys[number].transpose(1, 2)).float().mul_(scale)
            if mask is not None:
                scores.masked_fill_(~mask[number], -1e9)
            shares.append(scores.softmax(-1).bfloat16())
            torch.bmm(shares[-1], values[number], out=mixed[number])
        ctx.save_for_backward(queries, keys, values, mixed, *shares)
        return mixed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        queries, keys, values, mixed, *shares = ctx.saved_tensors
        gradient = gradients[0].bfloat16().contiguous()
        scale = queries.shape[-1] ** -0.5
        towards = (gradient * mixed).float().sum(-1, keepdim=True)
        to_queries, to_keys, to_values = (torch.empty_like(part) for part in (queries, keys, values))
        for number, share in enumerate(shares):
            torch.bmm(share.transpose(1, 2), gradient[number], out=to_values[number])
            pull = torch.bmm(gradient[number], values[number].transpose(1, 2)).float()
            pull = pull.sub_(towards[number]).mul_(share).mul_(scale).bfloat16()
            torch.bmm(pull, keys[number], out=to_queries[number])
            torch.bmm(pull.transpose(1, 2), queries[number], out=to_keys[number])
        return to_queries, to_keys, to_values, None
