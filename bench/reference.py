"""The PyTorch reference: the whole model from the same checkpoint, written to be correct rather than fast.

It shares no code with the runtime's preprocessing: image processor and tokenisation are its own, so that parity means
something. CLIP and the Phi-3 decoder are stock transformers; the HD layout follows the published loop.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Self

import ml_dtypes
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel, Phi3Config, Phi3ForCausalLM
from transformers.initialization import no_init_weights

from ..backend import ModelInputs, Reuse, StartsFresh
from ..errors import InferenceError, OptionError, PromptError
from ..export.checkpoint import Checkpoint
from ..export.dims import CLIP, VISION, ModelDims
from ..export.safetensors_file import Array
from ..images.cropped import NumCrops
from ..models.folder import ModelDir
from ..sampling import TokenChooser
from ..tokenizer import Tokenizer as RuntimeTokenizer

_CONTROL = re.compile(r"<\|\w+\|>|</?s>|<unk>")
_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(3, 1, 1)
_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1)


class ReferenceModel:
    """A checkpoint in PyTorch. `logits` computes the logits of every position, `greedy` the tokens."""

    def __init__(self, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        dims = checkpoint.dims
        self.dtype, self.device = dtype, device
        self.switch = dims.decoder.long_rope.original if dims.decoder.long_rope else None
        self.tokenizer = Tokenizer.from_file(str(checkpoint.path / "tokenizer.json"))
        self.vision = _Vision(dims).to(dtype).eval()
        self.decoder = _make_model(Phi3ForCausalLM, _make_decoder_config(dims), dtype).eval()
        _load(self.vision, checkpoint, _translate_vision_name)
        _load(self.decoder, checkpoint, lambda name: name)
        self.vision.to(device)
        self.decoder.to(device)

    @classmethod
    def from_checkpoint(cls, path: Path, dtype: torch.dtype = torch.float32) -> Self:
        """Load a Hugging Face checkpoint folder with the original tensor names, without remote code."""
        return cls(Checkpoint.open(path), dtype)

    def preprocess(self, prompt: str, images: Sequence[Image.Image], num_crops: int, system: str = "") -> ModelInputs:
        """Run the reference processor: pixel_values [N, 1 + num_crops, 3, 336, 336], and ids chunk by chunk.

        Raises PromptError for a prompt that spells a control token or an image tag: the reference would read it as one,
        the runtime as text.
        """
        if spelled := _CONTROL.search(system + prompt):
            raise PromptError(f"the PyTorch reference would read {spelled[0]} in the prompt as control; rephrase")
        tags = "".join(f"<|image_{n}|>\n" for n in range(1, len(images) + 1))
        before = f"<|system|>\n{system}<|end|>\n" if system else ""
        text = f"{before}<|user|>\n{tags}{prompt}<|end|>\n<|assistant|>\n"
        processed = [process_image(image, num_crops) for image in images]
        tokens = [count_tokens(*size) for _, size in processed]
        ids: list[int] = []
        for number, chunk in enumerate(re.split(r"<\|image_\d+\|>", text), start=1):
            ids += self.tokenizer.encode(chunk).ids  # its post-processor puts BOS in front
            ids += [-number] * tokens[number - 1] if number <= len(images) else []
        pixels = torch.stack([p for p, _ in processed]).numpy() if processed else None
        sizes = np.array([size for _, size in processed], dtype=np.int64) if processed else None
        return ModelInputs(np.array(ids, dtype=np.int32), pixels, sizes, tuple(tokens))

    @torch.inference_mode()
    def logits(self, inputs: ModelInputs, generated: Sequence[int] = ()) -> torch.Tensor:
        """Compute the logits of every position without a cache: float32 [L + len(generated), vocab]."""
        logits: torch.Tensor = self.decoder(inputs_embeds=self._embed(inputs, generated)).logits
        return logits[0].float().cpu()

    def greedy(self, inputs: ModelInputs, count: int) -> list[int]:
        """Generate the first `count` greedy tokens."""
        return list(islice(self.tokens(inputs), count))

    @torch.inference_mode()
    def tokens(self, inputs: ModelInputs, chooser: TokenChooser | None = None) -> Iterator[int]:
        """Generate tokens without end, greedily if there is no chooser.

        The KV cache is dropped where the tokens cross the LongRoPE switch.
        """
        generated: list[int] = []
        cache, step = None, self._embed(inputs)
        while True:
            out = self.decoder(inputs_embeds=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            logits = out.logits[0, -1]
            if chooser is None or chooser.is_argmax:
                generated.append(int(logits.argmax()))
            else:
                generated.append(chooser.choose(logits.float().cpu().numpy()))
            yield generated[-1]
            if self.switch and len(inputs.input_ids) + len(generated) == self.switch + 1:
                cache, step = None, self._embed(inputs, generated)
            else:
                step = self.decoder.model.embed_tokens(torch.tensor([[generated[-1]]], device=self.device))

    def _embed(self, inputs: ModelInputs, generated: Sequence[int] = ()) -> torch.Tensor:
        ids = (
            torch.from_numpy(np.concatenate([inputs.input_ids, np.array(generated, dtype=np.int32)]))
            .long()
            .to(self.device)
        )
        embedded: torch.Tensor = self.decoder.model.embed_tokens(ids.clamp_min(0))
        if inputs.pixel_values is not None and inputs.image_sizes is not None:
            pixels = torch.from_numpy(inputs.pixel_values).to(self.device, self.dtype)
            embedded[ids < 0] = self.vision(pixels, inputs.image_sizes.tolist()).to(embedded.dtype)
        return embedded[None]


class ReferenceBackend:
    """The reference as a backend of the engine: `Engine(ReferenceBackend(path))`."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
        source = Checkpoint.open(checkpoint)
        self.reference = ReferenceModel(source, dtype, device)
        self.tokenizer = RuntimeTokenizer(checkpoint / "tokenizer.json")
        decoder = source.dims.decoder
        ends = ("<|end|>", "<|endoftext|>", "<|assistant|>")
        self._model = ModelDir(
            path=checkpoint,
            context_length=decoder.max_position_embeddings,
            vocab_size=decoder.vocab_size,
            original_context_length=self.reference.switch,
            eos_token_ids=frozenset(self.tokenizer.control_id(token) for token in ends),
            num_crops=source.num_crops,
            kv_bytes_per_token=2 * decoder.num_hidden_layers * decoder.kv_size * dtype.itemsize,
            built_for="cpu",
            precision=str(dtype).removeprefix("torch."),
            pixel_dtype=str(dtype).removeprefix("torch."),
            synthetic=source.synthetic,
            graphs={},
        )

    @property
    def model(self) -> ModelDir:
        """The checkpoint's limits."""
        return self._model

    @property
    def device(self) -> str:
        """Where PyTorch computes."""
        return self.reference.device

    @property
    def num_crops(self) -> int:
        """The checkpoint's own number of crops."""
        return self._model.num_crops

    def preprocess(
        self, prompt: str, images: Sequence[Image.Image], num_crops: NumCrops, system: str = ""
    ) -> ModelInputs:
        """Run the reference processor."""
        if num_crops == "auto":
            raise OptionError("num_crops is 'auto'; the PyTorch reference takes 1 to 16")
        return self.reference.preprocess(prompt, images, num_crops, system)

    def start(self, inputs: ModelInputs, chooser: TokenChooser, max_new_tokens: int) -> ReferenceGeneration:
        """Begin a generation; nothing is computed before its first `step`."""
        return ReferenceGeneration(self.reference.tokens(inputs, chooser))

    def reuse(self) -> Reuse:
        """Reuse nothing: every answer of a session starts from the beginning."""
        return StartsFresh(self)

    def close(self) -> None:
        """Nothing to free beyond the object itself."""


