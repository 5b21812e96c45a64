"""Users with a certificate in place of a password: the right one comes in, another is refused in words."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge.driver import ConnectError
from edge.testing import RecordingContext
from tests.helpers.opcua import machine_of, plugin_of, sim_server
from tests.helpers.opcua_certificates import certificate


@pytest.mark.slow
async def test_a_user_certificate_lets_in_its_owner_and_nobody_else(tmp_path: Path) -> None:
    users = {}
    for name in ("ada", "eve"):
        (tmp_path / name).mkdir()
        users[name] = certificate(tmp_path / name)
    plugin = plugin_of("cnc")
    with sim_server("cnc", "--security", "encrypt", "--user-certificate", str(users["ada"][0])) as server:
        with pytest.raises(ConnectError, match="does not offer None; it offers: Basic256Sha256 SignAndEncrypt"):
            async with plugin.open(machine_of(server, security="None"), RecordingContext(tmp_path)):
                pass
        for name, (public, private) in users.items():
            way = {"security": "Basic256Sha256", "user_certificate": public, "user_key": private}
            machine = machine_of(server, **way)
            shown = await asyncio.to_thread(plugin.trust, machine, tmp_path, None)
            found = await asyncio.to_thread(plugin.trust, machine, tmp_path, shown.server_fingerprint)
            assert found.settled == (name == "ada")
            if name == "ada":
                async with plugin.open(machine, RecordingContext(tmp_path)) as driver:
                    assert driver.identity.firmware == "Simulated mill"
            else:
                assert "refuses the user" in found.there
                with pytest.raises(ConnectError, match="refuses the user"):
                    async with plugin.open(machine, RecordingContext(tmp_path)):
                        pass
