"""A second opinion on a journal's chain, from docs/journal.md alone: the standard library, nothing of edge.

    python tests/second_verifier.py FILE

FILE is a journal, or the envelope of a batch (its signature is not looked at). Prints one line; exit code 0 if the
chain holds together, 1 if not.
"""

import base64
import hashlib
import json
import sqlite3
import sys
from pathlib import Path

PREFIX = b"microfactory-edge/event/v1\n"
KEYS = "site journal seq prev_hash at_wall at_mono_ms boot_id clock actor kind job_id part step run_id machine body"


def verify(file: Path) -> tuple[int, str]:
    """How many events fit, and what is wrong with the next one; an empty text if nothing is."""
    connection = sqlite3.connect(f"file:{file.absolute()}?mode=ro", uri=True)
    try:
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        expected, previous, journal = connection.execute("SELECT seq, hash, journal FROM base").fetchone() or (
            0,
            "0" * 64,
            None,
        )
        first = expected = expected + 1
        for seq, kept_hash, raw in connection.execute("SELECT seq, hash, raw FROM events ORDER BY seq"):
            found_hash = hashlib.sha256(PREFIX + raw).hexdigest()
            event = json.loads(raw)
            for wrong, text in (
                (seq != expected, "number"),
                (found_hash != kept_hash, "hash"),
                (min(raw) < 0x20, "control character"),
                (list(event) != KEYS.split(), "keys"),
                (event.get("seq") != seq, "own number"),
                (event.get("prev_hash") != previous, "previous hash"),
                (event.get("site") != meta["site"], "site"),
                (not _same(event, journal, expected - 1, previous), "journal"),
            ):
                if wrong:
                    return expected - first, f"event {seq}: {text}"
            expected, previous, journal = expected + 1, found_hash, event["journal"]
        if journal not in (None, meta["journal"]):
            return expected - first, "the last event is of another journal"
        return expected - first, ""
    except ValueError as error:
        return expected - first, f"event {expected}: {error}"
    finally:
        connection.close()


def _same(event: dict, journal: str | None, seq: int, digest: str) -> bool:
    """Whether an event has the id of the one before it, or says that it begins a new one there."""
    follows = {"journal": journal, "seq": seq, "hash": digest}
    return (
        event["journal"] == journal
        or journal is None
        or (event["kind"] == "journal_held" and event["body"].get("follows") == follows)
    )


def verify_batch(envelope: bytes) -> tuple[int, str]:
    """The same of a batch as a site sends it."""
    batch = json.loads(base64.b64decode(json.loads(envelope)["payload"]))
    if batch["piece"] is not None:
        return 0, "a piece of an event; only all of them can be checked"
    previous, expected, journal = batch["prev_hash"], batch["first_seq"], None
    for text in batch["events"]:
        event = json.loads(text)
        for wrong, name in (
            (min(text) < " ", "control character"),
            (list(event) != KEYS.split(), "keys"),
            (event.get("seq") != expected, "own number"),
            (event.get("prev_hash") != previous, "previous hash"),
            (event.get("site") != batch["site"], "site"),
            (not _same(event, journal, expected - 1, previous), "journal"),
            ("follows" not in batch and event.get("journal") != batch["journal"], "journal"),
        ):
            if wrong:
                return expected - batch["first_seq"], f"event {expected}: {name}"
        journal = event["journal"]
        previous, expected = hashlib.sha256(PREFIX + text.encode()).hexdigest(), expected + 1
    if (expected - 1, previous) != (batch["last_seq"], batch["hash"]):
        return expected - batch["first_seq"], "the last event is not the one that the batch names"
    return expected - batch["first_seq"], ""


if __name__ == "__main__":
    content = Path(sys.argv[1]).read_bytes()
    count, problem = verify_batch(content) if content.startswith(b"{") else verify(Path(sys.argv[1]))
    sys.stdout.write(f"{count} events, {problem or 'all fit'}\n")
    sys.exit(bool(problem))
