"""Turns an answer format into a mask over tokens. The only file that imports llguidance.

We apply the mask ourselves (sampling.py), so a format means the same alone, in a batch, in a session and on the PyTorch
reference. The mask is exact in text: the text that tokenizer.py decodes from an answer is always in the format, and
the model may spell it in any tokens.
"""

from __future__ import annotations

import importlib
import re
from bisect import bisect_left
from types import ModuleType
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..answer_format import AnswerFormat, Choices, JsonSchema, Regex
from ..errors import MissingDependencyError, OptionError
from ..machine.install import install_line
from ..tokenizer import Tokenizer
from .json_schema import prepare_schema

_LIMITS = {"max_lexer_states": 50_000, "verbose_errors": False}
"""About 1 kB per state: 50 MB. llguidance's other default limits bound only milliseconds."""

_NO_FORCING = '%llguidance {"no_forcing": true}\n'
"""By default llguidance allows forced text in one spelling only, and the model might choose another."""

_ADMITS_NOTHING = "the answer format admits nothing: no text satisfies it, or the model's vocabulary cannot spell it"


class Constraints:
    """Compiles answer formats for one model: 0.1 s for its vocabulary, then some milliseconds per answer.

    Answers share nothing compiled: copies of llguidance's matchers share a lexer, so one answer's states would count
    against the next one's limit. `eos_token_ids` end an answer; the masks have `vocab_size` entries.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: frozenset[int]) -> None:
        self._llguidance = import_llguidance()
        if not eos_token_ids:
            raise OptionError("this model has no end-of-turn token, so no answer in a format could end")
        pieces = [tokenizer.piece(token_id) for token_id in range(vocab_size)]
        self._begins_with_space = np.array([piece.startswith(b" ") for piece in pieces], dtype=np.bool_)
        self._tokenizer = self._llguidance.LLTokenizer(
            self._llguidance.TokenizerWrapper(_Vocabulary(pieces, eos_token_ids)), eos_token=sorted(eos_token_ids)
        )

    def start(self, answer_format: AnswerFormat) -> GrammarConstraint:
        """The constraint for one answer. Raises OptionError for a format that cannot be kept."""
        if isinstance(answer_format, JsonSchema):  # never begins with a space itself
            bare = spaced = self._matcher('" "? answer', answer_format)
        else:
            bare, spaced = self._matcher("answer", answer_format), self._matcher('" " answer', answer_format)
        constraint = GrammarConstraint(bare, spaced, self._begins_with_space)
        constraint.allowed()  # refuses a format that admits no answer, or that explodes at once, before anything runs
        return constraint

    def _matcher(self, start: str, answer_format: AnswerFormat) -> Any:
        grammar = _grammar(start, answer_format, self._llguidance)
        limits = self._llguidance.LLParserLimits(**_LIMITS)
        matcher = self._llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise OptionError(_explain(matcher.get_error(), answer_format))
        return matcher


class GrammarConstraint:
    """Which tokens one answer may have next. Raises OptionError if the format exceeds llguidance's limits.

    The detokeniser drops one leading space of an answer. So a first token that begins with a space goes on with
    `spaced`, any other with `bare`.
    """

    def __init__(self, bare: Any, spaced: Any, begins_with_space: npt.NDArray[np.bool_]) -> None:
        self._bare = bare
        self._spaced = spaced
        self._begins_with_space = begins_with_space
        self._matcher: Any = None

    def allowed(self) -> npt.NDArray[np.bool_]:
        """bool [vocab]: the ids that may come next, end-of-turn ids where the answer may end."""
        if self._matcher is not None:
            mask = self._mask(self._matcher)
        else:
            mask = self._mask(self._bare) & ~self._begins_with_space | self._mask(self._spaced)
        if not mask.any():
            raise OptionError(_ADMITS_NOTHING)
        return mask

    def accept(self, token_id: int) -> None:
        """Advance by the token that was chosen."""
        if self._matcher is None:
            self._matcher = self._spaced if self._begins_with_space[token_id] else self._bare
        if not self._matcher.consume_token(token_id):
            raise OptionError(_explain(self._matcher.get_error()))

    @property
    def finished(self) -> bool:
        """Whether the answer is complete and nothing may follow."""
        return self._matcher is not None and self._matcher.is_stopped() and self._matcher.is_accepting()

    def _mask(self, matcher: Any) -> npt.NDArray[np.bool_]:
        bits = np.frombuffer(matcher.compute_bitmask(), dtype=np.uint8)
        if matcher.is_error():
            raise OptionError(_explain(matcher.get_error()))
        mask = np.unpackbits(bits, count=len(self._begins_with_space), bitorder="little")
        return mask.view(np.bool_)


_known: WeakKeyDictionary[Tokenizer, Constraints] = WeakKeyDictionary()


def constraint_for(
    tokenizer: Tokenizer, vocab_size: int, eos_token_ids: frozenset[int], answer_format: AnswerFormat
) -> GrammarConstraint:
    """A fresh constraint for one answer. The first one for a tokenizer prepares its vocabulary. Raises OptionError."""
    if tokenizer not in _known:
        _known[tokenizer] = Constraints(tokenizer, vocab_size, eos_token_ids)
    return _known[tokenizer].start(answer_format)


def check_answer_format(answer_format: AnswerFormat) -> None:
    """Raise OptionError for a format that cannot be kept; needs no model."""
    llguidance = import_llguidance()
    grammar = _grammar("answer", answer_format, llguidance)
    limits = llguidance.LLParserLimits(**_LIMITS)
    if problem := llguidance.LLMatcher.validate_grammar(grammar, limits=limits):
        raise OptionError(_explain(problem, answer_format))


def import_llguidance() -> ModuleType:
    """Import llguidance. Raises MissingDependencyError that names the extra."""
    try:
        return importlib.import_module("llguidance")
    except ImportError as exc:
        raise MissingDependencyError(
            f"answer formats need llguidance, which cannot be imported ({exc}); run: {install_line('structured')}"
        ) from exc


class _Vocabulary:
    """A vocabulary as llguidance reads it. Control and end-of-turn tokens get names that no text can spell."""

    bos_token_id = None

    def __init__(self, pieces: list[bytes], eos_token_ids: frozenset[int]) -> None:
        control = [not piece or token_id in eos_token_ids for token_id, piece in enumerate(pieces)]
        self.tokens = [b"<%d>" % n if control[n] else piece for n, piece in enumerate(pieces)]
        self.special_token_ids = [n for n in range(len(pieces)) if control[n]]
        self.eos_token_id = min(eos_token_ids)

    def __call__(self, text: object) -> list[int]:
        raise NotImplementedError("without forced text nothing is tokenised")


def _grammar(start: str, answer_format: AnswerFormat, llguidance: ModuleType) -> str:
    """A grammar in llguidance's dialect of Lark, whose rule `start` leads to `answer`."""
    match answer_format:
        case JsonSchema(schema):
            answer = f"answer: %json {prepare_schema(schema)}"
        case Regex(pattern):
            answer = f"answer: ANSWER\nANSWER: /{llguidance.regex_to_lark(pattern, '')}/"
        case Choices(choices):
            answer = f"answer: ANSWER\nANSWER: /{'|'.join(map(_literal, choices))}/"
    return f"{_NO_FORCING}start: {start}\n{answer}"


