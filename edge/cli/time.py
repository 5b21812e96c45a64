"""`edge time show` and `edge journal confirm`: what only the running daemon can say, or be told."""

from __future__ import annotations

import argparse
from typing import Any

from edge import sitefile
from edge.cli import text
from edge.cli.client import call
from edge.reading.status import ATTENTION, FINE

WORTH = {
    "trusted": "trusted",
    "floor": "wrong: the host's clock is behind what has certainly passed",
    "unknown": "not vouched for by anybody",
}


def show(args: argparse.Namespace) -> int:
    """0 if the clock is trusted, 1 if what needs the time waits."""
    file = sitefile.read(sitefile.find(args.config))
    clock: dict[str, Any] = call(file.socket, "GET", "/v1/time")
    trusted = clock["trust"] == "trusted"
    if args.json:
        text.print_json(clock)
        return FINE if trusted else ATTENTION
    print(f"now      {clock['now']}, {WORTH[clock['trust']]}")
    if clock["detail"]:
        print("\n".join(text.wrap(clock["detail"], "         ")))
    print(f"floor    {clock['floor']}: this has certainly passed")
    print(f"source   {clock['source']} ([time] in site.toml), and signed times")
    print(f"nonce    {clock['nonce']}")
    if not trusted:
        advice = (
            "What needs the time waits. Mend the host's clock or its network time; or give the nonce to whoever holds"
            f" the key of the role time: `edge time sign {clock['nonce']} --key KEY.key -o now.dsse.json`, and hand"
            " over the answer with `edge time submit now.dsse.json`."
        )
        print("\n".join(["", *text.wrap(advice, "")]))
    return FINE if trusted else ATTENTION


def confirm(args: argparse.Namespace) -> int:
    """Work begins."""
    file = sitefile.read(sitefile.find(args.config))
    done: dict[str, Any] = call(file.socket, "POST", "/v1/journal/confirm", {})
    if args.json:
        text.print_json(done)
    else:
        print(f"confirmed by {done['actor']}: orders begin from now on")
    return FINE
