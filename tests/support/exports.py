"""Tiny random models, exported once a session for all modules that ask for the same."""

import json
import shutil
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

    def model(
        self,
        precision: str = "int4",
        *,
        prefill: str | None = None,
        device: str = "cpu",
        seed: int = 0,
        dtype: str = "bfloat16",
        **dims: Any,
    ) -> Path:
        """The model folder of that checkpoint in one precision, for one kind of device."""
        from phi3v.export.build import export_model

        how = {"precision": precision, "device": device, "prefill": prefill or _same_weights(precision)}
        folder = self._folder("model", {**how, "seed": seed, "dtype": dtype, **dims})
        if not folder.exists():
            export_model(self.checkpoint(seed=seed, dtype=dtype, **dims), folder, **how)
        return folder

    def nano(self, precision: str) -> Path:
        """The built-in model in another precision than it is shipped in."""
        from phi3v.export.build import export_model

        folder = self._folder("nano", {"precision": precision})
        if not folder.exists():
            export_model(self._nano_checkpoint(), folder, precision=precision, prefill=_same_weights(precision))
        return folder

    def _nano_checkpoint(self) -> Path:
        """The shipped weights, with the shipped tokenizer."""
        from phi3v.export.dims import EMBED
        from phi3v.export.nano.network import nano_dims
        from phi3v.export.nano.shipped import read_folder
        from phi3v.export.safetensors_file import write_file
        from phi3v.export.synthetic import original_config
        from phi3v.models.folder import BUILTIN, ModelDir

        folder = self._folder("nano_checkpoint", {})
        if folder.exists():
            return folder
        folder.mkdir()
        tensors = read_folder(BUILTIN, nano_dims())
        entries = [(name, values.shape, values.dtype) for name, values in tensors.items()]
        write_file(folder / "model.safetensors", entries, tensors.__getitem__)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(BUILTIN / name, folder / name)
        dims = nano_dims(vocabulary=len(tensors[EMBED]))
        config = original_config(dims, "float32", ModelDir.open(BUILTIN).pad_token_id)
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "preprocessor_config.json").write_text(json.dumps({"num_crops": 1, "num_img_tokens": 144}))
        return folder

    def _folder(self, kind: str, key: dict[str, Any]) -> Path:
        return self._root / "-".join([kind, *(f"{name}_{value}" for name, value in sorted(key.items()))])


def _same_weights(precision: str) -> str:
    """Prompts are multiplied in the weights that tokens are, whatever machine this is."""
    return "int8" if precision == "int8" else "int4"
