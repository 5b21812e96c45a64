"""The clock and a new journal, by the commands: a whole daemon in this process, which a test starts, boots, kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from edge import daemon, folders, sitefile
from edge.cli.main import main
from edge.intake import timekeeping
from edge.intake.authority import Authority
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.fields import time_text
from edge.model.site import validate
from tests import second_verifier
from tests.helpers.clock import IN_1970, IN_2099, SetClock
from tests.helpers.fake_driver import succeed
from tests.helpers.rig import DEADLINE_S, Rig
from tests.helpers.trust import OPERATOR, private_key, root_document, signed_root
from tests.system.test_hold import TOML, until
from tests.system.test_json import differences, documented

TIME_KEY = "time@acme"


def key_file(folder: Path, name: str) -> Path:
    """The private key as `edge key new` leaves it."""
    path = folder / f"{name}.key"
    path.touch(mode=0o600)
    path.write_bytes(private_key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


class Site:
    """A folder of a site, the daemon while one runs, and somebody at the terminal."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.state_dir = folder / "state"
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        (folder / "site.toml").write_text(TOML)
        root = signed_root(root_document(operators=(OPERATOR,), times=(TIME_KEY,)))
        (folder / "root.dsse.json").write_bytes(root)
        (folder / "maker").mkdir()
        folders.make_state_dir(self.state_dir)
        (self.state_dir / folders.FIRST_START).touch()
        self.orders = Rig(folder / "maker", None)  # type: ignore[arg-type] - it only makes orders
        self.orders.script.execute = succeed

    @contextlib.asynccontextmanager
    async def running(self, clock: SetClock) -> AsyncIterator[None]:
        """The daemon, from its start to its orderly end."""
        config = validate(sitefile.read(self.folder / "site.toml"))
        authority = Authority.load(config.site.trust_root)
        self._monkeypatch.setattr(daemon, "SystemClock", lambda source: clock)
        self._monkeypatch.setattr(timekeeping, "LOOK_S", 0.02)
        stop = daemon.Stop()
        serving = asyncio.create_task(daemon.run(config, [self.orders.equipment], authority, stop, lambda: authority))
        try:

            async def is_up() -> bool:
                return config.site.socket.exists() or serving.done()

            await until(is_up)
            yield
        finally:
            stop.asked.set()
            async with asyncio.timeout(DEADLINE_S):
                assert await serving == 0

    async def edge(self, *arguments: str, code: int = 0) -> str:
        """What a command says, on both of its outputs."""
        self._capsys.readouterr()
        found = await asyncio.to_thread(main, ["--config", str(self.folder / "site.toml"), *arguments])
        said = self._capsys.readouterr()
        text = " ".join((said.out + said.err).split())
        assert found == code, text
        return text

    async def json(self, *arguments: str, code: int = 0) -> Any:
        return json.loads(await self.edge(*arguments, "--json", code=code))

    async def submit(self, code: int = 0, **fields: Any) -> dict[str, Any]:
        path = await asyncio.to_thread(lambda: self.orders.bundle(**fields))
        return dict(await self.json("job", "submit", str(path), code=code))

    async def until_waits(self, job_id: str, *codes: str) -> None:
        async def waits() -> bool:
            return [wait["code"] for wait in (await self.json("why", job_id))["waits"]] == list(codes)

        await until(waits)

    async def until_state(self, job_id: str, state: str) -> None:
        async def is_there() -> bool:
            jobs = {job["job_id"]: job["state"] for job in await self.json("jobs", "--all")}
            return jobs.get(job_id) == state

        await until(is_there)

    async def sign_time(self, *keys: str, nonce: str = "") -> Path:
        """`edge time sign` by the holders of these keys, in answer to what `edge time show` says."""
        out = self.folder / "now.dsse.json"
        files = []
        for key in keys:
            files += ["--key", str(key_file(self.folder, key))]
        nonce = nonce or (await self.json("time", "show", code=1))["nonce"]
        await self.edge("time", "sign", nonce, *files, "-o", str(out))
        return out

    def sound(self) -> None:
        count, problem = second_verifier.verify(self.state_dir / FILE_NAME)
        assert (count > 0, problem) == (True, "")


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, capsys, monkeypatch)


