"""Comparing is taught by where to look: at each thing's twin, and from the verdict at the thing without one."""

from random import Random

import pytest
import torch

from phi3v.export.nano.batches import Window, pack
from phi3v.export.nano.comparison import comparison
from phi3v.export.nano.network import Guides
from phi3v.export.nano.pairs import scene_pair, verdict_pair
from phi3v.export.nano.samples import Turn
from phi3v.export.nano.vocabulary import FIRST, SECOND, VERDICT_IDS, VERDICTS, phrase_ids, vocabulary

pytestmark = pytest.mark.torch


def looks(turn: Turn) -> tuple[dict[str, str], dict[str, str]]:
    """What looks at what, by text."""
    ids = vocabulary().answer(turn.answer).ids
    twins, odd = (
        {
            vocabulary().text([ids[query]]).strip(): vocabulary().text([ids[key]]).strip()
            for query, key in places.items()
        }
        for places in comparison(ids)
    )
    return twins, odd


def pair(*answer: str) -> Turn:
    return Turn("scene pair", "What is different?", answer)


def test_the_verdict_looks_at_the_thing_without_a_twin() -> None:
    twins, odd = looks(
        pair(FIRST, " two", " red", " star", "s", SECOND, " two", " blue", " star", "s", VERDICTS["color"])
    )
    assert twins == {"two": "two", "blue": FIRST, "star": "star"}
    assert odd == {"s": "blue"}


def test_where_all_have_a_twin_the_verdict_looks_at_the_second_picture() -> None:
    twins, odd = looks(pair(FIRST, " one", " red", " star", SECOND, " one", " red", " star", VERDICTS["none"]))
    assert twins == {"one": "one", "red": "red", "star": "star"}
    assert odd == {"star": SECOND.strip()}


@pytest.mark.parametrize("seed", range(20))
def test_the_odd_thing_is_what_the_verdict_names(seed: int) -> None:
    turn = scene_pair(Random(seed)).turns[0]
    twins, odd = looks(turn)
    verdict = next(kind for kind, phrase in VERDICTS.items() if phrase == turn.answer[-1])
    things = dict(zip(("number", "color", "shape"), twins, strict=True))
    assert [kind for kind, thing in things.items() if twins[thing] == FIRST] == ([] if verdict == "none" else [verdict])
    assert list(odd.values()) == [things.get(verdict, SECOND.strip())]


def test_answers_that_compare_nothing_are_free() -> None:
    assert comparison(vocabulary().answer(("The image shows", " two", " red", " star", "s", ".")).ids) == ({}, {})


@pytest.mark.parametrize("seed", range(5))
def test_a_packed_pair_keeps_these_places(seed: int) -> None:
    batch = pack([verdict_pair(Random(seed))], vocabulary(), Window(0, 1))
    ids, targets = batch.ids[0], batch.targets[0]
    first, second = phrase_ids((FIRST, SECOND))
    queries = (batch.twin[0] >= 0).nonzero().flatten()
    assert len(queries) == 3
    assert all(int(ids[batch.twin[0, query]]) in (int(ids[query]), first) for query in queries)
    (query,) = (batch.odd[0] >= 0).nonzero().flatten()
    assert int(targets[query]) in VERDICT_IDS
    assert int(batch.odd[0, query]) in queries or int(ids[batch.odd[0, query]]) == second


def test_heads_are_told_where_to_look_and_others_left_alone() -> None:
    keys = 9.0 * torch.eye(4)[None, None].expand(1, 2, 4, 4)
    mask = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    target = torch.zeros(1, 4, 4, dtype=torch.bool)
    target[0, 3, 1] = True

    def cost(looks_at: int, head: int, layer: int = 2) -> float:
        queries = torch.zeros(1, 2, 4, 4)
        queries[0, head, 3] = 9.0 * torch.eye(4)[looks_at]
        guides = Guides({(2, 0): target}, torch.zeros(()))
        guides.watch(layer, queries, keys, mask)
        return float(guides.loss)

    assert cost(looks_at=1, head=0) < 1e-3
    assert cost(looks_at=2, head=0) > 10
    assert cost(looks_at=2, head=0, layer=1) == 0
    assert cost(looks_at=1, head=1) == cost(looks_at=2, head=1) > 1
