"""What Prometheus gets from a whole site, and from where."""

from __future__ import annotations

import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.helpers.mosquitto import free_port
from tests.helpers.site import SHORT, SiteFolder, site_with_printer
from tests.unit.test_exposition import read


def page(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as answer:
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        return str(answer.read().decode())


def on_the_socket(site: SiteFolder) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(site.socket))
        line.sendall(b"GET /metrics HTTP/1.1\r\nHost: edge\r\nConnection: close\r\n\r\n")
        answer = b"".join(iter(lambda: line.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    return body.decode()


def test_the_figures_of_a_print_on_the_socket_and_on_loopback(tmp_path: Path) -> None:
    port = free_port()
    with site_with_printer(tmp_path, start=False) as (site, _):
        site.config.write_text(site.config.read_text() + f"[metrics]\nport = {port}\n")
        site.start()
        site.printed()
        site.submit(site.bundle(SHORT, site="munich-2"), code=2)
        url = f"http://127.0.0.1:{port}/metrics"
        for text in (page(url), on_the_socket(site)):
            found = read(text)
            machine = (("machine", "prn-1"),)
            assert found["edge_machine_state", (*machine, ("state", "IDLE"))] == 1
            assert found["edge_machine_state", (*machine, ("state", "OFFLINE"))] == 0
            assert found["edge_temperature_target_celsius", (("heater", "T"), *machine)] == 0
            assert found["edge_link_resends_total", machine] == 0
            assert found["edge_jobs", (("state", "COMPLETED"),)] == 1
            assert found["edge_refusals_total", (("reason", "wrong_site"),)] == 1
            assert found["edge_journal_events", ()] >= 5
            assert found["edge_journal_commits_total", ()] >= 5
            assert not any(name.startswith("edge_uplink") for name, _ in found)
        with pytest.raises(urllib.error.HTTPError) as raised:
            page(url.replace("/metrics", "/v1/status"))
        raised.value.close()
        assert raised.value.code == 404


def test_a_port_that_is_taken_is_named_and_the_site_does_not_begin(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = SiteFolder(tmp_path, machines=f"[metrics]\nport = {port}\n").edge("run")
    assert done.returncode == 2
    said = f"edge: metrics.port: cannot listen on 127.0.0.1:{port}: Address already in use"
    assert done.stderr.splitlines()[-1] == said
