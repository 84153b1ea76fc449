"""A child process under control: its output, its end, and that nothing of it is left behind."""

import asyncio
import os
import sys
import time
from pathlib import Path

import pytest

from training.child import MAX_LINE_CHARS, STDERR_LINES_KEPT, ChildResult, run_child


def run(program: str, timeout_s: float = 30.0, *arguments: str) -> tuple[ChildResult, list[str]]:
    lines: list[str] = []
    command = [sys.executable, "-c", program, *arguments]
    return asyncio.run(run_child(command, timeout_s, lines.append, grace_s=0.5)), lines


def wait_until_gone(pid: int) -> None:
    deadline_s = time.monotonic() + 10
    while time.monotonic() < deadline_s:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # ended; whoever adopted it has not asked yet
            return
        time.sleep(0.02)
    raise AssertionError(f"process {pid} is still there")


def test_last_line_exit_code_and_log() -> None:
    program = """
import sys
print("first"); print("  last  "); print(); print("a\\rb", file=sys.stderr); sys.exit(3)
"""
    result, lines = run(program)
    assert result == ChildResult(3, "last", ["a", "b"], False)
    assert lines == ["a", "b"]


def test_no_output_at_all() -> None:
    assert run("")[0] == ChildResult(0, "", [], False)


def test_a_line_without_end_is_bounded_and_only_the_last_errors_are_kept() -> None:
    program = """
import sys
sys.stdout.write("x" * 1_000_000 + "end")
for i in range(100): print(i, file=sys.stderr)
"""
    result, lines = run(program)
    assert len(result.last_line) <= MAX_LINE_CHARS
    assert result.last_line.endswith("xend")
    assert len(lines) == 100
    assert result.stderr_tail == [str(i) for i in range(100 - STDERR_LINES_KEPT, 100)]


def test_bytes_that_are_no_text_do_no_harm() -> None:
    result, _ = run("import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n')")
    assert result.exit_code == 0
    assert result.last_line == "\ufffd\ufffd"


@pytest.mark.parametrize("last_words", ["time.sleep(600)", "sys.exit(0)"])
def test_after_its_time_it_is_ended_with_its_children(tmp_path: Path, last_words: str) -> None:
    """Its child ignores SIGTERM, as a wedged one may, so that only the SIGKILL to the whole group ends it."""
    pids = tmp_path / "pids"
    program = f"""
import os, pathlib, signal, subprocess, sys, time
stubborn = '''import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.write(int(sys.argv[1]), b"1")
time.sleep(600)
'''
ready, write_end = os.pipe()
child = subprocess.Popen([sys.executable, "-c", stubborn, str(write_end)], pass_fds=[write_end])
os.read(ready, 1)
pathlib.Path({str(pids)!r}).write_text(f"{{os.getpid()}} {{child.pid}}")
{last_words}
"""
    result, _ = run(program, 2.0)
    assert result.timed_out
    for pid in pids.read_text().split():
        wait_until_gone(int(pid))


def test_cancelling_us_ends_it(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    program = f"""
import os, pathlib, time
pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))
time.sleep(600)
"""

    async def cancel() -> None:
        task = asyncio.create_task(run_child([sys.executable, "-c", program], 600.0, lambda _: None))
        async with asyncio.timeout(20):
            while not (pid_file.exists() and pid_file.read_text()):
                await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    wait_until_gone(int(pid_file.read_text()))


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        asyncio.run(run_child([os.fspath(tmp_path / "none")], 1.0, lambda _: None))
