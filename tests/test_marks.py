"""Tests that need the export extra are marked: without it the others are collected, and the header says what is not."""

import re
import subprocess
import sys

import pytest
from places import ROOT

WITHOUT_THE_EXTRA = (
    "import sys\n"
    "sys.modules |= dict.fromkeys(('torch', 'transformers', 'safetensors', 'onnx', 'onnx_ir', 'ml_dtypes'))\n"
    "import pytest\n"
    "sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', 'tests']))"
)


@pytest.mark.slow
def test_without_the_export_extra_all_that_is_not_marked_is_collected() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:]
    for collected in (
        "tests/runtime/test_stream.py",
        "tests/runtime/test_builtin.py",
        "tests/cli/warm/test_finding.py",
    ):
        assert collected in done.stdout
    for left_out in ("tests/runtime/test_engine.py", "tests/cli/warm/test_worker_lost.py", "test_crops_are_bit_exact"):
        assert left_out not in done.stdout


def test_the_header_says_how_many_modules_are_left_out_and_what_to_install() -> None:
    code = WITHOUT_THE_EXTRA.replace("'-q', ", "").replace("'tests'", "'tests/runtime/test_engine.py'")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    (line,) = re.findall(r".* test modules and single tests marked torch are left out .*", done.stdout)
    assert int(line.split()[0]) > 20
    assert "pip install 'phi3v[cpu,export]'" in line
