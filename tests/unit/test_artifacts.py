"""Files named by what is in them, and the bundles that bring them."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.artifacts import artifacts as module
from edge.artifacts import bundle as bundles
from edge.artifacts.artifacts import Artifacts
from edge.artifacts.bundle import read_bundle
from edge.artifacts.partial import Partial
from edge.errors import ArtifactError, BundleError

GCODE = b"G28\nG1 X10 F600\n" * 50
SHA256 = hashlib.sha256(GCODE).hexdigest()
OTHER = b"something else"
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts.open(tmp_path / "artifacts")


def files(artifacts: Artifacts) -> list[str]:
    return sorted(path.name for path in artifacts.directory.rglob("*") if path.is_file())


class Endless(io.RawIOBase):
    """Gives bytes for ever and counts them."""

    given = 0

    def read(self, size: int = -1, /) -> bytes:
        self.given += size
        return b"x" * size


def test_a_file_is_found_under_its_hash(artifacts: Artifacts) -> None:
    assert not artifacts.has(SHA256)
    path = artifacts.store(io.BytesIO(GCODE), SHA256, len(GCODE))
    assert path == artifacts.path(SHA256) == artifacts.directory / SHA256[:2] / SHA256
    assert path.read_bytes() == GCODE
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert artifacts.has(SHA256)
    artifacts.verify(SHA256)
    assert artifacts.free_bytes() > 0


def test_a_file_that_is_here_and_good_is_not_read_again(artifacts: Artifacts) -> None:
    artifacts.store(io.BytesIO(GCODE), SHA256, len(GCODE))
    stream = io.BytesIO(GCODE)
    artifacts.store(stream, SHA256, len(GCODE))
    assert stream.tell() == 0
    with pytest.raises(ArtifactError, match="has 800 bytes, not 5"):
        artifacts.store(stream, SHA256, 5)


def test_a_file_that_has_rotted_is_noticed_and_can_be_stored_again(artifacts: Artifacts) -> None:
    path = artifacts.store(io.BytesIO(GCODE), SHA256, len(GCODE))
    path.write_bytes(GCODE[:-1] + b"!")
    with pytest.raises(ArtifactError, match="has changed on the disk"):
        artifacts.verify(SHA256)
    artifacts.store(io.BytesIO(GCODE), SHA256, len(GCODE))
    artifacts.verify(SHA256)


def test_a_stream_is_not_read_past_what_was_declared(artifacts: Artifacts) -> None:
    stream = Endless()
    with pytest.raises(ArtifactError, match="larger than the 1000 bytes"):
        artifacts.store(stream, SHA256, 1000)
    assert stream.given == 1001
    assert files(artifacts) == []


@pytest.mark.parametrize(
    ("content", "words"), [(GCODE[:-1], "ends after 799 of 800"), (b"y" * len(GCODE), "its hash is")]
)
def test_a_file_that_is_not_what_was_declared_is_not_kept(artifacts: Artifacts, content: bytes, words: str) -> None:
    with pytest.raises(ArtifactError, match=words):
        artifacts.store(io.BytesIO(content), SHA256, len(GCODE))
    assert files(artifacts) == []


@pytest.mark.parametrize("name", ["", "AB" * 32, "ab" * 31, "../" + "a" * 61, "ab" * 32 + "\n"])
def test_a_name_that_is_no_hash_is_refused(artifacts: Artifacts, name: str) -> None:
    with pytest.raises(ArtifactError, match="not a SHA-256"):
        artifacts.path(name)


def test_a_missing_file_is_named(artifacts: Artifacts) -> None:
    with pytest.raises(ArtifactError, match=f"{SHA256} is not here"):
        artifacts.verify(SHA256)


def test_half_files_of_a_crash_are_swept_away(artifacts: Artifacts) -> None:
    artifacts.store(io.BytesIO(GCODE), SHA256, len(GCODE))
    (artifacts.directory / "incoming" / "0123").write_bytes(b"half")
    assert files(Artifacts.open(artifacts.directory)) == [SHA256]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be used"):
        Artifacts.open(tmp_path / "file" / "artifacts")


def test_a_disk_that_refuses_is_an_error_in_words(artifacts: Artifacts) -> None:
    (artifacts.directory / SHA256[:2]).touch()
    with pytest.raises(ArtifactError, match="cannot be stored: "):
        artifacts.store(io.BytesIO(GCODE), SHA256, len(GCODE))


def test_a_file_that_was_written_beside_is_kept_durably_before_and_after_its_name_appears(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = artifacts.partial / SHA256
    half.write_bytes(GCODE)
    steps = []
    fsync, rename = os.fsync, Path.rename

    def synced(handle: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(module.os, "fsync", synced)
    monkeypatch.setattr(Path, "rename", renamed)
    path = artifacts.adopt(half, SHA256, len(GCODE))
    assert steps == ["file", "directory", "rename", "directory"], "the folder is new, so it is made durable first"
    assert path.read_bytes() == GCODE
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert artifacts.on_disk() == {SHA256: len(GCODE)}
    assert artifacts.halves() == []


@pytest.mark.parametrize(("content", "words"), [(GCODE[:-1], "has 799 bytes, not 800"), (b"y" * 800, "its hash is")])
def test_what_was_written_beside_and_is_not_right_stays_there(artifacts: Artifacts, content: bytes, words: str) -> None:
    half = artifacts.partial / SHA256
    half.write_bytes(content)
    with pytest.raises(ArtifactError, match=words):
        artifacts.adopt(half, SHA256, len(GCODE))
    assert half.read_bytes() == content
    assert artifacts.on_disk() == {}


def test_a_disk_that_refuses_a_half_file_is_an_error_in_words(artifacts: Artifacts) -> None:
    with pytest.raises(ArtifactError, match="cannot be stored: No such file"):
        artifacts.adopt(artifacts.partial / "missing", SHA256, 5)
    half = Partial(artifacts, SHA256)
    assert (half.size(), half.etag_of("https://x")) == (0, "")
    half.sync()
    half.begin("https://x", '"1"')
    assert (half.etag_of("https://x"), half.etag_of("https://y")) == ('"1"', "")
    for junk in (b"[]", b"{", b'{"url": "https://x", "etag": 7}', b"\xff"):
        (artifacts.partial / f"{SHA256}.json").write_bytes(junk)
        assert half.etag_of("https://x") == ""
    half.discard()
    half.path.mkdir()
    for act in (lambda: half.append(b"x"), half.sync, half.discard, lambda: half.begin("https://x", "")):
        with pytest.raises(ArtifactError, match="cannot be "):
            act()


# Bundles


def bundle(path: Path, members: dict[str, bytes] | None = None, **changes: int) -> Path:
    """A bundle; `changes` are attributes of its last member."""
    members = {"job.dsse.json": b"{}", f"sha256/{SHA256}": GCODE} if members is None else members
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that is there twice
        for number, (name, content) in enumerate(members.items(), 1):
            member = zipfile.ZipInfo(name.rstrip("*"))
            member.compress_type = zipfile.ZIP_DEFLATED
            if number == len(members):
                for key, value in changes.items():
                    setattr(member, key, value)
            archive.writestr(member, content)
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "job.mfjob"


def problem(path: Path) -> str:
    with pytest.raises(BundleError) as caught, read_bundle(path):
        pass
    return str(caught.value)


def test_a_bundle_gives_its_envelope_and_the_wanted_files_only(path: Path, artifacts: Artifacts) -> None:
    bundle(path, {"job.dsse.json": b"{}", "sha256/": b"", f"sha256/{SHA256}": GCODE, f"sha256/{OTHER_SHA256}": OTHER})
    with read_bundle(path) as opened:
        assert opened.envelope == b"{}"
        assert opened.hashes == {SHA256, OTHER_SHA256}
        extraction = opened.extract({SHA256: len(GCODE), "00" * 32: 5}, artifacts)
    assert extraction.stored == (SHA256,)
    assert extraction.missing == ("00" * 32,)
    assert extraction.refused == {}
    assert files(artifacts) == [SHA256]


def test_a_wrong_file_in_a_bundle_is_refused_by_name_and_the_good_ones_are_kept(
    path: Path, artifacts: Artifacts
) -> None:
    bundle(path, {"job.dsse.json": b"{}", f"sha256/{OTHER_SHA256}": b"y" * len(OTHER), f"sha256/{SHA256}": GCODE})
    with read_bundle(path) as opened:
        extraction = opened.extract({OTHER_SHA256: len(OTHER), SHA256: len(GCODE)}, artifacts)
        assert "in the bundle, not 5" in opened.extract({SHA256: 5}, artifacts).refused[SHA256]
    assert extraction.stored == (SHA256,)
    assert "is not what was sent" in extraction.refused[OTHER_SHA256]
    assert files(artifacts) == [SHA256]


def test_a_member_that_cannot_be_unpacked_is_refused_by_name(path: Path, artifacts: Artifacts) -> None:
    content = bytearray(bundle(path).read_bytes())
    at = content.index(f"sha256/{SHA256}".encode()) + len(f"sha256/{SHA256}")
    content[at : at + 8] = b"\xff" * 8
    path.write_bytes(content)
    with read_bundle(path) as opened:
        assert "cannot be unpacked" in opened.extract({SHA256: len(GCODE)}, artifacts).refused[SHA256]
    assert files(artifacts) == []


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x05\x06" + b"\0" * 17, b"x" * 5000])
def test_what_is_no_zip_file_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "is not a zip file" in problem(path)


def test_a_file_that_is_not_there_is_refused(path: Path) -> None:
    assert "No such file" in problem(path)


def test_something_added_at_the_end_is_refused(path: Path) -> None:
    bundle(path)
    path.write_bytes(path.read_bytes() + b"more")
    assert "added to at its end" in problem(path)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../job.dsse.json", "sha256/../x", "sha256\\..\\x", "\\x", "C:x", "a/../../b"]
)
def test_a_name_that_leads_out_is_refused(path: Path, name: str) -> None:
    bundle(path, {"job.dsse.json": b"{}", name: b""})
    assert f"'{name}' leads out of the bundle" in problem(path)


@pytest.mark.parametrize("name", ["readme.txt", "sha256/abc", "sha256/" + "A" * 64, "Job.dsse.json", "sha256"])
def test_a_member_that_does_not_belong_there_is_refused(path: Path, name: str) -> None:
    bundle(path, {"job.dsse.json": b"{}", name: b""})
    assert f"'{name}' does not belong into a bundle" in problem(path)


def test_a_link_is_refused(path: Path) -> None:
    bundle(path, external_attr=(stat.S_IFLNK | 0o777) << 16, create_system=3)
    assert "is a link" in problem(path)


def test_an_encrypted_member_is_refused(path: Path) -> None:
    bundle(path)
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 8] |= 1
    path.write_bytes(content)
    assert "'job.dsse.json' is encrypted" in problem(path)


def test_another_compression_is_refused(path: Path) -> None:
    bundle(path, compress_type=zipfile.ZIP_BZIP2)
    assert "is compressed in a way" in problem(path)


def test_a_member_that_is_there_twice_is_refused(path: Path) -> None:
    bundle(path, {"job.dsse.json": b"{}", "job.dsse.json*": b"[]"})
    assert "'job.dsse.json' is there twice" in problem(path)


def test_a_bundle_without_an_order_is_refused(path: Path) -> None:
    bundle(path, {f"sha256/{SHA256}": GCODE})
    assert "has no job.dsse.json" in problem(path)


def test_a_declared_size_over_the_limit_is_refused_before_anything_is_read(path: Path) -> None:
    bundle(path, {"job.dsse.json": b" " * (bundles.MAX_ENVELOPE_BYTES + 1)})
    assert f"allowed: {bundles.MAX_ENVELOPE_BYTES}" in problem(path)


def test_a_member_that_says_it_is_small_and_is_not_gives_no_more_than_it_said(path: Path, artifacts: Artifacts) -> None:
    bomb = b"\0" * 10_000_000
    sha256 = hashlib.sha256(bomb).hexdigest()
    content = bytearray(bundle(path, {"job.dsse.json": b"{}", f"sha256/{sha256}": bomb}).read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 1000)
    path.write_bytes(content)
    with read_bundle(path) as opened:
        assert sha256 in opened.extract({sha256: 1000}, artifacts).refused
        assert sha256 in opened.extract({sha256: len(bomb)}, artifacts).refused
    assert files(artifacts) == []


def test_an_order_that_says_it_is_small_and_is_not_costs_no_memory(path: Path) -> None:
    bundle(path, {"job.dsse.json": b" " * 100_000_000})
    content = bytearray(path.read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 24 : at + 28] = struct.pack("<I", 1000)
    path.write_bytes(content)
    tracemalloc.start()
    try:
        assert "cannot be read as a zip file" in problem(path)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_too_many_members_are_refused_before_the_list_is_read(path: Path) -> None:
    bundle(path, {"job.dsse.json": b"{}"} | {f"sha256/{n:064x}": b"" for n in range(bundles.MAX_MEMBERS)})
    assert "has 1025 members" in problem(path)


def test_a_64_bit_zip_file_is_refused(path: Path) -> None:
    content = bundle(path).read_bytes()
    path.write_bytes(content[:-22] + b"PK\x06\x07" + b"\0" * 16 + content[-22:])
    assert "64-bit" in problem(path)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_bundle_with_any_bytes_changed_is_refused_in_words_or_gives_good_files(
    tmp_path: Path, data: st.DataObject
) -> None:
    path = tmp_path / "fuzzed.mfjob"
    content = bytearray(bundle(path).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    artifacts = Artifacts.open(tmp_path / "artifacts")
    for half in artifacts.directory.rglob(SHA256):
        half.unlink()
    try:
        with read_bundle(path) as opened:
            extraction = opened.extract({SHA256: len(GCODE)}, artifacts)
    except BundleError:
        return
    assert files(artifacts) == list(extraction.stored)
    for sha256 in extraction.stored:
        artifacts.verify(sha256)


def test_an_unreadable_file_is_named(tmp_path: Path, artifacts: Artifacts) -> None:
    artifacts.path(SHA256).mkdir(parents=True)
    with pytest.raises(ArtifactError, match="cannot be read"):
        artifacts.verify(SHA256)
