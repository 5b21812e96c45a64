"""The names of orders that a machine tool got from here: what cannot be kept or read is told, and ends no run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from drivers.opcua import JOBCONTROL
from drivers.opcua.client import Link, Method
from drivers.opcua.equipment import Work
from drivers.opcua.jobcontrol import JobMachine
from drivers.opcua.profile import JobsProfile, candidates
from edge.driver import Machine, Message, Run, Step
from edge.testing import RecordingContext

NO_ERROR = 1


class Server:
    """Takes every order, and has no list of them."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    async def call(self, method: Method, *_values: Any) -> list[int]:
        self.calls.append(cast(str, method))
        return [NO_ERROR]


def mill(context: RecordingContext) -> JobMachine:
    way = JOBCONTROL.connection.model_validate({"endpoint": "opc.tcp://127.0.0.1:1/", "security": "None"})
    limits = JOBCONTROL.limits.model_validate({"checked_by": "controller"})
    machine: Machine[Any, Any] = Machine("mill-1", "opcua-jobcontrol", "machinery-jobs", ("mill",), way, limits)
    profile = cast(JobsProfile, candidates("machinery-jobs", ("opcua-jobs",), None)["machinery-jobs"])
    made = JobMachine(machine, "machinery-jobs", profile, context)
    made._methods = cast(dict[str, Method], {"StoreAndStart": "StoreAndStart"})
    made._running = {}
    return made


async def begin(machine: JobMachine, run_id: str) -> Server:
    server = Server()
    work = Work(Run(run_id, "job-1", 1, Step("step-1", "mill"), 1), f"edge-{run_id}.nc")
    await machine.prepare(cast(Link, server), work)
    await machine.begin(cast(Link, server), work)
    return server


async def test_a_name_that_cannot_be_kept_is_told_and_the_run_begins(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    machine = mill(context)
    (tmp_path / "orders.json.part").mkdir()  # as good as a full disk, also for root
    server = await begin(machine, "run-1")
    assert server.calls == ["StoreAndStart"]
    (said,) = context.of_kind(Message)
    assert f"{tmp_path}/orders.json cannot be kept" in said.text


async def test_names_that_are_kept_are_known_to_the_next_driver_and_nothing_is_said(tmp_path: Path) -> None:
    context = RecordingContext(tmp_path)
    await begin(mill(context), "run-1")
    after = mill(context)
    after._running = {"run-1": ""}
    assert after.busy_with(None) == "the machine carries out the order run-1 that it got from here earlier"
    assert context.of_kind(Message) == []


@pytest.mark.parametrize("content", ["[", '{"run-1": 1}', None])
async def test_names_that_cannot_be_read_are_told_once(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "orders.json"
    file.mkdir() if content is None else file.write_text(content)
    context = RecordingContext(tmp_path)
    machine = mill(context)
    machine._running = {"run-1": ""}
    for _ in range(2):
        assert machine.busy_with(None) == "the machine carries out the order run-1 of somebody else"
    (said,) = context.of_kind(Message)
    assert f"{file} cannot be read" in said.text
