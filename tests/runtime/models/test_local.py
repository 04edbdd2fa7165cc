"""Which folder a name, a folder or nothing means on a machine, and what is said when it means none."""

import json
from pathlib import Path

import pytest

import phi3v.models.local as local
from phi3v import Phi3VError
from phi3v.errors import ModelNotFoundError
from phi3v.machine.cuda import Gpu
from phi3v.machine.device_table import DeviceStatus

GB = 1 << 30


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache on a machine of 16 GB RAM, no GPU, no built-in model."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(local, "BUILTIN", tmp_path / "absent")
    monkeypatch.setattr(local, "total_memory", lambda: 16 * GB)
    monkeypatch.setattr(local, "cuda_status", lambda: DeviceStatus(False, "no GPU"))
    monkeypatch.setattr(local, "hardware_memory", lambda: 0)
    monkeypatch.delenv("PHI3V_MODEL", raising=False)
    return tmp_path / "hub"


def with_gpu(monkeypatch: pytest.MonkeyPatch, memory: int) -> None:
    monkeypatch.setattr(local, "cuda_status", lambda: DeviceStatus(True, "ready"))
    monkeypatch.setattr(local, "gpus", lambda: [Gpu("a GPU", memory, "13.0", "9.0")])


def pulled(
    cache: Path,
    name: str,
    variant: str,
    *,
    needs: int = GB,
    commit: str = "a" * 40,
    at: float = 1.0,
    devices: tuple[str, ...] | None = None,
) -> Path:
    folder = cache / f"models--org--{name}" / "snapshots" / commit / "some" / variant
    folder.mkdir(parents=True)
    manifest = {
        "name": name,
        "variant": variant,
        "repo": f"org/{name}",
        "revision": "main",
        "commit": commit,
        "device": variant.partition("-")[0],
        "memory_bytes": needs,
        "files": {"weights": 5},
        "pulled_at": at,
    }
    if devices is not None:
        manifest["devices"] = devices
    (folder / "phi3v.json").write_text(json.dumps(manifest))
    return folder


def test_a_name_means_the_pulled_model(cache: Path) -> None:
    folder = pulled(cache, "phi-3-vision", "cpu-int4")
    assert local.resolve_model("phi-3-vision") == folder
    assert local.resolve_model("phi-3-vision:cpu-int4") == folder


def test_a_model_folder_wins_over_a_name(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pulled(cache, "phi-3-vision", "cpu-int4")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "phi-3-vision").mkdir()
    (tmp_path / "phi-3-vision" / "genai_config.json").touch()
    assert local.resolve_model("phi-3-vision") == Path("phi-3-vision")


