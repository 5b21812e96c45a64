"""The uplink of one site, put together from its configuration."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.clock import SystemClock
from edge.intake import Intake
from edge.model.uplink import UplinkTable
from edge.site import Site
from edge.trust import PayloadType, sign
from edge.uplink.mqtt import Broker, Will, connect
from edge.uplink.service import Reporting, UplinkService, link
from edge.uplink.tls import TlsFiles
from edge.uplink.topics import What, topic


def broker_of(table: UplinkTable) -> Broker:
    """The broker that `[uplink]` names."""
    tls = TlsFiles(table.ca, table.certificate, table.key) if table.tls else None
    return Broker(table.host, table.port, tls)


def build(
    table: UplinkTable,
    site_id: str,
    site: Site,
    intake: Intake,
    key: Ed25519PrivateKey,
    clock: SystemClock,
    reporting: Reporting,
) -> UplinkService:
    """The service that keeps the site connected. What it says of the site is signed with the site's `key`."""
    broker = broker_of(table)
    topics = [topic(site_id, What.IN), topic(site_id, What.ACK)]
    will = Will(topic(site_id, What.LINK), link(site_id, online=False))
    return UplinkService(
        where=str(broker),
        site=site_id,
        connect=lambda: connect(broker, site_id, topics, will),
        intake=intake.take,
        look=site.state,
        seal=lambda payload: sign(PayloadType.STATE, payload, [key]),
        fingerprint=site.fingerprint,
        clock=clock,
        reporting=reporting,
    )
