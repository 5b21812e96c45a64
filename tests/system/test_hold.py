"""Hold, release and a person's word, by the commands: a whole daemon in this process, with a machine that can pause."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from edge import daemon, folders, sitefile
from edge.cli.main import main
from edge.driver import MachineState, NotAcceptableError, NotConfirmedError, Outcome, Run
from edge.intake.authority import Authority
from edge.journal.journal import Journal
from edge.model.site import validate
from tests.helpers.fake_driver import Script, confirm
from tests.helpers.rig import DEADLINE_S, Rig
from tests.helpers.trust import root_document, signed_root, step_document

TOML = """
[site]
id = "berlin-1"
state_dir = "state"
socket = "edge.sock"
trust_root = "root.dsse.json"

[time]
source = "host"
"""


class Shop:
    """The daemon, its machine, and somebody at the terminal."""

    def __init__(self, folder: Path, orders: Rig, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = folder / "site.toml"
        self.orders = orders
        self.script: Script = orders.script
        self.job = ""
        self._capsys = capsys

    async def edge(self, *arguments: str, code: int = 0) -> str:
        """What a command says, on both of its outputs."""
        self._capsys.readouterr()
        found = await asyncio.to_thread(main, ["--config", str(self.config), *arguments])
        said = self._capsys.readouterr()
        text = " ".join((said.out + said.err).split())
        assert found == code, text
        return text

    async def json(self, *arguments: str, code: int | None = 0) -> Any:
        self._capsys.readouterr()
        found = await asyncio.to_thread(main, ["--config", str(self.config), *arguments, "--json"])
        assert code is None or found == code
        return json.loads(self._capsys.readouterr().out)

    async def submit(self, **fields: Any) -> str:
        """The id of a new job."""
        path = await asyncio.to_thread(lambda: self.orders.bundle(**fields))
        return str((await self.json("job", "submit", str(path)))["job_id"])

    async def begin(self, **fields: Any) -> None:
        """A job whose run has begun."""
        begun = self.script.work_until_stopped()
        self.job = await self.submit(**fields)
        async with asyncio.timeout(DEADLINE_S):
            await begun.wait()

    async def until_step(self, state: str) -> None:
        """Wait until the job's step is there."""

        async def is_there() -> bool:
            return bool((await self.json("job", "show", self.job))["steps"][0]["state"] == state)

        await until(is_there)


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, until it holds."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


@pytest.fixture
async def shop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Shop]:
    (tmp_path / "site.toml").write_text(TOML)
    config = validate(sitefile.read(tmp_path / "site.toml"))
    folders.make_state_dir(config.site.state_dir)
    (config.site.state_dir / folders.FIRST_START).touch()
    (tmp_path / "maker").mkdir()
    orders = Rig(tmp_path / "maker", None)  # type: ignore[arg-type] - it only makes orders
    orders.script.pause = confirm
    stop = daemon.Stop()
    (tmp_path / "root.dsse.json").write_bytes(signed_root(root_document()))
    authority = Authority.load(tmp_path / "root.dsse.json")

    serving = asyncio.create_task(daemon.run(config, [orders.equipment], authority, stop, lambda: authority))
    made = Shop(tmp_path, orders, capsys)
    try:

        async def is_up() -> bool:
            return config.site.socket.exists() or serving.done()

        await until(is_up)
        yield made
    finally:
        stop.asked.set()
        async with asyncio.timeout(DEADLINE_S):
            assert await serving == 0


async def test_a_job_is_held_and_released(shop: Shop) -> None:
    await shop.begin()
    said = await shop.edge("job", "hold", shop.job, "--reason", "the spool looks wrong")
    assert f"job {shop.job} is held by " in said
    assert "the spool looks wrong" in said
    assert "step print is suspended on prn-1" in said
    assert "is held already by" in await shop.edge("job", "hold", shop.job)
    status = await shop.edge("status", code=1)
    assert "INTERRUPTED" in status
    assert f"edge job release {shop.job}" in status
    why = await shop.edge("why", shop.job)
    assert "paused as asked" in why
    assert f"edge job release {shop.job}" in why
    assert "held by" in await shop.edge("jobs")
    said = await shop.edge("job", "release", shop.job)
    assert "is released" in said
    assert "step print runs on prn-1" in said
    assert "is not held, and nothing of it waits" in await shop.edge("job", "release", shop.job)
    await shop.edge("status")
    assert shop.script.asked == ["pause", "resume"]


async def test_a_run_that_takes_too_long_says_so_and_what_a_person_can_do(shop: Shop) -> None:
    await shop.begin(steps=[step_document(max_duration_s=0.2)])

    async def is_told() -> bool:
        return "overrun" in [item["kind"] for item in (await shop.json("status", code=None))["attention"]]

    await until(is_told)
    told = "has been at work for "
    status = await shop.edge("status", code=1)
    assert f"its run on prn-1 {told}" in status
    assert f"edge why {shop.job}" in status
    why = await shop.edge("why", shop.job)
    assert f"first: the run on prn-1 {told}" in why
    assert f"pause it, or end it with `edge job cancel {shop.job}` edge job hold {shop.job}" in why
    assert [wait["code"] for wait in (await shop.json("why", shop.job))["waits"]] == ["overrun"]
    assert told in await shop.edge("jobs")
    assert "+ its run has been at work for longer than its limit" in await shop.edge("machines")
    assert f"it {told}" in await shop.edge("machine", "show", "prn-1")
    (run,) = (await shop.json("job", "show", shop.job))["runs"]
    assert run["overrun"]["limit_s"] == 0.2
    await shop.edge("job", "hold", shop.job)
    assert [item["kind"] for item in (await shop.json("status", code=1))["attention"]] == ["held_job"]
    assert (await shop.json("why", shop.job))["waits"] == []
    assert (shop.script.asked, shop.script.stops) == (["pause"], 0)


