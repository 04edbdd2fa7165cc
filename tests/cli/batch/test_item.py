"""Which rows of a job belong together, and which are drawn."""

from phi3v.cli.batch.item import Item, Shard, gather_siblings, sample_items

ITEMS = [Item(f"{image}-{question}", (image,), question) for question in "xyz" for image in map(str, range(40))]


def test_siblings_stand_side_by_side_in_the_order_of_their_first() -> None:
    gathered = gather_siblings([Item("t", (), "?"), *ITEMS, Item("u", (), "?")])
    assert [item.id for item in gathered[:5]] == ["t", "0-x", "0-y", "0-z", "1-x"]
    assert len(gathered) == len(ITEMS) + 2


def test_shards_part_a_job_and_keep_siblings_together() -> None:
    parts = [[item.id for item in ITEMS if Shard(number, 7).holds(item)] for number in range(1, 8)]
    assert sorted(name for part in parts for name in part) == sorted(item.id for item in ITEMS)
    assert all(len(part) % 3 == 0 and part for part in parts)


def test_a_sample_is_the_same_each_time_and_part_of_a_larger_one() -> None:
    ten, fifty = sample_items(ITEMS, 10), sample_items(ITEMS, 50)
    assert len(ten) == 10
    assert ten == sample_items(list(ITEMS), 10)
    assert {item.id for item in ten} < {item.id for item in fifty}
    assert [item for item in ITEMS if item in fifty] == fifty
    assert sample_items(ITEMS, 1000) == ITEMS


def test_an_odd_file_name_has_a_place_too() -> None:
    odd = Item("\udcff.png", ("\udcff.png",), "?")
    assert sum(Shard(number, 3).holds(odd) for number in (1, 2, 3)) == 1