def test_the_variable_may_hold_a_name(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pulled(cache, "phi-3-vision", "cpu-int4")
    monkeypatch.setenv("PHI3V_MODEL", "phi-3-vision")
    assert local.resolve_model() == folder


def test_an_unknown_name_says_what_is_here_and_how_to_get_it(cache: Path) -> None:
    pulled(cache, "phi-3-vision", "cpu-int4")
    with pytest.raises(ModelNotFoundError, match=r"pulled: phi-3-vision:cpu-int4\); `phi3v models`"):
        local.resolve_model("gemma")
    with pytest.raises(ModelNotFoundError, match=r"fetch it with `phi3v pull phi-3.5-vision`"):
        local.resolve_model("phi-3.5-vision")
    with pytest.raises(ModelNotFoundError, match=r"did you mean phi-3-vision\?"):
        local.resolve_model("phi-3-vison")


def test_a_path_that_is_none_is_not_taken_for_a_name(cache: Path) -> None:
    assert local.resolve_model("models/absent") == Path("models/absent")


@pytest.mark.parametrize(
    ("gpu", "device", "best"),
    [(0, "auto", "cpu-int4"), (8 * GB, "auto", "cuda-int4"), (8 * GB, "cpu", "cpu-int4"), (1 * GB, "auto", "cpu-int4")],
)
def test_nothing_means_the_best_model_for_the_machine(
    cache: Path, monkeypatch: pytest.MonkeyPatch, gpu: int, device: str, best: str
) -> None:
    folders = {variant: pulled(cache, "phi-3-vision", variant, needs=4 * GB) for variant in ("cuda-int4", "cpu-int4")}
    if gpu:
        with_gpu(monkeypatch, gpu)
    assert local.resolve_model(device=device) == folders[best]


def test_a_model_too_big_for_the_machine_gives_way_to_the_built_in_one(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled(cache, "phi-3-vision", "cpu-int4", needs=64 * GB)
    with pytest.raises(ModelNotFoundError, match="would not run here"):
        local.resolve_model()
    (tmp_path / "nano").mkdir()
    monkeypatch.setattr(local, "BUILTIN", tmp_path / "nano")
    assert local.resolve_model() == tmp_path / "nano"


def test_the_built_in_model_has_a_name(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelNotFoundError):
        local.resolve_model("nano")
    (tmp_path / "builtin").mkdir()
    monkeypatch.setattr(local, "BUILTIN", tmp_path / "builtin")
    assert local.resolve_model("nano") == tmp_path / "builtin"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nano").mkdir()
    assert local.resolve_model("nano") == tmp_path / "builtin"  # a folder that is no model hides nothing
    (tmp_path / "nano" / "genai_config.json").touch()
    assert local.resolve_model("nano") == Path("nano")  # a model folder of that name comes first


def test_the_newest_commit_of_a_variant_is_the_one(cache: Path) -> None:
    new, old = (pulled(cache, "phi-3-vision", "cpu-int4", commit=c * 40, at=at) for c, at in (("a", 2.0), ("b", 1.0)))
    assert local.resolve_model("phi-3-vision") == new
    assert [model.path for model in local.find_local("phi-3-vision")] == [new, old]


def test_a_whole_model_comes_before_a_newer_damaged_one(cache: Path) -> None:
    new, old = (pulled(cache, "phi-3-vision", "cpu-int4", commit=c * 40, at=at) for c, at in (("a", 2.0), ("b", 1.0)))
    manifest = json.loads((new / "phi3v.json").read_text())
    (new / "phi3v.json").write_text(json.dumps(manifest | {"damaged": ["weights"]}))
    assert local.resolve_model("phi-3-vision") == old


def test_a_bare_name_takes_the_variant_that_fits(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {v: pulled(cache, "phi-3-vision", v, needs=4 * GB) for v in ("cuda-int4", "cpu-int4")}
    with_gpu(monkeypatch, 2 * GB)
    assert local.resolve_model("phi-3-vision") == folders["cpu-int4"]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": 1}', '{"name": "x", "files": []}'])
def test_a_manifest_that_is_not_ours_is_no_model(cache: Path, text: str) -> None:
    folder = pulled(cache, "phi-3-vision", "cpu-int4")
    (folder / "phi3v.json").write_text(text)
    assert local.local_models() == []


def test_every_refusal_is_one_of_ours(cache: Path) -> None:
    with pytest.raises(Phi3VError):
        local.resolve_model()


@pytest.mark.parametrize(
    ("webgpu", "device", "best"),
    [
        (8 * GB, "auto", "cuda-int4"),
        (None, "auto", "cuda-int4"),
        (0, "auto", "cpu-int4"),
        (8 * GB, "webgpu", "cuda-int4"),
        (8 * GB, "openvino:gpu", "cpu-int4"),
        (8 * GB, "cpu", "cpu-int4"),
    ],
)
def test_webgpu_runs_what_was_built_for_cuda_where_the_manifest_says_so(
    cache: Path, monkeypatch: pytest.MonkeyPatch, webgpu: int | None, device: str, best: str
) -> None:
    monkeypatch.setattr(local, "hardware_memory", lambda: webgpu)
    devices = {"cuda-int4": ("cuda", "webgpu"), "cpu-int4": ("cpu", "webgpu", "openvino")}
    folders = {name: pulled(cache, "phi-3-vision", name, needs=4 * GB, devices=devices[name]) for name in devices}
    assert local.resolve_model(device=device) == folders[best]


def test_a_model_pulled_before_manifests_listed_devices_is_for_its_own_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "hardware_memory", lambda: 8 * GB)
    pulled(cache, "phi-3-vision", "cuda-int4")
    folder = pulled(cache, "phi-3-vision", "cpu-int4")
    assert local.resolve_model() == folder
    assert [model.devices for model in local.find_local("phi-3-vision:cuda-int4")] == [("cuda",)]
