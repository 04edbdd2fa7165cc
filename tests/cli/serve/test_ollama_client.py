"""Ollama's own client against the real server with the built-in model."""

import json
from collections.abc import Iterator

import pytest
from serve_process import EXAMPLES, ServeProcess, base64_of

pytest.importorskip("uvicorn")
ollama = pytest.importorskip("ollama")
pydantic = pytest.importorskip("pydantic")


class Seen(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    readable: bool


@pytest.fixture
def client(server: ServeProcess) -> Iterator[ollama.Client]:
    with ollama.Client(server.url, timeout=60) as client:
        yield client


def test_chat_and_generate_answer_what_the_command_line_answers(
    client: ollama.Client, cli_answers: dict[str, str]
) -> None:
    for question, names in EXAMPLES.items():
        images = [base64_of(name) for name in names]
        said = client.chat("nano", [{"role": "user", "content": question, "images": images}])
        assert said.message.content == cli_answers[question]
        assert said.done_reason == "stop"
        pieces = list(client.generate("nano:latest", question, images=images, stream=True))
        assert "".join(piece.response for piece in pieces) == cli_answers[question]
        assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert (pieces[-1].eval_count or 0) > 0


def test_a_format_and_options_are_kept(client: ollama.Client) -> None:
    said = client.chat("nano", [{"role": "user", "content": "hi"}], format=Seen.model_json_schema())
    Seen.model_validate_json(said.message.content or "")
    cut = client.generate("nano", "What is this?", options={"num_predict": 2, "temperature": 0, "num_ctx": 4096})
    assert (cut.done_reason, cut.eval_count) == ("length", 2)


def test_the_model_is_listed_described_and_loaded(client: ollama.Client) -> None:
    assert [model.model for model in client.list().models] == ["nano:latest"]
    assert client.show("nano").capabilities == ["completion", "vision"]
    assert [model.model for model in client.ps().models] == ["nano:latest"]
    assert client.generate("nano").done_reason == "load"


def test_what_cannot_be_kept_is_refused_with_ollamas_error(client: ollama.Client, server: ServeProcess) -> None:
    with pytest.raises(ollama.ResponseError, match="'nano'") as caught:
        client.chat("llama3", [{"role": "user", "content": "hi"}])
    assert caught.value.status_code == 404
    status, body = server.post("/api/generate", {"model": "nano", "prompt": "hi", "options": {"tfs_z": 1}})
    assert (status, set(body)) == (400, {"error"})
    assert "tfs_z" in json.dumps(body)


def test_tools_find_what_they_look_for(server: ServeProcess) -> None:
    assert server.get("/")[0] == 200
    assert "version" in json.loads(server.get("/api/version")[1])
