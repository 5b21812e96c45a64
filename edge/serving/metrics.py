"""What is measured of the running site, as `GET /metrics` gives it. The names are in docs/metrics.md."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.driver import MachineState
from edge.journal.journal import Journal
from edge.reading import views
from edge.running.runner import Runner
from edge.serving.exposition import Exposition
from edge.uplink.service import UplinkService

LAG_EVERY_S = 0.5
LAG_WINDOW = 120
"""So many measurements: the greatest lag of the last minute."""


class LoopLag:
    """How late the event loop comes round: what keeps a printer waiting for its next line. `serve` is the task."""

    trouble = ""

    def __init__(self) -> None:
        self._seen_s: list[float] = []

    @property
    def worst_s(self) -> float:
        """The greatest of the last minute, in seconds."""
        return max(self._seen_s, default=0.0)

    async def serve(self) -> None:
        """Measure until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_EVERY_S
            await asyncio.sleep(LAG_EVERY_S)
            self._seen_s = [*self._seen_s[1 - LAG_WINDOW :], max(0.0, loop.time() - due_s)]


async def text(
    journal: Journal,
    state_dir: Path,
    runners: Mapping[str, Runner],
    lag: LoopLag,
    version: str,
    uplink: UplinkService | None,
) -> str:
    """The page, gathered anew for each question."""

    def count() -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        with views.open_readonly(state_dir) as snapshot:
            return snapshot.summary()["jobs"], snapshot.refusal_counts()

    jobs, refusals = await asyncio.to_thread(count)
    out = Exposition()
    out.add("edge_info", "gauge", "1, with the version as a label.", 1, version=version)
    out.add("edge_loop_lag_seconds", "gauge", "Greatest lag of the event loop in a minute.", lag.worst_s)
    out.add("edge_journal_commits_total", "counter", "Commits of the journal since the daemon began.", journal.commits)
    out.add("edge_journal_events", "gauge", "Number of the newest event of the journal.", journal.last_seq)
    for state, value in jobs.items():
        out.add("edge_jobs", "gauge", "Jobs by state.", value, state=state)
    for reason, value in refusals["refusals"].items():
        out.add("edge_refusals_total", "counter", "Signed messages refused, by reason.", value, reason=reason)
    for reason, value in refusals["unsigned"].items():
        help = "What came without valid signatures, or again after a refusal, by reason."
        out.add("edge_unsigned_refusals_total", "counter", help, value, reason=reason)
    for name, runner in runners.items():
        _machine(out, name, runner)
    if uplink is not None:
        _uplink(out, uplink.view())
    return out.render()


def _machine(out: Exposition, name: str, runner: Runner) -> None:
    seen, observed = runner.seen.state, runner.observed
    for state in MachineState:
        out.add("edge_machine_state", "gauge", "1 for the state it is in.", state is seen, machine=name, state=state)
    out.add("edge_machine_running", "gauge", "1 while a run is open.", runner.run_id is not None, machine=name)
    progress = observed.progress
    part = progress.share if progress is not None else None
    out.add("edge_machine_progress_ratio", "gauge", "Part of the program that is done.", part, machine=name)
    for heater, heat in observed.temperatures().items():
        where = {"machine": name, "heater": heater}
        out.add("edge_temperature_celsius", "gauge", "Measured.", heat.actual_degc, **where)
        out.add("edge_temperature_target_celsius", "gauge", "Asked for.", heat.target_degc, **where)
    link = observed.link
    resends, time_outs = (None, None) if link is None else (link.resends, link.time_outs)
    help = "Lines sent again, on this connection."
    out.add("edge_link_resends_total", "counter", help, resends, machine=name)
    help = "Answers that did not come in time, on this connection."
    out.add("edge_link_timeouts_total", "counter", help, time_outs, machine=name)


def _uplink(out: Exposition, view: Mapping[str, Any]) -> None:
    out.add("edge_uplink_connected", "gauge", "1 while the broker is connected.", view["online"])
    out.add("edge_uplink_connections_total", "counter", "Connections to the broker.", view["connections"])
    out.add("edge_uplink_received_total", "counter", "Messages that came from the broker.", view["received"])
    help = "Messages that were put aside because of an error of this program."
    out.add("edge_uplink_poison_total", "counter", help, view["poison"])
    reporting = view["reporting"]
    out.add("edge_uplink_backlog_events", "gauge", "Events that no collector has acknowledged.", reporting["backlog"])
    help = "Messages of newest values that were sent."
    out.add("edge_uplink_telemetry_total", "counter", help, view["telemetry"]["sent"])
    help = "Acknowledgements that were not believed."
    out.add("edge_uplink_refused_acks_total", "counter", help, reporting["refused_acks"])
