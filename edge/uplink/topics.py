"""The topics of a site: ``mf/v1/<site>/<what>``."""

from __future__ import annotations

import enum

PREFIX = "mf/v1/"


class What(enum.StrEnum):
    """The last part of a topic. Who publishes: the centre to `in` and `ack`, the site to all others."""

    IN = "in"  # orders, commands, roots, times: envelopes
    ACK = "ack"  # the collector's acknowledgements: envelopes
    OUT = "out"  # batches: envelopes
    STATE = "state"  # retained: what the site can do, and what it is doing
    LINK = "link"  # retained: online or offline, with the last will
    TELEMETRY = "telemetry"  # newest values, no facts


def topic(site: str, what: What) -> str:
    """The topic of a site."""
    return f"{PREFIX}{site}/{what}"


def split(name: str) -> tuple[str, What] | None:
    """The site and the kind of a topic; None for any other."""
    site, _, what = name.removeprefix(PREFIX).partition("/")
    if not name.startswith(PREFIX) or what not in set(What):
        return None
    return site, What(what)
