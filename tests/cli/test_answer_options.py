"""The options that keep an answer to a format, as a person meets them."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from processes import PATIENCE_S, PHI3V

from phi3v.export.build import export_model
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint

pytestmark = pytest.mark.torch


def ask(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PHI3V, "ask", "hi", *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", env=os.environ | env, timeout=PATIENCE_S,
    )  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model")
    checkpoint = write_random_checkpoint(path / "checkpoint", tiny_dims(), seed=1)
    return str(export_model(checkpoint, path / "model", precision="fp32"))


def test_fields_give_one_json_object_on_stdout(model: str) -> None:
    done = ask("--model", model, "--schema", "title, year int?", "--max-new-tokens", "2000", PYTHONIOENCODING="utf-8")
    assert done.returncode == 0, done.stderr
    assert list(json.loads(done.stdout)) == ["title", "year"]


@pytest.mark.slow
def test_a_schema_file_a_pattern_and_choices_hold(model: str, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('\ufeff{"type": "array", "items": {"enum": ["é"]}, "minItems": 2, "maxItems": 2}', "utf-8")
    common = ("--model", model, "--max-new-tokens", "100")
    assert json.loads(ask(*common, "--json-schema", str(schema), PYTHONIOENCODING="utf-8").stdout) == ["é", "é"]
    assert len(ask(*common, "--regex", "[0-9]{4}").stdout.strip()) == 4
    assert ask(*common, "--choices", "yes, no").stdout.strip() in ("yes", "no")
    assert ask(*common, "--choices", '["a, b"]').stdout == "a, b\n"
    record = json.loads(ask(*common, "--choices", "yes,no", "--json").stdout)
    assert (record["text"] in ("yes", "no"), record["finish_reason"]) == (True, "stop")


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["text", "json"])
def test_an_answer_that_was_cut_is_status_1_and_nothing_on_stdout(model: str, form: tuple[str, ...]) -> None:
    done = ask("--model", model, "--schema", "title", "--max-new-tokens", "5", *form)
    assert (done.returncode, done.stdout) == (1, "")
    assert "max_new_tokens (5)" in done.stderr
    assert "Traceback" not in done.stderr


def test_what_is_wrong_with_a_format_is_said_before_a_model_is_loaded(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"uniqueItems": true}')
    broken = tmp_path / "broken.json"
    broken.write_bytes(b'{"type": \xff')
    for options, said, status in (
        (("--schema", "title, year integer"), "'integer' is not a type; allowed: str, int", 1),
        (("--regex", "a(b"), "wrong at character 2: unclosed group", 1),
        (("--choices", "yes,,no"), "non-empty strings", 1),
        (("--choices", '["a"'), "not a JSON list", 2),
        (("--json-schema", str(schema)), "uniqueItems", 1),
        (("--json-schema", str(broken)), "broken.json", 1),
        (("--json-schema", str(tmp_path / "absent.json")), "absent.json", 1),
        (("--schema", "a", "--regex", "b"), "exclude each other", 2),
        (("--schema", "a", "--stop", "b"), "stop strings", 1),
    ):
        done = ask("--model", "/no/model/here", *options)
        assert (done.returncode, done.stdout) == (status, ""), done.stderr
        assert said in done.stderr
        assert "/no/model/here" not in done.stderr
        assert "Traceback" not in done.stderr
