"""Folders with int8 prefill: which of their graphs run, by what is asked for, the processor and the memory."""

import pytest
from exports import Exports

import phi3v
from phi3v.backend import ModelInputs
from phi3v.errors import DeviceError, OptionError
from phi3v.genai import prefill
from phi3v.genai.backend import GenaiBackend
from phi3v.genai.prefill import choose_graphs, wanted_prefill
from phi3v.machine.device_table import TABLE
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.sampling import TokenChooser

pytestmark = pytest.mark.torch
BLOCKS = {"vision": "vision-blocks.onnx", "decoder": "text-blocks.onnx"}


@pytest.fixture(scope="module")
def both(exports: Exports) -> ModelDir:
    return ModelDir.open(exports.model("int4", prefill="int8", original_context=256, dtype="float32"))


@pytest.fixture(scope="module")
def int8_only(exports: Exports) -> ModelDir:
    return ModelDir.open(exports.model("int8", original_context=256, dtype="float32"))


@pytest.fixture(scope="module")
def int4_only(exports: Exports) -> ModelDir:
    return ModelDir.open(exports.model("int4", original_context=256, dtype="float32"))


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PHI3V_PREFILL", raising=False)


def answer(folder: ModelDir, wanted: prefill.Prefill | None = None) -> list[int]:
    """Greedy tokens of a fixed prompt with an image."""
    backend = GenaiBackend(folder, "cpu", prefill=wanted)
    inputs: ModelInputs = backend.preprocess("What is this?", [phi3v.images.load.load_image("examples/cover.png")], 1)
    generation = backend.start(inputs, TokenChooser(), 12)
    tokens = [generation.step() for _ in range(12)]
    generation.close()
    backend.close()
    return tokens


def without_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "find_int8_fault", lambda: "this processor has no VNNI")


def test_a_folder_with_both_weights_answers_as_one_of_blocks_alone_when_asked_to(
    both: ModelDir, int4_only: ModelDir
) -> None:
    assert answer(both, "int4") == answer(int4_only)


def test_a_processor_without_vnni_takes_the_blocks(both: ModelDir, monkeypatch: pytest.MonkeyPatch) -> None:
    without_vnni(monkeypatch)
    assert choose_graphs(both, "cpu", "auto") == BLOCKS
    with pytest.raises(DeviceError, match="no VNNI; leave prefill out"):
        choose_graphs(both, "cpu", "int8")


def test_a_processor_with_vnni_takes_int8_unless_asked_not_to(both: ModelDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "find_int8_fault", lambda: None)
    assert choose_graphs(both, "cpu", "auto") == choose_graphs(both, "cpu", "int8") == {}
    assert choose_graphs(both, "cpu", "int4") == BLOCKS


def test_other_devices_take_the_blocks(both: ModelDir) -> None:
    assert choose_graphs(both, "webgpu", "auto") == BLOCKS
    with pytest.raises(DeviceError, match="webgpu does not multiply it row by row"):
        choose_graphs(both, "webgpu", "int8")


def test_a_folder_in_int8_alone_runs_where_products_are_exact_only(
    int8_only: ModelDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert int8_only.precision == "int8"
    assert int8_only.block_graphs == {}
    assert len(answer(int8_only)) == 12
    with pytest.raises(DeviceError, match=r"everything in int8, and it has no other weights; .*--precision int4"):
        choose_graphs(int8_only, "cpu", "int4")
    without_vnni(monkeypatch)
    with pytest.raises(DeviceError, match=r"everything in int8, and this processor has no VNNI; .*--precision int4"):
        choose_graphs(int8_only, "cpu", "auto")


def test_a_folder_without_int8_refuses_to_be_asked_for_it(int4_only: ModelDir) -> None:
    assert choose_graphs(int4_only, "cpu", "auto") == choose_graphs(int4_only, "cpu", "int4") == {}
    with pytest.raises(OptionError, match=r"has no int8 prefill; .*--prefill int8"):
        choose_graphs(int4_only, "cpu", "int8")


def test_what_does_not_fit_into_memory_is_refused_with_the_smaller_choice(
    both: ModelDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill, "find_int8_fault", lambda: None)
    blocks = sum((both.graphs | {part: size for part, (_, size) in both.block_graphs.items()}).values())
    assert blocks < sum(both.graphs.values())
    monkeypatch.setattr(prefill, "available_memory", lambda: blocks)
    with pytest.raises(
        DeviceError, match=r"are free; without int8 prefill it takes .* GB: `export PHI3V_PREFILL=int4`"
    ):
        choose_graphs(both, "cpu", "auto")
    assert choose_graphs(both, "cpu", "int4") == BLOCKS
    monkeypatch.setattr(prefill, "available_memory", lambda: blocks - 1)
    with pytest.raises(DeviceError, match="end other programs, or take a smaller build"):
        choose_graphs(both, "cpu", "int4")


def test_the_variable_says_what_nobody_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted_prefill() == "auto"
    monkeypatch.setenv("PHI3V_PREFILL", "int4")
    assert (wanted_prefill(), wanted_prefill("int8")) == ("int4", "int8")
    monkeypatch.setenv("PHI3V_PREFILL", "int2")
    with pytest.raises(OptionError, match="PHI3V_PREFILL is 'int2'; allowed: auto, int8, int4"):
        wanted_prefill()
    with pytest.raises(OptionError, match="prefill is 'fast'; allowed: auto, int8, int4"):
        phi3v.load("nano", "cpu", prefill="fast")  # type: ignore[arg-type]


def test_the_device_table_has_no_device_that_takes_int8_but_the_cpu() -> None:
    assert [name for name, row in TABLE.items() if "int8" in row.precisions] == ["cpu"]
    assert ModelDir.open(BUILTIN).int8_prefill is False
