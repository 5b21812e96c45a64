"""What a root says of an issuer's key holds when an order is judged, and again right before its work begins."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from edge.errors import TrustError
from edge.intake.authority import Authority
from edge.trust import TrustRoot, admit, vouched
from tests.helpers.rig import Rig, working_rig
from tests.helpers.trust import ISSUER, Ceremony, keyid, root_document

TWO = ("b@acme", ISSUER)
PAST = "2026-01-02T00:00:00Z"

ANOTHER_SITE = {"b@acme": {"sites": ["paris-1"]}}
ROOT_ONLY = {"root": {"threshold": 1, "keyids": [keyid("root-1")]}}

# What the root says, who signed the order, and the reason why it does not count.
CLAIMS: dict[str, tuple[dict[str, Any], tuple[str, ...], str]] = {
    "the key is revoked": ({"revoked": (ISSUER,)}, (ISSUER,), "revoked_key"),
    "the key is in no role": ({"issuers": ("new@acme",)}, (ISSUER,), "threshold"),
    "the key has another role": ({"issuers": ("new@acme",), "roots": (ISSUER,)}, (ISSUER,), "threshold"),
    "nobody has the role": ({"roles": ROOT_ONLY}, (ISSUER,), "threshold"),
    "one of two signed": ({"issuers": TWO, "threshold": 2}, (ISSUER,), "threshold"),
    "the named issuer did not sign": ({"issuers": TWO}, ("b@acme",), "threshold"),
    "another process": ({"limits": {ISSUER: {"processes": ["mill"]}}}, (ISSUER,), "threshold"),
    "another site": ({"limits": {ISSUER: {"sites": ["paris-1"]}}}, (ISSUER,), "threshold"),
    "another site for one of two": ({"issuers": TWO, "threshold": 2, "limits": ANOTHER_SITE}, TWO, "threshold"),
    "the root has expired": ({"expires_at": PAST}, (ISSUER,), "stale_root"),
}


def signed_order(site: Rig, signers: tuple[str, ...]) -> bytes:
    return site.ceremony.sign(json.dumps(site.order()).encode(), signers)


@pytest.mark.parametrize("claim", CLAIMS)
async def test_a_claim_that_does_not_hold_is_found_at_admission(tmp_path, claim) -> None:
    root, signers, reason = CLAIMS[claim]
    strict = TrustRoot.model_validate(root_document(**root))
    async with working_rig(tmp_path) as site:
        raw, now = signed_order(site, signers), datetime.now(UTC)
        assert admit(raw, Ceremony().snapshot(root=strict), vouched(now)).reason == reason
        with pytest.raises(TrustError):
            Authority(strict).verified(raw, vouched(now))


# An order that its issuer has not signed is taken under no root, so it cannot be about to begin.
@pytest.mark.parametrize("claim", [name for name, (_, signers, _) in CLAIMS.items() if ISSUER in signers])
async def test_a_claim_that_does_not_hold_any_more_is_found_at_the_start(tmp_path, monkeypatch, caplog, claim) -> None:
    monkeypatch.setattr("edge.running.claim.CLAIM_RETRY_S", 0.01)
    root, signers, reason = CLAIMS[claim]
    async with working_rig(tmp_path) as site:
        site.authority.root = TrustRoot.model_validate(root_document(issuers=TWO))
        sign = site.ceremony.sign
        monkeypatch.setattr(site.ceremony, "sign", lambda payload: sign(payload, signers))
        assignment = await site.assignment()
        site.authority.root = TrustRoot.model_validate(root_document(**root))
        await site.offer(assignment)
        await site.until(lambda: site.runner.claimed is None)
        assert (site.events("run_began"), site.script.executed) == ([], [])
        why = "this site's trust root expired" if reason == "stale_root" else reason
        assert f"is not started: {why}" in caplog.text


async def test_an_order_of_another_site_does_not_begin_though_the_tables_have_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("edge.running.claim.CLAIM_RETRY_S", 0.01)
    async with working_rig(tmp_path) as site:
        assignment = await site.assignment()
        monkeypatch.setattr(site.journal, "site", "paris-1")
        await site.offer(assignment)
        await site.until(lambda: site.runner.claimed is None)
        assert site.script.executed == []
