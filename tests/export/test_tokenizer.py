"""The tokenizer of synthetic checkpoints reads any text and treats special tokens as the real one does."""

import json
from pathlib import Path

import pytest
from places import REAL_TOKENIZER
from tokenizers import Tokenizer

from phi3v.errors import OptionError
from phi3v.export.synthetic import full_dims
from phi3v.export.tokenizer import SMALLEST_VOCABULARY, write_tokenizer

pytestmark = pytest.mark.torch

REAL = REAL_TOKENIZER / "tokenizer.json"


def load(folder: Path, vocab_size: int) -> Tokenizer:
    write_tokenizer(folder, vocab_size)
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@pytest.mark.parametrize("text", ["What is this?", "naïve 日本 🙂", "a\n\nb  c", "x" * 50])
@pytest.mark.parametrize("vocab_size", [SMALLEST_VOCABULARY, 512, 32064])
def test_text_survives_the_round_trip(tmp_path: Path, vocab_size: int, text: str) -> None:
    tokenizer = load(tmp_path, vocab_size)
    encoded = tokenizer.encode(text)
    assert encoded.ids[0] == 1
    assert max(encoded.ids) < vocab_size
    assert tokenizer.decode(encoded.ids) == text


def test_special_tokens_are_one_id_each(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, 512)
    ids = tokenizer.encode("<|user|>\nHi<|end|>\n<|assistant|>\n").ids
    for token in ("<|user|>", "<|end|>", "<|assistant|>"):
        assert ids.count(tokenizer.token_to_id(token)) == 1


@pytest.mark.skipif(not REAL.is_file(), reason=f"the real tokenizer is not at {REAL}")
def test_special_tokens_have_the_real_ids_and_flags_at_full_size(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, full_dims().decoder.vocab_size)
    ours, real = (json.loads(file.read_text())["added_tokens"] for file in (tmp_path / "tokenizer.json", REAL))
    without_eos = [[token for token in tokens if token["content"] != "</s>"] for tokens in (ours, real)]
    assert without_eos[0] == without_eos[1]


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=str(SMALLEST_VOCABULARY)):
        write_tokenizer(tmp_path, 100)
