"""`make bench-training`: the default settings on the real click logs, one table, and last one JSON line.

Every run is a process of its own, so that its peak memory is its own. A training of a hundred sessions comes
before the clock starts (`warm_up_s`): kernels are compiled in it, libraries of a GPU loaded. events/s: clicks
that were an input with a target, over the wall time of the training loop alone, which is also what `fit_s`
is. Looks at the ends of epochs, baselines and report are in none of the parts, only in `seconds`, which is
all but the reading and the warm-up.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

if TYPE_CHECKING:
    from training.settings import TrainSettings

DATA = Path(__file__).parents[3] / "shared" / "data"
LOGS = ("rsc15_100k_ts", "yoochoose1_64", "diginetica")
TELL_EVERY_S = 0.5
WARM_UP_SESSIONS = 100
PARTS = {
    "reading_s": "read the log, s",
    "fit_s": "fit, s",
    "epoch_s": "of it an epoch, s",
    "evaluation_s": "evaluate the model alone, s",
    "warm_up_s": "warm up, s",
    "seconds": "all but reading and warming up, s",
}

Figures = dict[str, float]


def main() -> int:
    """Run all seeds on all logs that are there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", nargs="+", default=list(LOGS), help="names of logs in the data folder")
    parser.add_argument("--seeds", type=int, default=3, help="runs per log, with the seeds 1, 2, …")
    parser.add_argument("--threads", type=int, help="by default as in the settings")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the logs and their test sessions")
    parser.add_argument("--child", nargs=2, metavar=("LOG", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        log, seed = options.child
        _write(one_run(options.data, log, settings_of(int(seed), options), _write))
        return 0
    console = Console(stderr=True)
    there = [log for log in options.logs if _is_there(options.data, log, console)]
    if not there:
        console.print(f"[red]nothing was measured: no click log in {options.data}")
        return 1
    extra = ["--device", options.device]
    if options.threads is not None:
        extra += ["--threads", str(options.threads)]
    found = {}
    with _bars(console) as bars:
        for log in there:
            command = [sys.executable, "-m", "tests.bench.training", "--data", str(options.data), *extra]
            runs = [
                _child([*command, "--child", log, str(seed)], f"{log}, seed {seed}", bars)
                for seed in range(1, options.seeds + 1)
            ]
            found[log] = summary(runs)
    console.print(_table(found))
    sys.stdout.write(orjson.dumps(found).decode() + "\n")
    return 0


def settings_of(seed: int, options: argparse.Namespace) -> "TrainSettings":
    """The default ones but for what was asked."""
    from training.settings import TrainSettings

    settings = TrainSettings(seed=seed, device=options.device)
    return settings if options.threads is None else replace(settings, threads=options.threads)


def one_run(folder: Path, log: str, settings: "TrainSettings", tell: Callable[[Figures], None]) -> Figures:
    """Read, train, evaluate; runs in the child."""
    import numpy as np
    import torch

    from training.fit import fit, torch_threads
    from training.log_file import read_click_log, read_test_sessions
    from training.model_store import load_model
    from training.precision import low_precision
    from training.progress import Progress as At
    from training.progress import silent
    from training.score import evaluate_on
    from training.sessions import TestSessions, split_log
    from training.train import train

    now_ms = time.time_ns() // 1_000_000
    started_s = time.perf_counter()
    loaded = read_click_log(folder / f"{log}.tsv.gz", now_ms)
    rule = TestSessions(read_test_sessions(folder / f"{log}.test_sessions.txt"))
    reading_s = time.perf_counter() - started_s
    started_s = time.perf_counter()
    train_part = split_log(loaded.clicks, rule).train
    few = train_part.take(np.arange(min(WARM_UP_SESSIONS, len(train_part))))
    del train_part  # it would count as memory of the training
    fit(few, int(few.items.max()) + 1, replace(settings, epochs=1), lambda _: None)
    warm_up_s = time.perf_counter() - started_s
    told_s, learned, epochs = 0.0, 0, 1

    def report(at: At) -> None:
        nonlocal told_s, learned, epochs
        if at.stage == "fit":
            learned, epochs = at.done, at.epochs
        now_s = time.perf_counter()
        if now_s - told_s > TELL_EVERY_S:
            told_s = now_s
            tell({"done": at.done, "total": at.total})

    with tempfile.TemporaryDirectory() as store:
        result = train(loaded, rule, settings, Path(store), now_ms, report)
        peak_rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        model = load_model(result.model_folder)[1]
    # Once more, to be timed alone: within the training it stands between looks, baselines and report.
    split = split_log(loaded.clicks, rule)
    started_s = time.perf_counter()
    with torch_threads(settings.threads):
        evaluate_on(model, split, silent)
    evaluation_s = time.perf_counter() - started_s
    fit_s = learned / result.train_events_per_s
    return {
        "recall@20": result.evaluation.overall.recall["20"],
        "mrr@20": result.evaluation.overall.mrr["20"],
        "train_events_per_s": result.train_events_per_s,
        "seconds": result.seconds,
        "peak_rss_mb": peak_rss_mb,
        "recall_error": result.evaluation.recall_error,
        "mrr_error": result.evaluation.mrr_error,
        "reading_s": reading_s,
        "warm_up_s": warm_up_s,
        "fit_s": fit_s,
        "epochs": float(epochs),
        "epoch_s": fit_s / epochs,
        "evaluation_s": evaluation_s,
        "bfloat16": float(settings.device == "cpu" and low_precision(settings) == torch.bfloat16),
    }


def summary(runs: list[Figures]) -> Figures:
    """Means over the runs, peak memory the largest, and the spread of what depends on the seed."""
    found = {name: statistics.mean(run[name] for run in runs) for name in runs[0]}
    found["peak_rss_mb"] = max(run["peak_rss_mb"] for run in runs)
    for name in ("recall@20", "mrr@20", "train_events_per_s"):
        found[f"{name}_std"] = statistics.stdev(run[name] for run in runs) if len(runs) > 1 else 0.0
    found = {name: round(value, 5 if value < 1 else 1) for name, value in found.items()}
    return {**found, "seeds": len(runs)}


def _is_there(folder: Path, log: str, console: Console) -> bool:
    for name in (f"{log}.tsv.gz", f"{log}.test_sessions.txt"):
        if not (folder / name).is_file():
            console.print(f"[yellow]{log} is left out: there is no {folder / name}")
            return False
    return True


def _child(command: list[str], title: str, bars: Progress) -> Figures:
    """Run a child to its end and pass its progress on; its last line is the result."""
    bar = bars.add_task(title, total=None)
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
        figures = _follow(child.stdout or (), bars, bar)
    if child.returncode != 0 or "recall@20" not in figures:
        raise SystemExit(f"{title}: the run failed")
    speed = f"{figures['train_events_per_s']:,.0f} events/s"
    scores = f"{figures['recall@20']:.4f} / {figures['mrr@20']:.4f}"
    bars.update(bar, total=1, completed=1, description=f"{title}: {scores}, {speed}")
    return figures


def _follow(lines: Iterable[bytes], bars: Progress, bar: Any) -> Figures:
    figures: Figures = {}
    for line in lines:
        figures = orjson.loads(line)
        if "total" in figures:
            bars.update(bar, total=figures["total"], completed=figures["done"])
    return figures


def _write(figures: Figures) -> None:
    sys.stdout.write(orjson.dumps(figures).decode() + "\n")
    sys.stdout.flush()


def _bars(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


def _table(found: dict[str, Figures]) -> Table:
    """A column per log: there are more figures than logs."""
    table = Table(title="training, default settings: mean ± spread over seeds (error of sampling)")
    table.add_column("")
    for log in found:
        table.add_column(log, justify="right")
    for metric, title in (("recall", "recall@20"), ("mrr", "MRR@20")):
        scores = (
            f"{at[f'{metric}@20']:.4f} ± {at[f'{metric}@20_std']:.4f} ({at[f'{metric}_error']:.4f})"
            for at in found.values()
        )
        table.add_row(title, *scores)
    speed, spread = "train_events_per_s", "train_events_per_s_std"
    table.add_row("events/s", *(f"{at[speed]:,.0f} ± {at[spread]:,.0f}" for at in found.values()))
    for name, title in PARTS.items():
        table.add_row(title, *(f"{at[name]:,.1f}" for at in found.values()))
    table.add_row("peak RSS, MB", *(f"{at['peak_rss_mb']:,.0f}" for at in found.values()))
    return table


if __name__ == "__main__":
    sys.exit(main())
