"""`nextclick topics`: create the topics, show how they stand."""

from typing import Annotated

from cyclopts import App, Parameter, validators

from deploy.settings import Connection
from schemas.topics import topic_specs

app = App(name="topics", help="Create and show the topics.")

_CONNECTION = Connection()
_WEEK_MS = 7 * 86_400_000

Partitions = Annotated[int, Parameter(validator=validators.Number(gte=1, lte=10_000))]


@app.command
def create(
    *,
    partitions: Partitions = 4,
    replication: int = -1,
    clicks_retention_ms: int = _WEEK_MS,
    connection: Connection = _CONNECTION,
) -> None:
    """Create the topics that are missing, with the right clean-up policies. Can be called again at any time.

    For example:

        nextclick topics create --partitions 12 --replication 3

    Parameters
    ----------
    partitions
        Of the clicks topic and of all that share its partitioning: the most workers that can work at once.
    replication
        Replicas of each partition; -1 leaves it to the broker.
    clicks_retention_ms
        How long clicks are kept. Retraining can replay no more than that; -1 keeps them for ever.
    """
    from deploy.topic_admin import create_topics

    specs = topic_specs(connection.topics(), partitions, clicks_retention_ms)
    created = create_topics(connection.client_config(), specs, replication)
    for spec in specs:
        state = "created" if spec.name in created else "exists"
        print(f"{state:8} {spec.name}  partitions={spec.partitions}  {spec.config['cleanup.policy']}")  # noqa: T201


@app.command(name="list")
def list_(*, connection: Connection = _CONNECTION) -> int:
    """Show which of the topics exist, with their partitions.

    For example:

        nextclick topics list
    """
    from deploy.topic_admin import admin_client, partitions_by_topic

    config = connection.client_config()
    found = partitions_by_topic(admin_client(config), config)
    names = [spec.name for spec in topic_specs(connection.topics(), 1, _WEEK_MS)]
    for name in names:
        print(f"{'exists' if name in found else 'missing':8} {name}  partitions={found.get(name, 0)}")  # noqa: T201
    return 0 if all(name in found for name in names) else 1
