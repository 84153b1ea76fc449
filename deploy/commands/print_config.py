"""Shows the effective settings of a command, where each came from, and no secret."""

from rich.console import Console

from deploy.cli import sources
from deploy.settings import masked


def print_config(values: dict[str, object]) -> None:
    """Print `name = value  # source` lines, TOML-shaped, to standard output."""
    console = Console(soft_wrap=True, highlight=False)
    for name, value in values.items():
        if name == "kafka" and isinstance(value, tuple):
            _print_kafka(console, value)
        else:
            text = f'"{value}"' if isinstance(value, str) else str(value).lower()
            console.print(f"{name} = {text}", markup=False, end="")
            console.print(f"  # {sources.sources.get(name, 'default')}", style="dim", markup=False)


def _print_kafka(console: Console, entries: tuple[str, ...]) -> None:
    for key, value in dict(masked(entry).split("=", 1) for entry in entries).items():
        console.print(f'kafka."{key}" = "{value}"', markup=False, end="")
        console.print(f"  # {sources.sources.get('kafka', 'default')}", style="dim", markup=False)
