"""Which device a name, a variable or nothing means here, and what is said where it cannot be used."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import pytest

from phi3v.errors import DeviceError, OptionError
from phi3v.machine import cuda, openvino, plugins, webgpu
from phi3v.machine import device as choosing
from phi3v.machine.attention_check import AttentionFault
from phi3v.machine.device import choose_device, same_device, wanted_device
from phi3v.machine.device_table import TABLE, DeviceName, DeviceStatus, split_device, suited_devices
from phi3v.machine.install import install_line
from phi3v.machine.vulkan import Adapter
from phi3v.models.folder import BUILTIN, ModelDir

GPU = Adapter("A GPU", software=False, memory_bytes=8 << 30)
SOFTWARE = Adapter("SwiftShader", software=True)
MISSING = "libvulkan.so.1 cannot be loaded"


@dataclass(frozen=True)
class Model:
    """What decides where a folder runs."""

    built_for: str = "cpu"
    devices: tuple[str, ...] = ("cpu", "webgpu", "openvino")
    pixel_dtype: str | None = "float32"
    precision: str | None = "fp32"


@dataclass
class Here:
    """A machine: which devices work on it."""

    cuda: bool = False
    adapter: Adapter | None = None
    parts: tuple[str, ...] = ()
    fault: AttentionFault | None = None


Machines = Callable[..., Here]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machines:
    """Makes this a machine of that kind, with all packages."""

    def make(**what: object) -> Here:
        here = Here(**what)  # type: ignore[arg-type]
        status = DeviceStatus(here.cuda, "ready" if here.cuda else "no NVIDIA driver")
        monkeypatch.setattr(choosing, "cuda_status", lambda: status)
        for module in (webgpu, openvino):
            monkeypatch.setattr(module, "find_missing", lambda _: None)
        monkeypatch.setattr(webgpu, "find_adapter", lambda: here.adapter)
        monkeypatch.setattr(webgpu, "provider_devices", lambda: ("one",))
        monkeypatch.setattr(webgpu, "attention_fault", lambda _: here.fault)
        monkeypatch.setattr(openvino, "openvino_parts", lambda: here.parts)
        return here

    return make


@pytest.mark.parametrize(
    "wanted", ["gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "openvino:", "openvino:tpu", "", None]
)
def test_a_device_that_does_not_exist_is_refused_with_those_that_do(wanted: object) -> None:
    with pytest.raises(OptionError) as raised:
        split_device(wanted)
    allowed = "allowed: auto, cpu, cuda[:N], webgpu, openvino[:cpu|gpu|npu]"
    assert str(raised.value) == f"device is {wanted!r}; {allowed}"


def test_the_variable_names_the_device_when_nobody_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHI3V_DEVICE", raising=False)
    assert wanted_device(None) == "auto"
    monkeypatch.setenv("PHI3V_DEVICE", "openvino:gpu")
    assert wanted_device(None) == "openvino:gpu"
    assert wanted_device("cpu") == "cpu"
    monkeypatch.setenv("PHI3V_DEVICE", "")
    assert wanted_device(None) == "auto"


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHI3V_DEVICE", "vulkan")
    with pytest.raises(OptionError, match=r"^PHI3V_DEVICE: device is 'vulkan'; allowed: auto, "):
        wanted_device(None)


@pytest.mark.parametrize(
    ("here", "devices", "chosen"),
    [
        ({}, ("cpu", "webgpu", "openvino"), "cpu"),
        ({"adapter": GPU}, ("cpu", "webgpu", "openvino"), "webgpu"),
        ({"adapter": GPU}, ("cpu",), "cpu"),  # a folder of before lists its own alone
        ({"adapter": SOFTWARE}, ("cpu", "webgpu"), "cpu"),
        ({"adapter": GPU, "fault": AttentionFault("off", runs=True)}, ("cpu", "webgpu"), "cpu"),
        ({"adapter": GPU, "cuda": True}, ("cuda", "webgpu"), "cuda"),
        ({"adapter": GPU}, ("cuda", "webgpu"), "webgpu"),
        ({"cuda": True}, ("cpu", "webgpu"), "cpu"),
        ({"parts": ("cpu", "gpu")}, ("cpu", "openvino"), "cpu"),  # never by itself
    ],
)
def test_auto_takes_the_first_that_works_of_those_the_folder_is_for(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, here: dict[str, object], devices: tuple[str, ...], chosen: str
) -> None:
    machine(**here)
    monkeypatch.setenv(webgpu.ALLOW_SOFTWARE, "1")
    assert choose_device("auto", Model(devices[0], devices)) == chosen


@pytest.mark.parametrize(
    ("built_for", "here", "said"),
    [
        ("cuda", {}, "built for CUDA, which is not usable: no NVIDIA driver; or take a folder built for the CPU"),
        ("webgpu", {}, "built for WebGPU, which is not usable: no GPU answers; "),
        ("webgpu", {"adapter": SOFTWARE}, "built for WebGPU, which is not usable: its adapter SwiftShader is software"),
    ],
)
def test_auto_says_why_what_a_folder_was_built_for_cannot_be_used(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, built_for: str, here: dict[str, object], said: str
) -> None:
    machine(**here)
    monkeypatch.setenv(webgpu.ALLOW_SOFTWARE, "1")
    with pytest.raises(DeviceError) as raised:
        choose_device("auto", Model(built_for, (built_for,)))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("wanted", "here", "chosen"),
    [
        ("cpu", {"cuda": True}, "cpu"),
        ("cuda", {"cuda": True}, "cuda"),
        ("cuda:2", {"cuda": True}, "cuda"),
        ("webgpu", {"adapter": GPU}, "webgpu"),
        ("webgpu", {"adapter": SOFTWARE, "fault": AttentionFault("off", runs=True)}, "webgpu"),
        ("openvino", {"parts": ("cpu",)}, "openvino:cpu"),
        ("openvino", {"parts": ("cpu", "gpu")}, "openvino:gpu"),
        ("openvino:cpu", {"parts": ("cpu", "gpu")}, "openvino:cpu"),
        ("openvino:npu", {"parts": ("cpu", "npu")}, "openvino:npu"),
    ],
)
def test_a_device_that_was_asked_for_is_taken_whatever_the_folder_lists(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, wanted: str, here: dict[str, object], chosen: str
) -> None:
    machine(**here)
    monkeypatch.setenv(webgpu.ALLOW_SOFTWARE, "1")
    assert choose_device(wanted, Model(devices=())) == chosen


REFUSALS = {
    "cuda": ("cuda", {}, "CUDA is not usable: no NVIDIA driver"),
    "no adapter": ("webgpu", {}, "WebGPU is not usable: no GPU answers; install"),
    "software": ("webgpu", {"adapter": SOFTWARE}, "the only adapter is SwiftShader, a CPU that plays a GPU; install"),
    "wrong attention": (
        "webgpu",
        {"adapter": GPU, "fault": AttentionFault("attention over 64 tokens in float32 is off by 0.56", runs=True)},
        "WebGPU is not usable: A GPU computes wrongly (attention over 64 tokens in float32 is off by 0.56), and so "
        "would answer wrongly; update its driver, or take the CPU (--device cpu)",
    ),
    "attention does not run": (
        "webgpu",
        {"adapter": GPU, "fault": AttentionFault("attention in float32 does not run: no shader", runs=False)},
        "A GPU cannot run this model: attention in float32 does not run: no shader; update its driver",
    ),
    "no Intel GPU": (
        "openvino:gpu",
        {"parts": ("cpu",)},
        "OpenVINO is not usable: OpenVINO finds no gpu here, only cpu; install Intel's compute runtime",
    ),
    "no Intel device": ("openvino", {}, "OpenVINO finds no cpu here, only nothing; use another device"),
}


@pytest.mark.parametrize(("wanted", "here", "said"), REFUSALS.values(), ids=REFUSALS)
def test_each_wrong_machine_is_told_what_it_lacks_and_what_to_do(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, wanted: str, here: dict[str, object], said: str
) -> None:
    machine(**here)
    monkeypatch.delenv(webgpu.ALLOW_SOFTWARE, raising=False)
    with pytest.raises(DeviceError) as raised:
        choose_device(wanted, Model())
    assert said in str(raised.value)


@pytest.mark.parametrize("wanted", ["webgpu", "openvino"])
def test_a_missing_package_is_named_with_the_extra_that_brings_it(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    for module in (cuda, plugins):
        monkeypatch.setattr(module, "installed", lambda _: None)
    with pytest.raises(DeviceError) as raised:
        choose_device(wanted, Model())
    said = f"the package onnxruntime-ep-{wanted} is not installed; run: {install_line(wanted)}"
    assert str(raised.value).endswith(said)


@pytest.mark.parametrize(
    ("here", "kind", "command"),
    [
        ([], "cuda", install_line("cuda")),
        (
            ["onnxruntime-genai", "onnxruntime"],
            "cuda",
            f"pip uninstall -y onnxruntime-genai onnxruntime && {install_line('cuda')}",
        ),
        (["onnxruntime-genai", "onnxruntime"], "webgpu", install_line("webgpu")),
        (
            ["onnxruntime-genai-cuda", "onnxruntime-gpu"],
            "webgpu",
            f"pip uninstall -y onnxruntime-genai-cuda onnxruntime-gpu && {install_line('webgpu')}",
        ),
    ],
)
def test_a_command_that_installs_takes_away_the_build_that_it_would_clash_with(
    monkeypatch: pytest.MonkeyPatch, here: list[str], kind: str, command: str
) -> None:
    monkeypatch.setattr(cuda, "installed", lambda name: "1.0" if name in here else None)
    assert cuda.install_command(TABLE[kind]) == command


def test_a_missing_library_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "installed", lambda _: "0.4.0")
    monkeypatch.setattr(plugins.sys, "platform", "linux")
    monkeypatch.setattr(plugins, "_loads", lambda _: False)
    with pytest.raises(
        DeviceError, match=r"the library libvulkan\.so\.1 cannot be loaded; run: apt install libvulkan1"
    ):
        choose_device("webgpu", Model())


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_windows_and_macos_need_no_library_of_the_system_for_webgpu(
    monkeypatch: pytest.MonkeyPatch, platform: str
) -> None:
    monkeypatch.setattr(plugins, "installed", lambda _: "0.4.0")
    monkeypatch.setattr(plugins.sys, "platform", platform)
    assert plugins.find_missing(TABLE["webgpu"]) is None


def test_openvino_refuses_a_model_in_float16_by_name(machine: Machines) -> None:
    machine(parts=("cpu",))
    with pytest.raises(
        DeviceError, match="computes in float16, and openvino takes int4 and fp32 builds; make one with"
    ):
        choose_device("openvino", ModelDir.open(BUILTIN))


def test_a_gpu_without_float16_is_told_which_builds_it_can_run(machine: Machines) -> None:
    machine(adapter=GPU, fault=AttentionFault("attention in float16 does not run: no f16", runs=False))
    with pytest.raises(DeviceError, match=r"A GPU cannot run this model: .*; take a build in fp32"):
        choose_device("webgpu", Model(pixel_dtype="float16", precision="fp16"))


@pytest.mark.parametrize(
    ("pixel_dtype", "precision", "tried"),
    [
        ("float32", "fp32", ["float32"]),
        ("float16", "fp16", ["float16"]),
        ("float32", "int4", ["float16", "float32"]),  # its table of embeddings is in float16
        ("float32", None, ["float32"]),
    ],
)
def test_attention_is_tried_in_every_type_that_a_model_computes_in(
    machine: Machines, monkeypatch: pytest.MonkeyPatch, pixel_dtype: str, precision: str | None, tried: list[str]
) -> None:
    machine(adapter=GPU)
    asked: list[str] = []
    monkeypatch.setattr(webgpu, "attention_fault", asked.append)
    assert choose_device("webgpu", Model(pixel_dtype=pixel_dtype, precision=precision)) == "webgpu"
    assert asked == tried


@pytest.mark.parametrize(
    ("wanted", "asked", "running", "same"),
    [
        ("auto", "auto", "cpu", True),
        ("auto", "cpu", "cpu", True),
        ("cpu", "auto", "cpu", True),
        ("cpu", "webgpu", "webgpu", False),
        ("webgpu", "webgpu", "webgpu", True),
        ("cuda:1", "cuda:1", "cuda", True),
        ("cuda:0", "cuda", "cuda", True),
        ("cuda", "cuda:1", "cuda", False),
        ("auto", "cuda:1", "cuda", False),
        ("openvino", "openvino:cpu", "openvino:cpu", True),
        ("openvino:gpu", "openvino", "openvino:cpu", False),
    ],
)
def test_an_engine_that_was_asked_for_by_one_name_answers_to_those_that_mean_the_same(
    machine: Machines, wanted: str, asked: str, running: str, same: bool
) -> None:
    machine(parts=("cpu",))
    assert same_device(wanted, Model(), asked, running) is same


def test_a_build_runs_on_the_devices_that_take_its_graphs_and_its_precision() -> None:
    assert suited_devices("cpu", "int4") == ("cpu", "webgpu", "openvino")
    assert suited_devices("cpu", "fp16") == ("cpu", "webgpu")
    assert suited_devices("cuda", "int4") == ("cuda", "webgpu")
    assert suited_devices("webgpu", "fp32") == ("webgpu",)


def test_the_names_in_errors_are_those_that_can_be_typed() -> None:
    for name in get_args(DeviceName):
        split_device(name)
