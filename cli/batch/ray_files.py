"""The files of a job on Ray: buckets that are listed, the rows that Ray reads, and what it has written."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping, Sequence
from typing import Any

import click

from phi3v.errors import OptionError
from phi3v.images.suffixes import IMAGE_SUFFIXES
from phi3v.ray_data.buckets import is_bucket_url

from .item import Item, gather_siblings
from .lines import to_json


def list_bucket(url: str) -> list[str]:
    """The images below a bucket's folder, or the one that a URL names, sorted. Raises click.UsageError for none."""
    from pyarrow import ArrowException
    from pyarrow.fs import FileSelector, FileSystem, FileType

    scheme = url.partition("://")[0]
    try:
        files, path = FileSystem.from_uri(url)
        if files.get_file_info(path).type == FileType.File:
            return [url]
        found = files.get_file_info(FileSelector(path, recursive=True))
    except (OSError, ArrowException) as exc:
        raise click.UsageError(f"{url} cannot be listed ({exc}); check the name and the credentials") from exc
    images = sorted(f"{scheme}://{info.path}" for info in found if info.path.lower().endswith(IMAGE_SUFFIXES))
    if not images:
        raise click.UsageError(f"{url}: contains no images ({', '.join(IMAGE_SUFFIXES)})")
    return images


class JobFiles:
    """A job's folders: `out` with the answers, and beside it OUT.job with `rows`, `done` and run.json."""

    def __init__(self, out: str) -> None:
        from pyarrow.fs import FileSystem, LocalFileSystem

        self._scheme = out.partition("://")[0] if is_bucket_url(out) else ""
        if self._scheme:
            self._files, self.out = FileSystem.from_uri(out.rstrip("/"))
        else:
            self._files, self.out = LocalFileSystem(), os.path.abspath(out)  # noqa: PTH100
        self._job = f"{self.out}.job"
        self.rows, self.done = f"{self._job}/rows", f"{self._job}/done"

    def url(self, path: str) -> str:
        """A path of these as Ray takes it."""
        return f"{self._scheme}://{path}" if self._scheme else path

    def check_run(self, run: str) -> None:
        """Remember what a job's answers depend on. Raises OptionError if they depended on something else before."""
        path = f"{self._job}/run.json"
        if self._is_file(path):
            with self._files.open_input_stream(path) as file:
                before = json.loads(file.read())["run"]
            if before != run:
                raise OptionError(
                    f"{self.url(self.out)} holds answers of another model or with other options: repeat the command as "
                    "it was, or give --out another folder"
                )
            return
        self._files.create_dir(self._job, recursive=True)
        with self._files.open_output_stream(path) as file:
            file.write(json.dumps({"run": run}).encode())

    def _is_file(self, path: str) -> bool:
        from pyarrow.fs import FileType

        return bool(self._files.get_file_info(path).type == FileType.File)

    def write_rows(self, items: Sequence[Item]) -> None:
        """Write the rows as a table; questions about the same images stand in a row.

        Raises OptionError if a row of before asks something else under the same id.
        """
        import pyarrow
        import pyarrow.parquet

        path = posixpath.join(self.rows, "rows.parquet")
        if self._is_file(path):
            self._check_same(items, pyarrow.parquet.read_table(path, filesystem=self._files).to_pylist())
        self._files.create_dir(self.rows, recursive=True)
        ordered = gather_siblings(items)
        names = list(dict.fromkeys(name for item in ordered for name in item.columns))
        table = pyarrow.Table.from_pylist([_row(item, names) for item in ordered], schema=_schema(names))
        pyarrow.parquet.write_table(table, path, filesystem=self._files)

    def _check_same(self, items: Sequence[Item], before: Sequence[Mapping[str, Any]]) -> None:
        asked = {row["id"]: (row["question"], tuple(row["images"])) for row in before}
        for item in items:
            question, images = asked.get(item.id, (item.question, item.images))
            if (question, images) != (item.question, item.images):
                raise OptionError(
                    f"{self.url(self.out)} answers {question!r} about {list(images)} under the id {item.id!r}, and now "
                    f"it is {item.question!r} about {list(item.images)}; give --out another folder"
                )

    def count(self) -> tuple[int, int]:
        """The rows that were written, and those of them that failed."""
        import pyarrow.compute
        import pyarrow.dataset

        table = pyarrow.dataset.dataset(self.out, filesystem=self._files, format="parquet")
        failed = table.count_rows(filter=pyarrow.compute.field("error").is_valid())
        return table.count_rows(), failed


def _schema(names: Sequence[str]) -> Any:
    import pyarrow

    text = pyarrow.string()
    fields = [("id", text), ("images", pyarrow.list_(text)), ("question", text), *((name, text) for name in names)]
    return pyarrow.schema(fields)


def _row(item: Item, names: Sequence[str]) -> dict[str, Any]:
    """A row with its own columns as text: their types may differ from file to file."""
    try:
        item.id.encode()
    except UnicodeEncodeError as exc:
        raise click.UsageError(f"{item.id!r}: the name is not UTF-8, which Parquet needs; rename the file") from exc
    own = {name: _as_text(item.columns.get(name)) for name in names}
    return {"id": item.id, "images": list(item.images), "question": item.question, **own}


def _as_text(value: Any) -> str | None:
    plain = to_json(value)
    return plain if plain is None or isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
