"""On an NVIDIA GPU: answers are right, and every way to run a folder gives the same tokens as the plain way."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

import phi3v
from phi3v.backend import BatchRow, ModelInputs
from phi3v.export.build import export_model
from phi3v.export.checkpoint import Checkpoint
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint
from phi3v.genai.backend import GenaiBackend
from phi3v.machine.cuda import cuda_status
from phi3v.models.folder import ModelDir
from phi3v.sampling import TokenChooser

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.torch,
    pytest.mark.skipif(not cuda_status().usable, reason=cuda_status().reason),
]

SWITCH = 512
EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTIONS = [
    ("Could you please introduce this stock to me?", ["chart.png"]),
    ("Help me get the title and author information of this book?", ["cover.png"]),
    ("What is difference in this two images?", ["before.png", "after.webp"]),
]
OPTIONS: list[dict[str, Any]] = [
    {"cuda_graph": True},
    {"sdpa_kernel": 1},
    {"sdpa_kernel": 2},
    {"sdpa_kernel": 8},
    {"sdpa_kernel": 16},
    {"buffer_step": 256},
    {"sdpa_kernel": 8, "buffer_step": 256},
]
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 300, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with heads of the published size."""
    dims = tiny_dims(hidden_size=192, heads=2, layers=2, original_context=SWITCH, context=4 * SWITCH)
    return write_random_checkpoint(tmp_path_factory.mktemp("gpu") / "checkpoint", dims, seed=1)


@pytest.fixture(scope="module", params=["int4", "fp16"])
def folder(request: pytest.FixtureRequest, checkpoint: Path) -> ModelDir:
    return ModelDir.open(
        export_model(checkpoint, checkpoint.parent / request.param, precision=request.param, device="cuda")
    )


@pytest.fixture(scope="module")
def plain(folder: ModelDir) -> Iterator[GenaiBackend]:
    backend = GenaiBackend(folder, "cuda")
    yield backend
    backend.close()


def text(length: int) -> ModelInputs:
    return ModelInputs(np.random.default_rng(7).integers(3, 400, length).astype(np.int32), None, None, ())


def list_prompts(backend: GenaiBackend) -> list[ModelInputs]:
    """Text on both sides of the switch and across it; an image in one and in four crops, and two images."""
    texts = [text(length) for length in (20, SWITCH - 12, SWITCH - 1, SWITCH, SWITCH + 1)]
    asked = [
        ([IMAGE], 1),
        ([IMAGE], 4),
        ([IMAGE, IMAGE.rotate(90, expand=True)], 1),
        ([IMAGE, IMAGE.resize((90, 60))], 4),
    ]
    return [*texts, *(backend.preprocess("hello", images, crops) for images, crops in asked)]


def generate(backend: GenaiBackend, inputs: ModelInputs, count: int = 24) -> list[int]:
    generation = backend.start(inputs, TokenChooser(), count)
    tokens = [generation.step() for _ in range(count)]
    generation.close()
    return tokens


def compute_last_logits(backend: GenaiBackend, inputs: ModelInputs) -> npt.NDArray[np.float32]:
    length = len(inputs.input_ids)
    generator = backend.loaded.new_generator(inputs, backend.loaded.buffer_tokens(length, length + 1))
    return np.array(generator.get_logits()[0, -1], dtype=np.float32)


def test_nano_answers_on_the_gpu_as_on_the_cpu() -> None:
    answers = {}
    for device in ("cpu", "cuda"):
        with phi3v.load("nano", device) as engine:
            answers[device] = [
                engine.generate(asked, [EXAMPLES / name for name in names]).text for asked, names in QUESTIONS
            ]
    assert answers["cuda"] == answers["cpu"]
    assert len(set(answers["cpu"])) == 3


def test_a_session_of_nano_goes_on_as_on_the_cpu() -> None:
    asked = ["Help me get the title and author information of this book?", "Who is the author of this book?"]
    answers = {}
    for device in ("cpu", "cuda"):
        with phi3v.load("nano", device) as engine, engine.session([EXAMPLES / "cover.png"]) as talk:
            answers[device] = [talk.ask(question).text for question in asked]
    assert answers["cuda"] == answers["cpu"]


def test_logits_are_near_the_references_on_both_sides_of_the_switch(checkpoint: Path, plain: GenaiBackend) -> None:
    from phi3v.bench.reference import ReferenceModel

    reference = ReferenceModel(Checkpoint.open(checkpoint))
    cosines = []
    for inputs in list_prompts(plain):
        expected, found = reference.logits(inputs).numpy()[-1], compute_last_logits(plain, inputs)
        cosines.append(float(expected @ found / np.linalg.norm(expected) / np.linalg.norm(found)))
        if plain.model.precision == "fp16":
            assert np.abs(expected - found).max() < 0.02 * expected.std()

    assert min(cosines) > (0.9999 if plain.model.precision == "fp16" else 0.9)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_gives_the_logits_and_tokens_of_the_plain_way(
    folder: ModelDir, plain: GenaiBackend, options: dict[str, Any]
) -> None:
    backend = GenaiBackend(folder, "cuda", **options)
    for inputs in list_prompts(plain):
        expected, found = compute_last_logits(plain, inputs), compute_last_logits(backend, inputs)
        assert np.abs(expected - found).max() < 0.02 * expected.std()
        if "sdpa_kernel" not in options:  # another kernel rounds otherwise, and random logits lie close together
            assert generate(backend, inputs) == generate(plain, inputs)
    backend.close()


def test_rows_of_a_batch_get_the_tokens_of_single_answers(plain: GenaiBackend) -> None:
    asked = [("hello", [IMAGE]), ("a longer question than that one", [IMAGE]), ("what is it", [])]
    rows = [plain.preprocess(question, images, 1) for question, images in asked]
    assert plain.max_batch_size > 1
    running = plain.start_batch([BatchRow(inputs, TokenChooser(), 12) for inputs in rows])
    tokens: dict[int, list[int]] = {row: [] for row in range(3)}
    while any(len(found) < 12 for found in tokens.values()):
        for row, token in running.step().items():
            tokens[row].append(token)
            if len(tokens[row]) == 12:
                running.leave(row)
    assert list(tokens.values()) == [generate(plain, inputs, 12) for inputs in rows]


def test_doctor_finds_the_gpu_ready() -> None:
    from phi3v.cli.doctor import examine

    assert [check.status for check in examine() if check.name in ("gpu", "cuda")] == ["ok", "ok"]
