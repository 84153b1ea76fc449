"""Item numbers: given once, kept for ever, bounded."""

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.item_register import UNREGISTERED, ItemRegister

names = st.text("abc", min_size=1, max_size=2)


@given(st.integers(0, 8), st.lists(st.lists(names, max_size=6), max_size=8))
@settings(deadline=None)
def test_against_a_list(max_items: int, calls: list[list[str]]) -> None:
    register = ItemRegister(max_items)
    seen: list[str] = []
    refused = 0
    for call in calls:
        room = register.has_room_for(call)
        assert room == (len(set(seen) | set(call)) <= max_items) or len(call) != len(set(call))
        numbers = register.numbers(call)
        for item, number in zip(call, numbers.tolist(), strict=True):
            if item not in seen and len(seen) < max_items:
                seen.append(item)
            if item in seen:
                assert number == seen.index(item) + 1
                assert register.item_id(number) == item
            else:
                assert number == UNREGISTERED
                refused += 1
        assert len(register) == len(seen) + 1 <= max_items + 1
    assert register.refused == refused
    assert register.item_id(UNREGISTERED) == ""


def test_room_counts_only_what_is_new() -> None:
    register = ItemRegister(3)
    register.numbers(["a", "b"])
    assert register.has_room_for(["b", "a", "c"])
    assert not register.has_room_for(["c", "d"])
    assert register.has_room_for([])
    assert len(register) == 3, "asking registers nothing"
