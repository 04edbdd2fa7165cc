"""Attention by bfloat16 products: the same values and gradients as PyTorch's own."""

import pytest
import torch
from torch.nn import functional

from phi3v.export.nano.bf16 import attend

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("masked", [True, False])
def test_attention_and_its_gradients_are_pytorchs(masked: bool) -> None:
    torch.manual_seed(0)
    parts = [torch.randn(3, 2, 50, 32, requires_grad=True) for _ in range(3)]
    mask = torch.rand(3, 50, 50) < 0.7 if masked else None
    wanted = functional.scaled_dot_product_attention(*parts, None if mask is None else mask[:, None])
    pull = torch.randn_like(wanted)
    wanted_gradients = torch.autograd.grad(wanted, parts, pull)
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*parts, mask)
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.03)
    for gradient, one in zip(torch.autograd.grad(found, parts, pull.bfloat16()), wanted_gradients, strict=True):
        torch.testing.assert_close(gradient, one, rtol=0, atol=0.03)


def test_without_autocast_it_is_exact() -> None:
    parts = [torch.randn(1, 2, 9, 32) for _ in range(3)]
    assert torch.equal(attend(*parts), functional.scaled_dot_product_attention(*parts))
