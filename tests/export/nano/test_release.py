"""Shipping nano: what is measured decides what is said of it."""

from pathlib import Path

import pytest
import torch

import phi3v
from phi3v.errors import ModelFolderError
from phi3v.export.nano.card import BARS, about, card, working
from phi3v.export.nano.evaluate import Score, main, read_scores, rows, write_scores
from phi3v.export.nano.network import Learner, nano_dims
from phi3v.export.nano.release import CARD, SCORES, release
from phi3v.export.nano.samples import Turn
from phi3v.export.nano.vocabulary import Copied
from phi3v.models.folder import BUILTIN, ModelDir
from phi3v.models.manifest import verify

pytestmark = pytest.mark.torch


def scored(cover: int, chart: int, pair: int) -> list[Score]:
    numbers = {"cover": cover, "chart": chart, "scene pair": pair}
    return [Score(job, words, 500, numbers.get(job, 50), 1000, 960) for job, words in rows()]


@pytest.mark.parametrize(
    ("cover", "chart", "pair", "works"),
    [(450, 425, 450, ["cover", "chart", "scene pair"]), (449, 425, 449, ["chart"]), (0, 0, 0, [])],
)
def test_a_job_works_from_its_bar_on(cover: int, chart: int, pair: int, works: list[str]) -> None:
    assert working(scored(cover, chart, pair)) == works


def test_only_working_jobs_are_advertised_and_the_others_named_with_their_numbers() -> None:
    scores = scored(460, 100, 200)
    assert "92.0 % of 500 right" in about(scores)
    assert BARS["chart"].what not in about(scores)
    missing = card(scores, 13.0).partition("Not good enough")[2].partition("## Its world")[0]
    assert "20.0 % of 500 right" in missing
    assert "40.0 % of 500 right" in missing
    assert "92.0 %" not in missing
    assert "{" not in card(scores, 13.0)


def test_a_model_without_a_working_job_says_so() -> None:
    assert "not reliable in any job" in about(scored(1, 2, 3))


def test_scores_are_kept_to_the_last_digit(tmp_path: Path) -> None:
    write_scores(scored(1, 2, 3), tmp_path / "scores.json")
    assert read_scores(tmp_path / "scores.json") == scored(1, 2, 3)


@pytest.mark.slow
def test_a_release_builds_scores_and_describes_the_folder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    learner = Learner(nano_dims())
    torch.save({"mean": learner.state_dict()}, tmp_path / "state.pt")
    scores = release(tmp_path / "state.pt", tmp_path / "built" / "nano", count=1)
    folder = tmp_path / "built" / "nano"
    assert verify(folder) == {}
    assert read_scores(folder / SCORES) == scores
    assert ModelDir.open(folder).about == about(scores)
    assert (folder / CARD).read_text().startswith("# nano")
    with phi3v.load(folder) as engine:
        assert engine.model.num_crops == 1
    main([str(folder), "--count", "1", "--job", "scene", "--json", str(tmp_path / "again.json")], standalone_mode=False)
    assert read_scores(tmp_path / "again.json")[0] == next(score for score in scores if score.job == "scene")


def test_only_a_model_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ModelFolderError, match="not replaced"):
        release(BUILTIN, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_characters_are_counted_in_what_was_read_from_the_picture_alone() -> None:
    turn, score = Turn("cover", "?", ('The title is "', Copied("ABCD"), '".')), Score("cover", "known")
    assert not score.add(turn, 'The title is "ABXD".')
    assert score.add(turn, 'The title is "ABCD".')
    assert (score.characters, score.read, score.right) == (8, 7, 1)
