"""A checkpoint with the published tokenizer exports with the published ids."""

import json
import shutil
from pathlib import Path

import pytest
from places import REAL_TOKENIZER

from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch


@pytest.mark.skipif(not REAL_TOKENIZER.is_dir(), reason=f"the real tokenizer is not at {REAL_TOKENIZER}")
def test_ids_and_files_are_the_published_ones(tmp_path: Path) -> None:
    import onnxruntime_genai as og

    checkpoint = write_random_checkpoint(tmp_path / "checkpoint", tiny_dims(vocab_size=32064), num_crops=4)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(REAL_TOKENIZER / name, checkpoint / name)
    out = export_model(checkpoint, tmp_path / "out")
    model = json.loads((out / "genai_config.json").read_text())["model"]
    assert (model["bos_token_id"], model["eos_token_id"], model["pad_token_id"]) == (1, [32007, 32000, 32001], 32000)
    assert (out / "tokenizer.json").read_bytes() == (REAL_TOKENIZER / "tokenizer.json").read_bytes()
    published = json.loads((REAL_TOKENIZER / "processor_config.json").read_text())
    published["processor"]["transforms"][-1]["operation"]["attrs"]["num_crops"] = 4
    assert json.loads((out / "processor_config.json").read_text()) == published
    tokenizer = og.Tokenizer(og.Model(str(out)))
    assert list(tokenizer.encode("Hello world")) == [15043, 3186]
