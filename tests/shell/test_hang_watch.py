"""A call that does not come back ends the process with the code that says: start me again."""

import subprocess
import sys

import pytest

from worker.shell.failures import EXIT_RESTART

SCRIPT = """
import threading
from worker.shell.hang_watch import HangWatch
from worker.shell.log import configure_logging
configure_logging()
watch = HangWatch(hung_after_s=0.5)
for _ in range(3):
    with watch:
        pass
threading.Event().wait(1.8)
print("idle", flush=True)
with watch:
    threading.Event().wait({seconds})
print("came back", flush=True)
"""


@pytest.mark.parametrize(
    ("seconds", "code", "said"), [(30, EXIT_RESTART, "idle\n"), (0, 0, "idle\ncame back\n")]
)
def test_a_call_that_hangs_ends_the_process_and_idleness_does_not(seconds: int, code: int, said: str) -> None:
    command = [sys.executable, "-c", SCRIPT.format(seconds=seconds)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (code, said)
    assert ("kafka_client_hangs" in done.stderr) == (code != 0)
