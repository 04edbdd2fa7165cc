"""The published builds that `phi3v pull` knows: where each lies, what it holds, and the machine it needs.

Sizes are those on the builds' pages; `pull` asks the hub for the exact ones before it fetches anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import OptionError
from ...machine.device_table import PREFERENCE, TABLE, suited_devices
from ...models.local import PUBLISHED_NAMES, Machine, split_name
from ...models.near_miss import suggest

GB = 1_000_000_000
MIT = "MIT (Microsoft)"
_ALWAYS = ("genai_config.json", "processor_config.json", "special_tokens_map.json", "tokenizer.json")
_CPU_INT4 = "cpu_and_mobile/cpu-int4-rtn-block-32-acc-level-4"
_CUDA_INT4 = "gpu/gpu-int4-rtn-block-32"


@dataclass(frozen=True, slots=True)
class PublishedBuild:
    """One published ONNX build of a model.

    `files` are the names the build is known to hold in `subfolder`; a build that lacks one is refused. `memory_bytes`
    is the least memory of a GPU, or RAM for a CPU, for the weights and one image of 16 crops. `old_layout` builds are
    migrated after the download.
    """

    name: str
    variant: str
    repo: str
    subfolder: str
    files: tuple[str, ...]
    download_bytes: int
    memory_bytes: int
    revision: str = "main"
    licence: str = MIT
    old_layout: bool = False

    @property
    def full_name(self) -> str:
        """What to type: `name:variant`."""
        return f"{self.name}:{self.variant}"

    @property
    def device(self) -> str:
        """What it was built for: "cuda" or "cpu"."""
        return self.variant.partition("-")[0]

    @property
    def devices(self) -> tuple[str, ...]:
        """The kinds of devices it runs on."""
        return suited_devices(self.device, self.precision)

    @property
    def precision(self) -> str:
        """ "int4" or "fp16"."""
        return self.variant.partition("-")[2]


def _files(stem: str, embedding: str = "embedding") -> tuple[str, ...]:
    graphs = [f"{stem}-{part}.onnx" for part in (embedding, "text", "vision")]
    return (*_ALWAYS, "tokenizer_config.json", *(name for graph in graphs for name in (graph, f"{graph}.data")))


_PHI_3, _PHI_35 = "microsoft/Phi-3-vision-128k-instruct-onnx", "microsoft/Phi-3.5-vision-instruct-onnx"
_FILES_3, _FILES_35 = _files("phi-3-v-128k-instruct"), _files("phi-3.5-v-instruct")

BUILDS = (
    PublishedBuild("phi-3-vision", "cuda-int4", _PHI_3, _CUDA_INT4, _FILES_3, int(2.6 * GB), 6 * GB),
    PublishedBuild(
        *("phi-3-vision", "cuda-fp16", "microsoft/Phi-3-vision-128k-instruct-onnx-cuda", "cuda-fp16"),
        _files("phi-3-v-128k-instruct", "text-embedding"),
        *(int(8.3 * GB), 12 * GB),
        old_layout=True,
    ),
    PublishedBuild("phi-3-vision", "cpu-int4", _PHI_3, _CPU_INT4, _FILES_3, int(3.2 * GB), 7 * GB),
    PublishedBuild("phi-3.5-vision", "cuda-int4", _PHI_35, _CUDA_INT4, _FILES_35, int(2.6 * GB), 6 * GB),
    PublishedBuild("phi-3.5-vision", "cpu-int4", _PHI_35, _CPU_INT4, _FILES_35, int(3.2 * GB), 7 * GB),
)
"""Every build that can be fetched. Microsoft publishes no fp16 build of Phi-3.5-vision."""


def find_build(name: str, machine: Machine, device: str = "auto") -> PublishedBuild:
    """The build that `name` or `name:variant` means on a machine, to run on a kind of device.

    A bare name means the best build for that device; for "auto" one for the GPU if it fits there, else one for the CPU.
    Of several, the int4 one. Raises OptionError, which lists the published ones.
    """
    model, variant = split_name(name)
    builds = [build for build in BUILDS if build.name == model]
    if not builds:
        known = ", ".join(dict.fromkeys(build.name for build in BUILDS))
        raise OptionError(
            f"no published model is called {name!r}{suggest(model, PUBLISHED_NAMES)}; known: {known} (`phi3v models` "
            "lists their variants)"
        )
    if variant is None:
        ranks = {build: rank for build in builds if (rank := _rank(build, machine, device)) is not None}
        meant = sorted(ranks, key=ranks.__getitem__)
    else:
        meant = [build for build in builds if build.variant == variant]
    if meant:
        return meant[0]
    lacks = "build that runs here" if variant is None else f"variant {variant!r}"
    allowed = ", ".join(build.full_name for build in builds)
    near = "" if variant is None else suggest(name, [build.full_name for build in builds])
    raise OptionError(f"{model} has no published {lacks}{near}; allowed: {allowed}")


def _rank(build: PublishedBuild, machine: Machine, device: str) -> tuple[int, int, bool] | None:
    """Where a build stands among others for a kind of device, lower is better; None if it is not for that.

    A build for the CPU can always be fetched, whatever fits.
    """
    on = machine.choose(build.devices, build.memory_bytes) if device == "auto" else device
    if on is None and build.device == "cpu":
        on = "cpu"
    if on is None or on not in build.devices:
        return None
    order: tuple[str, ...] = TABLE[on].builds
    return PREFERENCE.index(on) if device == "auto" else 0, order.index(build.device), build.precision != "int4"
