"""What `phi3v batch` reads: folders, patterns, tables of every kind, pages, and what it says of the rest."""

import csv
import json
from pathlib import Path
from typing import Any

import click
import pytest
from PIL import Image

from phi3v.cli.batch.inputs import InputReader, Inputs, make_id, read_questions
from phi3v.cli.batch.item import Item
from phi3v.cli.paged import PageSelection
from phi3v.errors import MissingDependencyError


def read(*inputs: object, questions: tuple[str, ...] = ("What?",), **options: Any) -> Inputs:
    return InputReader(questions, **options).read([str(given) for given in inputs])


def images(*inputs: object, **options: Any) -> list[str]:
    return [item.images[0] for item in read(*inputs, **options).items]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_inputs_are_images_folders_and_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.JPG", "c.jfif", "d.jpe", "notes.txt", "sub/c.webp", ".hidden/d.png", "sub/.e.png")

    def below(*inputs: str) -> list[str]:
        return [image.removeprefix(f"{tmp_path}/") for image in images(*inputs)]

    assert below(str(tmp_path)) == ["a.png", "b.JPG", "c.jfif", "d.jpe", "sub/c.webp"]
    assert below(f"{tmp_path}/*.png") == ["a.png"]
    assert below(f"{tmp_path}/**/*.webp") == ["sub/c.webp"]
    assert below(f"{tmp_path}/d.jpe", str(tmp_path)) == ["d.jpe", "a.png", "b.JPG", "c.jfif", "sub/c.webp"]
    assert below("https://example.org/a.png") == ["https://example.org/a.png"]
    with pytest.raises(click.UsageError, match="contains no images"):
        below(f"{tmp_path}/*.gif")


