"""Programs that come over HTTPS, through the spool directory and from a stick, at a running site."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.helpers.files import answers, file_server
from tests.helpers.site import SHORT, SiteFolder, site_with_printer, until

SHA256 = hashlib.sha256(SHORT).hexdigest()


def order_with_source(site: SiteFolder, url: str) -> Path:
    file = {"sha256": SHA256, "size_bytes": len(SHORT), "media_type": "text/x.gcode", "sources": [url]}
    return site.bundle(files=False, artifacts={"body.gcode": file})


def reasons(site: SiteFolder, job_id: str) -> list[tuple[str, str]]:
    return [(wait["code"], wait["text"]) for wait in site.json("why", job_id)["waits"]]


async def test_a_program_is_fetched_over_https_and_printed(tmp_path: Path) -> None:
    """Its way can be followed: `edge why` says how far it is, and `edge status` when it does not come."""
    go_on, asked = asyncio.Event(), asyncio.Event()

    async def waits(request: web.Request, content: bytes) -> web.StreamResponse:
        asked.set()
        await go_on.wait()
        return await server.answer(request)

    async with file_server(tmp_path) as server:
        url = server.put("body.gcode", SHORT)
        server.faults += [answers(503)] * 3 + [waits]

        def submitted(site: SiteFolder) -> str:
            config = site.config.read_text()
            site.config.write_text(config + '\n[artifacts]\nca = "ca.pem"\n')
            assert site.json("check")["level"] == 0
            site.start()
            job_id = str(site.submit(order_with_source(site, url), code=1)["job_id"])
            until(lambda: any("localhost answers 503" in text for _, text in reasons(site, job_id)))
            return job_id

        def seen_failing(site: SiteFolder, job_id: str) -> None:
            (code, text) = reasons(site, job_id)[0]
            assert text.startswith("its program body.gcode ")
            assert code == "no_program"
            status = site.json("status", code=1)
            assert [item["kind"] for item in status["attention"]] == ["waiting"]
            assert "localhost answers 503" in status["attention"][0]["text"]

        def printed(site: SiteFolder, job_id: str) -> None:
            assert site.wait_event("artifact_stored", job_id)["body"]["sha256"] == SHA256
            assert site.wait_event("run_ended", job_id)["body"]["outcome"] == "SUCCEEDED"
            assert site.json("verify")["ok"]

        with site_with_printer(tmp_path, start=False) as (site, _):
            job_id = await asyncio.to_thread(submitted, site)
            await asyncio.wait_for(asked.wait(), 60)
            await asyncio.to_thread(seen_failing, site, job_id)
            go_on.set()
            await asyncio.to_thread(printed, site, job_id)


def test_a_bundle_in_the_spool_directory_is_taken_in_and_printed(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, start=False) as (site, _):
        spool = tmp_path / "spool"
        site.config.write_text(site.config.read_text() + '\n[spool]\ndir = "spool"\n')
        site.start()
        until(lambda: [item["kind"] for item in site.live()["attention"]] == ["storage"])
        spool.mkdir()
        shutil.copy(site.bundle(), spool / "good.mfjob")
        (spool / "link.mfjob").symlink_to("/etc/passwd")
        accepted = site.wait_event("job_accepted")
        assert accepted["actor"] == "spool"
        assert site.wait_event("run_ended", accepted["job_id"])["body"]["outcome"] == "SUCCEEDED"
        until(lambda: (spool / "done" / "good.mfjob").exists())
        until(lambda: (spool / "refused" / "link.mfjob.reason.txt").exists())
        assert "it is a link" in (spool / "refused" / "link.mfjob.reason.txt").read_text()


def test_a_stick_is_imported_in_the_name_of_the_person_and_twice_does_nothing_twice(tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    stick.mkdir()
    with site_with_printer(tmp_path) as (site, _):
        refused = site.edge("job", "import", str(stick))
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "has no file whose name ends with .mfjob" in refused.stderr
        shutil.copy(site.bundle(), stick / "a.mfjob")
        order = {**json.loads(_payload(site.bundle())), "sequence": 77, "job_id": "01J9ZK3V5Q8M2N4P6R7S9T0W1Y"}
        (stick / "b.dsse.json").write_bytes(site.ceremony.sign(json.dumps(order).encode()))
        (stick / "notes.txt").write_text("not for us")
        first = site.json("job", "import", str(stick), code=0)
        assert [(item["file"], item["error"], item["receipt"]["accepted"]) for item in first] == [
            ("a.mfjob", None, True),
            ("b.dsse.json", None, True),
        ]
        assert site.events("job_accepted")[0]["actor"].startswith("user:")
        (stick / "c.mfjob").write_bytes(b"garbage")
        (stick / "d.mfjob").symlink_to(stick / "a.mfjob")
        again = site.edge("job", "import", str(stick))
        assert again.returncode == 2
        shown = " ".join(again.stdout.split())
        assert "the same bytes get the same answer" in shown
        assert "c.mfjob is refused: the bundle is not a zip file" in shown
        assert "d.mfjob is refused: " in shown
        assert len(site.events("job_accepted")) == 2


def _payload(bundle: Path) -> Any:
    import base64
    import zipfile

    with zipfile.ZipFile(bundle) as archive:
        return base64.b64decode(json.loads(archive.read("job.dsse.json"))["payload"])


def test_a_file_of_certificates_that_is_none_is_named(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path)
    (tmp_path / "ca.pem").write_text("no certificate")
    for value, words in (("ca.pem", "cannot be used"), ("missing.pem", "No such file")):
        site.config.write_text(site.config.read_text().partition("[artifacts]")[0] + f'\n[artifacts]\nca = "{value}"\n')
        checked = site.edge("check")
        assert checked.returncode == 2
        assert f"artifacts.ca: {tmp_path}/{value}" in checked.stderr
        assert words in checked.stderr
