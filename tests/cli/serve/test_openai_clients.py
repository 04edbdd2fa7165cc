"""The clients that people use, against the real server with the built-in model: openai, langchain-openai, llm, curl."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from places import ROOT
from processes import PATIENCE_S
from serve_process import EXAMPLES, ServeProcess, base64_of, data_url

pytest.importorskip("uvicorn")
httpx = pytest.importorskip("httpx")
openai = pytest.importorskip("openai")
pydantic = pytest.importorskip("pydantic")

TITLE = "What is the title?"


class Seen(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    """A schema that a small model ends in a few tokens."""

    kind: Literal["book", "chart"]
    readable: bool


@pytest.fixture
def client(server: ServeProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=60, max_retries=0) as client:
        yield client


def asked(question: str, *images: Any) -> Any:
    parts = [{"type": "image_url", "image_url": image} for image in images]
    return [{"role": "user", "content": [{"type": "text", "text": question}, *parts]}]


def shown(question: str, *urls: str) -> Any:
    parts = [{"type": "input_image", "image_url": url} for url in urls]
    return [{"role": "user", "content": [{"type": "input_text", "text": question}, *parts]}]


def test_chat_completions_answer_what_the_command_line_answers(
    client: openai.OpenAI, cli_answers: dict[str, str]
) -> None:
    for question, names in EXAMPLES.items():
        messages = asked(question, *({"url": data_url(name)} for name in names))
        found = client.chat.completions.create(model="nano", messages=messages)
        assert found.choices[0].message.content == cli_answers[question]
        assert found.choices[0].finish_reason == "stop"


def test_responses_answer_what_the_command_line_answers(client: openai.OpenAI, cli_answers: dict[str, str]) -> None:
    for question, names in EXAMPLES.items():
        found = client.responses.create(model="nano", input=shown(question, *map(data_url, names)))
        assert found.output_text == cli_answers[question]
        assert found.status == "completed"


def test_an_image_may_be_an_object_a_string_or_bare_base64(client: openai.OpenAI) -> None:
    url, bare = data_url("cover.png"), base64_of("cover.png")
    spellings: list[Any] = [{"url": url}, url, bare, {"url": bare}]
    answers = {
        client.chat.completions.create(model="nano", messages=asked(TITLE, one)).choices[0].message.content
        for one in spellings
    }
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("detail", "crops"), [(None, 1), ("low", 1), ("auto", None), ("high", 16), ("original", 16), (4, 4)]
)
def test_detail_is_a_number_of_crops(server: ServeProcess, detail: str | int | None, crops: int | None) -> None:
    from PIL import Image

    from phi3v import hd

    given: dict[str, Any] = {"url": data_url("cover.png")}
    if isinstance(detail, int):
        given["num_crops"] = detail
    elif detail is not None:
        given["detail"] = detail
    body = {"model": "nano", "messages": asked(TITLE, given), "max_tokens": 1}
    status, found = server.post("/v1/chat/completions", body)
    assert status == 200, found
    with Image.open(ROOT / "examples" / "cover.png") as image:
        wanted = hd.plan(*image.size, crops if crops is not None else "auto").image_tokens
    assert found["usage"]["prompt_tokens_details"]["image_tokens"] == wanted  # type: ignore[index]


def test_a_stream_comes_in_openais_order(client: openai.OpenAI, cli_answers: dict[str, str]) -> None:
    question, names = next(iter(EXAMPLES.items()))
    messages = asked(question, *({"url": data_url(name)} for name in names))
    options: Any = {"include_usage": True}
    chunks = list(client.chat.completions.create(model="nano", messages=messages, stream=True, stream_options=options))
    first, *middle, last, usage = chunks
    assert first.choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == cli_answers[question]
    assert [chunk.choices[0].finish_reason for chunk in middle] == [None] * len(middle)
    assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("stop", None)
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_events_of_a_response_come_in_openais_order(client: openai.OpenAI) -> None:
    with client.responses.stream(model="nano", input=shown(TITLE, data_url("cover.png"))) as stream:
        events = list(stream)
        final = stream.get_final_response()
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text


def test_answers_in_a_format_are_parsed(client: openai.OpenAI) -> None:
    messages = asked(TITLE, {"url": data_url("cover.png")})
    chat = client.chat.completions.parse(model="nano", messages=messages, response_format=Seen)
    assert isinstance(chat.choices[0].message.parsed, Seen)
    assert isinstance(client.responses.parse(model="nano", input="hi", text_format=Seen).output_parsed, Seen)
    some = client.chat.completions.create(
        model="nano", messages=messages, response_format={"type": "json_object"}, max_tokens=300
    )
    if some.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(some.choices[0].message.content or ""), dict)


def test_an_answer_that_is_cut_off_says_length(client: openai.OpenAI) -> None:
    chat = client.chat.completions.create(model="nano", messages=asked(TITLE, data_url("cover.png")), max_tokens=2)
    assert (chat.choices[0].finish_reason, chat.usage.completion_tokens) == ("length", 2)  # type: ignore[union-attr]
    response = client.responses.create(model="nano", input=shown(TITLE, data_url("cover.png")), max_output_tokens=2)
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")  # type: ignore[union-attr]


def test_stop_strings_seeds_and_several_answers_are_kept(client: openai.OpenAI) -> None:
    messages = asked(TITLE, data_url("cover.png"))
    whole = client.chat.completions.create(model="nano", messages=messages).choices[0].message.content or ""
    word = whole.split()[-1]
    cut = client.chat.completions.create(model="nano", messages=messages, stop=[word]).choices[0].message.content
    assert cut == whole.split(word)[0].strip()
    drawn = [
        client.chat.completions.create(model="nano", messages=messages, n=3, seed=7, temperature=50, max_tokens=6)
        for _ in range(2)
    ]
    first, second = ([choice.message.content for choice in one.choices] for one in drawn)
    assert first == second
    assert len(set(first)) > 1


def test_log_probabilities_are_those_of_the_tokens(client: openai.OpenAI) -> None:
    messages = asked(TITLE, data_url("cover.png"))
    found = client.chat.completions.create(model="nano", messages=messages, logprobs=True, top_logprobs=3)
    choice = found.choices[0]
    assert choice.logprobs is not None
    tokens = choice.logprobs.content or []
    assert choice.message.content in b"".join(bytes(token.bytes or []) for token in tokens).decode()
    assert all(token.logprob <= 0 and token.top_logprobs[0].logprob >= token.logprob for token in tokens)
    assert all(len(token.top_logprobs) == 3 for token in tokens)
    streamed = client.chat.completions.create(model="nano", messages=messages, logprobs=True, stream=True)
    listed = [chunk.choices[0].logprobs for chunk in streamed if chunk.choices and chunk.choices[0].logprobs]
    assert len(listed) == len(tokens)


def test_a_conversation_goes_on_with_its_images(client: openai.OpenAI) -> None:
    import phi3v

    answer = "It is a book."
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        *asked("What is this?", data_url("cover.png")),
        {"role": "assistant", "content": answer},
        {"role": "user", "content": TITLE},
    ]
    found = client.chat.completions.create(model="nano", messages=messages, max_tokens=12)
    request = phi3v.GenerationRequest(
        TITLE,
        system="Be brief.",
        earlier=[phi3v.PastTurn("What is this?", [ROOT / "examples" / "cover.png"], answer)],
        max_new_tokens=12,
    )
    with phi3v.load("nano", "cpu") as engine:
        assert found.choices[0].message.content == engine.stream_request(request).drain().text
    assert found.usage is not None


def test_an_image_that_was_read_is_not_read_again(client: openai.OpenAI) -> None:
    messages = asked("How many pages has it?", data_url("cover.png"))
    for _ in range(2):
        found = client.chat.completions.create(model="nano", messages=messages, max_tokens=8)
    assert found.usage is not None
    assert found.usage.prompt_tokens_details is not None
    assert (found.usage.prompt_tokens_details.cached_tokens or 0) > 300


@pytest.mark.parametrize(
    ("options", "param"),
    [
        ({"frequency_penalty": 1}, "frequency_penalty"),
        ({"extra_body": {"foo": 1}}, "foo"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"temperature": -1}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_name(client: openai.OpenAI, options: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="nano", messages=asked("hi"), **options)
    assert caught.value.param == param
    assert caught.value.response.headers["x-should-retry"] == "false"


def test_fields_without_effect_pass(client: openai.OpenAI) -> None:
    options: Any = {"user": "me", "metadata": {"a": "b"}, "store": False, "frequency_penalty": 0, "tool_choice": "none"}
    assert client.chat.completions.create(model="nano", messages=asked("hi"), max_tokens=2, **options).choices


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="'nano'"):
        client.chat.completions.create(model="gpt-5", messages=asked("hi"))
    assert [model.id for model in client.models.list()] == ["nano"]
    assert client.models.retrieve("nano").id == "nano"


def test_the_async_client_streams(server: ServeProcess) -> None:
    async def check() -> str:
        client = openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=60, max_retries=0)
        async with (
            client,
            await client.chat.completions.create(
                model="nano", messages=asked(TITLE, data_url("cover.png")), stream=True
            ) as stream,
        ):
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(asyncio.wait_for(check(), PATIENCE_S))


def test_langchain_asks_about_an_image(server: ServeProcess) -> None:
    HumanMessage = pytest.importorskip("langchain_core.messages").HumanMessage  # noqa: N806
    ChatOpenAI = pytest.importorskip("langchain_openai").ChatOpenAI  # noqa: N806

    message = HumanMessage(asked(TITLE, {"url": data_url("cover.png")})[0]["content"])
    with httpx.Client() as connection:
        where: Any = {"base_url": f"{server.url}/v1", "api_key": "none", "http_client": connection}
        model = ChatOpenAI(model="nano", max_retries=0, **where)
        answer = model.invoke([message]).text
        assert answer
        assert "".join(chunk.text for chunk in model.stream([message])) == answer
        assert isinstance(model.with_structured_output(Seen, method="json_schema").invoke([message]), Seen)


def test_llm_asks_with_an_attachment_and_a_schema(server: ServeProcess, tmp_path: Path) -> None:
    pytest.importorskip("llm")
    command = [sys.executable, "-m", "llm", "openai", "endpoint", f"{server.url}/v1", "-m", "nano", "--key", "none"]
    cover = str(ROOT / "examples" / "cover.png")
    for more in ([], ["--schema", json.dumps(Seen.model_json_schema())], ["--responses"]):
        run = [*command, TITLE, "-a", cover, *more]
        done = subprocess.run(
            run,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()
        if "--schema" in more:
            Seen.model_validate_json(done.stdout)


def test_curl_gets_a_plain_answer_and_a_stream(server: ServeProcess, tmp_path: Path) -> None:
    body = {"model": "nano", "messages": asked(TITLE, data_url("cover.png"))}
    for stream in (False, True):
        file = tmp_path / "body.json"
        file.write_text(json.dumps(body | {"stream": stream}))
        command = ["curl", "-sS", "--max-time", "60", f"{server.url}/v1/chat/completions", "-d", f"@{file}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE_S)
        if stream:
            assert done.stdout.endswith("data: [DONE]\n\n")
        else:
            assert json.loads(done.stdout)["choices"][0]["message"]["content"]