def test_what_a_folder_holds_beside_images_is_counted(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.pdf", "s/c.PDF", "d.txt", "README")
    [said] = read(tmp_path).notes
    assert said.startswith("passed over 4 files that are not images: .pdf 2, .txt 1, no suffix 1")
    assert "--pages all reads .pdf" in said


def test_a_linked_folder_is_read_once_and_a_loop_ends(tmp_path: Path) -> None:
    touch(tmp_path, "top/a.png", "elsewhere/b.png")
    (tmp_path / "top" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top" / "link2").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "top")
    found = read(tmp_path / "top")
    assert [item.images[0].removeprefix(f"{tmp_path}/") for item in found.items] == ["top/a.png", "top/link/b.png"]
    assert len([note for note in found.notes if "is read already" in note]) == 2


@pytest.mark.parametrize("given", ["phots", "books.cvs", "pages.csv", "pages.parquet", "data.xlsx", "list.json"])
def test_a_mistyped_folder_or_table_is_an_error(tmp_path: Path, given: str) -> None:
    touch(tmp_path, "photos/a.png", "books.csv")
    with pytest.raises(click.UsageError, match=r"no such file|is not read") as raised:
        read(tmp_path / given)
    expected = {
        "phots": "did you mean .*photos",
        "books.cvs": "did you mean .*books.csv",
        "data.xlsx": "allowed: .jsonl",
    }
    assert raised.match(expected.get(given, ""))


def test_an_image_that_is_not_there_is_a_row(tmp_path: Path) -> None:
    assert images(tmp_path / "late.png", tmp_path / "scan.pdf#page=2")


def test_an_id_is_made_of_what_is_asked_and_not_of_its_place(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "b.png")
    one = {item.id for item in read(tmp_path / "b.png").items}
    more = read(tmp_path, questions=("Who?", "What?")).items
    assert one < {item.id for item in more}
    assert len({item.id for item in more}) == 4
    assert all(item.id.startswith(f"{item.images[0]}:") for item in more)


def test_the_same_question_about_the_same_images_is_one_row(tmp_path: Path) -> None:
    touch(tmp_path, "a.png")
    assert len(read(tmp_path, tmp_path / "a.png", f"{tmp_path}/*.png").items) == 1
    (tmp_path / "t.csv").write_text("image,price\na.png,1\na.png,1\n")
    assert len(read(tmp_path / "t.csv").items) == 1
    (tmp_path / "t.csv").write_text("image,price\na.png,1\na.png,2\n")
    with pytest.raises(click.UsageError, match=r"t.csv:2 and .*t.csv:3 ask the same .* column id"):
        read(tmp_path / "t.csv")


def test_questions_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("\ufeffWhat?\n\n  Who? \nWhat?\n", encoding="utf-8")
    assert read_questions(tmp_path / "q.txt") == ["What?", "Who?"]
    (tmp_path / "q.txt").write_text(" \n")
    with pytest.raises(click.UsageError, match="one per line"):
        read_questions(tmp_path / "q.txt")


def test_an_image_without_a_question_says_what_to_give() -> None:
    with pytest.raises(click.UsageError, match="--question"):
        read("a.png", questions=())


def test_tables_name_images_beside_them(tmp_path: Path) -> None:
    table, a = tmp_path / "in.jsonl", f"{tmp_path}/a.png"
    table.write_text(
        '{"image": "a.png", "price": 3}\n\n'
        '{"images": ["a.png", "https://x.org/b.png"], "question": "Which?", "id": 7}\n'
        '{"question": "Alone?"}\n'
    )
    assert read(table).items == [
        Item(make_id([a], "What?"), (a,), "What?", {"price": 3}),
        Item("7", (a, "https://x.org/b.png"), "Which?", {}, has_own_id=True),
        Item(make_id([], "Alone?"), (), "Alone?"),
    ]
    sheet = tmp_path / "in.csv"
    sheet.write_text('id,Image ,images,question,note\nx,a.png,,"Say ""hi"", twice",n\ny,,"[""b.png"", ""c.png""]",,\n')
    assert read(sheet).items == [
        Item("x", (a,), 'Say "hi", twice', {"note": "n"}, has_own_id=True),
        Item("y", (f"{tmp_path}/b.png", f"{tmp_path}/c.png"), "What?", {"note": ""}, has_own_id=True),
    ]


def test_an_own_id_stays_when_a_question_is_added(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,image\nx,a.png\n")
    assert [item.id for item in read(tmp_path / "t.csv").items] == ["x"]
    first, second = (item.id for item in read(tmp_path / "t.csv", questions=("What?", "Who?")).items)
    assert first == "x"
    assert second.startswith("x:")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"image": "a.png"}\n{"image": ', r"in.jsonl:2 is not JSON"),
        ("[1]", "not a JSON object"),
        ('{"images": "a.png"}', "JSON list"),
        ('{"image": 3}', "paths or URLs"),
        ('{"image": "a.png", "question": 3}', "question is 3"),
        ("{}", "neither an image nor a question"),
        ('{"picture": "a.png"}', "found: picture"),
        ('{"image": "a.png", "id": "x"}\n{"image": "b.png", "id": "x"}', "in.jsonl:1 and .*in.jsonl:2 .* id, 'x'"),
        ('{"image": "a.png", "id": "x"}\n{"image": "a.png", "id": "x"}', "the same id, 'x'"),
        ("", "holds no rows"),
    ],
)
def test_what_is_wrong_in_a_table_is_named_with_its_line(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    with pytest.raises(click.UsageError, match=said):
        read(tmp_path / "in.jsonl")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("\n\n", "is empty"),
        ("image\n", "holds no rows"),
        ("picture,questoin\na.png,x\n", "'picture', 'questoin', and none of image.*did you mean question"),
        ("image,image\na,b\n", "names 'image' twice"),
        ("image,note\na.png,one, two\n", "t.csv:2: 3 cells, and the header has 2"),
        ("image,\na.png,x\n", "t.csv:2: a cell stands in a column without a name"),
        ('image\n"a.png"x\n', "t.csv:2 cannot be read"),
        ("image\na\0.png\n", "NUL"),
    ],
)
def test_what_is_wrong_in_a_csv_is_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content.encode())
    with pytest.raises(click.UsageError, match=said):
        read(tmp_path / "t.csv")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_tables_are_read_as_programs_write_them(tmp_path: Path, delimiter: str, encoding: str) -> None:
    path = tmp_path / ("t.tsv" if delimiter == "\t" else "t.csv")
    with path.open("w", encoding=encoding, newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["IMAGE", "question", "größe, cm", "text"])
        writer.writerow(["a.png", "Wie heißt das?\nGenau, bitte; ja?", "3,5", "x" * 200_000])
    [item] = read(path).items
    assert item.question == "Wie heißt das?\nGenau, bitte; ja?"
    assert item.columns == {"größe, cm": "3,5", "text": "x" * 200_000}


