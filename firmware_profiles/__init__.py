"""Data about firmware and controllers: one TOML file each, every value with its public source beside it.

The shape of a profile belongs to the driver that uses it: `load` validates the file against the type that the driver
passes. A site may keep profiles of its own in a directory; they come before the ones that are shipped.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

ProfileT = TypeVar("ProfileT", bound=BaseModel)


class ProfileError(Exception):
    """A profile does not exist or is wrong; names the file, each wrong field, its value and what would be right."""


def load(name: str, schema: type[ProfileT], user_dir: Path | None = None) -> ProfileT:
    """The profile `name`, validated. Raises `ProfileError`."""
    path = _files(user_dir).get(name)
    if path is None:
        raise ProfileError(f"there is no profile {name!r}; there are: {', '.join(_names(schema, user_dir))}")
    return _read(path, schema)


def load_all(
    schema: type[ProfileT], dialect: str, user_dir: Path | None = None, only: str | None = None
) -> dict[str, ProfileT]:
    """Every profile whose top-level ``dialect`` is `dialect`, by name. Raises `ProfileError`.

    With `only`, the one of that name, if there is one: a mistake in another file is none of its machines' business.
    """
    files = {name: path for name, path in _files(user_dir).items() if only in (None, name)}
    found = {name: path for name, path in files.items() if _table(path).get("dialect") == dialect}
    return {name: _read(path, schema) for name, path in sorted(found.items())}


def dialect_of(name: str, user_dir: Path | None = None) -> str | None:
    """The dialect that the profile `name` says it is for; None if there is none of that name. Raises `ProfileError`."""
    path = _files(user_dir).get(name)
    return None if path is None else str(_table(path).get("dialect", ""))


def _names(schema: type[BaseModel], user_dir: Path | None) -> list[str]:
    """The profiles of the dialects that `schema` is for; all of them if it does not say."""
    field = schema.model_fields.get("dialect")
    dialects = get_args(field.annotation) if field is not None else ()
    files = sorted(_files(user_dir).items())
    return [name for name, path in files if not dialects or _table(path).get("dialect") in dialects]


def _files(user_dir: Path | None) -> dict[str, Path]:
    shipped = Path(str(resources.files("firmware_profiles")))
    folders = [shipped] + ([user_dir] if user_dir is not None else [])
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def _table(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: not TOML: {error}") from error


def _read(path: Path, schema: type[ProfileT]) -> ProfileT:
    try:
        return schema.model_validate(_table(path))
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise ProfileError("; ".join(f"{path}: {_words(problem, schema)}" for problem in found)) from error


def _words(problem: ErrorDetails, schema: type[BaseModel]) -> str:
    """One problem: the field, what is wrong or would be right, and what is there."""
    field = ".".join(str(part) for part in problem["loc"]) or "the whole"
    match problem["type"]:
        case "missing":
            return f"{field}: is missing"
        case "extra_forbidden":
            names = ", ".join(_fields_beside(problem["loc"], schema))
            return f"{field}: there is no such field; there are: {names}"
        case "value_error" if isinstance(problem["input"], dict):
            return f"{field}: {_bare(problem['msg'])}"
        case _:
            return f"{field}: {_bare(problem['msg'])} (is {problem['input']!r})"


def _bare(message: str) -> str:
    # What pydantic calls a tuple, a person writes as a list.
    plain = message.removeprefix("Value error, ").replace("Input should be", "must be")
    return plain.replace("a valid tuple", "a list").replace("Tuple", "List")


def _fields_beside(place: tuple[int | str, ...], schema: type[BaseModel]) -> list[str]:
    """The fields that a table has which contains `place`."""
    table = schema
    for part in place[:-1]:
        if isinstance(part, str):
            inner = table.model_fields[part].annotation
            models = [inner, *get_args(inner)]
            table = next(model for model in models if isinstance(model, type) and issubclass(model, BaseModel))
    return list(table.model_fields)
