"""A program that is no longer what its name says: set aside for a person to look at, and written down as lost."""

from __future__ import annotations

import asyncio

from edge.artifacts.artifacts import Artifacts
from edge.model.event import Draft, EventKind


async def set_aside(artifacts: Artifacts, actor: str, sha256: str, reason: str, job_id: str | None = None) -> Draft:
    """Move the file away; what is to be recorded then. Idempotent. Raises `ArtifactError` if the disk refuses."""
    await asyncio.to_thread(artifacts.quarantine, sha256, None, reason)
    return Draft(EventKind.ARTIFACT_LOST, actor, {"sha256": sha256, "reason": reason}, job_id=job_id)