def test_what_spreadsheets_add_is_taken_off(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("sep=;\nimage; question ;note\n a.png ;  ; n\n", encoding="utf-8")
    [item] = read(tmp_path / "t.csv").items
    assert (item.images, item.question, item.columns) == ((f"{tmp_path}/a.png",), "What?", {"note": " n"})
    (tmp_path / "t.csv").write_text("sep=|\nimage|note\na.png\nb.png|c|d\n")
    with pytest.raises(click.UsageError, match=r"t.csv:4: 3 cells"):
        read(tmp_path / "t.csv")
    (tmp_path / "t.jsonl").write_text('{"Image": "a.png", "ID": 5}')
    assert read(tmp_path / "t.jsonl").items[0].id == "5"


def test_another_encoding_is_named_by_the_person(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes("image,question\nä.png,Größe?\n".encode("latin-1"))
    with pytest.raises(click.UsageError, match=r"not utf-8 \(byte 15\); try --encoding latin-1"):
        read(path)
    assert read(path, encoding="latin-1").items[0].question == "Größe?"
    path.write_bytes("image\na.png\n".encode("utf-16-le"))
    with pytest.raises(click.UsageError, match="--encoding utf-16-le"):
        read(path)
    assert images(path, encoding="utf-16-le")
    with pytest.raises(click.UsageError, match="no such encoding"):
        read(path, encoding="klingon")


def test_parquet_is_a_table_too(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {"images": [["a.png", "b.png"], ["c.png"]], "price": [1, None], "id": [1, 2]}
    parquet.write_table(arrow.table(columns), tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet").items
    assert [(item.id, item.columns) for item in found] == [("1", {"price": 1}), ("2", {"price": None})]
    assert found[0].images == (f"{tmp_path}/a.png", f"{tmp_path}/b.png")
    parquet.write_table(arrow.table({"image": [b"\x89PNG"]}), tmp_path / "t.parquet")
    with pytest.raises(click.UsageError, match="allowed: one path or URL"):
        read(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(click.UsageError, match="cannot be read as Parquet"):
        read(tmp_path / "t.parquet")


def save_pages(path: Path, count: int) -> None:
    pages = [Image.new("RGB", (60, 80), (40 * number, 0, 0)) for number in range(count)]
    pages[0].save(path, save_all=True, append_images=pages[1:])


def test_pages_become_rows(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    touch(tmp_path, "a.png")
    save_pages(tmp_path / "b.pdf", 4)
    save_pages(tmp_path / "c.tif", 3)
    save_pages(tmp_path / "one.tif", 1)

    def below(**options: Any) -> list[str]:
        return [image.removeprefix(f"{tmp_path}/") for image in images(tmp_path, **options)]

    assert below() == ["a.png", "c.tif", "one.tif"]
    chosen = below(pages=PageSelection.parse("1,3-"))
    assert chosen == [
        "a.png",
        "b.pdf#page=1",
        "b.pdf#page=3",
        "b.pdf#page=4",
        "c.tif#page=1",
        "c.tif#page=3",
        "one.tif",
    ]
    found = read(tmp_path, pages=PageSelection.parse("4"))
    assert [item.images[0].removeprefix(f"{tmp_path}/") for item in found.items] == ["a.png", "b.pdf#page=4"]
    assert any("c.tif has 3 pages, and --pages 4 names none of them" in note for note in found.notes)
    found = read(tmp_path / "b.pdf")
    assert [item.images[0] for item in found.items] == [f"{tmp_path}/b.pdf#page=1"]
    assert found.notes == [f"{tmp_path}/b.pdf: page 1 of 4 is read; --pages reads more"]


def test_a_file_that_is_no_pdf_is_a_row_that_fails(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    (tmp_path / "bad.pdf").write_bytes(b"%PDF-1.4\nnothing")
    assert images(tmp_path / "bad.pdf", pages=PageSelection.parse("all")) == [f"{tmp_path}/bad.pdf"]


def test_a_pdf_without_its_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pypdfium2", None)
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4\n")
    with pytest.raises(MissingDependencyError, match=r"\[pdf\]"):
        read(tmp_path / "a.pdf")


@pytest.mark.parametrize("text", ["", "0", "x", "3-1", "1,,2", "-3", "all,1"])
def test_pages_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(click.BadParameter, match="1-3,5, 4- or all"):
        PageSelection.parse(text)


def test_many_files_of_several_pages_are_told_in_a_few_lines(tmp_path: Path) -> None:
    pytest.importorskip("pypdfium2")
    for number in range(9):
        save_pages(tmp_path / f"{number}.pdf", 2)
    notes = read(*sorted(tmp_path.iterdir())).notes
    assert len(notes) == 6
    assert notes[-1] == "4 more files have several pages, too"


def test_values_of_json_lines_stay_as_they_are(tmp_path: Path) -> None:
    row = {"question": "?", "deep": {"a": [1, None]}, "text": "\u2028"}
    (tmp_path / "t.jsonl").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    assert read(tmp_path / "t.jsonl").items[0].columns == {"deep": {"a": [1, None]}, "text": "\u2028"}
