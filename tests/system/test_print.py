"""One job from submission to the cleared plate, with every part as a process."""

from __future__ import annotations

import json
import signal
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from drivers.analysis import commands
from edge.demo.meaning import as_meant
from edge.trust import write_bundle
from tests.helpers.site import DEADLINE_S, LONG, SHORT, SiteFolder, site_with_printer, starts, until
from tests.helpers.trust import order_document, step_document

TINY = resources.files("edge.demo").joinpath("tiny.gcode").read_bytes()


def test_a_submitted_order_is_printed_command_by_command(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=5000) as (site, printer):
        bundle = site.bundle(TINY)
        receipt = site.submit(bundle)
        assert receipt["accepted"]
        assert receipt["signers"] == ["orders@acme"]
        job_id = receipt["job_id"]
        ended = site.wait_event("run_ended", job_id)
        wanted = [as_meant(command) for command in commands(TINY.decode().splitlines())]
        assert ended["body"]["outcome"] == "SUCCEEDED"
        assert ended["body"]["evidence"]["commands"] == len(wanted)
        assert printer.program()[: len(wanted)] == wanted

        again = site.submit(bundle)
        assert (again["accepted"], again["repeated"], again["job_id"]) == (True, True, job_id)
        assert "nothing is done" in site.edge("job", "submit", str(bundle)).stdout
        (shown,) = site.json("jobs", "--all")
        assert (shown["state"], shown["parts"]) == ("COMPLETED", {"good": 1, "scrapped": 0, "open": 0})
        assert site.json("verify")["ok"]
        page = site.edge("job", "show", job_id[-6:]).stdout
        assert "SUCCEEDED" in page
        assert "step print is COMPLETED" in page
        code = site.daemon.end() if site.daemon else None
        assert code == 0
    assert starts(printer) == 1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory):
    """A site with its printer for tests that leave nothing on the machine."""
    with site_with_printer(tmp_path_factory.mktemp("site")) as (site, _):
        yield site


def test_a_tampered_order_is_refused_and_only_counted(site: SiteFolder) -> None:
    order = json.loads(json.dumps(order_document(product="a")))
    raw = json.loads(site.ceremony.sign(json.dumps(order).encode()))
    other = json.loads(site.ceremony.sign(json.dumps(order | {"product": "b"}).encode()))
    path = site.folder / "tampered.mfjob"
    write_bundle(path, json.dumps(raw | {"payload": other["payload"]}).encode(), {})
    receipt = site.submit(path, code=2)
    assert (receipt["accepted"], receipt["reason"], receipt["job_id"]) == (False, "threshold", None)
    assert all(event["body"]["digest"] != receipt["digest"] for event in site.events("job_refused"))
    assert any(notice["kind"] == "refusals" for notice in site.live()["notices"])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"site": "berlin-2"}, "wrong_site"),
        ({"steps": [step_document(process="mill")]}, "unsupported"),
        ({"issuer": "qa@acme"}, "threshold"),
        ({"quantity": 2}, "unsupported"),
        ({"issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z"}, "expired"),
    ],
)
def test_a_signed_order_that_this_site_cannot_take_is_refused_for_good(
    site: SiteFolder, fields: dict, reason: str
) -> None:
    bundle = site.bundle(**fields)
    receipt = site.submit(bundle, code=2)
    assert (receipt["accepted"], receipt["reason"]) == (False, reason)
    assert site.submit(bundle, code=2)["repeated"]
    assert reason in site.edge("job", "submit", str(bundle)).stdout
    refused = [event for event in site.events("job_refused") if event["body"]["digest"] == receipt["digest"]]
    assert len(refused) == 1


def test_what_is_no_bundle_is_one_line_and_exit_2(site: SiteFolder) -> None:
    for content in (b"", b"PK", b"no zip file"):
        path = site.folder / "garbage.mfjob"
        path.write_bytes(content)
        done = site.edge("job", "submit", str(path))
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert done.stderr.startswith(f"edge: {path}: the bundle ")
        assert "upload-" not in done.stderr
    done = site.edge("job", "submit", str(site.folder / "missing.mfjob"))
    assert done.stderr == f"edge: {site.folder}/missing.mfjob: No such file or directory\n"
    assert list((site.state_dir / "incoming").iterdir()) == []


