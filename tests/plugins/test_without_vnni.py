"""Folders with int8 prefill on a processor without VNNI: an emulated one, with the real ONNX Runtime and genai."""

import json
import shutil
import subprocess
import sys

import pytest
from exports import Exports

QEMU = shutil.which("qemu-x86_64")
LIMIT_S = 400
CODE = """
import json, sys
import phi3v
from phi3v.errors import DeviceError
from phi3v.genai.prefill import choose_graphs
from phi3v.machine.int8_check import find_int8_fault
from phi3v.models.folder import ModelDir

both = ModelDir.open(sys.argv[1])
tokens = []
for prefill in ("auto", "int4"):
    with phi3v.load(both.path, "cpu", prefill=prefill, threads=1) as engine:
        tokens.append(engine.generate("What is this?", max_new_tokens=4).token_ids)
try:
    phi3v.load(sys.argv[2], "cpu", threads=1)
    refusal = ""
except DeviceError as exc:
    refusal = str(exc)
print(json.dumps([find_int8_fault(), choose_graphs(both, "cpu", "auto"), tokens, refusal]))
"""

pytestmark = [
    pytest.mark.torch,
    pytest.mark.slow,
    pytest.mark.skipif(QEMU is None, reason="needs an emulated processor (qemu-user): .ci/extras no-vnni"),
]


def test_prompts_take_the_blocks_and_int8_alone_is_refused(exports: Exports) -> None:
    folders = exports.model("int4", prefill="int8"), exports.model("int8")
    command = [QEMU or "", "-cpu", "Haswell", sys.executable, "-c", CODE, *map(str, folders)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=LIMIT_S, check=True)
    fault, graphs, (by_itself, asked), refusal = json.loads(done.stdout)
    assert fault == "this processor has no VNNI: products of int8 saturate"
    assert graphs == {"vision": "vision-blocks.onnx", "decoder": "text-blocks.onnx"}
    assert by_itself == asked
    assert "multiplies everything in int8, and this processor has no VNNI" in refusal
