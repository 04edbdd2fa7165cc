"""Tiny random models, exported once a session for all modules that ask for the same."""

from pathlib import Path
from typing import Any


class Exports:
    """Makes checkpoints and model folders below `root`. They are shared: a test that changes one takes a copy.

    `dims` are the options of `tiny_dims`. Imports the export extra on first use.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def checkpoint(self, *, seed: int = 0, dtype: str = "bfloat16", **dims: Any) -> Path:
        """The checkpoint of these dimensions with random weights."""
        from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

        folder = self._folder("checkpoint", {"seed": seed, "dtype": dtype, **dims})
        if not folder.exists():
            write_random_checkpoint(folder, tiny_dims(**dims), seed, dtype=dtype)
        return folder

    def model(self, precision: str = "int4", *, seed: int = 0, dtype: str = "bfloat16", **dims: Any) -> Path:
        """The model folder of that checkpoint in one precision."""
        from phi3v.export.build import export_model

        folder = self._folder("model", {"precision": precision, "seed": seed, "dtype": dtype, **dims})
        if not folder.exists():
            export_model(self.checkpoint(seed=seed, dtype=dtype, **dims), folder, precision=precision)
        return folder

    def _folder(self, kind: str, key: dict[str, Any]) -> Path:
        return self._root / "-".join([kind, *(f"{name}_{value}" for name, value in sorted(key.items()))])
