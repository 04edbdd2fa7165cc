"""A warm engine answers as a model loaded here would, only sooner; what goes wrong with it is said."""

import base64
import contextlib
import http.server
import json
import os
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from processes import started

from phi3v.cli.warm.frames import pack, receive, send
from phi3v.cli.warm.identity import greeting
from phi3v.cli.warm.start import stop
from phi3v.errors import WarmEngineError

CODE = "from phi3v.cli.main import main; main()"
SHORT = ("--max-new-tokens", "12", "--num-crops", "1")
RANDOM = ("--temperature", "100", "--seed", "1")
"""Every token is as likely as any other, so the answer does not end by itself for thousands of them."""

ENDLESS = ("--max-new-tokens", "100000", *RANDOM)

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system has no Unix sockets of Linux")


class Home:
    """A person with a model, a runtime folder and pictures."""

    def __init__(self, root: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.env = {"XDG_RUNTIME_DIR": str(root), "PHI3V_MODEL": str(model)}
        self.sockets = root / "phi3v"

    def run(
        self, *arguments: str, stdin: bytes = b"", code: str = CODE, **env: str
    ) -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-P", "-c", code, *arguments]
        return subprocess.run(
            command, input=stdin, capture_output=True, env=os.environ | self.env | env, timeout=40, cwd=self.root
        )

    def popen(self, *arguments: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        command = [sys.executable, "-P", "-c", CODE, *arguments]
        env = os.environ | self.env
        return started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, cwd=self.root)

    def status(self) -> list[dict[str, Any]]:
        done = self.run("warm", "--status", "--json")
        assert done.returncode == 0, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)
        return found

    def path(self) -> Path:
        (found,) = self.sockets.glob("engine-*.sock")
        return found

    def server(self) -> int:
        return int(self.path().stem.removeprefix("engine-"))

    def worker(self) -> int:
        (child,) = Path(f"/proc/{self.server()}/task/{self.server()}/children").read_text().split()
        return int(child)

    @contextlib.contextmanager
    def warm(self, *arguments: str) -> Iterator["Home"]:
        done = self.run("warm", "--background", *arguments)
        assert done.returncode == 0, done.stderr
        try:
            yield self
        finally:
            self.run("warm", "--stop")
            shutil.rmtree(self.sockets, ignore_errors=True)


