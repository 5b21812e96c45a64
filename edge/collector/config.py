"""collector.toml: where the collector keeps what it keeps, which sites report to it, and how they reach it."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edge.errors import ConfigError
from edge.model.fields import SiteId
from edge.model.site import config_error
from edge.model.uplink import UplinkTable
from edge.trust.keys import load_public_key


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CollectorTable(_Table):
    """``[collector]``. Paths are relative to the file. `id` is its name at the broker."""

    state_dir: Annotated[Path, Field(examples=["state"])]
    id: SiteId = "collector"


class SiteTable(_Table):
    """One ``[[sites]]``. `keys`: the site's ``site.pub``; two while a site changes its key."""

    id: Annotated[SiteId, Field(examples=["berlin-1"])]
    keys: Annotated[list[Path], Field(min_length=1, examples=[["berlin-1.pub"]])]


class CollectorConfig(_Table):
    """The whole file."""

    collector: CollectorTable
    sites: list[SiteTable] = []
    uplink: UplinkTable | None = None

    def public_keys(self) -> dict[str, tuple[bytes, ...]]:
        """The keys of each site. Raises `KeyFileError`."""
        return {site.id: tuple(load_public_key(path).public for path in site.keys) for site in self.sites}


def read(path: Path) -> CollectorConfig:
    """Read and check the file, with absolute paths. Raises `ConfigError`."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        expected = "name one with --config, or make one with `edge collect init DIR`"
        raise ConfigError(path, "", f"cannot be read: {error.strerror}", expected) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(path, "", f"not TOML in UTF-8: {error}") from error
    try:
        found = CollectorConfig.model_validate(tables)
    except ValidationError as error:
        raise config_error(path, "", error, CollectorConfig) from error
    for name, count in Counter(site.id for site in found.sites).items():
        if count > 1:
            raise ConfigError(path, "sites.id", f"'{name}' stands {count} times", "each site stands once")
    here = path.parent
    return CollectorConfig(
        collector=found.collector.model_copy(update={"state_dir": (here / found.collector.state_dir).absolute()}),
        sites=[
            site.model_copy(update={"keys": [(here / key).absolute() for key in site.keys]}) for site in found.sites
        ],
        uplink=None if found.uplink is None else found.uplink.checked(path),
    )