async def test_a_machine_that_cannot_be_paused_can_only_be_ended_when_it_takes_too_long(shop: Shop) -> None:
    shop.script.pause = None
    await shop.begin(steps=[step_document(max_duration_s=0.2)])

    async def is_told() -> bool:
        return bool((await shop.json("why", shop.job))["waits"])

    await until(is_told)
    (wait,) = (await shop.json("why", shop.job))["waits"]
    assert wait["text"].endswith("look at the machine, and if it is stuck end it")
    assert (wait["command"], wait["step"]) == (f"edge job cancel {shop.job}", "print")


async def test_a_journal_that_takes_nothing_is_told_while_the_print_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shop.begin()
    await shop.edge("status")
    monkeypatch.setattr(Journal, "trouble", "the disk is full")
    said = await shop.edge("status", code=2)
    assert "nothing is planned, and no stop is passed on: the disk is full" in said


async def test_a_machine_that_waits_for_somebody_is_answered(shop: Shop) -> None:
    async def resume() -> None:
        shop.script.say(MachineState.EXECUTE)

    shop.script.resume = resume
    await shop.begin()
    shop.script.say(MachineState.HELD, "insert filament and push the button")
    await shop.until_step("SUSPENDED")
    found = await shop.json("status", code=1)
    assert [item["kind"] for item in found["attention"]] == ["suspended"]
    assert "insert filament and push the button" in found["attention"][0]["text"]
    assert "it says: insert filament" in await shop.edge("why", shop.job)
    await shop.edge("job", "release", shop.job)
    assert (shop.script.asked, (await shop.json("status"))["level"]) == (["resume"], 0)


async def test_what_the_machine_refuses_or_leaves_open_reaches_whoever_asked(shop: Shop) -> None:
    await shop.begin()

    async def refuse() -> None:
        raise NotAcceptableError("pause", "asked", "not while it levels its bed")

    async def silent() -> None:
        raise NotConfirmedError("no answer to the pause")

    shop.script.pause = refuse
    assert "not while it levels its bed" in await shop.edge("job", "hold", shop.job, code=1)
    shop.script.pause = silent
    assert "no answer to the pause" in await shop.edge("job", "hold", shop.job, code=1)
    found = await shop.json("status", code=1)
    assert [item["kind"] for item in found["attention"]] == ["request_failed", "held_job"]
    assert "asked to pause" in await shop.edge("why", shop.job)
    shop.script.pause = confirm
    assert "is suspended on prn-1" in await shop.edge("job", "hold", shop.job)


async def test_a_machine_that_cannot_be_paused_is_named(shop: Shop) -> None:
    shop.script.pause = None
    await shop.begin()
    assert "prn-1 cannot be paused" in await shop.edge("job", "hold", shop.job, code=2)
    assert (await shop.json("job", "show", shop.job))["held"] is None


async def test_a_held_job_starts_nothing_until_it_is_released(shop: Shop) -> None:
    await shop.begin()
    first, shop.job = shop.job, await shop.submit()
    await shop.edge("job", "hold", shop.job, "--reason", "not today")
    await shop.edge("job", "cancel", first)

    async def first_has_ended() -> bool:
        return bool((await shop.json("job", "show", first))["state"] == "ABORTED")

    async def only_the_hold_is_left() -> bool:
        return [wait["code"] for wait in (await shop.json("why", shop.job))["waits"]] == ["held"]

    async def the_part_is_off() -> bool:
        """The end of a run is written down a moment before its machine is free."""
        clear = ["--config", str(shop.config), "machine", "clear", "prn-1"]
        return await asyncio.to_thread(main, clear) == 0

    await until(first_has_ended)
    await until(the_part_is_off)
    await until(only_the_hold_is_left)
    assert len(shop.script.executed) == 1
    shop.script.work_until_stopped()
    await shop.edge("job", "release", shop.job)
    await shop.until_step("RUNNING")


async def test_a_person_has_the_last_word_on_a_run_in_doubt(shop: Shop) -> None:
    async def execute(run: Run) -> Outcome:
        raise NotConfirmedError("the link broke")

    shop.script.execute = execute
    shop.job = await shop.submit(steps=[step_document(max_attempts=2)])
    await shop.until_step("HELD")
    why = await shop.edge("why", shop.job)
    assert all(f"edge job {verb} {shop.job}" in why for verb in ("good", "scrap", "retry", "cancel"))
    assert "has a run that has ended" in await shop.edge("job", "release", shop.job), "not that it is not held"
    found = await shop.json("job", "good", shop.job, "--reason", "measured it")
    assert (found["state"], found["events"][-1]["kind"]) == ("COMPLETED", "run_resolved")
    assert found["events"][-1]["actor"].startswith("user:")
    assert "nothing is in doubt" in await shop.edge("job", "scrap", shop.job, code=2)


async def test_a_restart_is_refused_while_a_run_is_paused(shop: Shop) -> None:
    shop.script.detach = confirm
    await shop.begin(steps=[step_document(on_restart="resume")])
    await shop.edge("job", "hold", shop.job)
    assert "it is paused, and nobody could prove afterwards" in await shop.edge("restart", code=2)
