from phi3v.answer import StopStrings


def passed(stops: list[str], *pieces: str) -> str:
    stop = StopStrings(stops)
    text = "".join(stop.push(piece) for piece in pieces)
    return text if stop.hit else text + stop.flush()


def test_text_ends_before_the_stop_string() -> None:
    assert passed(["END"], "one END two") == "one "


def test_a_stop_string_split_over_pieces_is_found() -> None:
    assert passed(["END"], "one E", "N", "D two") == "one "


def test_a_false_start_is_passed_on() -> None:
    assert passed(["END"], "one E", "NOUGH") == "one ENOUGH"
    assert passed(["END"], "one EN") == "one EN"


def test_the_earliest_of_several_stop_strings_wins() -> None:
    assert passed(["b", "a"], "xxaxb") == "xx"


def test_without_stop_strings_text_passes_untouched() -> None:
    assert passed([], "a", "b") == "ab"
