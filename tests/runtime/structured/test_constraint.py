"""Masks over tokens: what the detokeniser prints is in the format, and every spelling of it in tokens is allowed."""

import contextlib
import json
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from places import REAL_TOKENIZER

from phi3v.answer_format import AnswerFormat, Choices, JsonSchema, Regex
from phi3v.errors import MissingDependencyError, OptionError
from phi3v.export.nano.vocabulary import PHRASES
from phi3v.export.tokenizer import write_tokenizer
from phi3v.structured.constraint import Constraints, check_answer_format
from phi3v.structured.field_syntax import parse_fields
from phi3v.tokenizer import Tokenizer

REAL = REAL_TOKENIZER / "tokenizer.json"
EVERYTHING = "title, author str, year int?, price float, tags list[str], kind novel|poem, ok bool, scores list[float?]"
ODD = ["é😀", '"q"', "a\\b", "a\nb", "\x00", "\u2028", "</C>", "//x", "#", "<|end|>", "/a/", "%json", "\t", " lead"]
ODD += ["  two", "trail ", "🇩🇪", "\x7f", "a|b", "[x]", "-", "yes", "yes sir", "yes sir!", "▁", "<0x41>", "日本語"]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer with its constraints."""

    tokenizer: Tokenizer
    constraints: Constraints
    eos: frozenset[int]


def make_vocabulary(path: Path, size: int) -> Vocabulary:
    tokenizer = Tokenizer(path)
    eos = frozenset(tokenizer.control_id(name) for name in ("<|end|>", "<|endoftext|>", "<|assistant|>"))
    return Vocabulary(tokenizer, Constraints(tokenizer, size, eos), eos)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    folder = tmp_path_factory.mktemp("tiny")
    write_tokenizer(folder, 512)
    return make_vocabulary(folder / "tokenizer.json", 512)


@pytest.fixture(scope="session", params=["tiny", "phrases", "real"])
def vocabulary(
    request: pytest.FixtureRequest, tiny: Vocabulary, tmp_path_factory: pytest.TempPathFactory
) -> Vocabulary:
    """Single characters; nano's, with whole phrases of words; Phi-3-vision's own."""
    if request.param == "tiny":
        return tiny
    if request.param == "real":
        if not REAL.is_file():
            pytest.skip(f"the real tokenizer is not at {REAL}")
        return make_vocabulary(REAL, 32064)
    folder = tmp_path_factory.mktemp("phrases")
    write_tokenizer(folder, 512, PHRASES)
    return make_vocabulary(folder / "tokenizer.json", 512)


def ids_drawn(vocabulary: Vocabulary, answer_format: AnswerFormat, seed: int, most: int) -> Iterator[int]:
    """Ids drawn evenly from all that are allowed, to the end of the answer: no model is worse."""
    constraint, random = vocabulary.constraints.start(answer_format), np.random.default_rng(seed)
    for _ in range(most):
        token = int(random.choice(np.flatnonzero(constraint.allowed())))
        constraint.accept(token)
        if token in vocabulary.eos:
            return
        yield token
        if constraint.finished:
            assert set(np.flatnonzero(constraint.allowed())) == vocabulary.eos
            return
    raise AssertionError(f"no end after {most} tokens")


def drawn(vocabulary: Vocabulary, answer_format: AnswerFormat, seed: int, most: int = 10_000) -> str:
    stream = vocabulary.tokenizer.text_stream()
    ids = ids_drawn(vocabulary, answer_format, seed, most)
    return "".join([*map(stream.push, ids), stream.flush()])


def admits(vocabulary: Vocabulary, answer_format: AnswerFormat, ids: list[int]) -> bool:
    """Whether an answer of these ids may be given and end."""
    constraint = vocabulary.constraints.start(answer_format)
    for token in ids:
        if not constraint.allowed()[token]:
            return False
        constraint.accept(token)
    return all(constraint.allowed()[list(vocabulary.eos)])


def test_every_drawn_object_is_valid_and_within_its_bounds(vocabulary: Vocabulary) -> None:
    fields = parse_fields(EVERYTHING)
    for seed in range(12):
        text = drawn(vocabulary, fields, seed)
        value = fields.read(text)
        assert list(value) == json.loads(fields.schema)["required"]
        assert all(type(value[name]) is str and len(value[name]) <= 300 for name in ("title", "author"))
        assert value["year"] is None or (type(value["year"]) is int and abs(value["year"]) < 10**15)
        assert isinstance(value["price"], float | int)
        assert len(value["tags"]) <= 20
        assert value["kind"] in ("novel", "poem")
        assert "\n" not in text
        assert not re.search(r"[ ]{2}", re.sub(r'"(\\.|[^"\\])*"', "", text))


def test_choices_come_as_they_are(vocabulary: Vocabulary) -> None:
    answers = {drawn(vocabulary, Choices(ODD), seed) for seed in range(60)}
    assert answers <= set(ODD)
    assert len(answers) > 10


@pytest.mark.parametrize(
    "pattern",
    [
        "a/|/b",
        r"x\/y",
        "[0-9]{4}",
        "a*",
        "",
        " ?x",
        "  x",
        " *y",
        r"[A-Z][0-9]{1,9} (and|or) .{3}",
        "(?i)straße",
        r"^a|b$",
        "(?s).{9}",
    ],
)
def test_a_drawn_text_matches_its_pattern_as_a_whole(vocabulary: Vocabulary, pattern: str) -> None:
    for seed in range(8):
        assert re.fullmatch(pattern, drawn(vocabulary, Regex(pattern), seed))


@pytest.mark.parametrize(
    "text", [*(t for t in ODD if t != "▁"), "", 'He said: "ALONE" — 日本語 😀\n\n  end ', "x" * 100]
)
def test_the_models_own_spelling_of_a_text_is_allowed(vocabulary: Vocabulary, text: str) -> None:
    """With the space in front that the tokenizer adds, and without it where the text begins with none."""
    ids = vocabulary.tokenizer.encode_text(text)
    spellings = [ids]
    if text and text[0] != " " and vocabulary.tokenizer.piece(ids[0]) == b" ":
        spellings.append(ids[1:])
    for spelling in spellings:
        assert admits(vocabulary, Regex("(?s).*"), spelling)
        if text:
            assert admits(vocabulary, Choices(["something else", text]), spelling)
            assert not admits(vocabulary, Choices(["something else", text + "!"]), spelling)


def test_one_leading_space_is_the_detokenisers_and_two_are_one(vocabulary: Vocabulary) -> None:
    x = vocabulary.tokenizer.encode_text("x")
    space = vocabulary.tokenizer.encode_text("")[:1] or [vocabulary.tokenizer.control_id("▁")]
    bare = [token for token in range(400) if vocabulary.tokenizer.piece(token) == b"x"][:1]
    for answer_format, allowed in ((Regex("x"), ([0, 1])), (Regex(" x"), [2]), (Regex(" ?x"), [0, 1, 2])):
        spelled = [admits(vocabulary, answer_format, space * count + bare) for count in range(4)]
        assert [count for count, good in enumerate(spelled) if good] == allowed
    assert admits(vocabulary, Regex("x"), x)


def test_control_tokens_are_never_inside_an_answer_and_end_it_only_when_it_is_whole(vocabulary: Vocabulary) -> None:
    control = [
        n for n in range(len(vocabulary.constraints.start(Regex("a")).allowed())) if not vocabulary.tokenizer.piece(n)
    ]
    constraint = vocabulary.constraints.start(Regex("(?s).{3,5}"))
    letter = next(n for n in range(400) if vocabulary.tokenizer.piece(n) == b"z")
    for length in range(5):
        mask = constraint.allowed()
        assert {n for n in control if mask[n]} == (vocabulary.eos if length >= 3 else set())
        assert not constraint.finished
        constraint.accept(letter)
    assert constraint.finished
    assert set(np.flatnonzero(constraint.allowed())) == vocabulary.eos


def test_a_character_of_several_byte_tokens_is_whole(vocabulary: Vocabulary) -> None:
    bytes_of = {vocabulary.tokenizer.piece(n): n for n in range(3, 259)}
    face = "😀".encode()
    constraint = vocabulary.constraints.start(Regex("😀|😁"))
    for number in range(3):
        constraint.accept(bytes_of[face[number : number + 1]])
        assert not constraint.allowed()[list(vocabulary.eos)].any()
    allowed = {vocabulary.tokenizer.piece(int(n)) for n in np.flatnonzero(constraint.allowed())}
    assert allowed == {"😀".encode()[3:], "😁".encode()[3:]}


def test_a_mask_of_the_whole_vocabulary_takes_a_small_part_of_a_step(vocabulary: Vocabulary) -> None:
    began = time.process_time()
    count = sum(1 for seed in range(3) for _ in ids_drawn(vocabulary, parse_fields(EVERYTHING), seed, 10_000))
    assert (time.process_time() - began) / count < 0.01  # measured: 0.1 ms, draw included; a real step takes 100 ms


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


ANYTHING: dict[str, Any] = {"$defs": {"A": {"$ref": "#/$defs/A"}}, "$ref": "#/$defs/A"}
REFUSED: list[tuple[Any, str]] = [
    ({"uniqueItems": True}, "uniqueItems"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
    ({"not": {}}, "not"),
    (False, "not"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
    ({"type": "strin"}, "strin"),
    ({"type": "string", "format": "zip"}, "zip"),
    ({"type": "integer", "minimum": 5, "maximum": 2}, r"minimum \(5\) is greater than maximum \(2\)"),
    ({"type": "string", "minLength": 5, "maxLength": 2}, r"minLength \(5\)"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "incompatible types"),
    ({"type": "object", "properties": {}, "required": ["z"], "additionalProperties": False}, "'z'"),
    ({"enum": []}, "empty"),
    ({"$ref": "https://example.org/x.json"}, r"nothing is fetched.*example.org.*\$defs"),
    ({"$ref": "file:///etc/passwd"}, "nothing is fetched"),
    ({"$schema": "https://example.org/odd", "type": "string"}, "nothing is fetched"),
    ({"$ref": "#/$defs/Nope"}, "Nope"),
    (ANYTHING, "admits nothing"),
    ({"type": "string", "pattern": "("}, "wrong at character 1: unclosed group"),
    ({"type": "string", "pattern": "a(?=b)"}, "look-ahead"),
    ({"x-guidance": {"lenient": True}}, "x-guidance"),
    ('{"const": "\\ud800"}', "escape"),
    (deep(200), "recursion limit"),
    ({"type": "integer", "multipleOf": 99999989}, "multipleOf 99999989"),
    ({"allOf": [{"multipleOf": 9973}, {"multipleOf": 9967}]}, "multipleOf 9973, 9967"),
    ({"anyOf": [{"multipleOf": 10**17 + n} for n in range(800)]}, "multipleOf 1000000000000"),
    ({"type": "integer", "multipleOf": 10**60}, "multipleOf"),
    ({"type": "integer", "multipleOf": True}, "multipleOf"),
    ({"properties": 3}, "properties"),
    ({"required": 3}, "required"),
    ({"properties": {"a": {}}, "required": [["a"]]}, "required"),
    ({"items": "x"}, "schema"),
    (deep(300), "nested too deeply|recursion limit"),
    ({"type": "string", "pattern": "(.{1,100}){1,100}"}, "too large or too complex"),
]


@pytest.mark.parametrize(("schema", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_a_schema_that_cannot_be_kept_is_refused_soon_and_by_name(tiny: Vocabulary, schema: Any, said: str) -> None:
    began = time.process_time()
    with pytest.raises(OptionError, match=said) as caught:
        drawn(tiny, JsonSchema(schema), 1)
    assert time.process_time() - began < 10
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    "schema",
    [
        deep(40),
        {"enum": [f"value {n}" for n in range(8_000)]},
        {"type": "object", "properties": {f"p{n}": {"type": "boolean"} for n in range(300)}},
        {"$defs": {"A": {"type": "array", "items": {"$ref": "#/$defs/A"}, "maxItems": 2}}, "$ref": "#/$defs/A"},
        {"type": "array", "items": {"type": "integer"}, "maxItems": 10**6},
        {"const": {"a//b": ["#", None, 'é"\n\x7f', True]}},
        {"type": "string", "format": "date"},
        {"type": "string", "pattern": "^(a+)+$"},
        {"type": ["string", "null"], "maxLength": 3},
        {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 100},
    ],
    ids=range(10),
)
def test_large_and_odd_schemas_are_kept(tiny: Vocabulary, schema: Any) -> None:
    began = time.process_time()
    for seed in range(3):
        json.loads(drawn(tiny, JsonSchema(schema), seed, 50_000))
    assert time.process_time() - began < 20


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("[", "wrong at character 1: unclosed character class"),
        ("ab(c", "wrong at character 3: unclosed group"),
        ("é(", "wrong at character 2"),
        ("ab\ncd(e", "wrong at character 6"),
        ("a/b/(", "wrong at character 5"),
        ("a{2,1}", "repetition count"),
        (r"(a)\1", "back-?references"),
        ("(?=x)y", "look-ahead"),
        ("a$b", "lookaround"),
        (r"\bfoo", "lookaround"),
        ("(.{1,1000}){1,1000}", "too large or too complex"),
    ],
)
def test_a_pattern_that_cannot_be_kept_is_refused_with_its_place(tiny: Vocabulary, pattern: str, said: str) -> None:
    began = time.process_time()
    with pytest.raises(OptionError, match=said) as caught:
        [drawn(tiny, Regex(pattern), seed) for seed in range(10)]
    assert time.process_time() - began < 10
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["(.{1,1000}){1,1000}", "(.*a.{30}.*b.{30})+", ".{0,100000}", "((a?){50}){50}a"])
def test_no_pattern_takes_long(vocabulary: Vocabulary, pattern: str) -> None:
    began = time.process_time()
    with contextlib.suppress(OptionError, AssertionError):
        drawn(vocabulary, Regex(pattern), 1, 500)
    assert time.process_time() - began < 5


def test_one_answers_states_do_not_count_against_the_next(vocabulary: Vocabulary) -> None:
    hungry = Regex("(.*a.{30}.*b.{30})+")
    for seed in range(25):
        constraint, random = vocabulary.constraints.start(hungry), np.random.default_rng(seed)
        for _ in range(12):
            constraint.accept(int(random.choice(np.flatnonzero(constraint.allowed()))))


def test_objects_are_closed_unless_the_schema_says_otherwise(tiny: Vocabulary) -> None:
    inner = {"type": "object", "properties": {"b": {"type": "null"}}}
    schema = {"type": "object", "properties": {"a": inner}, "required": ["a"]}
    texts = {drawn(tiny, JsonSchema(schema), seed).replace(" ", "") for seed in range(40)}
    assert texts <= {'{"a":{}}', '{"a":{"b":null}}'}
    wants = {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a", "b"]}
    assert "b" in json.loads(drawn(tiny, JsonSchema(wants), 1, 100_000))
    opened = schema | {"additionalProperties": {"type": "null"}, "maxProperties": 2}
    assert any(len(json.loads(drawn(tiny, JsonSchema(opened), seed))) == 2 for seed in range(40))
    base = {"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]}
    other = {"properties": {"y": {"type": "null"}}, "required": ["y"]}
    composed = JsonSchema({"allOf": [base, other], "maxProperties": 2})
    assert json.loads(drawn(tiny, composed, 0)) == {"x": None, "y": None}


def test_a_format_is_checked_without_a_model() -> None:
    check_answer_format(parse_fields(EVERYTHING))
    for wrong in (Regex("["), JsonSchema({"uniqueItems": True})):
        with pytest.raises(OptionError):
            check_answer_format(wrong)


def test_without_llguidance_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(MissingDependencyError, match=r"pip install .*\[structured\]'"):
        check_answer_format(Regex("a"))


def test_a_vocabulary_that_cannot_spell_the_answer_is_an_error(vocabulary: Vocabulary) -> None:
    class Poor(Tokenizer):
        def __init__(self) -> None: ...

        def piece(self, token_id: int) -> bytes:
            return {1: b" ", 2: b"a", 3: b"b"}.get(token_id, b"")

    constraints = Constraints(Poor(), 10, frozenset([9]))
    assert constraints.start(Regex("a|b")).allowed().tolist() == [False, True, True, True] + [False] * 6
    with pytest.raises(OptionError, match="cannot spell"):
        constraints.start(Regex("c"))
    with pytest.raises(OptionError, match="end-of-turn"):
        Constraints(Poor(), 10, frozenset())
