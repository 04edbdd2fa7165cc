"""A job's files on Ray, without Ray: its rows, and what may not change under them."""

from pathlib import Path

import click
import pytest

from phi3v.cli.batch.item import Item
from phi3v.errors import OptionError

parquet = pytest.importorskip("pyarrow.parquet")

from phi3v.cli.batch.ray_files import JobFiles, list_bucket  # noqa: E402


def test_rows_are_written_with_their_own_columns_as_text(tmp_path: Path) -> None:
    files = JobFiles(str(tmp_path / "out"))
    items = [
        Item("x", ("a.png",), "What?", {"price": 3, "note": None}),
        Item("y", ("b.png",), "What?", {"deep": {"a": 1}}),
        Item("z", ("a.png",), "Who?"),
    ]
    files.write_rows(items)
    rows = parquet.read_table(f"{files.rows}/rows.parquet").to_pylist()
    assert [row["id"] for row in rows] == ["x", "z", "y"]
    assert rows[0] == {
        "id": "x", "images": ["a.png"], "question": "What?", "price": "3", "note": None, "deep": None
    }  # fmt: skip
    assert rows[2]["deep"] == '{"a": 1}'


def test_a_row_may_not_change_under_its_id(tmp_path: Path) -> None:
    files = JobFiles(str(tmp_path / "out"))
    files.write_rows([Item("x", ("a.png",), "What?")])
    files.write_rows([Item("x", ("a.png",), "What?"), Item("y", ("b.png",), "What?")])
    with pytest.raises(OptionError, match=r"answers 'What\?' about \['a.png'\] under the id 'x'"):
        files.write_rows([Item("x", ("a.png",), "Who?")])


def test_another_run_is_refused(tmp_path: Path) -> None:
    files = JobFiles(str(tmp_path / "out"))
    files.check_run("one")
    files.check_run("one")
    with pytest.raises(OptionError, match="give --out another folder"):
        files.check_run("two")


def test_a_name_that_is_not_utf_8_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError, match="not UTF-8"):
        JobFiles(str(tmp_path / "out")).write_rows([Item("m\udcff.png:1", ("m\udcff.png",), "?")])


def test_a_bucket_that_cannot_be_reached_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(click.UsageError, match="cannot be listed"):
        list_bucket("s3://photos/in?region=us-east-1&connect_timeout=2&request_timeout=2")
