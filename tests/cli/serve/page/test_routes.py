"""The page at `/` as it is sent, and what only it asks the server."""

import importlib.resources
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from places import ROOT
from serve_process import ServeProcess, serving

pytest.importorskip("uvicorn")

PAGE = importlib.resources.files("phi3v.cli.serve.page") / "index.html"


def open_page(server: ServeProcess, accept: str) -> tuple[str, dict[str, str]]:
    request = urllib.request.Request(server.url + "/", headers={"accept": accept})
    with urllib.request.urlopen(request, timeout=30) as response:
        return response.read().decode(), dict(response.headers)


def send_image(server: ServeProcess, data: bytes, name: str) -> tuple[int, Any]:
    request = urllib.request.Request(f"{server.url}/page/image?name={name}", data)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as exc:
        return exc.code, json.load(exc)


@pytest.fixture(scope="module")
def locked() -> Iterator[ServeProcess]:
    with serving("--api-key", "secret") as server:
        yield server


def test_browsers_get_the_page_and_tools_a_line(server: ServeProcess) -> None:
    page, headers = open_page(server, "text/html,*/*;q=0.8")
    assert page == PAGE.read_text(encoding="utf-8")
    assert headers["content-type"].startswith("text/html")
    assert open_page(server, "*/*")[0] == "phi3v is running\n"


def test_the_page_weighs_less_than_100_kb_and_names_no_other_host() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert len(page.encode()) < 100_000
    assert re.findall(r"(?:https?:)?//[a-z0-9-]+\.[a-z]", page) == []


def test_the_policy_allows_the_pages_own_script_and_nothing_else(server: ServeProcess) -> None:
    policy = open_page(server, "text/html")[1]["content-security-policy"]
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", rules["script-src"])
    assert re.fullmatch(r"'sha256-[A-Za-z0-9+/=]{44}'", rules["style-src"])
    assert "unsafe" not in policy


def test_the_page_is_told_which_model_answers_and_what_it_can(server: ServeProcess) -> None:
    status, text = server.get("/page/model")
    model = json.loads(text)
    assert status == 200
    assert (model["name"], model["num_crops"], model["needs_image"], model["loaded"]) == ("nano", 1, True, True)
    assert "book cover" in model["about"]


def test_an_image_is_described_with_its_cost_at_every_number_of_crops(server: ServeProcess) -> None:
    from PIL import Image

    from phi3v.hd import plan

    path = ROOT / "examples" / "chart.png"
    with Image.open(path) as image:
        width, height = image.size
    status, found = send_image(server, path.read_bytes(), path.name)
    assert (status, found["width"], found["height"], found["notes"]) == (200, width, height, [])
    plans = {str(crops): plan(width, height, crops) for crops in range(1, 17)} | {"auto": plan(width, height, "auto")}
    assert found["plans"] == {key: {"crops": one.crops, "tokens": one.image_tokens} for key, one in plans.items()}
    assert found["preview"].startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("data", [b"", b"not an image", b"%PDF-1.7\n", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_what_is_not_an_image_is_an_error_that_names_it(server: ServeProcess, data: bytes) -> None:
    status, answer = send_image(server, data, "holiday.png")
    assert status == 400
    assert "holiday.png" in answer["error"]["message"]


def test_fields_become_the_schema_that_the_command_line_makes_of_them(server: ServeProcess) -> None:
    from phi3v.structured.field_syntax import parse_fields

    for fields in ("title, author, year int", "kind a|b|c, notes list[str]?"):
        status, found = server.post("/page/schema", {"fields": fields})
        assert (status, found["schema"]) == (200, json.loads(parse_fields(fields).schema))
    assert server.post("/page/schema", {"fields": '{"type": "integer"}'})[1]["schema"] == {"type": "integer"}
    for wrong, named in (("", "names no field"), ("year number", "year number"), ("{]", "JSON")):
        status, answer = server.post("/page/schema", {"fields": wrong})
        assert status == 400
        assert named in answer["error"]["message"]  # type: ignore[index]


def test_the_examples_are_sent_and_no_other_file(server: ServeProcess) -> None:
    for name in ("chart.png", "after.webp"):
        with urllib.request.urlopen(f"{server.url}/page/examples/{name}", timeout=30) as response:
            assert response.read() == (ROOT / "examples" / name).read_bytes()
    for name in ("read_cover.py", "..%2f..%2fpyproject.toml", "__init__.py"):
        assert server.get(f"/page/examples/{name}")[0] == 404


def test_the_page_needs_no_key_and_what_it_asks_does(locked: ServeProcess) -> None:
    assert "phi3v" in open_page(locked, "text/html")[0]
    for path in ("/page/model", "/page/examples/chart.png"):
        assert locked.get(path)[0] == 401
    assert send_image(locked, b"", "a.png")[0] == 401
