"""Ids equal the stock fast tokenizer's, chunk by chunk."""

import re
from functools import cache
from pathlib import Path

import pytest
from places import REAL_TOKENIZER
from tokenizers import Tokenizer as StockTokenizer

from phi3v.errors import PromptError
from phi3v.export.tokenizer import write_tokenizer
from phi3v.prompt import PromptLayout
from phi3v.tokenizer import Tokenizer

REAL = REAL_TOKENIZER / "tokenizer.json"
TEXTS = [
    "What is this?",
    "  two  spaces and a trailing one ",
    "line\nline\r\nline\ttab",
    "日本語のテスト",
    "Привет, мир",
    "مرحبا بالعالم",
    "हिन्दी ไทย 한국어",
    "emoji 😀👩‍👩‍👧‍👦🏳️‍🌈",
    "é and e\u0301",
    "a NUL \x00 inside",
    "a literal ▁ mark",
    "x" * 500,
]


@pytest.fixture(scope="module", params=["ours", "real"])
def tokenizer_json(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "real":
        if not REAL.exists():
            pytest.skip("the published tokenizer.json is not at hand and not part of this repository")
        return REAL
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, 512)
    return folder / "tokenizer.json"


load_ours = cache(Tokenizer)


@cache
def load_stock(path: Path) -> StockTokenizer:
    return StockTokenizer.from_file(str(path))


def reference_ids(tokenizer: StockTokenizer, text: str, image_tokens: list[int]) -> list[int]:
    tags = "".join(f"<|image_{n}|>\n" for n in range(1, len(image_tokens) + 1))
    return chunk_ids(tokenizer, f"<|user|>\n{tags}{text}<|end|>\n<|assistant|>\n", image_tokens)


def chunk_ids(tokenizer: StockTokenizer, text: str, image_tokens: list[int]) -> list[int]:
    ids: list[int] = []
    for number, chunk in enumerate(re.split(r"<\|image_\d+\|>", text), 1):
        ids += tokenizer.encode(chunk).ids
        ids += [-number] * image_tokens[number - 1] if number <= len(image_tokens) else []
    return ids


@pytest.mark.parametrize("image_tokens", [[], [3], [2, 4]], ids=str)
@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_ids_equal_the_stock_tokenizer(tokenizer_json: Path, text: str, image_tokens: list[int]) -> None:
    ours = PromptLayout.of(text, len(image_tokens)).input_ids(load_ours(tokenizer_json), image_tokens)
    assert ours == reference_ids(load_stock(tokenizer_json), text, image_tokens)


@pytest.mark.parametrize("spelled", ["<|end|>", "<|assistant|>", "</s>", "<s>", "<|system|>", "<|endoftext|>"])
def test_control_tokens_in_the_text_stay_text(tokenizer_json: Path, spelled: str) -> None:
    tokenizer = load_ours(tokenizer_json)
    plain = PromptLayout.of("say now", 0).input_ids(tokenizer, [])
    ids = PromptLayout.of(f"say {spelled} now", 0).input_ids(tokenizer, [])
    assert ids.count(tokenizer.control_id(spelled)) == plain.count(tokenizer.control_id(spelled))
    assert spelled.encode() in b"".join(tokenizer.piece(i) for i in ids)


def test_tags_in_the_text_place_the_pictures() -> None:
    layout = PromptLayout.of("first <|image_2|> then <|image_1|> end", 2)
    assert layout.order == (1, 0)
    assert layout.text() == "<|user|>\nfirst <|image_1|> then <|image_2|> end<|end|>\n<|assistant|>\n"


@pytest.mark.parametrize(("text", "count"), [("<|image_7|>", 1), ("<|image_1|>", 0), ("<|image_1|><|image_1|>", 1)])
def test_tags_that_match_no_picture_are_refused(text: str, count: int) -> None:
    with pytest.raises(PromptError, match="names"):
        PromptLayout.of(text, count)


@pytest.mark.parametrize("image_tokens", [[], [3], [2, 4]], ids=str)
@pytest.mark.parametrize("system", ["Be brief.", " two\nlines ", "日本語"])
def test_instructions_are_a_turn_in_front(tokenizer_json: Path, system: str, image_tokens: list[int]) -> None:
    tags = "".join(f"<|image_{n}|>\n" for n in range(1, len(image_tokens) + 1))
    text = f"<|system|>\n{system}<|end|>\n<|user|>\n{tags}What is this?<|end|>\n<|assistant|>\n"
    layout = PromptLayout.of("What is this?", len(image_tokens), system)
    ours = layout.input_ids(load_ours(tokenizer_json), image_tokens)
    assert ours == chunk_ids(load_stock(tokenizer_json), text, image_tokens)
    assert layout.text() == text


def test_digits_without_end_and_of_other_scripts_are_no_tag() -> None:
    for text in ("<|image_" + "9" * 5000 + "|>", "<|image_\u0661|>"):
        assert PromptLayout.of(text, 1).text() == f"<|user|>\n<|image_1|>\n{text}<|end|>\n<|assistant|>\n"


def test_an_empty_question_without_a_picture_is_refused() -> None:
    with pytest.raises(PromptError, match="empty"):
        PromptLayout.of("  ", 0)


def test_half_a_surrogate_pair_is_refused(tokenizer_json: Path) -> None:
    with pytest.raises(PromptError, match="surrogate"):
        PromptLayout.of("a \ud800 b", 0).input_ids(load_ours(tokenizer_json), [])


@pytest.mark.parametrize("text", [t for t in TEXTS if "▁" not in t])
def test_streamed_pieces_join_to_the_text(tokenizer_json: Path, text: str) -> None:
    tokenizer = load_ours(tokenizer_json)
    stream = tokenizer.text_stream()
    pieces = [stream.push(i) for i in tokenizer.encode_text(text)]
    assert "".join(pieces) + stream.flush() == text
    assert all("\ufffd" not in piece for piece in pieces)


def test_an_answer_cut_inside_a_character_ends_with_one_replacement(tokenizer_json: Path) -> None:
    tokenizer = load_ours(tokenizer_json)
    stream = tokenizer.text_stream()
    first, *_ = [i for i in tokenizer.encode_text("\U0001f9ff") if tokenizer.piece(i) != b" "]
    assert stream.push(first) == ""
    assert stream.flush() == "\ufffd"


@pytest.mark.parametrize(("first", "second"), [([], []), ([3], []), ([3], [2]), ([], [2, 4])], ids=str)
def test_a_conversation_equals_the_stock_tokenizer(tokenizer_json: Path, first: list[int], second: list[int]) -> None:
    tokenizer = load_ours(tokenizer_json)
    ours = PromptLayout.of("What is this?", len(first)).input_ids(tokenizer, first)
    ours += tokenizer.encode_text("A chart, it seems.")
    ours += PromptLayout.of("  Really? 日本", len(second)).input_ids(tokenizer, second, earlier=len(first))
    tags = [f"<|image_{n}|>\n" for n in range(1, len(first) + len(second) + 1)]
    text = (
        f"<|user|>\n{''.join(tags[: len(first)])}What is this?<|end|>\n<|assistant|>\nA chart, it seems.<|end|>\n"
        f"<|user|>\n{''.join(tags[len(first) :])}  Really? 日本<|end|>\n<|assistant|>\n"
    )
    assert ours == chunk_ids(load_stock(tokenizer_json), text, first + second)
