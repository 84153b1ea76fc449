"""`nextclick demo`: the whole path in one command."""

from deploy.demo.options import DemoOptions
from deploy.settings import Connection

_CONNECTION = Connection()
_OPTIONS = DemoOptions()


def demo(*, options: DemoOptions = _OPTIONS, connection: Connection = _CONNECTION) -> int:
    """Show the whole path on a small simulated shop: real Kafka, past clicks, training, worker, live clicks.

    What is recommended live is held against what is clicked next, beside popularity and an oracle that knows
    the shop's habits. Ends by itself in about a minute and a half; the last line is one JSON object. It ends
    with 1 where a click was not answered, or the model is no better than popularity.

    With --bootstrap (or NEXTCLICK_BOOTSTRAP) it uses that cluster, with topics of its own that it removes.

    For example:

        nextclick demo

        nextclick demo --log clicks.tsv.gz --test-last 1d
    """
    from deploy.cli import sources
    from deploy.demo.run import run_demo

    # A settings file may name the cluster that earns the money: the demo goes there only when told.
    is_told = bool({"cli", "env"} & set(sources.sources.get("bootstrap", "").split(", ")))
    return run_demo(options, connection if is_told else None)
