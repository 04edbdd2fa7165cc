"""What `phi3v doctor` prints can be copied from the terminal."""

import pytest

from phi3v.cli.check import Check
from phi3v.cli.doctor import _check_model, print_checks


def test_a_path_longer_than_the_line_is_wrapped_and_not_cut_off(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    path = "/a/long/folder" * 12
    print_checks([Check("default model", "ok", f"nano: {path} (fp16, cpu)")])
    assert path in "".join(capsys.readouterr().out.split())


def test_a_device_variable_that_no_command_takes_is_a_failure_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PHI3V_DEVICE", "CUDA:0")
    device, model = _check_model("nano", nodes=False)
    assert (device.name, device.status, device.remedy) == ("device", "fail", "unset PHI3V_DEVICE")
    assert device.detail.startswith("PHI3V_DEVICE: device is 'CUDA:0'; allowed: auto, cpu, cuda[:N]")
    assert model.status == "ok"
