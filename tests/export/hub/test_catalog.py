"""Which published build a name means, and what is said when it means none."""

import dataclasses

import pytest

from phi3v.errors import OptionError
from phi3v.export.hub import catalog
from phi3v.export.hub.catalog import BUILDS, GB, find_build
from phi3v.models.local import Machine

NO_GPU = Machine(0, 16 * GB)


@pytest.mark.parametrize(
    ("gpu_gb", "variant"), [(0, "cpu-int4"), (4, "cpu-int4"), (8, "cuda-int4"), (140, "cuda-int4")]
)
def test_without_a_variant_the_machine_decides(gpu_gb: int, variant: str) -> None:
    assert find_build("phi-3-vision", Machine(gpu_gb * GB, 16 * GB)).variant == variant


@pytest.mark.parametrize("build", BUILDS, ids=lambda build: build.full_name)
def test_every_build_is_found_by_its_full_name(build) -> None:  # type: ignore[no-untyped-def]
    assert find_build(build.full_name, NO_GPU) is build
    assert {"genai_config.json", "processor_config.json", "tokenizer.json"} < set(build.files)
    assert len([name for name in build.files if name.endswith(".data")]) == 3


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(OptionError, match=r"known: phi-3-vision, phi-3\.5-vision"):
        find_build("llava", NO_GPU)


def test_a_variant_nobody_publishes_lists_the_published_ones() -> None:
    with pytest.raises(OptionError, match=r"allowed: phi-3\.5-vision:cuda-int4, phi-3\.5-vision:cpu-int4"):
        find_build("phi-3.5-vision:cuda-fp16", NO_GPU)


@pytest.mark.parametrize(
    ("published", "gpu_gb", "variant"),
    [
        (("cuda-fp16", "cpu-fp16", "cpu-int4"), 0, "cpu-int4"),
        (("cuda-fp16", "cpu-fp16", "cpu-int4"), 24, "cuda-fp16"),
        (("cuda-fp16", "cuda-int4", "cpu-fp16"), 24, "cuda-int4"),
        (("cuda-fp16", "cpu-fp32", "cpu-fp16"), 0, "cpu-fp32"),
    ],
)
def test_a_bare_name_means_the_devices_int4_build_else_the_first_that_fits(
    monkeypatch: pytest.MonkeyPatch, published: tuple[str, ...], gpu_gb: int, variant: str
) -> None:
    publish(monkeypatch, *published)
    assert find_build("other", Machine(gpu_gb * GB, 16 * GB)).variant == variant


def test_a_bare_name_without_a_build_for_this_machine_lists_the_published_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish(monkeypatch, "cuda-fp16")
    with pytest.raises(OptionError, match=r"other has no published build that runs here; allowed: other:cuda-fp16"):
        find_build("other", NO_GPU)


def publish(monkeypatch: pytest.MonkeyPatch, *variants: str) -> None:
    """Let the catalogue hold one model, in these variants."""
    builds = [dataclasses.replace(BUILDS[0], name="other", variant=variant) for variant in variants]
    monkeypatch.setattr(catalog, "BUILDS", builds)


@pytest.mark.parametrize(
    ("machine", "device", "variant"),
    [
        (Machine(0, 16 * GB, webgpu_memory=8 * GB), "auto", "cuda-int4"),
        (Machine(0, 16 * GB, webgpu_memory=None), "auto", "cuda-int4"),  # macOS and Windows do not say
        (Machine(0, 16 * GB, webgpu_memory=2 * GB), "auto", "cpu-int4"),
        (Machine(8 * GB, 16 * GB, webgpu_memory=8 * GB), "auto", "cuda-int4"),
        (NO_GPU, "webgpu", "cuda-int4"),
        (NO_GPU, "cuda", "cuda-int4"),
        (NO_GPU, "openvino", "cpu-int4"),
        (Machine(8 * GB, 16 * GB), "cpu", "cpu-int4"),
    ],
)
def test_the_device_that_is_wanted_decides_which_build_a_bare_name_means(
    machine: Machine, device: str, variant: str
) -> None:
    assert find_build("phi-3-vision", machine, device).variant == variant


def test_a_build_for_cuda_runs_through_webgpu_and_one_for_the_cpu_through_all_but_cuda() -> None:
    assert find_build("phi-3-vision:cuda-fp16", NO_GPU).devices == ("cuda", "webgpu")
    assert find_build("phi-3-vision:cpu-int4", NO_GPU).devices == ("cpu", "webgpu", "openvino")