def test_an_order_that_no_machine_fits_waits_and_why_says_what_to_do(site: SiteFolder) -> None:
    job_id = site.submit(site.bundle(steps=[step_document(requires={"material": "PETG"})]))["job_id"]
    until(lambda: site.json("why", job_id)["waits"])
    why = site.edge("why", job_id).stdout
    assert "material is PLA (site.toml), needs PETG" in why
    assert "edge machine load prn-1 material=PETG" in why
    status = site.edge("status")
    assert status.returncode == 1
    assert "material is PLA (site.toml), needs PETG" in " ".join(status.stdout.split())
    assert site.json("job", "cancel", job_id)["state"] == "ABORTED"
    assert "cancelled" in site.edge("why", job_id).stdout
    assert site.json("job", "cancel", job_id)["state"] == "ABORTED", "cancelling again changes nothing"


def test_a_program_beyond_the_limits_is_refused_before_anything_moves(site: SiteFolder) -> None:
    job_id = site.submit(site.bundle(b"G28\nG1 X900 F3000\n"))["job_id"]
    until(lambda: [w for w in site.json("why", job_id)["waits"] if w["code"] == "program_refused"])
    assert "X" in site.edge("why", job_id).stdout
    assert site.edge("job", "cancel", job_id).returncode == 0


def test_a_bundle_without_its_file_waits_for_it(site: SiteFolder) -> None:
    program = b"G28\nG1 X900 F3000 ; never printed\n"
    bundle = site.bundle(program, files=False)
    receipt = site.submit(bundle, code=1)
    assert len(receipt["files"]["missing"]) == 1
    job_id = receipt["job_id"]
    until(lambda: [w for w in site.json("why", job_id)["waits"] if w["code"] == "no_program"])
    assert site.json("job", "cancel", job_id)["state"] == "ABORTED"


def test_the_next_job_waits_until_the_plate_is_cleared(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, printer):
        first = site.printed()
        second = site.submit(site.bundle(SHORT + b"G1 X30\n"))["job_id"]
        until(lambda: [w for w in site.json("why", second)["waits"] if w["code"] == "needs_clearing"])
        assert "edge machine clear prn-1" in site.edge("why", second).stdout
        status = site.edge("status")
        assert status.returncode == 1
        assert "edge machine clear prn-1" in status.stdout
        (machine,) = site.json("machines")
        assert machine["needs_clearing"] is not None
        assert starts(printer) == 1

        wrong = site.edge("machine", "clear", "prn-1", "--run", "f" * 32)
        assert wrong.returncode == 2
        cleared = site.json("machine", "clear", "prn-1")
        assert cleared["actor"].startswith("user:")
        site.wait_event("run_ended", second)
        assert starts(printer) == 2
        assert site.edge("machine", "clear", "prn-2").returncode == 2
        assert site.json("job", "show", first)["state"] == "COMPLETED"
        site.json("machine", "clear", "prn-1")
        assert site.json("status")["level"] == 0
        done = site.edge("machine", "clear", "prn-1")
        assert (done.returncode, done.stderr) == (2, "edge: prn-1 does not need clearing\n")


def test_cancelling_a_running_job_stops_the_printer_and_its_heaters(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=50) as (site, printer):
        job_id = site.begun()
        asked = site.edge("job", "cancel", job_id, "--reason", "wrong colour")
        assert asked.returncode == 0
        ended = site.wait_event("run_ended", job_id)
        assert ended["body"]["outcome"] == "STOPPED"
        assert site.json("job", "show", job_id)["state"] == "ABORTED"
        assert all(heat["target_degc"] == 0 for heat in site.live()["machines"][0]["temperatures"].values())
        sent = [text for _, text in printer.commands()]
        assert {"M104 S0", "M140 S0"} <= set(sent)
        assert len(printer.program()) < len(LONG.splitlines())
        assert site.events("cancel_requested")[0]["body"] == {"reason": "wrong colour"}


def test_events_follow_shows_what_happens_while_it_happens(tmp_path: Path) -> None:
    with site_with_printer(tmp_path) as (site, _):
        command = site.command("events", "-f", "-n", "1", "--json")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as follower:
            assert follower.stdout is not None
            json.loads(follower.stdout.readline())
            job_id = site.printed()
            seen = [json.loads(follower.stdout.readline()) for _ in range(4)]
            assert [event["kind"] for event in seen] == ["job_accepted", "artifact_stored", "run_began", "run_ended"]
            assert all(event["job_id"] == job_id for event in seen)
            follower.send_signal(signal.SIGINT)
            assert follower.wait(DEADLINE_S) == 130
            assert follower.stderr is not None
            assert follower.stderr.read() == ""
