"""The uplink of one site, put together from its configuration."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from edge.clock import SystemClock
from edge.intake.intake import Intake
from edge.model.uplink import SiteUplinkTable, UplinkTable
from edge.serving.site import Site
from edge.trust import PayloadType, sign
from edge.uplink.broker import Broker
from edge.uplink.login import Login
from edge.uplink.mqtt import Will, connect
from edge.uplink.service import Reporting, UplinkService, link
from edge.uplink.sitekey import open_key
from edge.uplink.telemetry import Telemetry
from edge.uplink.tls import TlsFiles, ending
from edge.uplink.topics import What, topic


def broker_of(table: UplinkTable) -> Broker:
    """The broker that `[uplink]` names."""
    tls = TlsFiles(table.ca, table.certificate, table.key) if table.tls else None
    login = None
    if table.user is not None and table.password_file is not None:
        login = Login(table.user, table.password_file)
    return Broker(table.host, table.port, tls, login)


def telemetry_of(table: SiteUplinkTable, site_id: str, state_dir: Path, clock: SystemClock) -> Telemetry:
    """What the drivers' newest values are put into. Raises `KeyFileError`."""
    key = open_key(state_dir, site_id)
    return Telemetry(
        site_id, lambda payload: sign(PayloadType.TELEMETRY, payload, [key]), clock, table.telemetry_every_s
    )


def build(
    table: UplinkTable,
    site_id: str,
    site: Site,
    intake: Intake,
    key: Ed25519PrivateKey,
    clock: SystemClock,
    reporting: Reporting,
    telemetry: Telemetry,
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
        telemetry=telemetry,
        foresee=lambda: _foreseen(broker, clock),
    )


def _foreseen(broker: Broker, clock: SystemClock) -> str:
    now = clock.now()
    if not now.trusted or broker.tls is None or broker.tls.certificate is None:
        return ""
    return ending(broker.tls.certificate, now.wall)
