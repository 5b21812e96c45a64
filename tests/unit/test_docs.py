"""The pages for people: links lead somewhere, commands that are named exist, and lists of words are whole."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

import drivers.gcode.profile
import drivers.opcua.profile
import edge.collector.config
import edge.model.site
from drivers import gcode, octoprint, opcua
from edge.cli.main import parser
from edge.model.event import EventKind
from edge.running.planner import Code

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
NAMED = re.compile(r"`((?:edge|hil-sim)\s[^`]+)`")
TYPED = re.compile(r"^\s*(?:\S*/)?(edge\s+[a-z-]+[^#\n]*)", re.MULTILINE)
SAY_WHY = ("reading/attention.py", "reading/status.py", "serving/site.py", "reading/views.py")
FENCED = re.compile(r"^```\n(.*?)^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> Iterator[str]:
    for link in LINK.findall(page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        there = page.parent / path if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    assert list(dead_links(page)) == []


def commands_below(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Every command by its words, as ``job sign``."""
    found = {}
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                found |= {name: below}
                found |= {f"{name} {more}": parser for more, parser in commands_below(below).items()}
    return found


COMMANDS = commands_below(parser())


def not_there(said: str) -> Iterator[str]:
    """What of ``edge job hold|release --reason TEXT`` does not exist."""
    words = said.split()[1:]
    if not words or not re.fullmatch(r"[a-z|-]+", words[0]) or words[0].startswith("-"):
        return
    firsts = words[0].split("|")
    is_group = any(name.startswith(f"{words[0]} ") for name in COMMANDS)
    seconds = words[1].split("|") if is_group and len(words) > 1 and re.fullmatch(r"[a-z][a-z|-]*", words[1]) else [""]
    for name in (f"{first} {second}".strip() for first in firsts for second in seconds):
        if name not in COMMANDS:
            yield f"edge {name}"
            continue
        known = {option for action in COMMANDS[name]._actions for option in action.option_strings}
        below = is_group and seconds == [""]
        yield from (f"edge {name} {word}" for word in words if not below and word[:2] == "--" and word not in known)


@pytest.mark.parametrize("page", sorted({*PAGES} - {*DECISIONS}), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_named_exists(page: Path) -> None:
    text = page.read_text()
    said = [*NAMED.findall(text), *(line for block in FENCED.findall(text) for line in TYPED.findall(block))]
    assert [problem for words in said if words.startswith("edge") for problem in not_there(words)] == []


def test_every_command_that_the_program_names_exists() -> None:
    """In messages, and as what clears a thing that waits."""
    found = []
    for file in (ROOT / "edge").rglob("*.py"):
        for words in re.findall(r"[\"`](edge [a-z-]+(?: [a-z|-]+)?)(?=[ \"`])", file.read_text()):
            found += [f"{file.name}: {problem}" for problem in not_there(words)]
    assert found == []


def test_every_option_is_named_on_a_page() -> None:
    text = "".join(page.read_text() for page in {*PAGES} - {*DECISIONS} - {ROOT / "CHANGELOG.md"})
    options = {
        (name, *action.option_strings): any(
            re.search(rf"(?<![\w-]){word}(?![\w-])", text) for word in action.option_strings
        )
        for name, command in COMMANDS.items()
        for action in command._actions
        if action.option_strings and action.dest != "help"
    }
    assert len(options) > 100
    assert [" ".join(option) for option, is_named in options.items() if not is_named] == []


def models(module: ModuleType) -> list[type[BaseModel]]:
    found = [thing for thing in vars(module).values() if isinstance(thing, type) and issubclass(thing, BaseModel)]
    return [model for model in found if model.__module__ == module.__name__]


SITE_TOML = ("README", "install", "orders", "uplink", "metrics", "trust", "profiles", "opcua")
WRITTEN_BY_PEOPLE = [
    (models(edge.model.site), SITE_TOML),
    (models(edge.collector.config), ("collector", "uplink")),
    (models(drivers.gcode.profile), ("profiles",)),
    (models(drivers.opcua.profile), ("opcua",)),
    ([gcode.PLUGIN.connection, gcode.PLUGIN.limits], ("profiles", "grbl", "octoprint")),
    ([octoprint.PLUGIN.connection, octoprint.PLUGIN.limits], ("octoprint",)),
    ([opcua.JOBCONTROL.connection, opcua.JOBCONTROL.limits], ("opcua",)),
]


@pytest.mark.parametrize(("tables", "pages"), WRITTEN_BY_PEOPLE, ids=range(len(WRITTEN_BY_PEOPLE)))
def test_every_key_that_people_may_write_is_on_its_page(tables: list[type[BaseModel]], pages: tuple[str, ...]) -> None:
    folder = {"README": ROOT}
    text = "".join((folder.get(page, ROOT / "docs") / f"{page}.md").read_text() for page in pages)
    assert tables
    keys = {f"{table.__name__}.{key}": key for table in tables for key in table.model_fields}
    assert [name for name, key in keys.items() if not re.search(rf"\b{key}\b", text)] == []


def test_decisions_are_numbered_once_and_say_their_number() -> None:
    numbers = [int(page.name[:4]) for page in DECISIONS]
    assert numbers == list(range(1, len(DECISIONS) + 1))
    assert [page.read_text().partition(". ")[0] for page in DECISIONS] == [f"# {number}" for number in numbers]


def words_of(page: str, heading: str, end: str) -> set[str]:
    """The words in backticks from `heading` to `end` of a page."""
    text = (ROOT / "docs" / page).read_text()
    part = text[text.index(heading) :]
    return set(re.findall(r"`(\w+)`", part[: part.index(end)]))


def test_json_md_has_every_kind_of_attention_and_every_code_that_a_job_waits_by() -> None:
    source = "".join((ROOT / "edge" / name).read_text() for name in SAY_WHY)
    kinds = set(re.findall(r'"kind": "(\w+)"', source)) - {"refused", "refusals", "expired"}
    assert {"not_planning", "needs_clearing", "uplink"} <= kinds
    assert kinds - words_of("json.md", "- `attention`:", "- `notices`") == set()
    codes = {str(code) for code in Code} | set(re.findall(r'"code": "(\w+)"', source))
    assert codes - words_of("json.md", "`code` is", "`edge job submit FILE --json`") == set()


def test_json_md_has_every_route_of_the_socket() -> None:
    routes = re.findall(r'web\.(get|post)\("([^"]+)"', (ROOT / "edge" / "serving" / "api.py").read_text())
    assert len(routes) > 15
    page = (ROOT / "docs" / "json.md").read_text()
    for _, route in routes:
        path = route.replace("{job}", "JOB").replace("{machine}", "MACHINE")
        assert f"`{path}" in page or f" {path}" in page or f"`/{path.rpartition('/')[2]}" in page, route


def test_journal_md_has_every_kind_of_event() -> None:
    assert {str(kind) for kind in EventKind} - words_of("journal.md", "## Kinds", "A file's `format`") == set()
