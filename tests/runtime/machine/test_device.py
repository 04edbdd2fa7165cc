"""What a missing package of the CUDA stack looks like: an answer, never a crash."""

import sys

import pytest

from phi3v.cli.doctor import _check_cuda
from phi3v.errors import MissingDependencyError
from phi3v.genai import model as genai
from phi3v.machine import device


@pytest.fixture
def cuda_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state after `pip uninstall onnxruntime-gpu` beside onnxruntime-genai-cuda."""

    def installed(name: str) -> str | None:
        return "0.18.0" if name == "onnxruntime-genai-cuda" else None

    for module in (device, genai):
        monkeypatch.setattr(module, "installed", installed)
    monkeypatch.setattr(device, "gpus", lambda: [device.Gpu("GPU", 1 << 30, "13.0")])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.usefixtures("cuda_without_onnxruntime")
def test_loading_without_onnxruntime_names_what_to_install() -> None:
    with pytest.raises(MissingDependencyError, match=r"phi3v\[cuda\]"):
        genai.import_genai()


@pytest.mark.usefixtures("cuda_without_onnxruntime")
def test_cuda_without_onnxruntime_is_not_usable_and_doctor_says_so() -> None:
    assert not device.cuda_status().usable
    assert [(check.name, check.status) for check in _check_cuda() if check.status == "fail"] == [("cuda", "fail")]
