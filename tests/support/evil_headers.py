"""Sends one record with a header whose name is no UTF-8, which confluent-kafka itself refuses to send.

python -m tests.support.evil_headers BOOTSTRAP TOPIC PARTITION VALUE
"""

import asyncio
import os
import sys

os.environ["AIOKAFKA_NO_EXTENSIONS"] = "1"  # its Python encoder calls `encode` of the name

from aiokafka import AIOKafkaProducer


class NoUtf8(str):
    """A name that says it is text and encodes to something else."""

    def encode(self, *_: object, **__: object) -> bytes:
        """No UTF-8."""
        return b"\xff\xfe"


async def main(bootstrap: str, topic: str, partition: int, value: bytes) -> None:
    """Send it and wait for the acknowledgement."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap)
    await producer.start()
    headers = [("shop", b"north"), (NoUtf8("x"), b"v")]
    await producer.send_and_wait(topic, value, key=b"k", partition=partition, headers=headers)
    await producer.stop()


if __name__ == "__main__":
    servers, name, number, text = sys.argv[1:]
    asyncio.run(main(servers, name, int(number), text.encode()))
