"""Where things lie that tests read: this repository, and the model's own tokenizer beside it."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""

REAL_TOKENIZER = ROOT.parent / "shared" / "data" / "phi-3-vision-tokenizer"
"""Phi-3-vision's own tokenizer and processor files; not part of the repository, and may be absent."""
