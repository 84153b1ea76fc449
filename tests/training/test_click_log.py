"""The builder of click logs: what was added comes out, over any number of blocks."""

import pytest

from training.click_log import ClickLogBuilder


@pytest.mark.parametrize("clicks", [0, 1, 3, 4, 10])
def test_what_was_added_comes_out(monkeypatch: pytest.MonkeyPatch, clicks: int) -> None:
    monkeypatch.setattr("training.click_log.BLOCK_CLICKS", 3)
    added = [(f"s{click * 7 % 4}", f"i{click % 3}", 1_000 - click) for click in range(clicks)]
    builder = ClickLogBuilder()
    for one in added:
        builder.add(*one)
    assert len(builder) == clicks
    log = builder.build()
    found = [
        (log.session_ids[session], log.item_ids[item], int(at))
        for session, item, at in zip(log.session, log.item, log.timestamp_ms, strict=True)
    ]
    assert found == added
    assert list(log.session_ids) == sorted({session_id for session_id, _, _ in added})
    assert log.item_ids == sorted({item_id for _, item_id, _ in added})