class ReferenceGeneration:
    """One running generation."""

    def __init__(self, tokens: Iterator[int]) -> None:
        self._tokens: Iterator[int] | None = tokens

    def step(self) -> int:
        """Generate the next token id; the first call runs vision and prefill."""
        if self._tokens is None:
            raise InferenceError("this generation is closed; start a new one")
        return next(self._tokens)

    def close(self) -> None:
        """Free the KV cache."""
        self._tokens = None


class _Vision(nn.Module):
    """CLIP up to layer -2, the HD layout as in the published loop, and the projector."""

    def __init__(self, dims: ModelDims) -> None:
        super().__init__()
        clip = dims.clip
        names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "image_size")
        config = CLIPVisionConfig(
            **{name: getattr(clip, name) for name in names}, patch_size=clip.patch_size, hidden_act="quick_gelu"
        )
        self.img_processor = _make_model(CLIPVisionModel, config, torch.float32)
        merged, hidden = 4 * clip.hidden_size, dims.decoder.hidden_size
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, merged))
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, merged))
        self.img_projection = nn.Sequential(nn.Linear(merged, hidden), nn.GELU(), nn.Linear(hidden, hidden))

    def forward(self, pixels: torch.Tensor, sizes: Sequence[Sequence[int]]) -> torch.Tensor:
        rows = [self._arrange(p, h // 336, w // 336) for p, (h, w) in zip(pixels, sizes, strict=True)]
        projected: torch.Tensor = self.img_projection(torch.cat(rows))
        return projected

    def _arrange(self, crops: torch.Tensor, high: int, wide: int) -> torch.Tensor:
        states = self.img_processor(crops[: high * wide + 1], output_hidden_states=True).hidden_states[-2][:, 1:]
        merged = states.reshape(-1, 12, 2, 12, 2, states.shape[-1]).transpose(2, 3).reshape(len(states), 12, 12, -1)
        sub = merged[1:].reshape(high, wide, 12, 12, -1).transpose(1, 2).reshape(high * 12, wide * 12, -1)
        return torch.cat([self._lines(sub), self.glb_GN[0], self._lines(merged[0])])

    def _lines(self, rows: torch.Tensor) -> torch.Tensor:
        ends = self.sub_GN[0].expand(len(rows), 1, -1)
        return torch.cat([rows, ends], dim=1).reshape(-1, rows.shape[-1])


def count_tokens(height: int, width: int) -> int:
    """Count the tokens of a padded image by the published formula."""
    rows, columns = height // 336, width // 336
    return int((rows * columns + 1) * 144 + 1 + (rows + 1) * 12)


def process_image(image: Image.Image, num_crops: int) -> tuple[torch.Tensor, tuple[int, int]]:
    """Run the reference image processor: float32 [1 + num_crops, 3, 336, 336], and the padded (height, width)."""
    canvas = _pad(image.convert("RGB"), num_crops)
    pixels = torch.from_numpy(np.array(canvas)).permute(2, 0, 1).contiguous().float().div(255)
    pixels = (pixels - _MEAN) / _STD
    whole = functional.interpolate(pixels[None], size=(336, 336), mode="bicubic")
    height, width = pixels.shape[1:]
    grid = pixels.reshape(1, 3, height // 336, 336, width // 336, 336).permute(0, 2, 4, 1, 3, 5)
    crops = torch.cat([whole, grid.reshape(-1, 3, 336, 336)])
    padding = torch.zeros(1 + num_crops - len(crops), 3, 336, 336)
    return torch.cat([crops, padding]), (height, width)


def _pad(image: Image.Image, num_crops: int) -> Image.Image:
    portrait = image.width < image.height
    lying = image.transpose(Image.Transpose.TRANSPOSE) if portrait else image
    ratio = lying.width / lying.height
    scale = 1
    while scale * math.ceil(scale / ratio) <= num_crops:
        scale += 1
    scale -= 1
    height = int(scale * 336 / ratio)
    resized = lying.resize((scale * 336, height), Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (scale * 336, math.ceil(height / 336) * 336), (255, 255, 255))
    canvas.paste(resized, (0, int((canvas.height - height) / 2)))
    return canvas.transpose(Image.Transpose.TRANSPOSE) if portrait else canvas


def _make_model(kind: Any, config: Any, dtype: torch.dtype) -> Any:
    """Make a stock transformers model with unset weights and PyTorch's fused attention."""
    with no_init_weights():  # initialising 4 billion values that are overwritten anyway would be most of the load time
        return kind._from_config(config, attn_implementation="sdpa", dtype=dtype)


def _make_decoder_config(dims: ModelDims) -> Phi3Config:
    decoder = dims.decoder
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "max_position_embeddings", "rms_norm_eps", "tie_word_embeddings"),
    )
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": decoder.rope_theta}
    original = decoder.max_position_embeddings
    if (long := decoder.long_rope) is not None:
        original = long.original
        rope |= {"rope_type": "longrope", "original_max_position_embeddings": original}
        rope |= {"short_factor": list(long.short_factor), "long_factor": list(long.long_factor)}
        rope |= {} if long.attention_factor is None else {"attention_factor": long.attention_factor}
    return Phi3Config(
        **{name: getattr(decoder, name) for name in names},
        original_max_position_embeddings=original,
        rope_parameters=rope,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )


def _translate_vision_name(name: str) -> str:
    """Translate the name of a parameter of `_Vision` to its name in the checkpoint."""
    if not name.startswith("img_processor."):
        return VISION + name
    return CLIP + name.removeprefix("img_processor.").removeprefix("vision_model.")


def _load(module: nn.Module, checkpoint: Checkpoint, source: Callable[[str], str]) -> None:
    """Fill a module tensor by tensor. The last CLIP layer and post_layernorm may be missing: nothing reads them."""
    for name, parameter in module.named_parameters():
        wanted = source(name)
        if wanted in checkpoint.tensors:
            parameter.data.copy_(_view_tensor(checkpoint.read(wanted)).reshape(parameter.shape))


def _view_tensor(values: Array) -> torch.Tensor:
    """View an array as a tensor of the same type; bfloat16 as its bits first, since torch takes no such array."""
    if values.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(values.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(values)
