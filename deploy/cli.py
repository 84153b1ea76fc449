"""The one command `nextclick`. The only place that knows worker and training; imports them lazily.

Exit codes: 0 done, 1 failed, 2 usage, 75 start again (a worker whose Kafka client is broken or fenced). A
failure is one line that says what to do; `--debug` (or NEXTCLICK_DEBUG=1) adds the traceback.
"""

import os
import sys

# Must stand before torch is imported: with the default policy, idle OpenMP threads spin and steal the very
# core that Kafka's client threads need (throughput fell at times to a fifth on two cores).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from importlib.metadata import version

from cyclopts import App, CycloptsError
from cyclopts.config import Env
from rich.console import Console

from deploy.settings import ENV_DEBUG, ENV_PREFIX, SettingsFile, SourceLog, UsageError

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, what a shell expects

sources = SourceLog()

COMMANDS = {
    "demo": ("deploy.commands.demo:demo", "A small shop, a real Kafka and the whole path, in one command."),
    "broker": ("deploy.commands.broker:broker", "Start a real Apache Kafka on this machine."),
    "topics": ("deploy.commands.topics:app", "Create and show the topics."),
    "produce": ("deploy.commands.produce:produce", "Send a file of clicks to the clicks topic."),
    "tail": ("deploy.commands.tail:tail", "Watch recommendations as they come."),
    "worker": ("deploy.commands.worker:worker", "Serve recommendations until SIGTERM."),
    "train": ("deploy.commands.train:train", "Train a model from a file or from the clicks topic."),
    "tune": ("deploy.commands.tune:tune", "Search for settings that fit your clicks."),
    "evaluate": ("deploy.commands.evaluate:evaluate", "Score a model on a log by full ranking."),
    "models": ("deploy.commands.models:app", "Announce and list models."),
    "dead-letters": ("deploy.commands.dead_letters:app", "Show what was no click; send it back repaired."),
    "schedule": ("deploy.commands.schedule:schedule", "Retrain on a calendar; announce what is not worse."),
}


def build_app(tokens: list[str]) -> App:
    """The command line for these tokens.

    Commands are imported when they are called. The list of all of them takes its texts from the table above;
    a command that is called shows its own docstring instead.
    """
    app = App(
        name="nextclick",
        help="""Next-item recommendation on a stream of clicks.

        Clicks come in on a Kafka topic, recommendations go out on another. Settings come from flags, then the
        environment (NEXTCLICK_…), then nextclick.toml. Start with `nextclick demo`.""",
        version=version("nextclick"),
        config=[Env(ENV_PREFIX, command=False), SettingsFile(), sources],
        help_format="markdown",
    )
    listing = not any(token in COMMANDS for token in tokens)
    for name, (path, text) in COMMANDS.items():
        app.command(path, name=name, help=text if listing else None)
    return app


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in tokens or os.environ.get(ENV_DEBUG) == "1"
    if "--debug" in tokens:
        tokens.remove("--debug")
    sys.exit(run(tokens, debug))


def run(tokens: list[str], debug: bool) -> int:
    """Run one command; returns the exit code. Never raises: `debug` prints the traceback instead."""
    console = Console(stderr=True)
    try:
        command, bound, _ = build_app(tokens).parse_args(
            tokens, exit_on_error=False, print_error=True, error_console=console
        )
    except CycloptsError:  # already printed
        return EXIT_USAGE
    except (UsageError, ValueError) as error:  # ValueError: a settings class refused a value
        _complain(console, error, debug)
        return EXIT_USAGE
    try:
        code = command(*bound.args, **bound.kwargs)
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our standard output has left (`nextclick tail --json | head`): nothing went wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as error:  # noqa: BLE001 - the outermost edge: whatever it is, one clear line and a code
        _complain(console, error, debug)
        code = EXIT_USAGE if isinstance(error, UsageError) else getattr(error, "exit_code", EXIT_FAILED)
    return code if isinstance(code, int) else 0


def _complain(console: Console, error: BaseException, debug: bool) -> None:
    if debug:
        console.print_exception()
    text = str(error) or type(error).__name__
    console.print("error: ", text, style="red", markup=False, highlight=False, sep="", soft_wrap=True)
