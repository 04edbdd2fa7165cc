"""Ours equals the PyTorch reference on the same tiny random checkpoint: ids, pixels, logits and greedy tokens."""

import contextlib
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import phi3v
from phi3v.backend import Backend, ModelInputs
from phi3v.bench.reference import ReferenceBackend, ReferenceModel
from phi3v.errors import PromptError, TruncatedAnswerError
from phi3v.export.build import export_model
from phi3v.export.observe import open_all_positions
from phi3v.export.synthetic import tiny_dims, write_random_checkpoint
from phi3v.genai.backend import GenaiBackend
from phi3v.models.folder import ModelDir
from phi3v.sampling import TokenChooser
from phi3v.structured.field_syntax import parse_fields
from phi3v.types import SamplingParams

pytestmark = pytest.mark.torch

NEW_TOKENS = 64
GREEDY = SamplingParams()
PROMPT = "Compare: 日本語, é and 😀?"


def make_image(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(width).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


IMAGES = {"none": [], "landscape": [make_image(500, 300)], "portrait": [make_image(200, 420)]}
IMAGES["two"] = IMAGES["landscape"] + IMAGES["portrait"]
CASES = [(name, crops) for name, crops in itertools.product(IMAGES, (1, 4, 16)) if name != "none" or crops == 1]


@pytest.fixture(scope="session")
def parity_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # The switch at 2048 lets a 16-crop pair run beyond it and a single image stay below.
    path = tmp_path_factory.mktemp("parity") / "checkpoint"
    return write_random_checkpoint(path, tiny_dims(layers=4, original_context=2048), seed=1, dtype="float32")


@pytest.fixture(scope="session")
def reference(parity_checkpoint: Path) -> ReferenceModel:
    return ReferenceModel.from_checkpoint(parity_checkpoint)


@pytest.fixture(scope="session")
def fp32_folder(parity_checkpoint: Path) -> Path:
    folder = export_model(parity_checkpoint, parity_checkpoint.parent / "fp32", precision="fp32")
    never_end(folder)
    return folder


def never_end(folder: Path) -> None:
    """Make <unk> the only end token: genai pads after an end, and 64 tokens are to be compared."""
    config_file, manifest_file = folder / "genai_config.json", folder / "phi3v.json"
    config = json.loads(config_file.read_text())
    config["model"]["eos_token_id"] = [0]
    config_file.write_text(json.dumps(config))
    manifest = json.loads(manifest_file.read_text())
    manifest["files"].pop(config_file.name, None)
    manifest_file.write_text(json.dumps(manifest))


@pytest.fixture(scope="session")
def ours(fp32_folder: Path) -> GenaiBackend:
    return GenaiBackend(ModelDir.open(fp32_folder), "cpu")


def generate(backend: Backend, inputs: ModelInputs, count: int, sampling: SamplingParams = GREEDY) -> list[int]:
    generation = backend.start(inputs, TokenChooser(sampling, inputs.input_ids), count)
    tokens = [generation.step() for _ in range(count)]
    generation.close()
    return tokens


@pytest.mark.parametrize(("name", "num_crops"), CASES)
def test_ids_and_pixels_equal_the_reference(
    ours: GenaiBackend, reference: ReferenceModel, name: str, num_crops: int
) -> None:
    mine = ours.preprocess(PROMPT, IMAGES[name], num_crops)
    theirs = reference.preprocess(PROMPT, IMAGES[name], num_crops)
    assert mine.input_ids.tolist() == theirs.input_ids.tolist()
    assert mine.image_tokens == theirs.image_tokens
    if mine.pixel_values is None or theirs.pixel_values is None:
        assert mine.pixel_values is theirs.pixel_values
        return
    assert mine.image_sizes is not None
    assert theirs.image_sizes is not None
    assert mine.image_sizes.tolist() == theirs.image_sizes.tolist()
    for own, other, (height, width) in zip(mine.pixel_values, theirs.pixel_values, mine.image_sizes, strict=True):
        crops = 1 + height * width // 336**2
        assert (own[1:crops] == other[1:crops]).all()
        assert np.abs(own[0] - other[0]).max() < 1e-5


@pytest.mark.parametrize(("name", "num_crops"), CASES)
def test_greedy_tokens_equal_the_reference(
    ours: GenaiBackend, reference: ReferenceModel, name: str, num_crops: int
) -> None:
    inputs = reference.preprocess(PROMPT, IMAGES[name], num_crops)
    mine = generate(ours, ours.preprocess(PROMPT, IMAGES[name], num_crops), NEW_TOKENS)
    assert mine == reference.greedy(inputs, NEW_TOKENS)


@pytest.mark.parametrize("seed", range(3))
def test_drawn_tokens_equal_the_reference(ours: GenaiBackend, parity_checkpoint: Path, seed: int) -> None:
    how = SamplingParams(temperature=1.3, top_k=40, top_p=0.9, repetition_penalty=1.2, seed=seed)
    inputs = ours.preprocess(PROMPT, IMAGES["portrait"], 4)
    drawn = generate(ours, inputs, NEW_TOKENS, how)
    assert drawn == generate(ReferenceBackend(parity_checkpoint), inputs, NEW_TOKENS, how)
    assert drawn != generate(ours, inputs, NEW_TOKENS)


@pytest.mark.parametrize(("name", "num_crops"), CASES)
def test_fp32_logits_equal_the_reference_at_every_position(
    fp32_folder: Path, ours: GenaiBackend, reference: ReferenceModel, name: str, num_crops: int
) -> None:
    inputs = ours.preprocess(PROMPT, IMAGES[name], num_crops)
    expected = reference.logits(inputs).numpy()
    assert np.abs(graph_logits(fp32_folder, inputs) - expected).max() < 1e-3


def graph_logits(folder: Path, inputs: ModelInputs) -> np.ndarray:
    """Logits of every position from the three graphs; genai itself hands out only the last."""

    def run(name: str, **feed: object) -> np.ndarray:
        session = open_all_positions(folder / name)
        for unset in session.get_inputs():
            if unset.name.startswith("past_key_values"):
                feed[unset.name] = np.zeros((1, unset.shape[1], 0, 16), dtype=np.float32)
        result: np.ndarray = session.run(None, feed)[0]
        return result

    features = np.zeros((0, 64), dtype=np.float32)
    if inputs.pixel_values is not None:
        features = run("vision.onnx", pixel_values=inputs.pixel_values, image_sizes=inputs.image_sizes)
    ids = inputs.input_ids[np.newaxis].astype(np.int64)
    embedded = run("embedding.onnx", input_ids=ids, image_features=features)
    return run("text.onnx", inputs_embeds=embedded, attention_mask=np.ones_like(ids))[0]


def test_a_generation_that_crosses_the_longrope_switch_equals_the_reference(
    ours: GenaiBackend, reference: ReferenceModel
) -> None:
    question = "x" * (2048 - 1921 - 40)
    square = [IMAGES["landscape"][0].resize((400, 300))]
    inputs = ours.preprocess(question, square, 16)
    assert 2048 - NEW_TOKENS < len(inputs.input_ids) < 2048
    crossed = generate(ours, inputs, NEW_TOKENS)
    assert crossed == reference.greedy(inputs, NEW_TOKENS)
    # Without the recompute the answer would differ: the factors are far apart.
    reference.switch, switch = None, reference.switch
    try:
        assert crossed != reference.greedy(inputs, NEW_TOKENS)
    finally:
        reference.switch = switch


@pytest.mark.parametrize("change", ["attention_factor", "tie_word_embeddings"])
def test_what_a_config_changes_is_changed_in_both(tmp_path: Path, change: str) -> None:
    checkpoint = write_random_checkpoint(tmp_path / "checkpoint", tiny_dims(), seed=1, dtype="float32")
    config = json.loads((checkpoint / "config.json").read_text())
    before = ReferenceModel.from_checkpoint(checkpoint)
    (config["rope_scaling"] if change == "attention_factor" else config)[change] = 2.0
    (checkpoint / "config.json").write_text(json.dumps(config))
    model = export_model(checkpoint, tmp_path / "model", precision="fp32")
    backend, reference = GenaiBackend(ModelDir.open(model), "cpu"), ReferenceModel.from_checkpoint(checkpoint)
    inputs = backend.preprocess("hello there", [], 1)
    expected = reference.logits(inputs).numpy()
    assert np.abs(graph_logits(model, inputs) - expected).max() < 1e-3
    assert np.abs(before.logits(inputs).numpy() - expected).max() > 0.1


@pytest.mark.parametrize("spelled", ["<|image_1|>", "<|end|>", "</s>"])
def test_the_reference_refuses_what_it_would_read_as_control(reference: ReferenceModel, spelled: str) -> None:
    with pytest.raises(PromptError, match="rephrase"):
        reference.preprocess(f"a {spelled} b", IMAGES["landscape"], 1)


def test_tokens_in_a_format_equal_the_reference(fp32_folder: Path, parity_checkpoint: Path) -> None:
    fields = parse_fields("title, year int?, tags list[str]")

    def answers(engine: phi3v.Engine) -> list[tuple[int, ...]]:
        images = IMAGES["landscape"]
        with engine:
            how = [{}, {"temperature": 1.0, "seed": 2, "repetition_penalty": 1.3}]
            streams = [
                engine.stream(PROMPT, images, max_new_tokens=24, num_crops=1, answer_format=fields, **h) for h in how
            ]
            for stream in streams:
                with contextlib.suppress(TruncatedAnswerError):
                    list(stream)
            return [stream.result.token_ids for stream in streams]

    ours, theirs = answers(phi3v.load(fp32_folder, "cpu")), answers(phi3v.Engine(ReferenceBackend(parity_checkpoint)))
    assert ours == theirs
    assert all(ours)


def test_int4_stays_near_the_reference(parity_checkpoint: Path, reference: ReferenceModel, ours: GenaiBackend) -> None:
    folder = export_model(parity_checkpoint, parity_checkpoint.parent / "int4", precision="int4")
    inputs = ours.preprocess(PROMPT, IMAGES["landscape"], 1)
    expected, got = reference.logits(inputs).numpy(), graph_logits(folder, inputs)
    cosine = (expected * got).sum(-1) / np.linalg.norm(expected, axis=-1) / np.linalg.norm(got, axis=-1)
    print(f"int4 on random weights: logits cosine mean {cosine.mean():.4f}, least {cosine.min():.4f}")
    assert cosine.mean() > 0.95


def test_the_engine_gives_the_same_answer_on_either_backend(fp32_folder: Path, parity_checkpoint: Path) -> None:
    def ask(engine: phi3v.Engine) -> phi3v.GenerationResult:
        with engine:
            return engine.generate(PROMPT, IMAGES["landscape"], max_new_tokens=16, num_crops=1)

    ours, theirs = ask(phi3v.load(fp32_folder, "cpu")), ask(phi3v.Engine(ReferenceBackend(parity_checkpoint)))
    assert ours.text.startswith(theirs.text)
    assert ours.token_ids[: len(theirs.token_ids)] == theirs.token_ids
    assert ours.usage.prompt_tokens == theirs.usage.prompt_tokens


def test_a_conversation_is_the_same_on_either_backend(fp32_folder: Path, parity_checkpoint: Path) -> None:
    def talk(engine: phi3v.Engine) -> list[tuple[int, ...]]:
        with engine, engine.session(IMAGES["landscape"], num_crops=1) as session:
            answers = [session.chat("What is this?", max_new_tokens=8), session.ask("Why?", max_new_tokens=8)]
            answers += [session.chat("And this?", IMAGES["portrait"], max_new_tokens=8)]
            return [answer.token_ids for answer in [*answers, session.chat("Well?", max_new_tokens=8)]]

    backend = ReferenceBackend(parity_checkpoint)
    backend._model = replace(backend.model, eos_token_ids=frozenset([0]))  # as in the folder
    assert talk(phi3v.load(fp32_folder, "cpu")) == talk(phi3v.Engine(backend))
