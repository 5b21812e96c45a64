"""What the commands say that read a site's journal by themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.cli.main import main
from edge.intake.authority import root_accepted
from edge.journal.journal import Journal
from edge.journal.schema import FILE_NAME
from edge.model.event import Draft
from tests.helpers.trust import root_document, signed_root
from tests.journal_kit import SITE, accepted, cancelled, hold, online, ticking

SITE_TOML = f"""
[site]
id = "{SITE}"
state_dir = "."
socket = "edge.sock"
trust_root = "root.dsse.json"

[[machines]]
id = "prn-2"
"""


@pytest.fixture
def edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A command at the site that these drafts have made: its exit code, output and complaint."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "site.toml").write_text(SITE_TOML)

    async def told(*words: str, of: tuple[Draft, ...]) -> tuple[int, str, str]:
        async with Journal.open(tmp_path / FILE_NAME, SITE, ticking()) as journal:
            for draft in of:
                await journal.record([draft])
        code = main(list(words))
        said = capsys.readouterr()
        return code, said.out, said.err

    return told


async def test_events_of_a_machine_that_nobody_knows_are_a_mistake(edge) -> None:
    code, out, complaint = await edge("events", "--machine", "prn-9", of=(online("prn-1"),))
    assert (code, out) == (2, "")
    assert complaint == "edge: there is no machine prn-9; there are: prn-2\n"


@pytest.mark.parametrize(("machine", "lines"), [("prn-1", 1), ("prn-2", 0)])
async def test_a_machine_that_is_gone_has_its_events_and_a_new_one_none_yet(edge, machine: str, lines: int) -> None:
    code, out, _ = await edge("events", "--machine", machine, of=(online("prn-1"),))
    assert (code, len(out.splitlines())) == (0, lines)


async def test_the_root_in_force_follows_what_was_before_it(edge) -> None:
    """The journal took it: nobody has to look for the version before."""
    draft = root_accepted("user:ada", signed_root(root_document(version=2)), 2, ("root-1",))
    code, out, _ = await edge("root", "show", of=(draft,))
    assert (code, "version 2" in out, "--after" in out) == (0, True, False)


async def test_an_ended_job_is_held_by_nobody(edge) -> None:
    _, open_one, _ = await edge("jobs", "--all", of=(accepted(), hold()))
    _, ended_one, _ = await edge("jobs", "--all", of=(cancelled(),))
    assert ("held by" in open_one, "held by" in ended_one) == (True, False)
