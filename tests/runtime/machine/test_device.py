"""What is missing, too old or not there in the CUDA stack is named; a GPU can be chosen once in a process."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from phi3v.cli.doctor import _check_cuda
from phi3v.errors import DeviceError, MissingDependencyError
from phi3v.genai import model as genai
from phi3v.machine import cuda
from phi3v.machine.device import select_device

GPU = cuda.Gpu("A GPU", 1 << 30, driver_cuda="13.0", compute_capability="9.0")


@pytest.fixture
def cuda_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state after `pip uninstall onnxruntime-gpu` beside onnxruntime-genai-cuda."""

    def installed(name: str) -> str | None:
        return "0.18.0" if name == "onnxruntime-genai-cuda" else None

    for module in (cuda, genai):
        monkeypatch.setattr(module, "installed", installed)
    monkeypatch.setattr(cuda, "gpus", lambda: [GPU])
    monkeypatch.setitem(sys.modules, "onnxruntime", None)


@pytest.mark.usefixtures("cuda_without_onnxruntime")
def test_loading_without_onnxruntime_names_what_to_install() -> None:
    with pytest.raises(MissingDependencyError, match=r"\[cuda\]"):
        genai.import_genai("cuda")


@pytest.mark.usefixtures("cuda_without_onnxruntime")
def test_cuda_without_onnxruntime_is_not_usable_and_doctor_says_so() -> None:
    assert not cuda.cuda_status().usable
    assert [(check.name, check.status) for check in _check_cuda() if check.status == "fail"] == [("cuda", "fail")]


@pytest.mark.parametrize("capability", ["7.5", "8.0", "8.6", "8.7", "8.9", "9.0", "12.0", "12.1"])
def test_a_gpu_that_the_wheels_hold_code_for_has_no_problem(capability: str) -> None:
    assert cuda.find_problem(replace(GPU, compute_capability=capability)) is None


@pytest.mark.parametrize("capability", ["6.1", "7.0", "7.2", "10.0", "10.3", "11.0"])
def test_a_gpu_without_code_in_the_wheels_is_named_with_what_there_is(capability: str) -> None:
    problem = cuda.find_problem(replace(GPU, compute_capability=capability))
    assert problem is not None
    assert problem.startswith(
        f"A GPU has compute capability {capability}, and ONNX Runtime's CUDA build has code for 7.5"
    )
    assert "take the CPU (--device cpu), or another GPU (--device cuda:NUMBER)" in problem


@pytest.mark.parametrize("newest", ["11.8", "12.8", "12.9"])
def test_a_driver_that_is_too_old_is_named_with_the_one_to_install(newest: str) -> None:
    problem = cuda.find_problem(replace(GPU, driver_cuda=newest))
    assert problem == (
        f"the driver of A GPU runs CUDA {newest} and older, and ONNX Runtime needs 13.0; install driver 580 or newer"
    )


def test_a_newer_driver_has_no_problem() -> None:
    assert cuda.find_problem(replace(GPU, driver_cuda="14.2")) is None


@pytest.fixture
def fresh_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver was not asked yet, and all GPUs are visible."""
    monkeypatch.setattr(cuda._Driver, "asked", False)
    for variable in (cuda.VISIBLE, cuda._CHOICE):
        monkeypatch.setenv(variable, "")
        monkeypatch.delenv(variable)


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize(
    ("visible", "number", "left"), [(None, 1, "1"), ("4,6,7", 1, "6"), ("GPU-ab,GPU-cd", 0, "GPU-ab")]
)
def test_a_chosen_gpu_is_the_only_one_left_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, number: int, left: str
) -> None:
    if visible is not None:
        monkeypatch.setenv(cuda.VISIBLE, visible)
    select_device(f"cuda:{number}")
    select_device(f"cuda:{number}")
    assert os.environ[cuda.VISIBLE] == left


@pytest.mark.usefixtures("fresh_process")
def test_a_second_choice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    select_device("cuda:1")
    monkeypatch.setattr(cuda._Driver, "asked", True)
    with pytest.raises(DeviceError, match=r"already uses GPU 1, and cannot change to 0; .* CUDA_VISIBLE_DEVICES=0"):
        select_device("cuda:0")


@pytest.mark.usefixtures("fresh_process")
def test_a_choice_that_came_to_nothing_does_not_change_what_the_next_one_counts() -> None:
    """A load may end before it asks the driver, for a folder that does not exist."""
    select_device("cuda:1")
    select_device("cuda:0")
    assert os.environ[cuda.VISIBLE] == "0"
    select_device("cuda:2")
    assert os.environ[cuda.VISIBLE] == "2"


@pytest.mark.usefixtures("fresh_process")
@pytest.mark.parametrize(("visible", "left"), [(None, ["1", "0", "1"]), ("4,6", ["6", "4", "6"])])
def test_a_process_counts_as_the_one_that_started_it(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, left: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv(cuda.VISIBLE, visible)
    command = (
        f"import os; from phi3v.machine.device import select_device as s; s('cuda:NUMBER'); "
        f"print(os.environ['{cuda.VISIBLE}'])"
    )
    select_device("cuda:1")
    found = [os.environ[cuda.VISIBLE]]
    for number in "01":
        done = subprocess.run(
            [sys.executable, "-c", command.replace("NUMBER", number)], capture_output=True, text=True, check=True
        )
        found.append(done.stdout.strip())
    assert found == left


@pytest.mark.usefixtures("fresh_process")
def test_a_variable_that_was_set_since_the_choice_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    select_device("cuda:1")
    monkeypatch.setenv(cuda.VISIBLE, "5,7")
    select_device("cuda:1")
    assert os.environ[cuda.VISIBLE] == "7"


@pytest.mark.usefixtures("fresh_process")
def test_a_refused_choice_names_the_gpu_as_the_variable_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.VISIBLE, "4,6")
    monkeypatch.setattr(cuda._Driver, "asked", True)
    with pytest.raises(DeviceError, match=r"or set CUDA_VISIBLE_DEVICES=6 before this one starts"):
        select_device("cuda:1")


@pytest.mark.usefixtures("fresh_process")
def test_a_choice_after_the_driver_was_asked_is_refused_unless_it_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda._Driver, "asked", True)
    select_device("cuda:0")
    with pytest.raises(DeviceError, match="already uses GPU 0"):
        select_device("cuda:1")


@pytest.mark.usefixtures("fresh_process")
def test_a_gpu_that_is_hidden_cannot_be_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cuda.VISIBLE, "3")
    with pytest.raises(DeviceError, match="'cuda:1', and CUDA_VISIBLE_DEVICES=3 shows fewer GPUs"):
        select_device("cuda:1")


@pytest.mark.parametrize(("platform", "name"), [("linux", "libcublas.so.13"), ("win32", "cublas64_13.dll")])
def test_a_library_has_the_name_of_its_system(monkeypatch: pytest.MonkeyPatch, platform: str, name: str) -> None:
    monkeypatch.setattr(cuda.sys, "platform", platform)
    assert cuda.library_name("libcublas.so.13") == name


def test_windows_has_a_name_for_every_library_of_cuda() -> None:
    assert set(cuda.CUDA_LIBRARIES) < set(cuda._ON_WINDOWS)