def _literal(text: str) -> str:
    return "".join(c if c.isascii() and c.isalnum() else f"\\x{{{ord(c):X}}}" for c in text)


_REGEX_ERROR = re.compile(r"regex parse error:\n.*?\n(?P<carets> *\^+)\n.*?error: (?P<problem>[^\n]*)", re.DOTALL)
_NOISE = re.compile(r"^(at )?\d+\(\d+\): |failed to compile JSON schema: |invalid regex .*\(in regex\): ", re.DOTALL)


def _explain(problem: str, answer_format: AnswerFormat | None = None) -> str:
    """llguidance's message in one line, without its copy of the grammar."""
    if found := _REGEX_ERROR.search(problem):
        at = len(found["carets"]) - len(found["carets"].lstrip()) - 3  # it indents the pattern by four
        if isinstance(answer_format, Regex):
            at = _find_place(at, answer_format.pattern)
        return f"the regular expression is wrong at character {at}: {found['problem']}"
    text = re.split(r"\n +\d+ \| |\n<|<backtrace>", problem)[0].strip()
    while text != (text := _NOISE.sub("", text)):
        pass
    if "retriev" in text:
        return f"the JSON schema points outside itself, and nothing is fetched ({text}); put what it needs under $defs"
    if "panic" in text or "lexer error" in text or "limit" in text or "max is" in text:
        return f"the answer format is too large or too complex ({text}); bound its repetitions, or make it smaller"
    if "NoExtension" in text:
        return _ADMITS_NOTHING
    return f"the answer format cannot be kept: {text}"


def _find_place(at: int, pattern: str) -> int:
    """The position in the given pattern, from the position in the pattern escaped for Lark."""
    escaped = import_llguidance().regex_to_lark
    return bisect_left(range(len(pattern)), at, key=lambda length: len(escaped(pattern[:length], "")))
