"""Text <-> ids with the model folder's own `tokenizer.json`, through Hugging Face's tokenizers library.

genai's tokenizer is not used: it ends a prompt at a NUL, splits "\\r\\n" and a literal "▁" unlike the reference,
and its stream loses the text after an invalid byte (measured with genai 0.18).
"""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as HfTokenizer

from .errors import ModelFolderError

_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
_ALWAYS_CONTROL = ("<s>", "</s>", "<unk>")
"""Llama's own control tokens. Phi-3-vision's tokenizer.json marks "</s>" as ordinary; here it is control too."""


class Tokenizer:
    """The tokenizer of one model folder."""

    def __init__(self, path: Path) -> None:
        self._plain = _load(path)
        self._plain.add_special_tokens(
            [
                AddedToken(t, special=True, normalized=False)
                for t in _ALWAYS_CONTROL
                if self._plain.token_to_id(t) is not None
            ]
        )
        self._plain.encode_special_tokens = True
        self.bos_ids: list[int] = self._plain.encode("").ids
        """Ids in front of every chunk: [1], or [] if the tokenizer adds no BOS."""
        added = self._plain.get_added_tokens_decoder()
        self._control_ids = {token_id for token_id, token in added.items() if token.special}
        self._control_texts = {token.content for token in added.values() if token.special}
        self._strips_right = {token.content for token in added.values() if token.rstrip}

    def encode_text(self, text: str) -> list[int]:
        """Ids of valid Unicode `text` as plain text, without BOS: control tokens spelled out in it stay text."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def control_id(self, token: str) -> int:
        """Id of a control token such as "<|end|>"."""
        found = self._plain.token_to_id(token)
        if found is None:
            raise ModelFolderError(f"tokenizer.json has no {token} token; this is not a Phi-3-vision tokenizer")
        return int(found)

    def has_control_text(self, text: str) -> bool:
        """Whether `text` spells a control token."""
        return any(token in text for token in self._control_texts)

    def strips_right(self, token: str) -> bool:
        """Whether the reference drops white space after this control token."""
        return token in self._strips_right

    def piece(self, token_id: int) -> bytes:
        """UTF-8 bytes this token stands for, b"" for control tokens and ids outside the vocabulary."""
        token = self._plain.id_to_token(token_id)
        if token is None or token_id in self._control_ids:
            return b""
        if byte := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(byte[1], 16)])
        return token.replace("▁", " ").encode()

    def text_stream(self) -> IncrementalDecoder:
        """A fresh decoder for one answer."""
        return IncrementalDecoder(self)


class IncrementalDecoder:
    """Decodes ids one by one, as Llama's decoder does all at once: bytes fused, one leading space dropped.

    Joined, the pieces equal the tokenizers library's `decode` wherever the bytes are valid UTF-8; an invalid byte
    becomes one U+FFFD here, while the library also replaces the valid bytes beside it.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True

    def push(self, token_id: int) -> str:
        """Text that this token completed; "" while it ends inside a character."""
        text = self._utf8.decode(self._tokenizer.piece(token_id))
        if self._at_start and text:
            self._at_start = False
            return text.removeprefix(" ")
        return text

    def flush(self) -> str:
        """What is still held back: U+FFFD when the answer ended inside a character, else ""."""
        return self._utf8.decode(b"", final=True)


def _load(path: Path) -> HfTokenizer:
    try:
        return HfTokenizer.from_file(str(path))
    except Exception as exc:  # the library raises bare Exception
        raise ModelFolderError(
            f"{path} is not a readable tokenizer.json ({exc}); fetch or export the model again"
        ) from exc
