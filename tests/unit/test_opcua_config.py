"""What site.toml and profiles say of OPC UA machines, certificates on disk, and failures in words."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from asyncua import ua
from pydantic import ValidationError

from drivers.opcua import JOBCONTROL, ROBOTICS
from drivers.opcua.check import check_program
from drivers.opcua.config import Connection, Limits
from drivers.opcua.pki import Pki, read_server
from drivers.opcua.profile import Condition, candidates
from drivers.opcua.words import LinkError, RefusedError, Trouble, on_asking, on_connecting
from edge.driver import ConnectError, DriverError, Machine, Motion, NotAcceptableError, Program, Step
from tests.helpers.opcua import PROFILES, program_of

WAY: dict[str, Any] = {"endpoint": "opc.tcp://10.0.0.5:4840"}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"endpoint": "http://10.0.0.5"}, "write it as opc.tcp://host:port"),
        ({"endpoint": "opc.tcp://host"}, "write it as opc.tcp://host:port"),
        ({"endpoint": "opc.tcp://a:b@host:4840"}, "name and password belong into user"),
        ({"user": "edge"}, "user and password_file belong together"),
        ({"user_key": "/k"}, "user_certificate and user_key belong together"),
        ({"user": "edge", "password_file": "/p", "security": "None"}, "a password may be read by others"),
        ({"user": "edge", "password_file": "/p", "mode": "Sign"}, "a password may be read by others"),
        ({"user": "e", "password_file": "/p", "user_certificate": "/c", "user_key": "/k"}, "give either user"),
        ({"password_file": "p", "user": "e"}, "write the whole path"),
        ({"application_uri": "urn with blanks"}, "without blanks"),
        ({"accept_all": True}, "Extra inputs"),
    ],
)
def test_a_connection_that_cannot_be_meant_is_refused_in_words(more: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Connection.model_validate({**WAY, **more})


def test_a_connection_is_secure_unless_somebody_says_otherwise() -> None:
    assert Connection.model_validate(WAY).secure
    assert not Connection.model_validate({**WAY, "security": "None"}).secure


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"checked_by": "edge", "x_mm": [0, 1]}, "needs x_mm, y_mm and z_mm"),
        ({"checked_by": "controller", "x_mm": [0, 1]}, "leave them out"),
        ({"checked_by": "edge", "x_mm": [2, 1], "y_mm": [0, 1], "z_mm": [0, 1]}, "above the upper limit"),
        ({}, "Field required"),
    ],
)
def test_limits_say_who_looks_at_a_program(limits: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Limits.model_validate(limits)


def machine(limits: dict[str, Any]) -> Machine[Connection, Limits]:
    return Machine("m", "opcua-jobcontrol", "auto", (), Connection.model_validate(WAY), Limits.model_validate(limits))


def test_a_program_is_read_here_or_by_the_controller(tmp_path: Path) -> None:
    step = Step("s", "mill")
    program = program_of(tmp_path / "a.nc", ["%", "O1234", "(face the part)", "G21 G90", "G1 X600 (far) F100", "M30"])
    assert check_program(machine({"checked_by": "controller"}), step, program).duration_s is None
    edge = {"checked_by": "edge", "x_mm": [0, 500], "y_mm": [0, 400], "z_mm": [-100, 0]}
    with pytest.raises(NotAcceptableError, match="line 5: X: 600 mm, allowed: 0 to 500 mm"):
        check_program(machine(edge), step, program)
    with pytest.raises(NotAcceptableError, match="G55"):
        check_program(machine(edge), step, program_of(tmp_path / "b.nc", ["G55", "G1 X1"]))
    big = Program("big.nc", tmp_path / "a.nc", "", 10)
    with pytest.raises(NotAcceptableError, match="10 bytes, allowed: 5 bytes"):
        check_program(machine({"checked_by": "controller", "program_max_bytes": 5}), step, big)


def test_the_shipped_profiles_are_right_and_say_what_they_were_tried_on() -> None:
    named = {info.name: info for plugin in (JOBCONTROL, ROBOTICS) for info in plugin.profiles(None)}
    assert {"machinery-jobs", "robotics-1.02", "example-mapped"} <= named.keys()
    assert "example-mapped" not in candidates("auto", ("opcua-jobs", "opcua-mapped"), None)


@pytest.mark.parametrize(
    ("name", "before", "after", "words"),
    [
        ("machinery-jobs", "any = [1]", "any = []", "give either any = [...] or never = [...]"),
        ("machinery-jobs", '"mt:Mon', '"xx:Mon', "there is no namespace 'xx'"),
        ("machinery-jobs", "[files]", "[file]", "there is no such field"),
        ("machinery-jobs", 'return_status = "bits"', 'return_status = "yes"', "return_status"),
        ("example-mapped", "held = [2]", "held = [1]", "is both running and held"),
        ("example-mapped", 'node = "plc:Start", ', "", "give either node and value, or method"),
        ("example-mapped", 'start = { node = "plc:Start", value = true, reset = false }', "", "start and stop belong"),
        ("example-mapped", 'program = "plc:Program"', "", "program is missing"),
    ],
)
def test_a_mistake_in_a_profile_names_file_and_field(
    tmp_path: Path, name: str, before: str, after: str, words: str
) -> None:
    text = (PROFILES / f"{name}.toml").read_text()
    assert before in text
    (tmp_path / f"{name}.toml").write_text(text.replace(before, after))
    with pytest.raises(DriverError) as caught:
        JOBCONTROL.profiles(tmp_path)
    assert words in str(caught.value)
    assert f"{name}.toml" in str(caught.value)


def test_a_machine_with_a_named_profile_does_not_mind_a_mistake_in_another_one(tmp_path: Path) -> None:
    (tmp_path / "half-done.toml").write_text("dialect = 'opcua-mapped'\n[map")
    assert list(candidates("machinery-jobs", ("opcua-jobs", "opcua-mapped"), tmp_path)) == ["machinery-jobs"]
    with pytest.raises(DriverError, match=r"half-done\.toml: not TOML"):
        candidates("auto", ("opcua-jobs",), tmp_path)


@pytest.mark.parametrize(("line", "says"), [("", "no dialect"), ("dialect = 'marlin'", "dialect = 'marlin'")])
def test_a_profile_of_another_dialect_is_told_from_one_that_is_not_there(tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "ours.toml").write_text(line)
    with pytest.raises(DriverError, match=f"the profile 'ours' says {says}; this driver takes: opcua-jobs"):
        candidates("ours", ("opcua-jobs",), tmp_path)
    with pytest.raises(DriverError, match="there is no profile 'theirs' for this driver; there are: machinery-jobs"):
        candidates("theirs", ("opcua-jobs",), tmp_path)


def test_a_machine_that_is_only_watched_needs_nowhere_to_put_programs(tmp_path: Path) -> None:
    text = (PROFILES / "sinumerik-watch.toml").read_text().replace('programs = "named"', "")
    (tmp_path / "ours.toml").write_text(text)
    assert candidates("ours", ("opcua-mapped",), tmp_path)["ours"].files is None


def test_a_password_that_the_daemon_may_not_read_is_told_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    password.chmod(0o600)
    way = Connection.model_validate({**WAY, "user": "edge", "password_file": str(password)})
    limits = Limits.model_validate({"checked_by": "controller"})
    mill = Machine("m", "opcua-jobcontrol", "machinery-jobs", (), way, limits)
    JOBCONTROL.preflight(mill)
    # The tests may run as root, who can read everything.
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ConnectError, match="no permission to read it"):
        JOBCONTROL.preflight(mill)


def test_our_certificate_is_made_once_and_kept_from_others(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    own = pki.own("urn:host:edge:m")
    assert pki.own("urn:host:edge:m") == own
    assert own.key.stat().st_mode & 0o077 == 0
    read = read_server(own.certificate.read_bytes())
    assert read.uris == ("urn:host:edge:m",)
    assert read.not_before < datetime.datetime.now(datetime.UTC) < read.not_after
    assert pki.own("urn:host:edge:m", renew=True).fingerprint != own.fingerprint
    assert pki.own("urn:another").uri == "urn:another"


def test_a_server_is_trusted_by_its_exact_certificate_and_by_a_person(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "pki")
    made = [Pki(tmp_path / name).own(f"urn:server:{name}") for name in ("one", "other", "third")]
    one, other, third = (read_server(own.certificate.read_bytes() + b"the rest of a chain") for own in made)
    assert not pki.is_trusted(one)
    pki.reject(one)
    pki.accept(one)
    assert pki.is_trusted(one)
    assert not list(pki.rejected_dir.glob("*.der"))
    pki.accept(other)
    assert not pki.is_trusted(one), "a machine has one certificate"
    assert [found.fingerprint for found in pki.trusted()] == [other.fingerprint]
    assert not pki.is_trusted(third)
    with pytest.raises(ConnectError, match="cannot be read"):
        read_server(b"no certificate")


def status(name: str) -> ua.UaStatusCodeError:
    return ua.UaStatusCodeError(getattr(ua.StatusCodes, name))


@pytest.mark.parametrize(
    ("error", "trouble", "words"),
    [
        (AssertionError(), Trouble.UNTRUSTED_THERE, "does not trust our certificate"),
        (status("BadSecurityChecksFailed"), Trouble.UNTRUSTED_THERE, "does not trust our certificate"),
        (status("BadCertificateUriInvalid"), Trouble.WRONG_URI, "application URI urn:me"),
        (status("BadCertificateTimeInvalid"), Trouble.EXPIRED, "look at the clocks"),
        (status("BadIdentityTokenRejected"), Trouble.USER_REFUSED, "refuses the user"),
        (status("BadUserAccessDenied"), Trouble.USER_REFUSED, "refuses the user"),
        (status("BadTooManySessions"), Trouble.NO_FREE_SESSION, "no free session"),
        (status("BadTimeout"), Trouble.FROZEN, "does not answer in time"),
        (status("BadInternalError"), Trouble.OTHER, "BadInternalError"),
        (TimeoutError(), Trouble.FROZEN, "is frozen"),
        (ConnectionRefusedError(111, "Connect call failed ('::1', 4840)"), Trouble.UNREACHABLE, ": Connection refused"),
        (OSError(113, "No route to host"), Trouble.UNREACHABLE, "No route to host"),
        (ConnectionResetError(), Trouble.UNTRUSTED_THERE, "hung up"),
        (ua.UaError("strange"), Trouble.OTHER, "strange"),
    ],
)
def test_every_failure_to_connect_has_its_words(error: Exception, trouble: Trouble, words: str) -> None:
    found = on_connecting(error, "opc.tcp://x:1", "mill-1", "urn:me", secure=True)
    assert found.trouble is trouble
    assert words in str(found)
    assert found.motion is Motion.NONE


def test_an_answer_with_a_bad_status_is_a_no_and_no_answer_is_doubt() -> None:
    assert isinstance(on_asking(status("BadInvalidArgument"), "Start"), RefusedError)
    for error in (status("BadSessionIdInvalid"), TimeoutError(), ConnectionError("gone")):
        doubt = on_asking(error, "Start")
        assert isinstance(doubt, LinkError)
        assert doubt.motion is Motion.POSSIBLE
    assert on_connecting(ConnectionResetError(), "p", "m", "u", secure=False).trouble is Trouble.UNREACHABLE


@pytest.mark.parametrize(
    ("names", "value", "holds"),
    [
        ({"any": [1, 3]}, 3.0, True),
        ({"any": [1, 3]}, 2, False),
        ({"any": [1]}, "Automatic", False),
        ({"any": [1]}, True, False),
        ({"any": [False]}, False, True),
        ({"any": [False]}, 0, False),
        ({"any": [False]}, None, False),
        ({"never": ["Setup"]}, "Processing", True),
        ({"never": ["Setup"]}, "Setup", False),
        ({"never": ["Setup"]}, 3, False),
        ({"never": ["Setup"]}, None, False),
    ],
)
def test_a_condition_holds_only_by_a_value_that_is_understood(names: Any, value: Any, holds: bool) -> None:
    assert Condition(node="Mode", words="it is not in Automatic", **names).holds(value) is holds
