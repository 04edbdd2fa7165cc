"""`Phi3Vision` as Ray calls it, without Ray: batches in, tables out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from places import ROOT

import phi3v
from phi3v.errors import OptionError
from phi3v.ray_data import Phi3Vision

pyarrow = pytest.importorskip("pyarrow")

CHART, COVER = ROOT / "examples" / "chart.png", ROOT / "examples" / "cover.png"
QUESTION = "Help me get the title and author information of this book?"
OPTIONS: dict[str, Any] = {"num_crops": 1, "max_new_tokens": 60}


@dataclass
class Book:
    """What a cover says."""

    title: str
    author: str


@pytest.fixture(scope="module")
def vision() -> Iterator[Phi3Vision]:
    made = Phi3Vision("nano", QUESTION, device="cpu", **OPTIONS)
    yield made
    made.close()


@pytest.fixture(scope="module")
def expected() -> str:
    with phi3v.load("nano", device="cpu") as engine:
        return engine.generate(QUESTION, [COVER], **OPTIONS).text


def objects(*values: object) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


FORMS: dict[str, Callable[[], object]] = {
    "bytes": lambda: COVER.read_bytes(),
    "a path": lambda: str(COVER),
    "pixels": lambda: np.asarray(Image.open(COVER).convert("RGB")),
}


@pytest.mark.parametrize("form", FORMS)
def test_an_image_is_bytes_a_path_or_pixels(vision: Phi3Vision, expected: str, form: str) -> None:
    image = FORMS[form]()
    table = vision({"id": np.array([7]), "image": objects(image)})
    columns = ["id", "image"] if form == "a path" else ["id"]
    assert table.column_names == [*columns, "answer", "finish_reason", "error"]
    assert table.select(["id", "answer", "finish_reason", "error"]).to_pylist() == [
        {"id": 7, "answer": expected, "finish_reason": "stop", "error": None}
    ]


@pytest.mark.parametrize("kind", ["mapping", "arrow", "pandas"])
def test_a_batch_comes_in_any_of_rays_formats(vision: Phi3Vision, expected: str, kind: str) -> None:
    rows = {"image": [COVER.read_bytes()] * 2, "price": [1.5, None]}
    batch: Any = pyarrow.table(rows)
    if kind == "pandas":
        pytest.importorskip("pandas")
        batch = batch.to_pandas()
    if kind == "mapping":
        batch = {name: objects(*values) for name, values in rows.items()}
    table = vision(batch)
    assert table.to_pydict()["answer"] == [expected] * 2
    assert table.to_pydict()["price"] == [1.5, None]


def test_several_images_and_own_questions(vision: Phi3Vision) -> None:
    rows = {
        "images": objects([str(COVER), str(CHART)], [str(CHART)], None),
        "question": objects("What is the difference?", None, "Hello?"),
    }
    table = vision(rows).to_pydict()
    with phi3v.load("nano", device="cpu") as engine:
        assert table["answer"][0] == engine.generate("What is the difference?", [COVER, CHART], **OPTIONS).text
        assert table["answer"][1] == engine.generate(QUESTION, [CHART], **OPTIONS).text
    assert len(table["answer"]) == 3


def test_a_bad_row_is_an_error_and_the_others_are_answered(vision: Phi3Vision, expected: str, tmp_path: Path) -> None:
    bad = objects(b"no image", str(tmp_path / "absent.png"), 7, None, COVER.read_bytes())
    table = vision({"image": bad, "question": objects(*[None] * 3, 5, None)}).to_pydict()
    assert table["answer"] == [None] * 4 + [expected]
    for error, said in zip(table["error"], ["not a", "no such file", "image is a int", "question is 5"], strict=False):
        assert said in error


def test_a_schema_gives_typed_columns_in_every_batch() -> None:
    vision = Phi3Vision("nano", QUESTION, schema=Book, device="cpu", **OPTIONS)
    try:
        good = vision({"id": np.array([1]), "title": objects("own"), "image": objects(str(COVER))})
        bad = vision({"id": np.array([2]), "title": objects("own"), "image": objects("absent.png")})
    finally:
        vision.close()
    assert good.schema == bad.schema
    assert good.column_names == ["id", "input_title", "image", "title", "author", "finish_reason", "error"]
    assert good.schema.field("title").type == pyarrow.string()


def test_images_stay_when_told(expected: str) -> None:
    vision = Phi3Vision("nano", QUESTION, device="cpu", keep_images=True, **OPTIONS)
    try:
        table = vision({"image": objects(COVER.read_bytes())}).to_pylist()
    finally:
        vision.close()
    assert table[0]["image"] == COVER.read_bytes()
    assert table[0]["answer"] == expected


def test_what_is_wrong_with_all_rows_ends_the_job(vision: Phi3Vision) -> None:
    with pytest.raises(OptionError, match=r"'picture'.*none of image"):
        vision({"picture": objects(b"")})
    with pytest.raises(OptionError, match="num_crops"):
        Phi3Vision("nano", QUESTION, num_crops=99)
    with pytest.raises(TypeError, match="crops"):
        Phi3Vision("nano", QUESTION, crops=9)  # type: ignore[call-arg]


def test_an_empty_batch_is_an_empty_table(vision: Phi3Vision) -> None:
    assert vision({"image": objects()}).num_rows == 0


def test_importing_it_loads_no_ray() -> None:
    import subprocess
    import sys

    code = "import sys, phi3v.ray_data; assert 'ray' not in sys.modules and 'pyarrow' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
