"""The renderer: a seed is a picture, labels say what is drawn, pixels are what the runtime will see."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from phi3v import hd
from phi3v.errors import MissingDependencyError
from phi3v.export.nano import photographs
from phi3v.export.nano.batches import Window, pack
from phi3v.export.nano.canvas import Picture
from phi3v.export.nano.chart_data import chart_data
from phi3v.export.nano.chart_questions import INTRODUCE
from phi3v.export.nano.charts import chart_sample, wider_chart
from phi3v.export.nano.columns import column_sample, line_sample, wider_column, wider_line
from phi3v.export.nano.covers import cover_sample, draw_cover, wider_cover
from phi3v.export.nano.evaluate import JOBS
from phi3v.export.nano.examples import EXAMPLES, draw
from phi3v.export.nano.lookalikes import dead_leaves, document, pie, scatter, silhouette, surface
from phi3v.export.nano.pages import page
from phi3v.export.nano.pairs import COMPARE, verdict_pair
from phi3v.export.nano.photographs import photograph_sample
from phi3v.export.nano.plots import plot_sample, wider_plot
from phi3v.export.nano.reading import draw_reading
from phi3v.export.nano.samples import Make, Sample
from phi3v.export.nano.scenes import scene_sample
from phi3v.export.nano.strips import BOOK, line_strip
from phi3v.export.nano.vocabulary import Copied, vocabulary
from phi3v.export.nano.words import misspelt, words

pytestmark = pytest.mark.torch


def misspelt_line(random: Random, held_out: bool) -> Sample:
    return line_strip(random, 4, "Read it.", held_out, misspelling=1.0)


def as_the_runtime_sees(picture: Picture) -> np.ndarray:
    crop = hd.transform(picture.original, 1).crops[0]
    mean = np.array([0.48145466, 0.4578275, 0.40821073]).reshape(3, 1, 1)
    std = np.array([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1)
    return ((crop * std + mean) * 255).transpose(1, 2, 0)


@pytest.mark.parametrize("job", [job for job in JOBS if job != "photograph"])
def test_the_same_seed_gives_the_same_sample(job: str) -> None:
    one, two, other = (JOBS[job](Random(seed), False) for seed in (3, 3, 4))
    assert [turn.text for turn in one.turns] == [turn.text for turn in two.turns]
    assert all((a.pixels == b.pixels).all() for a, b in zip(one.pictures, two.pictures, strict=True))
    assert any((a.pixels != b.pixels).any() for a, b in zip(one.pictures, other.pictures, strict=True))


@pytest.mark.parametrize("make", [cover_sample, chart_sample, column_sample, line_sample, plot_sample])
def test_training_pixels_are_those_of_the_runtime(make: Make) -> None:
    for seed in range(12):
        (picture,) = make(Random(seed), False).pictures
        # A portrait is scaled lying down there: Pillow's rounding differs by one level.
        assert np.abs(as_the_runtime_sees(picture) - picture.pixels).max() <= 1.51


WITH_TEXT = [cover_sample, wider_cover, chart_sample, wider_chart, scene_sample, misspelt_line]
WITH_TEXT += [column_sample, wider_column, line_sample, wider_line, plot_sample, wider_plot]


@pytest.mark.parametrize("make", WITH_TEXT)
def test_every_copied_character_stands_in_its_cell(make: Make) -> None:
    for seed in range(8):
        sample = make(Random(seed), False)
        for turn in sample.turns:
            for part in turn.answer:
                if isinstance(part, Copied):
                    assert len(part.places) == len(part.text)
                    standing = zip(part.text, part.places, strict=True)
                    assert all(in_cell(sample.pictures[0], c, place) for c, place in standing)


def in_cell(picture: Picture, character: str, place: tuple[int, int]) -> bool:
    if character == " ":
        return True
    return any(c == character and (int(y // 28), int(x // 28)) == place for x, y, c in picture.characters)


def test_labels_name_the_characters_of_a_line_in_order() -> None:
    sample = line_strip(Random(5), 4, "Read it.")
    rows = sample.pictures[0].labels().reshape(24, -1)
    read = "".join(chr(32 + code) for code in rows.flatten() if code)
    (text,) = (part.text for part in sample.turns[0].answer if isinstance(part, Copied))
    assert read == text.replace(" ", "")


def test_a_cover_of_the_reference_document_is_answered_to_the_letter() -> None:
    cover = draw_cover("ALONE", "Morgan Maxwell", style=1)
    assert (cover.title.text, cover.author.text) == ("ALONE", "Morgan Maxwell")
    assert "Help me get the title and author information of this book?" in BOOK
    assert "Could you please introduce this stock to me?" in INTRODUCE
    assert "What is difference in this two images?" in COMPARE


def test_the_highest_bar_of_a_chart_is_clearly_the_longest() -> None:
    for seed in range(50):
        data = chart_data(Random(seed))
        second, first = sorted(map(float, data.values))[-2:]
        assert second <= 0.88 * first
        assert float(data.values[data.highest]) == first
        assert len(set(data.labels)) == len(data.labels) == len(data.values)


def test_the_examples_are_drawn_and_answered_from_nanos_world(tmp_path: Path) -> None:
    draw(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {name for example in EXAMPLES for name in example.files}
    assert all(file.stat().st_size < 50_000 for file in tmp_path.iterdir())
    for example in EXAMPLES:
        ids = vocabulary().answer([example.answer]).ids
        assert vocabulary().text(ids[:-1]) == example.answer


def test_held_out_words_are_in_no_other_list() -> None:
    trained = {
        word.lower()
        for name in ("english", "nouns", "adjectives", "last_names", "first_names", "subjects", "makers")
        for word in words(name)
    }
    assert not trained & set(words("held_out"))


def test_misspelling_makes_no_word_that_is_kept_out_of_training() -> None:
    changed = [misspelt(Random(seed), word, 1.0) for seed in range(40) for word in words("english")[:400]]
    assert not {word.lower() for word in changed} & set(words("held_out"))
    assert len(set(changed)) > 10 * 400


def test_reading_windows_carry_the_labels_of_what_they_show() -> None:
    windows, whole = (draw_reading(Random(seed), Random(1)) for seed in (1, 0))
    assert (windows.pixels.shape, windows.characters.shape) == ((80, 112, 112, 3), (80, 8, 8, 3))
    assert (whole.pixels.shape, whole.characters.shape) == ((7, 336, 336, 3), (7, 24, 24, 3))
    assert (draw_reading(Random(0), Random(1)).pixels == whole.pixels).all()
    assert (page(Random(2)).labels() > 0).sum() > 50


def test_of_a_bare_verdict_nothing_else_is_learned() -> None:
    samples = [verdict_pair(Random(seed)) for seed in range(8)]
    targets = pack(samples, vocabulary(), Window(0, 1)).targets
    learned = targets[targets >= 0].tolist()
    assert [vocabulary().text([token]) for token in learned] == [sample.turns[0].answer[-1] for sample in samples]


def test_photographs_are_asked_about_and_none_is_known() -> None:
    for package in ("skimage", "sklearn"):
        pytest.importorskip(package, reason="photographs come with scikit-image and scikit-learn")
    for seed in range(5):
        sample = photograph_sample(Random(seed))
        assert sample.pictures[0].pixels.shape == (336, 336, 3)
        assert sample.turns[0].text == "I don't know this kind of picture."


def test_without_the_packages_it_is_said_where_photographs_come_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install scikit-image scikit-learn"):
        photographs._paths.__wrapped__()


@pytest.mark.parametrize("draw_one", [dead_leaves, surface, silhouette, document, pie, scatter])
def test_what_looks_alike_fills_the_picture_and_differs_by_seed(draw_one: Callable[[Random], np.ndarray]) -> None:
    one, two = draw_one(Random(1)), draw_one(Random(2))
    assert one.shape == (336, 336, 3)
    assert one.dtype == np.uint8
    assert (one == draw_one(Random(1))).all()
    assert (one != two).any()
