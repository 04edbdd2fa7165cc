"""Answers in a format: a JSON line that keeps to its fields, whose opening is not learned from a question."""

import json
from random import Random

import pytest
import torch

from phi3v.export.nano.batches import pack
from phi3v.export.nano.chart_jobs import chart_format_sample, choice_sample
from phi3v.export.nano.checkpoint import with_new_phrases
from phi3v.export.nano.covers import book_format_sample, wider_cover
from phi3v.export.nano.formats import json_line
from phi3v.export.nano.forward import without_phrases
from phi3v.export.nano.network import Learner, nano_dims
from phi3v.export.nano.samples import GIVEN, LEARNED, SPELLED, Make, Sample, Turn
from phi3v.export.nano.vocabulary import LIKE, PHRASE_IDS, PHRASES, VOCABULARY, Copied, phrase_ids, vocabulary

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("make", [book_format_sample, chart_format_sample])
def test_an_answer_is_one_line_of_json_with_the_fields_it_is_asked_for(make: Make) -> None:
    for seed in range(40):
        turn = make(Random(seed), False).turns[0]
        assert turn.fields is not None
        assert list(json.loads(turn.text)) == [field.split()[0] for field in turn.fields.split(", ")]
        assert turn.opening == (LEARNED if "JSON" in turn.question else GIVEN)


def test_what_stands_between_two_values_is_one_token() -> None:
    title, author = Copied("Jaws"), Copied("Peter Benchley")
    parts = json_line([("title", title, ""), ("authors", author, "list[str]"), ("year", "null", "int?")])
    assert parts == ('{"title": "', title, '", "authors": ["', author, '"], "year": null}')
    assert all(part in PHRASES for part in parts if isinstance(part, str))
    assert json_line([("value", Copied("4.5"), "float")])[-1] == "}"


def test_a_choice_is_among_the_choices_and_the_question_asks_for_its_kind() -> None:
    for seed in range(20):
        turn = choice_sample(Random(seed)).turns[0]
        assert turn.text in turn.choices
        assert len(turn.choices) > 1
        if "value" in turn.question:
            assert max(map(float, turn.choices)) == float(turn.text)


def learned(turn: Turn) -> str:
    """The text of the tokens that are learned of an answer."""
    picture = wider_cover(Random(1)).pictures[0]
    targets = pack([Sample((picture,), [turn])], vocabulary()).targets
    return vocabulary().text([token for token in targets[targets >= 0].tolist() if token != vocabulary().end])


def test_a_given_opening_is_not_learned_and_all_that_follows_is() -> None:
    answer = ('{"title": "', Copied("Jaws"), '"}')
    assert learned(Turn("book", "Title?", answer, GIVEN)) == 'Jaws"}'
    assert learned(Turn("book", "Title?", answer, LEARNED)) == '{"title": "Jaws"}'


def test_a_spelled_answer_begins_as_if_there_were_no_phrases() -> None:
    logits = without_phrases(torch.zeros(2, VOCABULARY), torch.tensor([True, False]))
    assert (logits[0] < -1e8).nonzero().flatten().tolist() == sorted(PHRASE_IDS)
    assert (logits[1] == 0).all()
    picture = wider_cover(Random(1)).pictures[0]
    turns = [Turn("a", "Title?", (Copied("Jaws"),), SPELLED), Turn("b", "Title?", ('The title is "', "Jaws"))]
    batch = pack([Sample((picture,), turns)], vocabulary())
    (place,) = batch.spelled[0].nonzero().flatten()
    assert vocabulary().text([int(batch.targets[0, place])]) == "J"


def test_a_new_phrase_begins_as_the_older_one_it_is_like() -> None:
    torch.manual_seed(0)
    whole = Learner(nano_dims()).state_dict()
    old = {name: t[:-5] if len(t.shape) == 2 and len(t) == VOCABULARY else t for name, t in whole.items()}
    torch.manual_seed(1)
    grown = with_new_phrases(old, Learner(nano_dims()).state_dict())
    table = grown["nano.lm_head.weight"]
    assert table.shape == whole["nano.lm_head.weight"].shape
    assert torch.equal(table[:-5], old["nano.lm_head.weight"])
    for phrase in PHRASES[-5:]:
        if phrase in LIKE:
            new, older = phrase_ids((phrase, LIKE[phrase]))
            assert torch.equal(table[new], table[older])


def test_what_phrases_are_like_is_older_than_they_are() -> None:
    assert all(PHRASES.index(older) < PHRASES.index(new) for new, older in LIKE.items())
