"""A print that takes longer than its order allows: a fact, a hand is asked for, and it goes on to its end."""

from __future__ import annotations

from pathlib import Path

from edge.reading.status import ATTENTION
from tests.helpers.site import site_with_printer
from tests.helpers.trust import step_document

DWELLS = b"G28\nG90\n" + b"G4 S10\nG1 X20 F3000\nG1 X10\n" * 30
"""Five minutes, nearly all of them waiting."""


def test_a_print_over_its_limit_is_told_to_journal_and_people_and_ends_well(tmp_path: Path) -> None:
    with site_with_printer(tmp_path, speed=40) as (site, _):
        bundle = site.bundle(DWELLS, steps=[step_document(max_duration_s=1)])
        job_id = str(site.submit(bundle)["job_id"])
        told = site.wait_event("run_overran", job_id)
        found = site.live()
        assert (found["level"], [item["kind"] for item in found["attention"]]) == (ATTENTION, ["overrun"])
        assert found["machines"][0]["state"] == "EXECUTE"
        began = site.wait_event("run_began", job_id)
        limits = {name: began["body"][name] for name in ("limit_s", "predicted_s")}
        assert limits["limit_s"] == 1
        assert limits["predicted_s"] > 290, "what the driver's check predicts, beside the order's word"
        assert told["body"].pop("worked_s") >= 1
        assert told["body"].pop("detail").endswith("longer than its limit of 1 s (5 min predicted)")
        assert (told["body"], told["run_id"], told["machine"]) == (limits, began["run_id"], "prn-1")
        ended = site.wait_event("run_ended", job_id)
        assert ended["body"]["outcome"] == "SUCCEEDED"
        assert [event["seq"] for event in site.events("run_overran")] == [told["seq"]]
        assert [item["kind"] for item in site.live()["attention"]] == ["needs_clearing"]
        assert site.edge("verify").returncode == 0
