"""What `edge check` finds out about the connection to the centre.

Asked is the site's own daemon, if it runs. Otherwise a connection is made under another name: under the site's own, the
broker would end the connection of a daemon that runs elsewhere, and hand over what waits for the site. So no session is
left behind. Whether the site may write to its topics is asked with empty messages, which are not retained, and mean
nothing to anybody.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any

from edge.model.uplink import SiteUplinkTable


def problem(table: SiteUplinkTable, site: str, daemon: Mapping[str, Any] | None) -> str:
    """Why the centre cannot be reached, in a sentence; empty if it can."""
    known = daemon and daemon["uplink"]
    if known and known["where"] == f"{table.host}:{table.port}":  # else the file has been changed since it started
        if not known["online"] and not known["text"]:
            return f"the running daemon is still connecting to {known['where']}; ask again"
        return str(known["text"])
    return asyncio.run(_tried(table, site))


async def _tried(table: SiteUplinkTable, site: str) -> str:
    from edge.uplink.build import broker_of
    from edge.uplink.mqtt import connect
    from edge.uplink.port import UplinkError
    from edge.uplink.topics import What, topic

    try:
        name = f"{site}-check-{secrets.token_hex(4)}"
        said = [What.OUT, What.STATE, What.LINK, *([What.TELEMETRY] if table.telemetry_every_s else [])]
        heard = [topic(site, What.IN), topic(site, What.ACK)]
        async with connect(broker_of(table), name, heard, session_s=0) as uplink:
            for what in said:
                await uplink.publish(topic(site, what), b"")
            return ""
    except UplinkError as error:
        return str(error)
