"""What `phi3v doctor` prints can be copied from the terminal."""

import pytest

from phi3v.cli.check import Check
from phi3v.cli.doctor import print_checks


def test_a_path_longer_than_the_line_is_wrapped_and_not_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = "/a/long/folder" * 12
    print_checks([Check("default model", "ok", f"nano: {path} (fp16, cpu)")])
    assert path in "".join(capsys.readouterr().out.split())
