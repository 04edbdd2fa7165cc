"""The backend that people use: our preprocessing, and generations on onnxruntime-genai."""

from __future__ import annotations

from collections.abc import Sequence

from ..backend import BatchGeneration, BatchRow, Generation, ModelInputs, Reuse
from ..machine.device_table import Device
from ..models.folder import ModelDir
from ..prepare import HdPreprocessor
from ..sampling import TokenChooser
from ..types import MAX_BATCH_SIZE
from .batch import GenaiBatch, batch_bytes, ignores_padding
from .generation import GenaiGeneration
from .model import GenaiModel
from .prefill import Prefill


class GenaiBackend(HdPreprocessor):
    """One model folder loaded in onnxruntime-genai; preprocessing is ours (prepare.py), equal to the reference.

    `cuda_graph`, `threads`, `prefill`, `sdpa_kernel` and `buffer_step` as in GenaiModel. `rewindable` False gives up
    rewinding, for genai's own processor.
    """

    def __init__(
        self,
        folder: ModelDir,
        device: Device,
        *,
        cuda_graph: bool = False,
        threads: int | None = None,
        prefill: Prefill | None = None,
        rewindable: bool = True,
        sdpa_kernel: int | None = None,
        buffer_step: int = 1,
    ) -> None:
        super().__init__(folder, device)  # first: a damaged tokenizer is found before gigabytes are loaded
        self.loaded = GenaiModel(
            folder,
            device,
            cuda_graph=cuda_graph,
            threads=threads,
            prefill=prefill,
            rewindable=rewindable,
            sdpa_kernel=sdpa_kernel,
            buffer_step=buffer_step,
        )
        self._max_batch_size: int | None = None

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> Generation:
        """A generation over `inputs`; its KV buffer holds prompt + `max_new_tokens`, no more."""
        return GenaiGeneration(self.loaded, inputs, chooser, max_new_tokens)

    def reuse(self) -> Reuse:
        """Generations that take over each other's KV cache."""
        from .prefix_cache import PrefixCache

        return PrefixCache(self.loaded)

    @property
    def max_batch_size(self) -> int:
        """genai's own limit; 1 if the graph mishandles padded rows, or with a CUDA graph.

        With one, the mask is wider than a prompt, which ONNX Runtime's attention takes for a prompt behind another; and
        that it refuses for more than one row.
        """
        if self._max_batch_size is None:
            batches = not self.loaded.records and ignores_padding(self.loaded, self.tokenizer)
            self._max_batch_size = MAX_BATCH_SIZE if batches else 1
        return self._max_batch_size

    def batch_bytes(self, rows: Sequence[ModelInputs], max_new_tokens: int) -> int:
        """Most bytes that a batch of these takes, an estimate on the safe side."""
        return batch_bytes(self.model, rows, max_new_tokens)

    def start_batch(self, rows: Sequence[BatchRow]) -> BatchGeneration:
        """Several generations in one loop. Raises InferenceError for rows on both sides of the LongRoPE switch."""
        return GenaiBatch(self.loaded, rows)

    def close(self) -> None:
        """Drop the model; memory is freed when the last generation is closed."""
        self.loaded.close()
