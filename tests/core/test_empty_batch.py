"""A batch without a single click: of a transaction of dead letters only."""

from tests.core.driving import START_MS, new_run
from tests.core.reference import Click, Limits
from worker.core.advance import Batch


def test_undoing_it_leaves_the_batch_before_as_it_was() -> None:
    run = new_run(Limits())
    run.feed([Click("s", "i1", START_MS)])
    run.worker.changes()
    advanced = run.worker.advance(Batch([], [], [], [], [], [], START_MS))
    assert (advanced.answers, advanced.applied) == ([], 0)
    assert run.worker.changes() == [], "the batch before was told"
    run.worker.table.rollback()
    assert run.history("s") == ["i1"]
    assert len(run.worker.table) == 1
