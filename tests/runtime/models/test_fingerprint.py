"""The two hashes of a folder: one is the same for a copy, the other notices that the files were exchanged."""

import os
import shutil
from pathlib import Path

import pytest
from platforms import needs_posix

from phi3v.models.fingerprint import fingerprint_files, hash_contents


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_bytes(b'{"a": 1}\n')
    (path / "empty").touch()
    (path / "weights").write_bytes(b"\0" * (1 << 20))
    (path / "subfolder").mkdir()
    return path


def test_the_hash_of_contents_never_changes_its_value(folder: Path) -> None:
    # Journals of `phi3v batch` and benchmark records hold such values.
    assert hash_contents(folder) == "9a114483c2c546a1"


def test_a_copy_has_the_same_contents_and_another_fingerprint(folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert hash_contents(copy) == hash_contents(folder)
    assert fingerprint_files(copy) != fingerprint_files(folder)


def test_contents_differ_by_name_size_and_bytes_of_small_files(folder: Path) -> None:
    hashes = [hash_contents(folder)]
    (folder / "config.json").write_bytes(b'{"a": 2}\n')
    hashes.append(hash_contents(folder))
    (folder / "empty").rename(folder / "blank")
    hashes.append(hash_contents(folder))
    with (folder / "weights").open("ab") as file:
        file.write(b"x")
    hashes.append(hash_contents(folder))
    assert len(set(hashes)) == 4


def test_the_fingerprint_notices_a_large_file_exchanged_for_one_of_its_size_and_age(folder: Path) -> None:
    before, contents, weights = fingerprint_files(folder), hash_contents(folder), folder / "weights"
    assert fingerprint_files(folder) == before
    status = weights.stat()
    (folder / "new").write_bytes(b"\1" * status.st_size)
    os.utime(folder / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (folder / "new").replace(weights)
    assert fingerprint_files(folder) != before
    assert hash_contents(folder) == contents


@needs_posix
def test_the_fingerprint_is_the_same_through_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    assert fingerprint_files(tmp_path / "link") == fingerprint_files(folder)
