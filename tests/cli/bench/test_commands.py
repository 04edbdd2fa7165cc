"""Every tool of bench/ is a command of `phi3v bench`, and its old module name runs the same command."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from phi3v.bench.openvino.folder import BITS
from phi3v.cli.bench.command import bench
from phi3v.cli.bench.nano_settings import nano_settings
from phi3v.cli.bench.openvino_folder import openvino_folder
from phi3v.cli.main import main
from phi3v.export.build import export_model
from phi3v.export.nano.card import BARS
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch

COMMANDS = [
    *("batch", "compare", "cuda-kit", "cuda-table", "gate", "growth", "heartbeat", "load"),
    *("openvino-folder", "parity", "ray", "run", "session", "study", "synth"),
]
OLD_NAMES = {
    "session_speed": ["session"],
    "batch_speed": ["batch"],
    "cuda_table": ["cuda-table"],
    "openvino.folder": ["openvino-folder"],
    "studies.export_settings": ["study", "export-settings"],
    "studies.nano_settings": ["study", "nano-settings"],
}


def help_of(words: list[str]) -> str:
    done = CliRunner().invoke(main, ["bench", *words, "--help"], prog_name="phi3v")
    assert done.exit_code == 0, done.output
    return done.output


def test_every_tool_is_a_command() -> None:
    assert sorted(bench.commands) == COMMANDS


# The module is imported once more under the name __main__, as python -m does.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("module", OLD_NAMES)
def test_the_old_module_name_runs_the_command(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"phi3v.bench.{module}", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out.split() == help_of(OLD_NAMES[module]).split()  # lines are as long as the terminal


@pytest.mark.parametrize(
    "words",
    [["session", "."], ["batch", "."], ["study", "export-settings", ".", "absent"], ["run", "ours=."]],
    ids=["session", "batch", "export-settings", "run"],
)
def test_a_bad_case_is_one_message_and_status_2(words: list[str]) -> None:
    done = CliRunner().invoke(main, ["bench", *words, "--case", "640x480"])
    assert done.exit_code == 2
    assert done.output.splitlines()[-1] == (
        "Error: Invalid value for '--case': case '640x480' is not understood; give WIDTHxHEIGHT:NUM_CROPS:NEW_TOKENS, "
        "such as 1344x1344:16:64"
    )


def test_the_choices_are_those_of_the_library() -> None:
    choices = {option.name: option.type.choices for option in openvino_folder.params if option.name == "bits"}
    assert choices == {"bits": tuple(map(str, BITS))}
    choices = {option.name: option.type.choices for option in nano_settings.params if option.name == "jobs"}
    assert choices == {"jobs": tuple(BARS)}


def test_parity_takes_an_image_under_its_old_name_too(tmp_path: Path) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "c", tiny_dims(), seed=1)
    model = export_model(checkpoint, tmp_path / "m", precision="fp32")
    image = tmp_path / "small.png"
    Image.new("RGB", (64, 48), "teal").save(image)

    def measure(option: str) -> dict[str, object]:
        words = ["parity", str(checkpoint), str(model), option, str(image), "--new-tokens", "1", "--json"]
        done = CliRunner().invoke(main, ["bench", *words])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    found = measure("--image")
    assert found["ids_equal"] is True
    assert found == measure("--picture")
    assert "--picture" not in help_of(["parity"])


@pytest.mark.parametrize(
    ("outliers", "message"),
    [("norms", "not PLACE:FACTOR, such as norms:30"), ("biases:30", "use one of norms, projections, tokens")],
)
def test_outliers_that_cannot_be_planted_are_refused(tmp_path: Path, outliers: str, message: str) -> None:
    done = CliRunner().invoke(main, ["bench", "synth", str(tmp_path / "out"), "--outliers", outliers])
    assert done.exit_code != 0
    assert message in " ".join(done.stderr.split())
    assert not (tmp_path / "out").exists()
