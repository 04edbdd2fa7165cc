"""KV caches of prompts that were read, kept for later questions about the same images or in the same conversation."""

from __future__ import annotations

from dataclasses import dataclass

from ..backend import Backend, ModelInputs, Reuse

_LEAST_TEXT = 64
"""Shorter beginnings without an image are no reason to overwrite the rest of another conversation's cache."""


@dataclass(slots=True, eq=False)
class _Kept:
    reuse: Reuse
    bytes: int


class PrefixPool:
    """The least recently used goes first when there is no room."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._free: list[_Kept] = []
        """The least recently used first."""

    @property
    def held_bytes(self) -> int:
        """Memory of what is kept and not in use."""
        return sum(kept.bytes for kept in self._free)

    def shared_tokens(self, inputs: ModelInputs, max_new_tokens: int) -> int:
        """How many tokens of a prompt would not be read again."""
        return self._best(inputs, max_new_tokens)[0]

    def take(self, inputs: ModelInputs, max_new_tokens: int) -> Reuse:
        """What starts this prompt's answer: one that shares most with it, or a new one. Give it back when it ends."""
        shared, kept = self._best(inputs, max_new_tokens)
        if kept is None or not shared:
            return self._backend.reuse()
        self._free.remove(kept)
        return kept.reuse

    def give_back(self, reuse: Reuse, inputs: ModelInputs) -> None:
        """Keep what an ended answer has read, if a later prompt could take it over."""
        tokens = reuse.kept_tokens
        if tokens and (inputs.image_tokens or len(inputs.input_ids) >= _LEAST_TEXT):
            self._free.append(_Kept(reuse, self._backend.model.kv_bytes(tokens)))
        else:
            reuse.close()

    def shrink(self, allowed_bytes: int) -> None:
        """Free memory until no more is held."""
        while self._free and self.held_bytes > max(0, allowed_bytes):
            self._free.pop(0).reuse.close()

    def _best(self, inputs: ModelInputs, max_new_tokens: int) -> tuple[int, _Kept | None]:
        least = 1 if inputs.image_tokens else _LEAST_TEXT
        best: tuple[int, _Kept | None] = 0, None
        for kept in self._free:
            shared = kept.reuse.shared_tokens(inputs, max_new_tokens)
            if shared >= max(least, best[0]):
                best = shared, kept
        return best