@pytest.mark.parametrize("at", [IN_1970, IN_2099])
async def test_an_accepted_order_waits_over_a_boot_with_a_wrong_clock_until_a_signed_time_comes(site, at) -> None:
    async with site.running(SetClock(synchronized=True)):
        assert (await site.json("status"))["daemon"]["clock"]["trust"] == "trusted"
        tomorrow = time_text((datetime.now(UTC) + timedelta(days=1)).replace(microsecond=0))
        queued = (await site.submit(not_before=tomorrow))["job_id"]
        done = (await site.submit())["job_id"]
        await site.until_state(done, "COMPLETED")
        await site.edge("machine", "clear", "prn-1")
    clock = SetClock(at, synchronized=at is IN_2099)
    async with site.running(clock):
        await site.until_waits(queued, "clock", "not_before")
        assert "edge time show" in await site.edge("why", queued)
        said = await site.json("status", code=1)
        (item,) = said["attention"]
        assert (item["kind"], item["command"]) == ("clock", "edge time show")
        assert differences(documented()["status"], said, "status") == []
        parked = await site.submit(code=1)
        assert (parked["accepted"], parked["reason"], parked["repeated"]) == (False, "clock_untrusted", False)
        assert (parked["files"]["missing"], "come again" in parked["detail"]) == ([], False), "its program is here"
        jobs = {job["job_id"]: job for job in await site.json("jobs")}
        assert jobs[parked["job_id"]]["parked"]["reason"] == "clock_untrusted"
        assert differences(documented()["jobs"], list(jobs.values()), "jobs") == []
        shown = await site.json("job", "show", parked["job_id"])
        assert differences(documented()["job show"], shown, "job show") == []
        for words in (("why", parked["job_id"]), ("jobs",), ("status",), ("job", "show", parked["job_id"])):
            said = " ".join((await site.edge(*words, code=1 if words == ("status",) else 0)).split())
            assert "it was not judged yet: nobody vouches for this site's clock" in said
        assert [job["job_id"] for job in (await site.json("status", code=1))["jobs"]] == list(jobs)
        unwanted = await site.submit(code=1)
        assert "is ABORTED" in await site.edge("job", "cancel", unwanted["job_id"])
        assert "was cancelled before it was judged" in await site.edge("why", unwanted["job_id"])
        other = await site.submit(code=1)
        said = " ".join((await site.edge("job", "decline", other["job_id"], "--reason", "paris has it")).split())
        assert said == f"job {other['job_id']} is declined: it never started here, and never will"
        assert "is declined already" in await site.edge("job", "decline", other["job_id"])
        assert "orders that wait to be judged: 1" in await site.edge("status", code=1)
        shown = await site.json("time", "show", code=1)
        assert differences(documented()["time"], shown, "time") == []
        assert "nonce " + shown["nonce"] in await site.edge("time", "show", code=1)
        assert (await site.json("verify"))["ok"]

        answer = await site.sign_time(TIME_KEY)
        assert "when time@acme signed" in await site.edge("time", "submit", str(answer))
        assert "answers no nonce" in await site.edge("time", "submit", str(answer), code=2)
        await site.until_state(parked["job_id"], "COMPLETED")
        await site.edge("machine", "clear", "prn-1")
        await site.until_waits(queued, "not_before")
        assert (await site.json("time", "show"))["trust"] == "trusted"
        assert "trusted" in await site.edge("time", "show")
    site.sound()
    assert (await site.json("verify"))["ok"]
    async with site.running(SetClock(at, boot_id=clock.boot_id)):  # the daemon again, on the same boot of the host
        await site.edge("time", "show")
        await site.until_waits(queued, "not_before")
    async with site.running(SetClock(at)):  # a signed time is good for one boot
        await site.until_waits(queued, "clock", "not_before")


async def all_jobs(site: Site) -> list[dict[str, Any]]:
    rows = await site.json("jobs", "--all")
    return [await site.json("job", "show", row["job_id"]) for row in rows]


async def test_an_order_that_expired_while_the_host_was_off_does_not_come_to_life_in_1970_and_ends_later(site) -> None:
    soon = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
    async with site.running(SetClock(synchronized=True)):
        expiring = await site.submit(expires_at=time_text(soon), not_before=time_text(soon - timedelta(days=1)))
    job_id = expiring["job_id"]
    clock = SetClock(IN_1970)
    async with site.running(clock):
        await site.until_waits(job_id, "clock", "not_before")
        clock.at, clock.synchronized = soon + timedelta(days=30), True
        await site.until_state(job_id, "ABORTED")
        await site.until_waits(job_id)
        assert "step print is ABORTED: it was to start before" in await site.edge("why", job_id)
        (notice,) = (await site.json("status"))["notices"]
        assert (notice["kind"], notice["job_id"]) == ("expired", job_id)
        assert site.orders.script.executed == []
    site.sound()


