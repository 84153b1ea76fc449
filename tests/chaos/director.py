"""Does to workers and broker what the plan says, and looks after those who come back."""

import time
from collections import Counter
from collections.abc import Callable
from signal import SIGTERM

import orjson

from deploy.local_broker import LocalBroker
from tests.chaos.fleet import Worker, WorkerSpec, start_worker
from tests.chaos.outcome import CommitProbe, Progress, open_transactions
from tests.chaos.plan import Step
from tests.chaos.sender import Sender

EXIT_RESTART_ME = 75
TICK_S = 0.05
STOP_S = 15.0
"""A worker that was asked to stop has ended by then: ten seconds are its own promise, five the machine's."""

ANSWERS_AGAIN_S = 20.0
"""A broker that listens again may still load what it knows, for longer than a starting worker waits."""

PROGRESS_S = 120.0
"""A group that nobody disturbs has taken up its work by then."""

MAX_LAG_S = 15.0
"""Clicks that may wait; beyond it rounds pause, for killing workers that never got to work shows little."""

MIN_WORKERS = 2


class ChaosError(Exception):
    """The run itself failed: a worker ended for good, hangs, or makes no progress. Shows log lines."""


class Director:
    """Keeps `slots` of workers; each round hits one of them, or the broker. One thread only.

    Attributes:
        counts: kills, zombies, broker_restarts, restarts_on_75, … as the final report names them.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        slots: int,
        broker: LocalBroker,
        sender: Sender,
        probe: CommitProbe,
        broker_kills: bool,
    ) -> None:
        self._spec = spec
        self._broker_kills = broker_kills
        self._broker = broker
        self._sender = sender
        self._probe = probe
        self._slots: list[Worker | None] = [None] * slots
        self._due: dict[int, tuple[float, str | None]] = {}  # slot → when to start a worker, instance id
        self._others: list[Worker] = []  # asked to stop, or frozen and replaced: they end by themselves
        self._outages_s: list[tuple[float, float]] = []
        self._started = 0
        self._log = (spec.logs / "actions.jsonl").open("wb")
        self.counts: Counter[str] = Counter()

    def start_all(self) -> None:
        """Start a worker in every slot: every other one as a static member."""
        for slot in range(len(self._slots)):
            self._start(slot, _instance_id(slot) if slot % 2 else None)

    def play(self, step: Step, on_action: Callable[[str], None]) -> None:
        """One round.

        Raises:
            ChaosError: a worker failed, or the group makes no progress.
        """
        self._watch(step.delay_s)
        text = {
            "kill": self._kill,
            "remove": self._remove,
            "add": self._add,
            "freeze": self._freeze,
            "broker": self._stop_broker,
        }[step.action](step)
        self.counts["rounds"] += 1
        self._note(text)
        on_action(text)
        self._watch(step.pause_s)
        self._let_catch_up(on_action)

    def finish(self, on_action: Callable[[str], None]) -> None:
        """Disturb nobody any more; wait until every click is consumed, then stop all workers.

        Raises:
            ChaosError: clicks stay unconsumed, or a worker fails or does not stop.
        """
        for worker in self._everybody():
            if worker.frozen_until_s is not None:
                worker.thaw()
        for slot in range(min(MIN_WORKERS, len(self._slots))):
            if self._slots[slot] is None and slot not in self._due:
                self._due[slot] = (0.0, None)
        self._sender.finish()
        on_action("no more clicks; waiting until all are consumed")
        self.wait_until_lag(0)
        for slot in list(self._due):
            del self._due[slot]
        for worker in self._everybody():
            if worker.stop_by_s is None:
                worker.ask_to_stop(STOP_S)
        self._others += [worker for worker in self._slots if worker is not None]
        self._slots = [None] * len(self._slots)
        while self._others:
            self._tick()
            time.sleep(TICK_S)

    def close(self) -> None:
        """Kill whoever is left."""
        for worker in self._everybody():
            if worker.process.poll() is None:
                worker.kill()
        self._log.close()

    def wait_until_lag(self, records: int) -> Progress:
        """Wait until at most so many records are not consumed; workers may come and go meanwhile.

        Raises:
            ChaosError: it takes too long.
        """
        deadline_s = time.monotonic() + PROGRESS_S
        while (found := self._probe.ask()) is None or found.lag > records:
            if time.monotonic() > deadline_s:
                raise self._stuck(f"after {PROGRESS_S:.0f} s of peace clicks are unconsumed: {found}")
            self._watch(0.2)
        return found

    def _wait_for_commit(self) -> None:
        """Wait until more is committed than now."""
        deadline_s = time.monotonic() + PROGRESS_S
        before: Progress | None = None
        while (found := self._probe.ask()) is None or before is None or found.committed <= before.committed:
            before = before or found
            if time.monotonic() > deadline_s:
                raise self._stuck(f"nothing is committed for {PROGRESS_S:.0f} s: {found}")
            self._watch(0.1)

    def _let_catch_up(self, on_action: Callable[[str], None]) -> None:
        allowed = int(MAX_LAG_S * self._sender.rate_per_s)
        found = self._probe.ask()
        if found is None or found.lag > allowed:
            on_action(f"the group is behind ({found.lag if found else '?'} records): a pause")
            self.counts["pauses"] += 1
            self.wait_until_lag(allowed // 3)

    def _stuck(self, text: str) -> ChaosError:
        """The error, with what each worker is at and where readers are held up."""
        for worker in self._everybody():
            worker.dump_stacks()
        held = open_transactions(self._spec.bootstrap, self._spec.topics)
        tails = "\n".join(worker.log_tail() for worker in self._everybody())
        return ChaosError(f"{text}\nheld up by open transactions: {held or 'nobody'}\n{tails}")

    # -- what is done to them --

    def _kill(self, step: Step) -> str:
        if len(self._slots) == 1:  # a machine that is slow enough would else only see it start and die
            self._wait_for_commit()
        slot, worker = self._choose(step)
        worker.kill()
        self.counts["kills"] += 1
        self._slots[slot] = None
        self._due[slot] = (time.monotonic() + step.down_s, self._next_identity(slot, worker, step))
        return f"SIGKILL {worker.name}"

    def _remove(self, step: Step) -> str:
        if sum(worker is not None for worker in self._slots) <= MIN_WORKERS:
            return self._kill(step)
        slot, worker = self._choose(step)
        worker.ask_to_stop(STOP_S)
        self.counts["removed"] += 1
        self._others.append(worker)
        self._slots[slot] = None
        return f"SIGTERM {worker.name}"

    def _add(self, step: Step) -> str:
        free = [n for n, worker in enumerate(self._slots) if worker is None and n not in self._due]
        if not free:
            return self._kill(step)
        slot = free[int(step.pick * len(free))]
        # The one before may still be leaving; a static name must not be in use twice.
        worker = self._start(slot, None)
        self.counts["added"] += 1
        return f"added {worker.name}"

    def _freeze(self, step: Step) -> str:
        slot, worker = self._choose(step)
        worker.freeze(time.monotonic() + step.frozen_s)
        self.counts["zombies"] += 1
        if not (step.is_hard and worker.instance_id):
            return f"SIGSTOP {worker.name} for {step.frozen_s:.1f} s"
        self._others.append(worker)
        successor = self._start(slot, worker.instance_id)
        return f"SIGSTOP {worker.name} for {step.frozen_s:.1f} s, replaced by {successor.name}"

    def _stop_broker(self, step: Step) -> str:
        began_s = time.monotonic()
        is_hard = step.is_hard and self._broker_kills
        self._note("SIGKILL to the broker" if is_hard else "stopping the broker")
        if is_hard:
            self._broker.kill()
        else:
            self._broker.stop()
        away_s = time.monotonic()
        self._outages_s.append((began_s, float("inf")))
        self._watch(step.down_s)
        self._broker.start()
        self._outages_s[-1] = (began_s, time.monotonic() + ANSWERS_AGAIN_S)
        self.counts["broker_restarts"] += 1
        how = "killed" if is_hard else "stopped"
        return f"broker {how}, back after {time.monotonic() - away_s:.1f} s"

    def _choose(self, step: Step) -> tuple[int, Worker]:
        """A worker that has partitions, if there is one."""
        running = [(n, worker) for n, worker in enumerate(self._slots) if worker is not None]
        if not running:
            slot = min(self._due, key=lambda n: self._due[n][0], default=0)
            _, instance_id = self._due.pop(slot, (0.0, None))
            running = [(slot, self._start(slot, instance_id))]
        working = [(n, worker) for n, worker in running if worker.is_working]
        among = working or [(n, w) for n, w in running if w.frozen_until_s is None] or running
        return among[int(step.pick * len(among))]

    @staticmethod
    def _next_identity(slot: int, worker: Worker, step: Step) -> str | None:
        if step.keeps_identity:
            return worker.instance_id
        return None if worker.instance_id else _instance_id(slot)

    # -- looking after them --

    def _start(self, slot: int, instance_id: str | None) -> Worker:
        self._started += 1
        name = f"worker-{self._started:03}-slot-{slot}"
        self._slots[slot] = worker = start_worker(self._spec, name, instance_id)
        self._note(f"start {name}{' as ' + instance_id if instance_id else ''}")
        return worker

    def _everybody(self) -> list[Worker]:
        return [*(worker for worker in self._slots if worker is not None), *self._others]

    def _watch(self, for_s: float) -> None:
        until_s = time.monotonic() + for_s
        while True:
            self._tick()
            left_s = until_s - time.monotonic()
            if left_s <= 0:
                return
            time.sleep(min(TICK_S, left_s))

    def _tick(self) -> None:
        """Start who is due, thaw who has been frozen long enough, see who has ended."""
        self._sender.check()
        now_s = time.monotonic()
        self._start_due(now_s)
        for worker in self._everybody():
            if worker.frozen_until_s is not None and now_s >= worker.frozen_until_s:
                worker.thaw()
                self._note(f"SIGCONT {worker.name}")
        self._reap(now_s)

    def _start_due(self, now_s: float) -> None:
        """Nobody is started while the broker is away: what that gives is tested elsewhere."""
        for slot, (due_s, instance_id) in list(self._due.items()):
            if now_s >= due_s and self._broker.is_running:
                del self._due[slot]
                self._start(slot, instance_id)

    def _reap(self, now_s: float) -> None:
        for slot, one in enumerate(self._slots):
            if one is not None and one.process.poll() is not None:
                self._slots[slot] = None
                self._due[slot] = (now_s, one.instance_id)
                self._judge_end(one)
        for worker in list(self._others):
            if worker.process.poll() is not None:
                self._others.remove(worker)
                self._judge_end(worker)
            elif worker.stop_by_s is not None and now_s > worker.stop_by_s:
                worker.dump_stacks()
                raise ChaosError(f"asked to stop, it runs on after {STOP_S:.0f} s: {worker.log_tail()}")

    def _judge_end(self, worker: Worker) -> None:
        code = worker.process.returncode
        self._note(f"{worker.name} ended with {code}")
        met_outage = any(
            worker.started_s < end and begin < time.monotonic() for begin, end in self._outages_s
        )
        if code == EXIT_RESTART_ME:
            self.counts["restarts_on_75"] += 1
        elif worker.stop_by_s is not None and (code == 0 or (code == -SIGTERM and not worker.is_handling)):
            self.counts["clean_stops"] += 1
        elif code == 1 and met_outage and worker.has_logged("no Kafka broker answered"):
            self.counts["starts_without_broker"] += 1
        else:
            raise ChaosError(f"exit code {code}, which asks for a human: {worker.log_tail()}")

    def _note(self, text: str) -> None:
        """Into the log of actions, beside which the workers' logs are read."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03}Z"
        self._log.write(orjson.dumps({"at": at, "round": self.counts["rounds"], "action": text}) + b"\n")
        self._log.flush()


def _instance_id(slot: int) -> str:
    return f"chaos-slot-{slot}"
