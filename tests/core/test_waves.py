"""Waves: every click once, at most one per session in each, order within a session kept."""

from hypothesis import given
from hypothesis import strategies as st

from worker.core.waves import split_into_waves


@given(st.lists(st.integers(0, 7), max_size=40) | st.lists(st.integers(0, 1_000), unique=True))
def test_waves(rows: list[int]) -> None:
    waves = [wave.tolist() for wave in split_into_waves(rows)]
    assert sorted(position for wave in waves for position in wave) == list(range(len(rows)))
    for wave in waves:
        assert wave == sorted(wave)
        assert len({rows[position] for position in wave}) == len(wave)
    place = {position: number for number, wave in enumerate(waves) for position in wave}
    for position, row in enumerate(rows):  # wave i holds the i-th click of each row
        assert place[position] == rows[:position].count(row)
    assert len(waves) == max((rows.count(row) for row in rows), default=len(waves))


def test_arrays_can_index() -> None:
    assert [wave.tolist() for wave in split_into_waves([4, 4, 2])] == [[0, 2], [1]]
    assert all(wave.dtype.kind == "i" for rows in ([1, 2], [1, 1]) for wave in split_into_waves(rows))
