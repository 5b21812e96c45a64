"""Signing: numbers that are used once, orders from files, and bundles that are what they say."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.errors import BundleError, ConfigError, FormatError, KeyFileError
from edge.trust import (
    JobOrder,
    admit,
    check_files,
    create_key,
    new_job_id,
    order_from_file,
    parse_order,
    read_envelope,
    replace_envelope,
    sign_order,
    take_sequence,
    write_bundle,
)
from tests.helpers.trust import AT, ISSUER, NOW, PROGRAM, Ceremony, order_document, private_key

GOOD = """
product = "bracket-v3"
site = "berlin-1"
[[steps]]
id = "print"
process = "fdm"
program = "body.gcode"
requires = {material = "PLA", nozzle_mm = 0.4, bed_mm = {min = 100}}
"""
DIGEST = hashlib.sha256(PROGRAM).hexdigest()


@pytest.fixture
def key(tmp_path):
    return create_key(ISSUER, tmp_path)[0]


def order_file(tmp_path, text: str = GOOD):
    (tmp_path / "body.gcode").write_bytes(PROGRAM)
    path = tmp_path / "job.toml"
    path.write_text(text)
    return path


def made(path, **fields):
    defaults = {"job_id": new_job_id(AT), "series": "ab" * 16, "sequence": 1, "now": AT, "issuer": ISSUER}
    return order_from_file(path, **(defaults | fields))


# Job ids


def test_a_job_id_is_the_ulid_of_its_time():
    # The example of the ULID specification's time part: https://github.com/ulid/spec
    at = datetime.fromtimestamp(1469918176.385, UTC)
    assert new_job_id(at, bytes(10)) == "01ARYZ6S41" + "0" * 16
    assert new_job_id(at, b"\xff" * 10) == "01ARYZ6S41" + "Z" * 16


def test_job_ids_differ():
    assert len({new_job_id(AT) for _ in range(100)}) == 100


# Sequence numbers


def test_numbers_of_a_key_count_up_in_one_series(key):
    (series, first), (same, second) = take_sequence(key), take_sequence(key)
    assert (same, first, second) == (series, 1, 2)


def test_two_at_once_never_get_the_same_number(key):
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(take_sequence, [key] * 24))
    assert len({series for series, _ in taken}) == 1
    assert sorted(number for _, number in taken) == list(range(1, 25))


def test_a_lost_state_begins_a_new_series(tmp_path, key):
    series, _ = take_sequence(key)
    state = tmp_path / f"{key.name}.series.json"
    assert json.loads(state.read_text()) == {"series": series, "next": 2}
    state.unlink()
    assert take_sequence(key)[0] != series


@pytest.mark.parametrize("state", ["", "{}", '{"series":"ab","next":0}', '{"series":"ab","next":1,"next":2}'])
def test_a_damaged_state_is_named(tmp_path, key, state):
    (tmp_path / f"{key.name}.series.json").write_text(state)
    with pytest.raises(KeyFileError, match=r"series.json: .*delete it"):
        take_sequence(key)


def test_a_number_that_cannot_be_kept_is_not_given(tmp_path):
    with pytest.raises(KeyFileError, match="cannot count the orders"):
        take_sequence(tmp_path / "nix.key")


# Orders


def test_an_order_from_a_file_is_complete_and_admitted(tmp_path):
    result = made(order_file(tmp_path))
    order = result.order
    assert order.issuer == ISSUER
    assert order.expires_at == AT + timedelta(days=7)
    assert order.artifacts["body.gcode"].sha256 == DIGEST
    assert order.artifacts["body.gcode"].size_bytes == len(PROGRAM)
    assert order.artifacts["body.gcode"].media_type == "text/x.gcode"
    assert result.files == {DIGEST: tmp_path / "body.gcode"}
    ceremony = Ceremony()
    assert admit(sign_order(order, [private_key(ISSUER)]), ceremony.snapshot(), NOW).order == order


def test_what_the_file_says_is_kept(tmp_path):
    text = 'issuer = "x"\nquantity = 3\nexpires_at = 2027-01-01T00:00:00Z\n' + GOOD
    text += '[sources]\n"body.gcode" = ["https://files.acme/body.gcode"]\n'
    order = made(order_file(tmp_path, text)).order
    assert (order.issuer, order.quantity, order.expires_at.year) == ("x", 3, 2027)
    assert order.artifacts["body.gcode"].sources == ("https://files.acme/body.gcode",)


def test_a_step_that_tends_others_brings_no_file(tmp_path):
    more = '[[steps]]\nid = "face"\nprocess = "mill"\nprogram = "body.gcode"\nafter = ["unload"]\n'
    more += '[[steps]]\nid = "unload"\nprocess = "robot.tend"\nafter = ["print"]\n'
    more += 'tends = {from = "print", to = "face"}\n'
    result = made(order_file(tmp_path, GOOD + more))
    assert result.order.processes == {"fdm", "mill", "robot.tend"}
    assert list(result.files) == [DIGEST]


def test_an_unknown_kind_of_program_is_bytes(tmp_path):
    (tmp_path / "robot.bin").write_bytes(b"\x00")
    order = made(order_file(tmp_path, GOOD.replace("body.gcode", "robot.bin"))).order
    assert order.artifacts["robot.bin"].media_type == "application/octet-stream"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("product =", "is not TOML"),
        ('product = "a"', "steps: is missing"),
        ("steps = [1]", "steps: is missing or no list of tables"),
        ('job_id = "x"\n' + GOOD, "job_id: is filled in"),
        ("artifacts = 1\n" + GOOD, "artifacts: is filled in"),
        ("colour = 1\n" + GOOD, "colour is an unknown field"),
        ("sources = 1\n" + GOOD, "sources: is no table"),
        (GOOD + '[sources]\n"x.gcode" = []', "'x.gcode' is the program of no step"),
        (GOOD + '[sources]\n"body.gcode" = ["http://x"]', "must be an https"),
        (GOOD.replace("body.gcode", "nix.gcode"), "nix.gcode cannot be read: No such file"),
        (GOOD.replace("berlin-1", "berlin 1"), "site is 'berlin 1'"),
        ("expires_at = 2026-11-28T10:00:00\n" + GOOD, "expires_at is .*RFC 3339"),
        ("expires_at = 2020-01-01T00:00:00Z\n" + GOOD, "expires_at is not after issued_at"),
        ("# " + "x" * 1024 * 1024, "has more than"),
    ],
)
def test_a_wrong_order_file_is_explained(tmp_path, text, says):
    with pytest.raises(ConfigError, match=says):
        made(order_file(tmp_path, text))


def test_an_order_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nix.toml: cannot be read"):
        made(tmp_path / "nix.toml")


def test_an_order_without_any_issuer_says_so(tmp_path):
    with pytest.raises(ConfigError, match="issuer is missing"):
        made(order_file(tmp_path), issuer=None)


def test_two_programs_of_one_name_are_refused(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "body.gcode").write_bytes(b"M114\n")
    second = '[[steps]]\nid = "b"\nprocess = "fdm"\nprogram = "sub/body.gcode"\n'
    with pytest.raises(ConfigError, match="have one name"):
        made(order_file(tmp_path, GOOD + second))


def test_an_order_that_no_site_would_take_is_not_signed():
    artifact = order_document()["artifacts"]["body.gcode"] | {"sources": ["https://x/" + "y" * 1900]}
    order = JobOrder.model_validate(order_document(artifacts={f"body.gcode{n or ''}": artifact for n in range(150)}))
    with pytest.raises(FormatError, match="at most 262144"):
        sign_order(order, [private_key(ISSUER)])


# Bundles


@pytest.fixture
def bundle(tmp_path):
    result = made(order_file(tmp_path))
    path = tmp_path / "job.mfjob"
    write_bundle(path, sign_order(result.order, [private_key(ISSUER)]), result.files)
    return path, result


def test_a_bundle_carries_the_order_and_its_files(bundle):
    path, result = bundle
    assert read_envelope(path) == sign_order(result.order, [private_key(ISSUER)])
    assert check_files(path, result.order) == {"body.gcode": None}
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["job.dsse.json", f"sha256/{DIGEST}"]


def test_the_same_order_makes_the_same_bundle(tmp_path, bundle):
    path, result = bundle
    again = tmp_path / "again.mfjob"
    write_bundle(again, read_envelope(path), result.files)
    assert again.read_bytes() == path.read_bytes()


def test_a_second_signature_leaves_the_files_alone(bundle):
    path, result = bundle
    replace_envelope(path, b"{}")
    assert read_envelope(path) == b"{}"
    assert check_files(path, result.order) == {"body.gcode": None}


def test_a_program_that_changes_while_it_is_bundled_leaves_no_bundle(tmp_path, bundle):
    _, result = bundle
    (tmp_path / "body.gcode").write_bytes(b"M112\n")
    with pytest.raises(BundleError, match="has changed since the order was made"):
        write_bundle(tmp_path / "late.mfjob", b"{}", result.files)
    assert not [path.name for path in tmp_path.iterdir() if "late" in path.name]


def test_a_bundle_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(BundleError, match="cannot write"):
        write_bundle(tmp_path / "nix" / "a.mfjob", b"{}", {})


def _packed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("job.dsse.json", b"{}" * 20)
        archive.writestr(f"sha256/{DIGEST}", PROGRAM)
    return buffer.getvalue()


PACKED = _packed()


def archive_of(tmp_path, *entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED):
    path = tmp_path / "hostile.mfjob"
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", f"sha256/{DIGEST}/", "sha256/../x", "readme.txt"])
def test_a_bundle_with_another_name_is_refused(tmp_path, name):
    path = archive_of(tmp_path, ("job.dsse.json", b"{}"), (name, b""))
    with pytest.raises(BundleError, match=r"must carry job\.dsse\.json and sha256/<hash>"):
        read_envelope(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")  # zipfile, about the hostile archive made here
def test_a_bundle_with_a_name_twice_is_refused(tmp_path):
    with pytest.raises(BundleError, match="each once"):
        read_envelope(archive_of(tmp_path, ("job.dsse.json", b"{}"), ("job.dsse.json", b"[]")))


def test_a_bundle_without_an_envelope_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"it has no job\.dsse\.json"):
        read_envelope(archive_of(tmp_path))


def test_a_bundle_with_too_many_entries_is_refused(tmp_path):
    entries = [(f"sha256/{n:064x}", b"") for n in range(258)]
    with pytest.raises(BundleError, match="has 258 entries"):
        read_envelope(archive_of(tmp_path, *entries))


def test_an_envelope_that_unpacks_to_more_than_a_site_takes_is_refused(tmp_path):
    path = archive_of(tmp_path, ("job.dsse.json", b" " * 300_000), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(BundleError, match="more than 262144 bytes"):
        read_envelope(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "a.mfjob"
    path.write_bytes(content)
    order = parse_order(json.dumps(order_document()).encode())
    for read in (read_envelope, lambda path: check_files(path, order), lambda path: replace_envelope(path, b"{}")):
        with pytest.raises(BundleError, match="is no bundle"):
            read(path)


def test_a_bundle_in_an_unusual_compression_is_refused(tmp_path):
    with pytest.raises(BundleError, match="compression other than"):
        read_envelope(archive_of(tmp_path, ("job.dsse.json", b"{}"), compression=zipfile.ZIP_LZMA))


# zipfile, about the names of a hostile archive
@pytest.mark.filterwarnings("ignore::UserWarning:zipfile")
@settings(max_examples=300)
@given(st.data())
def test_any_damage_to_a_bundle_is_a_bundle_error_or_is_found(data):
    order = parse_order(json.dumps(order_document()).encode())
    raw = bytearray(PACKED)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = Path(tempfile.mkdtemp()) / "a.mfjob"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))] if data.draw(st.booleans()) else raw)
    for read in (read_envelope, lambda path: check_files(path, order)):
        with contextlib.suppress(BundleError):
            read(path)
    shutil.rmtree(path.parent)


def test_a_bundle_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BundleError, match="cannot read"):
        read_envelope(tmp_path / "nix.mfjob")
    with pytest.raises(BundleError, match="cannot read"):
        check_files(tmp_path / "nix.mfjob", parse_order(json.dumps(order_document()).encode()))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "is not in the bundle"),
        (PROGRAM[:-1], "has 20 bytes, must have 21"),
        (PROGRAM + b"M112", "has more than 21 bytes, must have 21"),
        (b"0" * 10**7, "has more than 21 bytes"),
        (PROGRAM.replace(b"10", b"99"), "has the hash"),
    ],
)
def test_a_file_that_is_not_what_the_order_says_is_found(tmp_path, content, says):
    order = parse_order(json.dumps(order_document()).encode())
    files = [] if content is None else [(f"sha256/{DIGEST}", content)]
    path = archive_of(tmp_path, ("job.dsse.json", b"{}"), *files, compression=zipfile.ZIP_DEFLATED)
    assert says in check_files(path, order)["body.gcode"]


def test_a_damaged_file_in_a_bundle_is_found(bundle):
    path, result = bundle
    raw = path.read_bytes()
    path.write_bytes(raw.replace(PROGRAM, PROGRAM.replace(b"10", b"99")))
    with pytest.raises(BundleError, match="Bad CRC"):
        check_files(path, result.order)


def test_a_bundle_with_a_file_the_order_does_not_name_is_refused(tmp_path):
    order = parse_order(json.dumps(order_document()).encode())
    path = archive_of(tmp_path, ("job.dsse.json", b"{}"), (f"sha256/{0:064x}", b""))
    with pytest.raises(BundleError, match="which the order does not name"):
        check_files(path, order)
