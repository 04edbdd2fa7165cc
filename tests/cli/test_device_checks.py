"""What `phi3v doctor` says of plugins on each machine, and of where nodes run."""

import json
import shutil
from pathlib import Path

import pytest

from phi3v.cli.check import Check
from phi3v.cli.device_checks import check_placement, check_plugins
from phi3v.errors import DeviceError
from phi3v.genai.placement import place_nodes
from phi3v.machine import cuda, openvino, plugins, webgpu
from phi3v.machine.attention_check import AttentionFault
from phi3v.machine.install import install_line
from phi3v.machine.vulkan import Adapter
from phi3v.models.folder import BUILTIN, ModelDir

OFF = AttentionFault("attention over 64 tokens in float32 is off by 0.56", runs=True)
NO_F16 = AttentionFault("attention in float16 does not run: no shader", runs=False)


def found(kind: str) -> Check:
    return next(check for check in check_plugins() if check.name == kind)


@pytest.mark.parametrize("kind", ["webgpu", "openvino"])
def test_a_plugin_that_is_not_installed_is_a_note_with_its_extra(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(cuda, "installed", lambda _: None)
    check = found(kind)
    assert check.status == "note"
    assert check.detail.startswith("not installed; it runs models on ")
    assert check.remedy == install_line(kind)


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """All plugins are installed, on Linux, with the Vulkan loader."""
    for module in (cuda, plugins):
        monkeypatch.setattr(module, "installed", lambda _: "1.2.3")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(plugins, "_loads", lambda _: True)
    monkeypatch.setattr(webgpu, "provider_devices", lambda: ("one",))
    monkeypatch.setattr(openvino, "openvino_devices", lambda: [("cpu", "A Xeon"), ("gpu", "An Arc")])


@pytest.mark.parametrize(
    ("adapter", "faults", "status", "said", "remedy"),
    [
        (Adapter("Arc", False, 4 << 30), {}, "ok", "adapter Arc (4096 MiB); attention in float32 is right; ", ""),
        (
            Adapter("Arc", False),
            {"float16": NO_F16},
            "ok",
            "adapter Arc; attention in float32 is right; no float16",
            "",
        ),
        (Adapter("Arc", False), {"float32": OFF}, "fail", "in float32 is off by 0.56; attention in float16", "update"),
        (Adapter("Swift", True), {"float32": OFF}, "note", "adapter Swift, software; attention over", "for tests only"),
        (None, {}, "note", "onnxruntime-ep-webgpu 1.2.3, libvulkan.so.1: no GPU answers", "install the GPU's Vulkan"),
    ],
)
@pytest.mark.usefixtures("packages")
def test_webgpu_is_described_by_its_adapter(
    monkeypatch: pytest.MonkeyPatch,
    adapter: Adapter | None,
    faults: dict[str, AttentionFault],
    status: str,
    said: str,
    remedy: str,
) -> None:
    monkeypatch.setenv(webgpu.ALLOW_SOFTWARE, "1")
    monkeypatch.setattr(webgpu, "find_adapter", lambda: adapter)
    monkeypatch.setattr(webgpu, "attention_fault", faults.get)
    check = found("webgpu")
    assert check.status == status
    assert said in check.detail
    assert check.remedy.startswith(remedy)
    assert bool(check.remedy) == bool(remedy)


@pytest.mark.usefixtures("packages")
def test_a_missing_vulkan_loader_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_loads", lambda _: False)
    check = found("webgpu")
    assert check.status == "note"
    assert check.detail.endswith("the library libvulkan.so.1 cannot be loaded")
    assert check.remedy == "apt install libvulkan1 mesa-vulkan-drivers"


@pytest.mark.usefixtures("packages")
def test_openvino_is_described_by_its_devices() -> None:
    check = found("openvino")
    assert (check.status, check.remedy) == ("ok", "")
    assert check.detail == "onnxruntime-ep-openvino 1.2.3, devices: cpu (A Xeon), gpu (An Arc)"


def test_every_node_of_the_built_in_model_runs_on_the_cpu() -> None:
    checks = {check.name: check for check in check_placement(ModelDir.open(BUILTIN))}
    assert set(checks) == {"cpu nodes", "cuda nodes", "webgpu nodes", "openvino nodes"}
    assert checks["cpu nodes"].status == "ok"
    counted = [part.split(" ") for part in checks["cpu nodes"].detail.split("; ")]
    assert [words[0] for words in counted] == ["vision", "embedding", "decoder"]
    assert all(words[1] == words[3] for words in counted)


def test_nodes_of_a_folder_that_is_tied_to_cuda_are_not_placed_where_it_does_not_load(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(BUILTIN, tmp_path / "tied"))
    (folder / "phi3v.json").unlink()
    config = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
    config["model"]["vision"]["session_options"] = {"provider_options": [{"cuda": {}}]}
    (folder / "genai_config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(DeviceError, match=r"was made for cuda, .* --device webgpu`"):
        place_nodes(ModelDir.open(folder), "webgpu")


def test_one_of_several_intel_gpus_is_the_part_gpu() -> None:
    assert [openvino.openvino_part({"ov_device": name}) for name in ("CPU", "GPU.0", "GPU.1")] == ["cpu", "gpu", "gpu"]
