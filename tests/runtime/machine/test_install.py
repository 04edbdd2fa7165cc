"""The line that installs an extra is the one that works for how phi3v was installed."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from phi3v.machine.install import install_line


class Distribution:
    def __init__(self, direct: dict[str, Any] | str | None) -> None:
        self._direct = direct

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return json.dumps(self._direct) if isinstance(self._direct, dict) else self._direct


def install_from(monkeypatch: pytest.MonkeyPatch, direct: dict[str, Any] | str | None, *extras: str) -> str:
    monkeypatch.setattr(metadata, "distribution", lambda _: Distribution(direct))
    return install_line(*extras or ("cpu",))


def test_an_editable_checkout_stays_editable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    direct = {"url": tmp_path.as_uri(), "dir_info": {"editable": True}}
    assert install_from(monkeypatch, direct, "cpu", "export") == f"pip install -e '{tmp_path}[cpu,export]'"


def test_a_checkout_in_a_folder_with_a_space_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "my {code}"
    folder.mkdir()
    direct = {"url": folder.as_uri(), "dir_info": {}}
    assert install_from(monkeypatch, direct) == f"pip install '{folder}[cpu]'"


def test_a_wheel_is_named_by_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wheel = tmp_path / "phi3v-0.1.0-py3-none-any.whl"
    wheel.touch()
    direct = {"url": wheel.as_uri(), "archive_info": {}}
    assert install_from(monkeypatch, direct) == f"pip install '{wheel}[cpu]'"


def test_a_repository_is_named_with_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = {"url": "https://example.org/phi3v.git", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}
    expected = "pip install 'phi3v[cpu] @ git+https://example.org/phi3v.git@abc123'"
    assert install_from(monkeypatch, direct) == expected


@pytest.mark.parametrize("direct", [None, "", "{", "[]", {"url": "file:///gone/away", "dir_info": {}}, {}])
def test_everything_else_comes_from_the_index(
    monkeypatch: pytest.MonkeyPatch, direct: dict[str, Any] | str | None
) -> None:
    assert install_from(monkeypatch, direct) == "pip install 'phi3v[cpu]'"


def test_without_any_distribution_the_index_is_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "distribution", missing)
    assert install_line("cuda") == "pip install 'phi3v[cuda]'"
