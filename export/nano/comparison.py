"""How an answer that compares two scenes is worked out: where its tokens should look in what is already said."""

from __future__ import annotations

from collections.abc import Sequence

from .vocabulary import FIRST, SECOND, THINGS, VERDICT_IDS, phrase_ids

Looks = dict[int, int]
"""Place of a token in the answer -> place of the earlier one it should look at."""

_FIRST, _SECOND = phrase_ids((FIRST, SECOND))
_THINGS = frozenset(phrase_ids(THINGS))


def comparison(ids: Sequence[int]) -> tuple[Looks, Looks]:
    """Where twins are looked for, and where the odd one is, in an answer's ids; both empty if it compares nothing.

    Each thing said of the second picture looks for its twin, the same thing said of the first, or for `FIRST` if there
    is none. The token before the verdict then looks for the odd one, the first thing without a twin, or for `SECOND`
    if all have one.
    """
    if _SECOND not in ids:
        return {}, {}
    first, second = ids.index(_FIRST), ids.index(_SECOND)
    earlier = {token: place for place, token in enumerate(ids[:second]) if token in _THINGS}
    things = [place for place in range(second, len(ids)) if ids[place] in _THINGS]
    twins = {place: earlier.get(ids[place], first) for place in things}
    odd = next((place for place in things if twins[place] == first), second)
    verdict = next(place for place, token in enumerate(ids) if token in VERDICT_IDS)
    return twins, {verdict - 1: odd}
