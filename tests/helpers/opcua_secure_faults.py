"""What else can happen where certificates and keys are in use: they are replaced, taken back, renewed, and run out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from drivers.opcua import connect
from drivers.opcua.client import Link
from drivers.opcua.equipment import Equipment
from drivers.opcua.library import Client, NodeId
from edge.driver import MachineState, OutcomeKind, StateSeen
from tests.helpers.opcua import machine_of, plugin_of, until
from tests.helpers.opcua_faults import RIGHT_S, WAIT_S, At, LinkFaults, stopped, under_way

CHANNEL_S = 10.0
"""How long the keys of a secure channel last in these tests. They are renewed after 75 %, and good for 125 % of it."""


def states_since(at: At, first: int) -> set[MachineState]:
    return {seen.state for seen in at.context.of_kind(StateSeen)[first:]}


class SecureFaults(LinkFaults):
    """All that links do, and what only secure channels do. `served` gives a machine that takes nobody in the open."""

    @pytest.fixture
    def renewals(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """When keys were renewed, which is often."""
        seen: list[float] = []
        opened = Client.open_secure_channel

        async def open_secure_channel(client: Client, renew: bool = False) -> None:
            await opened(client, renew)
            if renew:
                seen.append(time.monotonic())

        monkeypatch.setattr(connect, "CHANNEL_S", CHANNEL_S)
        monkeypatch.setattr(Client, "open_secure_channel", open_secure_channel)
        return seen

    async def test_a_server_with_another_certificate_is_left_alone_until_a_person_has_accepted_it(
        self, tmp_path: Path
    ) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                server.kill()
                await at.becomes(MachineState.OFFLINE)
                server.replace_certificate()
                await asyncio.to_thread(server.restart)
                await until(lambda: "nobody here has trusted" in at.context.of_kind(StateSeen)[-1].detail, RIGHT_S)
                assert at.state() is MachineState.OFFLINE
                assert not at.running.done(), "who answers there is not known to be the machine"
                plugin, machine = plugin_of(server.kind), machine_of(server)
                shown = await asyncio.to_thread(plugin.trust, machine, tmp_path, None)
                found = await asyncio.to_thread(plugin.trust, machine, tmp_path, shown.server_fingerprint)
                assert found.settled, found.there
                outcome = await asyncio.wait_for(at.running, RIGHT_S)
                assert outcome.kind is OutcomeKind.UNKNOWN
                await at.becomes(MachineState.IDLE)
                assert server.starts() == 0

    async def test_keys_are_renewed_again_and_again_while_a_run_goes_on(
        self, tmp_path: Path, renewals: list[float]
    ) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                first = len(at.context.of_kind(StateSeen))
                await until(lambda: len(renewals) >= 3, WAIT_S)
                done = len(server.instructions())
                await until(lambda: len(server.instructions()) > done + 2, WAIT_S)
                assert states_since(at, first) <= {MachineState.EXECUTE}, "renewing is no interruption"
                await stopped(at)

    async def test_keys_are_renewed_while_looking_around_takes_longer_than_they_last(
        self, tmp_path: Path, renewals: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        attach = Equipment.attach

        async def slowly(
            equipment: Equipment, link: Link, root: NodeId, beside: Sequence[NodeId]
        ) -> Mapping[NodeId, float]:
            await asyncio.sleep(1.5 * CHANNEL_S)
            return await attach(equipment, link, root, beside)

        monkeypatch.setattr(Equipment, "attach", slowly)
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                assert renewals
                assert MachineState.OFFLINE not in states_since(at, 0)
                await stopped(at)

    async def test_a_server_that_is_frozen_while_keys_are_to_be_renewed_goes_on(
        self, tmp_path: Path, renewals: list[float]
    ) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server) as at:
                await until(lambda: renewals, WAIT_S)
                await asyncio.sleep(0.65 * CHANNEL_S)
                renewed, done = len(renewals), len(server.instructions())
                server.freeze()
                await asyncio.sleep(0.2 * CHANNEL_S)
                server.thaw()
                await until(lambda: len(renewals) > renewed, RIGHT_S)
                await until(lambda: len(server.instructions()) > done + 2, RIGHT_S)
                await at.becomes(MachineState.EXECUTE)
                await stopped(at)


class SpentKeys(SecureFaults):
    """Of a server that outlives it: node-opcua 2.167 may end itself when it wakes up with keys that have run out."""

    async def test_a_frozen_server_that_is_rebuilt_after_its_keys_ran_out_is_right_again_soon(
        self, tmp_path: Path, renewals: list[float]
    ) -> None:
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server, silence_s=2.0) as at:
                await until(lambda: renewals, WAIT_S)
                server.freeze()
                await at.becomes(MachineState.OFFLINE)
                await asyncio.sleep(2 * CHANNEL_S)
                server.thaw()
                await at.becomes(MachineState.EXECUTE)
                renewed = len(renewals)
                await until(lambda: len(renewals) > renewed, WAIT_S)
                assert at.state() is MachineState.EXECUTE
                await stopped(at)

    async def test_a_server_that_is_frozen_until_its_keys_have_run_out_is_right_again_soon(
        self, tmp_path: Path, renewals: list[float]
    ) -> None:
        """It is thought to be alive all the time: its clock may stand still for longer than that."""
        with self.served(tmp_path, 2.0) as server:
            async with under_way(tmp_path, server, silence_s=60.0) as at:
                await until(lambda: renewals, WAIT_S)
                server.freeze()
                await asyncio.sleep(2 * CHANNEL_S)
                server.thaw()
                thawed_s, done, renewed = time.monotonic(), len(server.instructions()), len(renewals)
                await until(lambda: len(renewals) > renewed and len(server.instructions()) > done + 1, 2 * RIGHT_S)
                await at.becomes(MachineState.EXECUTE, thawed_s + RIGHT_S - time.monotonic())
                assert not at.running.done()
                await stopped(at)
