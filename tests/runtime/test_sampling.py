"""Choosing a token from its logits."""

import numpy as np
import numpy.typing as npt
import pytest

from phi3v.sampling import TokenChooser
from phi3v.types import SamplingParams

LOGITS = np.log(np.array([0.05, 0.4, 0.3, 0.2, 0.05], dtype=np.float32))


class Only:
    """A constraint that allows the listed ids, and remembers what came."""

    def __init__(self, *ids: int) -> None:
        self._ids = ids
        self.accepted: list[int] = []

    def allowed(self) -> npt.NDArray[np.bool_]:
        return np.isin(np.arange(len(LOGITS)), self._ids)

    def accept(self, token_id: int) -> None:
        self.accepted.append(token_id)


def draw(count: int = 400, constraint: Only | None = None, **how: float) -> list[int]:
    return [TokenChooser(SamplingParams(seed=n, **how), (), constraint).choose(LOGITS) for n in range(count)]  # type: ignore[arg-type]


def test_greedy_takes_the_likeliest() -> None:
    chooser = TokenChooser()
    assert chooser.is_argmax
    assert chooser.choose(LOGITS) == 1


def test_a_draw_follows_the_probabilities() -> None:
    counts = np.bincount(draw(4000, temperature=1.0), minlength=5) / 4000
    assert counts == pytest.approx(np.exp(LOGITS), abs=0.03)


def test_a_higher_temperature_draws_more_evenly() -> None:
    cold, hot = (np.bincount(draw(temperature=t), minlength=5)[1] for t in (0.3, 3.0))
    assert cold > 1.5 * hot


@pytest.mark.parametrize(("top_p", "drawn"), [(0.01, {1}), (0.39, {1}), (0.6, {1, 2}), (0.8, {1, 2, 3})])
def test_top_p_draws_from_the_nucleus_only(top_p: float, drawn: set[int]) -> None:
    assert set(draw(temperature=1.0, top_p=top_p)) == drawn


@pytest.mark.parametrize(("top_k", "drawn"), [(1, {1}), (3, {1, 2, 3}), (5, {0, 1, 2, 3, 4}), (2**40, {0, 1, 2, 3, 4})])
def test_top_k_draws_from_the_likeliest_k(top_k: int, drawn: set[int]) -> None:
    assert set(draw(temperature=1.0, top_k=top_k)) == drawn


def test_top_p_counts_what_top_k_and_the_temperature_left() -> None:
    assert set(draw(temperature=1.0, top_k=2, top_p=0.56)) == {1}
    assert set(draw(temperature=0.1, top_p=0.9)) == {1}


def test_a_seed_repeats_its_draws_and_another_does_not() -> None:
    def series(seed: int) -> list[int]:
        chooser = TokenChooser(SamplingParams(temperature=1.0, seed=seed))
        return [chooser.choose(LOGITS) for _ in range(30)]

    assert series(3) == series(3)
    assert series(3) != series(4)


def test_the_repetition_penalty_counts_prompt_and_answer_and_no_picture_slot() -> None:
    chooser = TokenChooser(SamplingParams(repetition_penalty=100.0), [-1, -1, 1])
    assert not chooser.is_argmax
    # Log-probabilities are negative: what was seen falls far below what was not.
    assert [chooser.choose(LOGITS) for _ in range(4)] == [2, 3, 0, 4]


def test_a_constraint_leaves_only_what_it_allows_and_learns_what_came() -> None:
    constraint = Only(0, 3)
    chooser = TokenChooser(constraint=constraint)
    assert not chooser.is_argmax
    assert [chooser.choose(LOGITS) for _ in range(2)] == [3, 3]
    assert constraint.accepted == [3, 3]
    assert set(draw(constraint=Only(0, 4), temperature=1.0)) == {0, 4}
