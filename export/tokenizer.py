"""A small Llama-style tokenizer for checkpoints of our own: byte fallback, ASCII characters, Phi-3's special tokens.

It reads and writes any text (characters outside ASCII as bytes) and behaves as the real tokenizer does around special
tokens. Ids follow the real layout: special tokens from 32000 on when the vocabulary is that large.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import OptionError

_CONTROL = ("<unk>", "<s>", "</s>")
_SPACE = "▁"
_CHARACTERS = tuple(chr(code) for code in range(33, 127))
_FIRST_SPECIAL = 32000

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|assistant|>",
    *(f"<|placeholder{n}|>" for n in range(1, 5)),
    "<|system|>",
    "<|end|>",
    "<|placeholder5|>",
    "<|placeholder6|>",
    "<|user|>",
    *(f"<|placeholder{n}|>" for n in range(7, 40)),
    "<|image|>",
)
"""In the order of their ids, as the real tokenizer has them."""

_KEEPS_SPACES_AFTER = {"<unk>", "<s>", "<|endoftext|>", "<|system|>", "<|end|>", "<|user|>"}
"""Tokens without the `rstrip` flag; the others swallow white space on their right."""

BASE_TOKENS = len(_CONTROL) + 256 + 1 + len(_CHARACTERS)
SMALLEST_VOCABULARY = BASE_TOKENS + len(SPECIAL_TOKENS)

_CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt and messages[-1]['role'] != 'assistant' %}{{- '<|assistant|>\n' -}}"
    "{% endif %}"
)


def write_tokenizer(folder: Path, vocab_size: int, phrases: Sequence[str] = ()) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json for a vocabulary of that size.

    `phrases` become single tokens behind the special ones; the vocabulary's size includes them.
    """
    vocab_size -= len(phrases)
    added = _added_tokens(vocab_size) + _phrase_tokens(vocab_size, phrases)
    _write(folder / "tokenizer.json", _tokenizer(vocab_size, added))
    _write(folder / "tokenizer_config.json", _tokenizer_config(added))
    names = {"bos_token": "<s>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>"}
    _write(folder / "special_tokens_map.json", names)


def first_special_id(vocab_size: int) -> int:
    """Id of `<|endoftext|>`; the other special tokens follow in order."""
    if vocab_size < SMALLEST_VOCABULARY:
        raise OptionError(f"vocab_size is {vocab_size}; the tokenizer needs {SMALLEST_VOCABULARY} or more")
    return min(_FIRST_SPECIAL, vocab_size - len(SPECIAL_TOKENS))


def _vocabulary(vocab_size: int) -> dict[str, int]:
    """Pieces; there are no merges. Ids between the characters and the special tokens get pieces no text yields."""
    pieces = [*_CONTROL, *(f"<0x{byte:02X}>" for byte in range(256)), _SPACE, *_CHARACTERS]
    fill = first_special_id(vocab_size) - len(pieces)
    pieces += [f"{_SPACE}x{number}" for number in range(fill)]
    return {piece: number for number, piece in enumerate(pieces)}


def _added_tokens(vocab_size: int) -> list[dict[str, Any]]:
    first = first_special_id(vocab_size)
    numbered = [*enumerate(_CONTROL), *enumerate(SPECIAL_TOKENS, start=first)]
    return [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": token not in _KEEPS_SPACES_AFTER,
            "normalized": False,
            "special": token != "</s>",
        }
        for number, token in numbered
    ]


def _phrase_tokens(first: int, phrases: Sequence[str]) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    return [{"id": number, "content": phrase, **flags} for number, phrase in enumerate(phrases, start=first)]


def _tokenizer(vocab_size: int, added: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": _SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": _bos_processor(),
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": _vocabulary(vocab_size),
            "merges": [],
        },
    }


def _bos_processor() -> dict[str, Any]:
    """`<s>` in front of every text, as `add_bos_token` asks."""
    bos = [{"SpecialToken": {"id": "<s>", "type_id": n}} for n in (0, 1)]
    text = [{"Sequence": {"id": name, "type_id": n}} for n, name in enumerate("AB")]
    return {
        "type": "TemplateProcessing",
        "single": [bos[0], text[0]],
        "pair": [bos[0], text[0], bos[1], text[1]],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }


def _tokenizer_config(added: list[dict[str, Any]]) -> dict[str, Any]:
    decoder = {str(token["id"]): {key: token[key] for key in token if key != "id"} for token in added}
    return {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": decoder,
        "bos_token": "<s>",
        "chat_template": _CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|endoftext|>",
        "legacy": False,
        "model_max_length": 131072,
        "pad_token": "<|endoftext|>",
        "padding_side": "right",
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
        "use_default_system_prompt": False,
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
