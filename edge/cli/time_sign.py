"""`edge time sign`: what the holder of a time key does, far from the site."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

from edge.cli.trust import opened, print_json, replaced
from edge.model.fields import time_text
from edge.trust.envelope import PayloadType
from edge.trust.envelope import sign as seal
from edge.trust.signedtime import time_bytes


def sign(args: argparse.Namespace) -> int:
    """`edge time sign`."""
    keys = [opened(args, path) for path in args.key]
    # Not before: somebody may have been asked for a passphrase. And not a whole second: that can lie before what the
    # site has seen in it, which has passed there for sure.
    at = datetime.now(UTC)
    replaced(args.out, seal(PayloadType.TIME, time_bytes(at, args.nonce), keys))
    if args.json:
        print_json({"file": str(args.out), "at": time_text(at), "nonce": args.nonce})
    else:
        print(f"{args.out}: it is {time_text(at)}")
        print(f"  in answer to {args.nonce}")
    return 0
