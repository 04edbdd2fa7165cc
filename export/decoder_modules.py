"""What stands in for the PyTorch model that genai's builder reads: modules that name matrices of the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .checkpoint import Checkpoint
from .dims import FINAL_NORM, LM_HEAD, layer_prefix
from .matrix import Matrix


@dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """What stands in for a torch Linear: the builder looks at `bias` and at the equality of the three projections."""

    matrix: Matrix
    bias: None = None


class Module:
    """A named group of parts, equal only to itself: the builder finds its place by comparing modules."""

    def __init__(self, **parts: Any) -> None:
        self.__dict__.update(parts)


class _DecoderLayer(Module):
    """One layer in the builder's names; it knows layers by the end of this class's name."""


class Modules:
    """What stands in for the PyTorch model: hands the builder one module after the other."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._dims = checkpoint, checkpoint.dims.decoder
        self.embedding = Module(weight=None)
        self.final_norm = self._norm(FINAL_NORM)
        self.model = Module(norm=self.final_norm)
        self.lm_head = Linear(Matrix.whole(checkpoint, LM_HEAD))

    def modules(self) -> Iterator[Any]:
        """Embedding (excluded from the graph), layers, final norm, head."""
        yield self.embedding
        for layer in range(self._dims.num_hidden_layers):
            yield self._layer(layer_prefix(layer))
        yield self.final_norm
        yield self.lm_head

    def _layer(self, prefix: str) -> _DecoderLayer:
        hidden, kv, inner = self._dims.hidden_size, self._dims.kv_size, self._dims.intermediate_size
        qkv, gate_up = f"{prefix}self_attn.qkv_proj.weight", f"{prefix}mlp.gate_up_proj.weight"
        return _DecoderLayer(
            self_attn=Module(
                q_proj=self._rows(qkv, 0, hidden),
                k_proj=self._rows(qkv, hidden, hidden + kv),
                v_proj=self._rows(qkv, hidden + kv, hidden + 2 * kv),
                o_proj=Linear(Matrix.whole(self._checkpoint, f"{prefix}self_attn.o_proj.weight")),
            ),
            mlp=Module(
                gate_proj=self._rows(gate_up, 0, inner),
                up_proj=self._rows(gate_up, inner, 2 * inner),
                down_proj=Linear(Matrix.whole(self._checkpoint, f"{prefix}mlp.down_proj.weight")),
            ),
            input_layernorm=self._norm(f"{prefix}input_layernorm.weight"),
            post_attention_layernorm=self._norm(f"{prefix}post_attention_layernorm.weight"),
        )

    def _rows(self, name: str, first: int, last: int) -> Linear:
        return Linear(Matrix.slice(self._checkpoint, name, first, last))

    def _norm(self, name: str) -> Module:
        return Module(weight=self._checkpoint.float32(name))
