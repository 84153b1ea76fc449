"""Clicks of the simulated shop as JSON lines, for trying the commands by hand:

python -m deploy.demo.simulate --sessions 8000 | nextclick produce -
"""

import argparse
import sys
import time

from deploy.demo.shop import Shop, ShopSettings
from schemas.click import Click, encode_click

CLICKS_PER_S = 10.0
CONCURRENCY = 100


def main() -> None:
    """Write clicks to standard output, in order of time; the last ones are of about now."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.demo.simulate",
        description="Clicks of a simulated shop, one JSON object a line.",
    )
    parser.add_argument("--sessions", type=int, default=8_000, help="how many visits (default: %(default)s)")
    parser.add_argument("--stream", default="past", help="another name gives other visits of the same shop")
    parser.add_argument("--seed", type=int, default=7, help="another seed gives another shop")
    options = parser.parse_args()
    shop = Shop(ShopSettings(seed=options.seed))
    sessions = shop.sessions(options.sessions, options.stream)
    events = list(shop.clicks(sessions, 0, CLICKS_PER_S, CONCURRENCY))
    shift_ms = time.time_ns() // 1_000_000 - events[-1].timestamp_ms
    for event in events:
        click = Click(event.event_id, event.session_id, event.item_id, event.timestamp_ms + shift_ms)
        sys.stdout.buffer.write(encode_click(click) + b"\n")


if __name__ == "__main__":
    main()
