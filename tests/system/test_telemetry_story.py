"""Newest values from a simulated printer to the centre, through the broker of the demo; and never among the facts."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.centre import Centre, site_events
from tests.helpers.mosquitto import free_port
from tests.helpers.reporting_printer import reporting_printer, rewrite, told, value
from tests.helpers.site import LONG, until

START_S = 30.0


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[str]:
    """The table `[uplink]` of iotcore, in memory, on 127.0.0.1."""
    port = free_port()
    command = [sys.executable, "-m", "edge.demo.broker", str(port), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            ready, _, _ = select.select([process.stdout], [], [], START_S)
            assert ready
            assert process.stdout.readline().startswith(b"broker ready")
            yield f'[uplink]\nkind = "mqtt"\nurl = "mqtt://127.0.0.1:{port}"\n'
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(START_S)


def state_of(centre: Centre) -> Any:
    """What the site says an issuer needs to choose it."""
    with contextlib.closing(sqlite3.connect(centre.database)) as connection:
        return json.loads(connection.execute("SELECT state FROM sites").fetchone()[0])


def test_what_a_printer_tells_is_seen_at_the_centre_with_its_age_and_is_no_fact(tmp_path: Path, broker: str) -> None:
    with reporting_printer(tmp_path, broker, broker) as (site, centre):
        site.start()
        centre.start("--telemetry")
        site.begun(program=LONG)
        until(lambda: (value(centre, "temperature/T") or 0) > 30)
        until(lambda: (value(centre, "progress/done") or 0) > 20)
        assert value(centre, "target/T") == 200.0
        assert value(centre, "state") == "EXECUTE"
        assert site.live()["uplink"]["telemetry"]["sent"] > 0
        until(lambda: state_of(centre)["machines"][0]["run_ends_in_s"])
        state = state_of(centre)
        assert state["machines"][0]["processes"] == ["fdm"]
        assert state["machines"][0]["properties"] == {"material": "PLA", "nozzle_mm": 0.4}
        assert state["capacity"]["fdm"] | {"free_in_s": 0} == {"machines": 1, "online": 1, "free": 0, "free_in_s": 0}
        assert state["queue"]["listed"][0]["ends_in_s"] > 60
        assert state["clock"]["trust"] == "trusted"
        screen = centre.edge("status", "--values", "--config", str(centre.config)).stdout
        assert "no facts" in screen
        assert "prn-1/temperature/T" in screen
        assert max(map(len, screen.splitlines())) <= 80

        until(lambda: centre.events() == site_events(site))
        found = told(centre)
        assert found is not None
        assert found["skipped"] > len(centre.events()), "thousands of values, and the journal has none of them"
        lines = [json.loads(line) for line in centre.lines.read_bytes().splitlines()]
        assert any("telemetry" in line for line in lines)
        assert all(("event" in line) != ("telemetry" in line) for line in lines)


def test_a_restart_of_the_daemon_begins_anew(tmp_path: Path, broker: str) -> None:
    with reporting_printer(tmp_path, broker, broker) as (site, centre):
        site.start()
        centre.start()
        until(lambda: value(centre, "state") == "IDLE")
        first = told(centre)
        assert first is not None
        assert site.daemon is not None
        site.daemon.end(signal.SIGKILL)
        site.start()
        until(lambda: (told(centre) or {}).get("run") not in (None, first["run"]))
        until(lambda: value(centre, "state") == "IDLE")


def test_a_site_may_keep_its_values_for_itself(tmp_path: Path, broker: str) -> None:
    with reporting_printer(tmp_path, broker, broker) as (site, centre):
        rewrite(site, broker, every_s=0)
        site.start()
        centre.start()
        site.begun(program=LONG)
        until(lambda: centre.database.exists() and centre.events() == site_events(site))
        assert told(centre) is None
        assert site.live()["uplink"]["telemetry"] == {"every_s": 0.0, "sent": 0, "waiting": 0}