async def test_a_kernel_that_becomes_synchronized_frees_what_has_waited(site) -> None:
    clock = SetClock(IN_1970)
    async with site.running(clock):
        parked = [(await site.submit(code=1, quantity=1))["digest"] for _ in range(3)]
        clock.at, clock.synchronized = None, True

        async def are_accepted() -> bool:
            jobs = sorted(await all_jobs(site), key=lambda job: job["accepted_seq"] or 0)
            if any(job["parked"] for job in jobs):
                return False
            return [job["digest"] for job in jobs] == parked

        await until(are_accepted)
    site.sound()


async def test_two_roles_repair_a_floor_that_a_forged_clock_has_raised(site) -> None:
    async with site.running(SetClock(datetime(2028, 6, 1, tzinfo=UTC), synchronized=True)):
        await site.edge("time", "show")
    async with site.running(SetClock(synchronized=True)):  # network time is right again, and behind the floor
        shown = await site.json("time", "show", code=1)
        assert (shown["trust"], shown["floor"][:7]) == ("floor", "2028-06")
        assert "has certainly passed" in shown["detail"]
        said = await site.edge("time", "submit", str(await site.sign_time(TIME_KEY)))
        assert "only operators beside it lower that" in said
        refused = await site.edge("time", "submit", str(await site.sign_time(OPERATOR)), code=2)
        assert "threshold" in refused
        assert "signed" in await site.edge("time", "submit", str(await site.sign_time(TIME_KEY, OPERATOR)))
        assert (await site.json("time", "show"))["trust"] == "trusted"
        job_id = (await site.submit())["job_id"]
    assert (await site.json("verify"))["ok"]
    async with site.running(SetClock(synchronized=True)):
        assert (await site.json("time", "show"))["trust"] == "trusted"
        await site.until_state(job_id, "COMPLETED")


# A new journal


async def test_a_new_journal_where_no_site_was_set_up_begins_nothing_until_a_person_confirms_it(site) -> None:
    (site.state_dir / folders.FIRST_START).unlink()
    async with site.running(SetClock(synchronized=True)):
        job_id = (await site.submit())["job_id"]
        await site.until_waits(job_id, "journal")
        assert "edge journal confirm" in await site.edge("why", job_id)
        (item,) = (await site.json("status", code=1))["attention"]
        assert (item["kind"], item["command"]) == ("journal_held", "edge journal confirm")
    async with site.running(SetClock(synchronized=True)):  # also the next daemon
        await site.until_waits(job_id, "journal")
        assert site.orders.script.executed == []
        confirmed = await site.json("journal", "confirm")
        assert differences(documented()["confirm"], confirmed, "confirm") == []
        assert confirmed["actor"].startswith("user:")
        await site.until_state(job_id, "COMPLETED")
        assert "waits for nobody" in await site.edge("journal", "confirm", code=2)
    site.sound()
    assert (await site.json("verify"))["ok"]


async def test_a_crash_right_after_the_journal_was_made_does_not_let_anything_begin(site) -> None:
    (site.state_dir / folders.FIRST_START).unlink()
    async with Journal.open(site.state_dir / FILE_NAME, "berlin-1", SetClock().stamp):
        pass  # made, and nothing recorded yet
    async with site.running(SetClock(synchronized=True)):
        await site.until_waits((await site.submit())["job_id"], "journal")


async def test_a_site_that_was_set_up_begins_at_once_and_its_lost_journal_is_noticed(site) -> None:
    async with site.running(SetClock(synchronized=True)):
        first = await site.submit()
        await site.until_state(first["job_id"], "COMPLETED")
    assert not folders.is_first_start(site.state_dir)
    for file in site.state_dir.glob("journal.sqlite*"):
        file.unlink()
    async with site.running(SetClock(synchronized=True)):
        again = await asyncio.to_thread(lambda: site.orders.folder / "order-1.mfjob")
        receipt = await site.json("job", "submit", str(again))
        assert (receipt["accepted"], receipt["repeated"]) == (True, False), "nobody remembers it"
        await site.until_waits(receipt["job_id"], "journal")
        assert len(site.orders.script.executed) == 1


def test_the_signer_takes_no_nonce_that_is_none(site, capsys) -> None:
    key = key_file(site.folder, TIME_KEY)
    arguments = ["time", "sign", "yesterday", "--key", str(key), "-o", str(site.folder / "n")]
    assert main(arguments) == 2
    assert "nonce is 'yesterday', must be 32 lower-case hexadecimal digits" in capsys.readouterr().err