def until(true: Callable[[], Any], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def exists(pid: int) -> bool:
    """Whether a process runs that is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def holds_memory(pid: int) -> bool:
    """Whether more than the name of a process is there: the kernel frees its memory before it closes its files."""
    try:
        return not Path(f"/proc/{pid}/statm").read_text().startswith("0 ")
    except OSError:
        return False


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    command = [sys.executable, "-c", CODE, "bench", "synth", str(tmp_path_factory.mktemp("warm") / "demo")]
    return Path(subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip())


@pytest.fixture(scope="module")
def shared(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A warm engine that no test harms."""
    root = tmp_path_factory.mktemp("shared")
    Image.new("RGB", (300, 200), (200, 30, 30)).save(root / "photo.webp")
    Image.effect_noise((500, 400), 80).save(root / "noise.png")
    (root / "garbage.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with Home(root, model).warm() as home:
        yield home


@pytest.fixture
def own(model: Path, tmp_path: Path) -> Home:
    """A place for an engine of one test."""
    Image.new("RGB", (300, 200), (200, 30, 30)).save(tmp_path / "photo.webp")
    return Home(tmp_path, model)


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
    assert warm == cold


def test_stats_say_that_it_was_warm_and_loaded_nothing(shared: Home) -> None:
    lines = shared.run("ask", "hi", *SHORT, "--stats").stderr.decode().splitlines()
    assert lines[-6].endswith("cpu, warm), loaded in 0.00 s")
    assert [line.split()[0] for line in lines[-6:]] == ["model", "prompt", "images", "TTFT", "decode", "total"]


def test_pictures_come_from_standard_input_and_urls_as_ever(shared: Home, site: str) -> None:
    data = (shared.root / "noise.png").read_bytes()
    plain = shared.run("ask", "hi", "noise.png", *SHORT).stdout
    url = f"data:image/png;base64,{base64.b64encode((shared.root / 'photo.webp').read_bytes()).decode()}"
    for image, how in (("-", {"stdin": data}), (f"{site}/noise.png", {}), (str(shared.root / "noise.png"), {})):
        warm, cold = both(shared, "hi", image, *SHORT, **how)
        assert warm.stdout == cold.stdout == plain
    warm, cold = both(shared, "hi", url, *SHORT)
    assert (warm.returncode, warm.stdout) == (0, cold.stdout)


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


def test_a_client_of_a_warm_engine_loads_neither_numpy_nor_an_engine(shared: Home) -> None:
    code = (
        "import sys; from phi3v.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'PIL', 'onnxruntime', 'onnxruntime_genai', 'tokenizers', 'huggingface_hub', 'asyncio'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = shared.run("ask", "hi", "photo.webp", *SHORT, code=code)
    assert done.stderr.decode().splitlines()[-1] == "[]"
    assert done.stdout


def test_the_first_token_comes_at_once(shared: Home) -> None:
    """0.35 s and the model's own time, at best of some: other work on the machine only ever adds to it."""

    def overhead() -> float:
        began = time.monotonic()
        with shared.popen("ask", "hi", "photo.webp", *SHORT, "--stats") as asking:
            assert asking.stdout is not None
            assert asking.stderr is not None
            asking.stdout.read(1)
            first = time.monotonic() - began
            (line,) = (line for line in asking.stderr.read().decode().splitlines() if line.startswith("TTFT"))
        return first - float(line.split()[1])

    assert min(overhead() for _ in range(8)) < 0.35


def test_the_socket_is_for_its_user_alone(shared: Home) -> None:
    assert stat.S_IMODE(shared.path().stat().st_mode) == 0o600
    assert stat.S_IMODE(shared.sockets.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_is_refused_even_where_the_files_let_him_in(own: Home) -> None:
    with own.warm():
        for folder in (own.sockets, *own.sockets.parents):
            folder.chmod(stat.S_IMODE(folder.stat().st_mode) | 0o011)
        path = own.path()
        path.chmod(0o666)
        os.seteuid(65534)
        try:
            connection = connected(path)
        finally:
            os.seteuid(0)
        with connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(pack({"op": "status"}))
            assert connection.recv(1) == b""
        own.sockets.chmod(0o700)
        assert len(own.status()) == 1


def test_a_folder_that_others_can_enter_is_not_used(own: Home) -> None:
    own.sockets.mkdir(mode=0o755)
    own.sockets.chmod(0o755)
    (own.sockets / "engine-1.sock").touch()
    done = own.run("ask", "hi", *SHORT)
    assert done.returncode == 0
    assert b"mode 0700" in done.stderr.splitlines()[0]
    assert own.run("warm", "--background").returncode == 1


def test_a_client_of_another_version_says_so_and_loads_the_model(shared: Home) -> None:
    done = shared.run("ask", "hi", *SHORT, "--json", code=f"import phi3v; phi3v.__version__ = '9.9'; {CODE}")
    assert json.loads(done.stdout)["warm"] is False
    (line,) = (line for line in done.stderr.decode().splitlines() if "warm engine" in line)
    assert "phi3v 9.9" in line


def test_other_surroundings_are_another_engine(shared: Home, tmp_path: Path) -> None:
    done = shared.run("ask", "hi", *SHORT, "--json", HF_HOME=str(tmp_path))
    assert json.loads(done.stdout)["warm"] is False
    assert b"HF_HOME" in done.stderr


def test_another_model_is_loaded_without_a_word(shared: Home, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "twin")
    record = json.loads(shared.run("ask", "hi", *SHORT, "--json", "--model", str(tmp_path / "twin")).stdout)
    assert record["warm"] is False


def test_a_link_to_the_same_model_is_the_same_model(shared: Home, model: Path) -> None:
    (shared.root / "link").symlink_to(model)
    record = json.loads(shared.run("ask", "hi", *SHORT, "--json", "--model", "link").stdout)
    assert (record["warm"], record["model"]) == (True, "link")


def test_a_model_that_was_replaced_is_noticed(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    home = Home(tmp_path, tmp_path / "copy")
    with home.warm():
        weights = max(home.model.iterdir(), key=lambda file: file.stat().st_size)
        times = weights.stat()
        shutil.copyfile(weights, tmp_path / "other")
        shutil.copyfile(tmp_path / "other", weights)  # in place: same name, size and inode
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
        done = home.run("ask", "hi", *SHORT, "--json")
        assert json.loads(done.stdout)["warm"] is False
        assert b"changed after it was loaded" in done.stderr
        until(lambda: not list(home.sockets.glob("*.sock")))


def test_ctrl_c_ends_the_answer_and_not_the_engine(own: Home) -> None:
    with own.warm():
        worker = own.worker()
        with own.popen("ask", "hi", *ENDLESS) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            asking.send_signal(signal.SIGINT)
            asking.stdout.read()
            assert asking.wait(timeout=20) == 130
            assert asking.stderr is not None
            assert asking.stderr.read().decode().endswith("\ninterrupted\n")
        until(lambda: own.status()[0]["asking"] == 0)
        assert own.worker() == worker
        assert own.run("ask", "hi", *SHORT).stdout == own.run("ask", "hi", *SHORT, "--no-warm").stdout


def test_a_client_that_is_killed_frees_the_engine_for_the_next(own: Home) -> None:
    with own.warm():
        with own.popen("ask", "hi", *ENDLESS) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            asking.kill()
        assert json.loads(own.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True


def test_a_worker_that_does_not_hear_a_cancellation_is_replaced(own: Home) -> None:
    with own.warm():
        worker = own.worker()
        with own.popen("ask", "hi", *ENDLESS) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            os.kill(worker, signal.SIGSTOP)  # as deaf as in a long prefill
            asking.kill()
        assert json.loads(own.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True
        assert own.worker() != worker
        assert not exists(worker)


def test_an_engine_that_dies_in_the_middle_of_an_answer_is_an_error(own: Home) -> None:
    with own.warm():
        server, worker = own.server(), own.worker()
        with own.popen("ask", "hi", *ENDLESS) as asking:
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            os.kill(server, signal.SIGKILL)
            asking.stdout.read()
            assert asking.wait(timeout=60) == 1
            assert asking.stderr is not None
            assert "not all of it" in asking.stderr.read().decode().splitlines()[-1]
        until(lambda: not exists(worker))
        assert own.path().exists()
        done = own.run("ask", "hi", *SHORT)
        assert (done.returncode, own.path().exists() if list(own.sockets.glob("*.sock")) else False) == (0, False)


def test_a_worker_that_dies_before_the_first_word_costs_time_alone(own: Home) -> None:
    with own.warm():
        plain = own.run("ask", "hi", *SHORT, "--no-warm").stdout
        worker = own.worker()
        os.kill(worker, signal.SIGSTOP)
        with own.popen("ask", "hi", *SHORT) as asking:
            until(lambda: own.status()[0]["asking"] == 1)
            os.kill(worker, signal.SIGKILL)
            said, complained = asking.communicate(timeout=60)
        assert (asking.returncode, said) == (0, plain)
        assert b"loading the model here" in complained
        until(lambda: own.status()[0]["asking"] == 0)
        assert json.loads(own.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True


def test_json_begins_anew_because_nothing_was_printed(own: Home) -> None:
    with own.warm():
        server = own.server()
        os.kill(own.worker(), signal.SIGSTOP)  # the answer begins and cannot end
        with own.popen("ask", "hi", "--max-new-tokens", "3000", *RANDOM, "--json") as asking:
            until(lambda: own.status()[0]["asking"] == 1)
            os.kill(server, signal.SIGKILL)
            said, complained = asking.communicate(timeout=100)
        assert asking.returncode == 0, complained
        assert json.loads(said)["usage"]["completion_tokens"] in range(1, 3001)
        assert json.loads(said)["warm"] is False


def test_two_at_once_are_answered_in_turn_and_the_second_is_told(shared: Home) -> None:
    questions = [("hi", "--max-new-tokens", "1000", *RANDOM), ("ho", "photo.webp", *SHORT), ("ha", *SHORT)]
    os.kill(shared.worker(), signal.SIGSTOP)  # the first answer does not end before the others are there
    with contextlib.ExitStack() as stack:
        try:
            asking = [stack.enter_context(shared.popen("ask", *question)) for question in questions]
            until(lambda: shared.status()[0]["asking"] == len(questions), seconds=60)
        finally:
            os.kill(shared.worker(), signal.SIGCONT)
        done = [process.communicate(timeout=120) for process in asking]
    for question, (said, _) in zip(questions, done, strict=True):
        assert said == shared.run("ask", *question, "--no-warm").stdout
    assert sum(b"waiting" in complained for _, complained in done) == len(questions) - 1


def connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(30)
    connection.connect(str(path))
    return connection


def test_nothing_is_sent_after_the_last_byte_of_a_frame() -> None:
    class Closing(socket.socket):
        """Its other end closes as soon as it has the whole frame."""

        def sendall(self, data: Any, flags: int = 0) -> None:
            super().sendall(data, flags)
            other.close()

    one, other = socket.socketpair()
    with Closing(fileno=one.detach()) as sending:
        send(sending, {"op": "a picture without a byte"}, b"")


def greet(home: Home, /, **changes: Any) -> socket.socket:
    connection = connected(home.path())
    if changes:
        connection.sendall(pack(changes))
    return connection


HEAD = struct.Struct("!4sIQ")


@pytest.mark.parametrize(
    "garbage",
    [
        os.urandom(64),
        b"GET / HTTP/1.1\r\n\r\n",
        HEAD.pack(b"p3vw", 1 << 31, 0),
        HEAD.pack(b"p3vw", 2, 1 << 60) + b"{}",
        HEAD.pack(b"p3vw", 4, 0) + b"[[[[",
        HEAD.pack(b"p3vw", 2, 0) + b"[]",
        HEAD.pack(b"p3vw", 400_000, 0) + b"[" * 400_000,
        HEAD.pack(b"p3vw", 9, 5) + b'{"op": 1}' + b"12345",
        b"p3",
    ],
)
def test_what_is_no_client_is_refused_and_the_engine_lives(shared: Home, garbage: bytes) -> None:
    with greet(shared) as connection, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(garbage)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert len(shared.status()) == 1


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"request": 7},
        {"request": {"prompt": "hi"}},
        {"request": {"prompt": "hi", "images": [{"name": "x", "bytes": -5}], "sampling": {}}},
        {"request": {"prompt": "hi", "images": [{"name": "x", "bytes": 5}], "sampling": {}}},
        {"request": {"prompt": "hi", "images": [], "sampling": {"heat": 1}}},
        {"request": {"prompt": 5, "images": [], "sampling": {}}},
        {"request": {"prompt": "hi", "images": [], "sampling": {}, "max_new_tokens": -1}},
    ],
)
def test_a_request_that_is_none_is_an_error_of_that_client(shared: Home, request_: dict[str, Any]) -> None:
    worker = shared.worker()
    with patched(shared):
        hello = greeting(str(shared.model), "cpu")
    with greet(shared, **hello) as connection:
        assert receive(connection)[0]["event"] == "welcome"
        connection.sendall(pack(request_))
        answer, _ = receive(connection)
    assert (answer["event"], answer["kind"]) == ("error", "OptionError")
    assert shared.worker() == worker


@contextlib.contextmanager
def patched(home: Home) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in home.env.items():
            patch.setenv(name, value)
        yield


def test_clients_that_send_nothing_hold_up_nobody(shared: Home) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            stack.enter_context(greet(shared)).sendall(b"p3")
        assert json.loads(shared.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True


def test_too_many_clients_are_no_crash(shared: Home) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(greet(shared))
        done = shared.run("ask", "hi", *SHORT, "--json")
        assert json.loads(done.stdout)["warm"] is False
        assert b"others are asking" in done.stderr
    until(lambda: json.loads(shared.run("ask", "hi", *SHORT, "--json").stdout)["warm"])


def test_a_reader_that_leaves_early_or_is_slow_frees_the_engine(own: Home) -> None:
    with own.warm(), own.popen("ask", "hi", "--max-new-tokens", "3000", *RANDOM) as slow:
        assert slow.stdout is not None
        slow.stdout.read(1)
        assert json.loads(own.run("ask", "hi", *SHORT, "--json").stdout)["warm"] is True
        said, _ = slow.communicate(timeout=60)
        assert slow.returncode == 0
        assert len(said) > 100


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_engine_cleanly(own: Home, number: signal.Signals) -> None:
    with own.popen("warm") as warm:
        assert warm.stderr is not None
        assert b"is warm on cpu" in warm.stderr.readline()
        worker = own.worker()
        warm.send_signal(number)
        assert warm.wait(timeout=20) == 0
        assert warm.stderr.read() == b""
    assert not exists(worker)
    assert not list(own.sockets.glob("engine-*"))


def test_stop_returns_when_the_processes_have_ended_even_in_the_middle_of_an_answer(own: Home) -> None:
    with own.warm():
        server, worker = own.server(), own.worker()
        with own.popen("ask", "hi", *ENDLESS) as asking, greet(own):  # one more client, which says nothing
            assert asking.stdout is not None
            assert asking.stdout.read(20)
            with patched(own):
                assert stop() == [server]
            assert (holds_memory(server), holds_memory(worker)) == (False, False)
            until(lambda: not exists(server))
            asking.stdout.read()
            assert asking.wait(timeout=20) == 1


def test_an_engine_that_does_not_end_is_an_error_that_says_what_to_do(
    own: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phi3v.cli.warm.start._ENDING_S", 0.1)
    own.sockets.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listener, patched(own):
        listener.bind(str(own.sockets / "engine-1.sock"))
        listener.listen()
        listener.settimeout(30)
        stopping = threading.Thread(target=stop_in_vain, args=(listener,), daemon=True)
        stopping.start()
        with pytest.raises(WarmEngineError, match="run: kill -9 4711"):
            stop()
        stopping.join(timeout=30)


def stop_in_vain(listener: socket.socket) -> None:
    """An engine that says it ends, and does not."""
    connection, _ = listener.accept()
    with connection:
        receive(connection)
        connection.sendall(pack({"event": "stopping", "pid": 4711}))
        connection.recv(1)


def test_a_socket_left_behind_is_replaced_and_its_process_id_is_nobodys_to_signal(own: Home) -> None:
    own.sockets.mkdir(mode=0o700)
    with started(["sleep", "60"]) as stranger:  # has the id of an engine that was killed
        left_behind(own.sockets / f"engine-{stranger.pid}.sock")
        assert own.run("warm", "--stop").stderr == b""
        for pid in range(stranger.pid, stranger.pid + 300):  # the next engine's id is likely among these
            left_behind(own.sockets / f"engine-{pid}.sock")
        with own.warm():
            (status,) = own.status()
            assert own.server() == status["pid"] != stranger.pid
        assert stranger.poll() is None


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def test_a_signal_while_it_loads_ends_it_too(own: Home) -> None:
    with own.popen("warm") as warm:
        until((own.sockets / "lock").exists)
        time.sleep(0.5)
        warm.send_signal(signal.SIGTERM)
        assert warm.wait(timeout=20) in (0, -signal.SIGTERM)
    assert not list(own.sockets.glob("engine-*"))


def test_it_is_gone_after_its_idle_time(own: Home) -> None:
    with own.warm("--keep-alive", "1s"):
        until(lambda: not list(own.sockets.glob("engine-*")))


def test_ask_leaves_an_engine_behind_and_changes_its_idle_time(own: Home) -> None:
    try:
        first = json.loads(own.run("ask", "hi", *SHORT, "--json", "--keep-alive", "5m").stdout)
        assert first["timings"]["load_s"] > 0
        (status,) = own.status()
        assert (status["keep_alive_s"], status["answered"]) == (300.0, 1)
        second = json.loads(own.run("ask", "hi", *SHORT, "--json", "--keep-alive", "forever").stdout)
        assert (second["timings"]["load_s"], second["text"]) == (0.0, first["text"])
        assert [status["keep_alive_s"] for status in own.status()] == [None]
        last = own.run("ask", "hi", *SHORT, "--json", "--keep-alive", "0")
        assert json.loads(last.stdout)["warm"] is True
        until(lambda: own.status() == [])
    finally:
        own.run("warm", "--stop")


def test_keep_alive_0_starts_no_engine(own: Home) -> None:
    done = own.run("ask", "hi", *SHORT, "--json", "--keep-alive", "0")
    assert json.loads(done.stdout)["warm"] is False
    assert not own.sockets.exists()
    refused = own.run("warm", "--keep-alive", "0s")
    assert refused.returncode == 2
    assert b"10m" in refused.stderr


def test_what_is_wrong_is_said_before_an_engine_is_left_behind(own: Home) -> None:
    (own.root / "garbage.png").write_bytes(b"garbage")
    for arguments in (("hi", "garbage.png"), ("hi", "--model", "no/such/model")):
        done, plain = (own.run("ask", *arguments, *more) for more in (("--keep-alive", "5m"), ()))
        assert (done.returncode, done.stdout) == (1, b"")
        assert done.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]
    assert own.status() == []


def test_two_that_start_at_once_leave_one_engine(own: Home) -> None:
    try:
        with own.popen("ask", "hi", *SHORT, "--keep-alive", "5m") as one, own.popen("warm", "--background") as two:
            assert one.communicate(timeout=60)[0]
            assert two.wait(timeout=60) == 0
        assert len(own.status()) == 1
    finally:
        own.run("warm", "--stop")


def test_a_model_that_does_not_load_is_one_line(own: Home) -> None:
    for arguments in ((), ("--background",)):
        done = own.run("warm", *arguments, "--model", "no/such/model")
        assert done.returncode == 1
        assert done.stderr.decode().count("\n") == 1
        assert "no/such/model" in done.stderr.decode()


def test_without_unix_sockets_everything_falls_back(own: Home) -> None:
    code = f"import socket; del socket.AF_UNIX; {CODE}"
    assert own.run("ask", "hi", *SHORT, code=code).returncode == 0
    left = own.run("ask", "hi", *SHORT, "--keep-alive", "5m", code=code)
    assert left.returncode == 0
    assert b"no warm engine is left behind" in left.stderr
    for arguments in ((), ("--background",)):
        done = own.run("warm", *arguments, code=code)
        assert done.returncode == 1
        assert b"Unix sockets" in done.stderr
    assert own.run("warm", "--status", code=code).returncode == 0


def test_a_job_that_ignores_interrupts_goes_on(shared: Home) -> None:
    command = f"'{sys.executable}' -c '{CODE}' ask hi --max-new-tokens 3000"
    line = f"trap '' INT; {command} & sleep 0.5; kill -INT $!; wait $!"
    done = subprocess.run(["sh", "-c", line], capture_output=True, env=os.environ | shared.env, timeout=120)
    assert (done.returncode, b"interrupted" in done.stderr) == (0, False)


@pytest.mark.parametrize("given", ["10x", "-5", "m", ""])
def test_a_duration_that_is_none_is_a_usage_error(own: Home, given: str) -> None:
    for command in (["warm"], ["ask", "hi"]):
        done = own.run(*command, "--keep-alive", given)
        assert done.returncode == 2
        assert b"10m" in done.stderr
