"""A site with a simulated printer that reports to a centre, all as processes; newest values go out every second.

with reporting_printer(folder, uplink_table(broker, NAME), uplink_table(broker, CENTRE)) as (site, centre): …
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.helpers.centre import Centre, ended
from tests.helpers.sim import sim_printer
from tests.helpers.site import PRINTER, SITE, SiteFolder

PRN = "prn-1"


@contextlib.contextmanager
def reporting_printer(folder: Path, uplink: str, centre_uplink: str) -> Iterator[tuple[SiteFolder, Centre]]:
    """Both are set up, and neither is started; both are ended."""
    (folder / "site").mkdir()
    site = SiteFolder(folder / "site")
    rewrite(site, uplink)
    centre = Centre(folder / "centre", centre_uplink, site)
    # So slow that half an hour of printing is not over before it is looked at.
    with sim_printer(site.folder, speed=20.0), ended(site, centre):
        yield site, centre


def rewrite(site: SiteFolder, uplink: str, every_s: float = 1) -> None:
    """Another `[uplink]`."""
    table = f"{uplink}telemetry_every_s = {every_s}\n"
    printer = PRINTER.format(port=site.folder / "printer")
    site.config.write_text(f'{SITE}guard_after_s = 0\n[time]\nsource = "host"\n{table}{printer}')


def told(centre: Centre) -> dict[str, Any] | None:
    """What the centre shows of the site's newest values."""
    if not centre.database.exists():
        return None
    (site,) = centre.status()["sites"]
    found: dict[str, Any] | None = site["telemetry"]
    return found


def value(centre: Centre, key: str) -> Any:
    """The newest value of a key of the printer; None while there is none."""
    found = told(centre)
    row = found and found["values"].get(f"{PRN}/{key}")
    return row and row["value"]
