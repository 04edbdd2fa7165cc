"""A warm engine answers and refuses, byte for byte, as a model loaded in the asking process."""

import base64
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from warm_home import SHORT, Home, needs_unix_sockets

pytestmark = needs_unix_sockets


def both(home: Home, *arguments: str, **how: Any) -> tuple[subprocess.CompletedProcess[bytes], ...]:
    """The same command answered by the warm engine and by itself."""
    before = home.status()[0]["answered"]
    warm = home.run("ask", *arguments, **how)
    took_it = home.status()[0]["answered"] - before
    cold = home.run("ask", *arguments, "--no-warm", **how)
    assert took_it == (1 if warm.returncode == 0 else took_it)
    return warm, cold


@pytest.mark.parametrize(
    "arguments",
    [
        ("hi", *SHORT),
        ("What is this?", "photo.webp", *SHORT),
        ("<|image_2|> and <|image_1|>", "photo.webp", "noise.png", *SHORT),
        ("hi", "photo.webp", "--temperature", "1.5", "--top-k", "40", "--top-p", "0.9", "--seed", "7", *SHORT),
        ("ä ☃ \udcff"[:3], "--repetition-penalty", "1.3", "--stop", "e", "--stop", "ab", *SHORT),
        ("hi", f"data:image/webp;base64,{base64.b64encode(b'').decode()}", *SHORT),
        ("hi", "photo.webp", "--choices", "yes,no", *SHORT),
        ("hi", "photo.webp", "--schema", "sure bool", "--max-new-tokens", "40"),
        ("hi", "photo.webp", "--regex", "[a-z]{90}", *SHORT),
    ],
    ids=["text", "picture", "tags", "sampling", "penalty and stop", "empty data URL", "choices", "schema", "cut off"],
)
def test_an_answer_is_byte_for_byte_that_of_the_model_loaded_here(shared: Home, arguments: tuple[str, ...]) -> None:
    warm, cold = both(shared, *arguments)
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)


def test_json_differs_in_times_alone_and_says_that_it_was_warm(shared: Home) -> None:
    warm, cold = (json.loads(done.stdout) for done in both(shared, "hi", "photo.webp", *SHORT, "--json"))
    assert (warm["timings"]["load_s"], warm.pop("warm"), cold.pop("warm")) == (0.0, True, False)
    assert warm.pop("timings").keys() == cold.pop("timings").keys()
    assert (warm["usage"].pop("cached_tokens") >= 0, cold["usage"].pop("cached_tokens")) == (True, 0)
    assert warm == cold


def test_stats_say_that_it_was_warm_and_loaded_nothing(shared: Home) -> None:
    lines = shared.run("ask", "hi", *SHORT, "--stats").stderr.decode().splitlines()
    assert lines[-6].endswith("cpu, warm), loaded in 0.00 s")
    assert [line.split()[0] for line in lines[-6:]] == ["model", "prompt", "images", "TTFT", "decode", "total"]


@pytest.fixture(scope="module")
def site(shared: Home) -> Iterator[str]:
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(shared.root))

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
def test_pictures_come_from_standard_input_and_urls_as_ever(shared: Home, site: str) -> None:
    data = (shared.root / "noise.png").read_bytes()
    plain = shared.run("ask", "hi", "noise.png", *SHORT).stdout
    url = f"data:image/png;base64,{base64.b64encode((shared.root / 'photo.webp').read_bytes()).decode()}"
    for image, how in (("-", {"stdin": data}), (f"{site}/noise.png", {}), (str(shared.root / "noise.png"), {})):
        warm, cold = both(shared, "hi", image, *SHORT, **how)
        assert warm.stdout == cold.stdout == plain
    warm, cold = both(shared, "hi", url, *SHORT)
    assert (warm.returncode, warm.stdout) == (0, cold.stdout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (("hi", "absent.png"), b""),
        (("hi", "garbage.png"), b""),
        (("hi", "garbage.png", "absent.png"), b""),
        (("hi", "absent.png", "garbage.png"), b""),
        (("hi", "."), b""),
        (("hi", "ftp://example.org/x.png"), b""),
        (("hi", "data:image/png;base64,@@"), b""),
        (("hi", "-"), b"no picture"),
        (("hi", "-"), b""),
        (("hi", "http://127.0.0.1:1/x.png"), b""),
        (("hi <|image_3|>", "photo.webp"), b""),
        (("hi", "--max-new-tokens", "200000"), b""),
        (("hi", "--top-p", "7"), b""),
        (("hi", "-", "-"), b""),
        (("hi", "--device", "cuda"), b""),
        (("hi", "--model", "nowhere/at/all"), b""),
        (("hi", "--model", "photo.webp"), b""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_every_error_is_the_same_message_and_status(shared: Home, arguments: tuple[str, ...], stdin: bytes) -> None:
    warm, cold = both(shared, *arguments, stdin=stdin)
    assert warm.returncode in (1, 2)
    assert (warm.returncode, warm.stdout, warm.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    assert shared.run("ask", "hi", *SHORT, "--json").stdout.count(b'"warm": true') == 1
