"""phi3v.json keeps what it does not know, refuses what it cannot mean, and says how to repair the folder."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from phi3v.errors import ModelFolderError
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.models.manifest import MANIFEST, UNSTATED, Manifest, Origin, has_manifest, remove_manifest, verify

ORIGIN = Origin(variant="cpu-int4", repo="org/model", revision="main", commit="a" * 40, memory_bytes=7)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files and their manifest, to which a newer version of phi3v has added something."""
    (tmp_path / "weights").write_bytes(b"12345")
    (tmp_path / "config").write_bytes(b"{}")
    newer = {"licence of the year": 2030, "nested": {"kept": [1, None]}, "block_size": None}
    Manifest(name="model", device="cpu", extra=newer).with_files_of(tmp_path).write(tmp_path)
    return tmp_path


def content(folder: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return parsed


def test_what_is_read_is_written_again() -> None:
    shipped = content(BUILTIN)
    assert Manifest.from_json(shipped).to_json() == shipped
    pulled = {"format": 1, "name": "m", "variant": "v", "repo": "r", "revision": "main", "commit": "c"} | {
        "subfolder": "s", "licence": "MIT", "device": "cpu", "precision": "int4", "memory_bytes": 5, "pulled_at": 1.5,
        "files": {"a": 1}, "sha256": {"a": "0"}, "original_context_length": 4096,
    }  # fmt: skip
    assert Manifest.from_json(pulled).to_json() == pulled


def test_a_silent_manifest_stays_silent_and_null_stays_null() -> None:
    assert Manifest.from_json({}).original_context_length is UNSTATED
    assert Manifest().to_json() == {"format": 1}
    assert Manifest.from_json({"original_context_length": None}).original_context_length is None
    assert Manifest(original_context_length=None).to_json() == {"format": 1, "original_context_length": None}


def test_the_devices_of_a_folder_are_written_as_a_list(folder: Path) -> None:
    assert ModelDir.open(BUILTIN).devices == ("cpu",)  # a folder from before there was that list
    replace(Manifest.read(folder), devices=("cpu", "webgpu", "a newer one")).write(folder)
    assert content(folder)["devices"] == ["cpu", "webgpu", "a newer one"]
    assert Manifest.read(folder).devices == ("cpu", "webgpu", "a newer one")


def test_keys_of_a_newer_version_survive_a_verification(folder: Path) -> None:
    before = content(folder)
    (folder / "weights").write_bytes(b"1234x")
    assert verify(folder) == {"weights": "does not match its recorded SHA-256"}
    assert content(folder) == before | {"damaged": ["weights"]}
    (folder / "weights").write_bytes(b"12345")
    assert verify(folder) == {}
    assert content(folder) == before


def test_a_key_that_is_not_known_cannot_be_written_by_mistake() -> None:
    with pytest.raises(TypeError):
        Manifest(nmae="model")  # type: ignore[call-arg]


def test_a_verification_names_each_way_in_which_a_file_is_bad(folder: Path) -> None:
    (folder / "config").unlink()
    (folder / "weights").write_bytes(b"123456")
    assert verify(folder) == {"config": "is missing", "weights": "has 6 bytes instead of 5"}
    assert Manifest.read(folder).damaged == ("config", "weights")


def test_files_are_listed_without_the_manifest_and_a_known_checksum_is_believed(folder: Path) -> None:
    listed = Manifest().with_files_of(folder, {"weights": "known"})
    assert (listed.files, listed.nbytes) == ({"config": 2, "weights": 5}, 7)
    assert listed.sha256["weights"] == "known"
    assert len(listed.sha256["config"]) == 64


def test_a_pulled_model_is_repaired_by_its_pull_and_any_other_by_hand() -> None:
    exported, pulled = Manifest(name="model"), Manifest(name="model", origin=ORIGIN)
    pinned = replace(pulled, origin=replace(ORIGIN, revision="v1"))
    assert (exported.origin, exported.full_name, exported.pull_command) == (None, None, None)
    assert (pulled.origin is not None, pulled.full_name) == (True, "model:cpu-int4")
    assert pulled.pull_command == "phi3v pull model:cpu-int4"
    assert pinned.pull_command == "phi3v pull model:cpu-int4 --revision v1"
    assert exported.repair == "fetch or export the model again"
    assert pulled.repair == "run `phi3v pull model:cpu-int4`"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("{", "is not readable JSON"),
        ("[]", "holds a list, not an object"),
        ('{"name": 5}', "name is 5; allowed: a text"),
        ('{"about": 5}', "about is 5; allowed: a text"),
        ('{"format": "new"}', "format is 'new'; allowed: an integer"),
        ('{"synthetic": "yes"}', "synthetic is 'yes'; allowed: true, false"),
        ('{"files": {"weights": "5"}}', "files is .*; allowed: an object of names and sizes"),
        ('{"files": null}', "files is None; allowed: an object of names and sizes"),
        ('{"sha256": {"weights": 5}}', "sha256 is .*; allowed: an object of names and SHA-256 sums"),
        ('{"damaged": "weights"}', "damaged is 'weights'; allowed: a list of names"),
        ('{"damaged": [5]}', "damaged is .*; allowed: a list of names"),
        ('{"devices": "cpu"}', "devices is 'cpu'; allowed: a list of names"),
        ('{"device": "tpu"}', "device is 'tpu'; allowed: cpu, cuda, webgpu, openvino"),
        ('{"variant": "cpu-int4"}', "lacks 'repo'"),
        ('{"variant": 5, "repo": "r", "revision": "r", "commit": "c", "memory_bytes": 1}', "variant is 5"),
        ('{"variant": "v", "repo": "r", "revision": "r", "commit": "c", "memory_bytes": "1"}', "an integer"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
)
def test_a_manifest_that_cannot_be_meant_is_refused_by_its_file(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / MANIFEST).write_text(text)
    for read in (Manifest.read, Manifest.find):
        with pytest.raises(ModelFolderError, match=said) as caught:
            read(tmp_path)
        assert str(tmp_path / MANIFEST) in str(caught.value)


def test_a_folder_without_a_manifest_has_none_to_find_and_cannot_be_verified(folder: Path) -> None:
    assert has_manifest(folder)
    remove_manifest(folder)
    remove_manifest(folder)
    assert not has_manifest(folder)
    assert Manifest.find(folder) is None
    for call in (Manifest.read, verify):
        with pytest.raises(ModelFolderError, match=r"has no phi3v\.json"):
            call(folder)


def test_a_manifest_that_lists_no_files_verifies_nothing(tmp_path: Path) -> None:
    Manifest(name="model").write(tmp_path)
    with pytest.raises(ModelFolderError, match=r"phi3v\.json lists no files"):
        verify(tmp_path)


def test_reading_a_manifest_loads_nothing_heavy() -> None:
    code = (
        "import sys; from phi3v.models.folder import BUILTIN; from phi3v.models.manifest import Manifest\n"
        "Manifest.read(BUILTIN)\n"
        "print(sorted({'numpy', 'onnx', 'onnxruntime', 'torch', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_null_states_nothing(tmp_path: Path) -> None:
    nulls = dict.fromkeys(("format", "name", "sha256", "damaged", "precision"))
    (tmp_path / "phi3v.json").write_text(json.dumps(nulls), encoding="utf-8")
    assert replace(Manifest.read(tmp_path), extra={}) == Manifest()


def test_a_pulled_model_has_a_name(tmp_path: Path) -> None:
    pulled = {"variant": "cpu-int4", "repo": "a/b", "revision": "main", "commit": "c0ffee", "memory_bytes": 1}
    (tmp_path / "phi3v.json").write_text(json.dumps(pulled), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"phi3v.json lacks 'name'"):
        Manifest.read(tmp_path)
