"""The commands of a key holder, as a shell runs them."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import zipfile
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from edge.cli import trust_verify
from edge.cli.main import main
from edge.trust import PayloadType, load_private_key, parse, parse_command, read_envelope, sign
from tests.helpers.trust import PROGRAM, private_key, root_document, signed_root

ORDER = """
product = "bracket-v3"
site = "berlin-1"
[[steps]]
id = "print"
process = "fdm"
program = "body.gcode"
"""


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """`edge` in a fresh directory: (exit code, output, complaint)."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        code = main(list(words))
        said = capsys.readouterr()
        assert "PRIVATE KEY" not in said.out + said.err
        assert "Traceback" not in said.err
        return code, said.out, said.err

    return run


@pytest.fixture
def ceremony(shell, tmp_path):
    """Keys and a signed root of two issuers, one enough; an order file."""
    for name in ("root-1", "root-2", "orders@acme", "qa@acme"):
        assert shell("key", "new", name)[0] == 0
    words = "root new --out root.json --name ACME --root root-1.pub root-2.pub --issuer orders@acme.pub qa@acme.pub"
    assert shell(*words.split(), "--limit", "qa@acme:processes=fdm,mill", "--limit", "qa@acme:sites=berlin-1")[0] == 0
    assert shell("root", "sign", "root.json", "--key", "root-1.key")[0] == 0
    (tmp_path / "body.gcode").write_bytes(PROGRAM)
    (tmp_path / "job.toml").write_text(ORDER)
    return shell


def document(result: tuple[int, str, str], code: int = 0) -> dict:
    assert result[0] == code, result
    return json.loads(result[1])


def test_a_new_key_is_told_and_shown(shell):
    told = document(shell("key", "new", "orders@acme", "--out", "keys", "--json"))
    assert told["private_file"] == "keys/orders@acme.key"
    of_public = document(shell("key", "show", "keys/orders@acme.pub", "--json"))
    of_private = document(shell("key", "show", "keys/orders@acme.key", "--json"))
    assert {k: v for k, v in of_public.items() if k != "file"} == {k: v for k, v in of_private.items() if k != "file"}
    assert of_public["keyid"] == told["keyid"]
    assert told["keyid"] in shell("key", "show", "keys/orders@acme.pub")[1]


def test_a_name_with_dots_keeps_its_files_apart(shell):
    told = document(shell("key", "new", "a.b", "--json"))
    assert (told["private_file"], told["public_file"]) == ("a.b.key", "a.b.pub")
    assert document(shell("key", "show", "a.b.key", "--json"))["name"] == "a.b"


def test_a_private_key_is_never_printed(ceremony, tmp_path):
    secret = (tmp_path / "orders@acme.key").read_text().splitlines()[1]
    for words in (["key", "show", "orders@acme.key"], ["job", "sign", "job.toml", "--key", "orders@acme.key"]):
        for extra in ([], ["--json"]):
            code, out, err = ceremony(*words, *extra)
            assert code == 0
            assert secret not in out + err


def test_a_root_needs_its_signatures(shell):
    for name in ("r1", "r2", "i"):
        shell("key", "new", name)
    words = "root new --out root.json --name ACME --root r1.pub r2.pub --issuer i.pub --threshold root=2 --json"
    made = document(shell(*words.split(), "--expires-at", "2036-01-01T00:00:00Z"))
    assert (made["valid"], made["missing"]) == (False, 2)
    assert document(shell("root", "sign", "root.json", "--key", "r1.key", "--json"))["missing"] == 1
    assert document(shell("root", "show", "root.json", "--json"), code=1)["valid"] is False
    assert "needs 1 more" in shell("root", "show", "root.json")[1]
    assert shell("verify", "root.json")[0] == 2
    assert "complete" in shell("root", "sign", "root.json", "--key", "r2.key")[1]
    shown = document(shell("root", "show", "root.json", "--json"))
    assert [signer["name"] for signer in shown["signed_by"]] == ["r1", "r2"]
    assert shown["root"]["roles"]["root"]["threshold"] == 2
    assert document(shell("verify", "root.json", "--json"))["signers"] == ["r1", "r2"]


def test_a_root_shows_its_limits(ceremony):
    assert "only fdm, mill; only berlin-1" in ceremony("root", "show", "root.json")[1]


def test_a_root_shows_what_it_revokes(shell, tmp_path):
    document = root_document(revoked=("orders@acme",))
    (tmp_path / "root.json").write_bytes(signed_root(document))
    code, out, _ = shell("root", "show", "root.json")
    assert code == 0
    assert "(revoked: test)" in out


def test_a_root_is_no_successor_of_another(ceremony):
    assert ceremony("verify", "root.json", "--root", "root.json")[0] == 0
    words = "root new --out other.json --name Other --root root-1.pub --issuer orders@acme.pub"
    ceremony(*words.split())
    ceremony("root", "sign", "other.json", "--key", "root-1.key")
    code, out, _ = ceremony("verify", "other.json", "--root", "root.json")
    assert code == 2
    assert "has version 1, must have 2" in out


NEW = "root new --out new.json --name ACME --root root-1.pub --issuer orders@acme.pub"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (NEW + " --threshold issuer=2", "role 'issuer' has threshold 2 and 1 usable keys"),
        (NEW + " --threshold king=1", "--threshold is 'king=1'"),
        (NEW + " --threshold issuer", "--threshold is 'issuer'"),
        (NEW + " --limit nobody:processes=fdm", "--limit is 'nobody:processes=fdm'"),
        (NEW + " --limit orders@acme:colour=red", "--limit is"),
        (NEW + " --limit orders@acme:processes=FDM", "must be the name of a process"),
        (NEW + " --expires-at tomorrow", "expires_at is 'tomorrow'"),
        (NEW.replace("new.json", "root.json"), "root.json is there already"),
        (NEW.replace("new.json", "nix/new.json"), "cannot write nix/new.json"),
        (NEW.replace("root-1.pub", "root-1.key"), "not JSON"),
        ("root sign root.json --key orders@acme.key", "has no part in the role 'root'"),
        ("root sign root.json --key nix.key", "cannot read private key nix.key"),
        ("root show job.toml", "job.toml: the envelope is not JSON"),
        ("verify job.toml", "job.toml: the envelope is not JSON"),
        ("verify nix", "cannot read nix: No such file"),
        ("verify job.mfjob", "name a trust root to verify it: --root FILE"),
        ("verify job.mfjob --root job.mfjob", "must be 'application/vnd.mf-edge.root"),
        ("job cosign root.json --key qa@acme.key", "must be a job order"),
        ("job sign nix.toml --key orders@acme.key", "nix.toml: cannot be read"),
        ("job sign job.toml --key orders@acme.key --out nix/a.mfjob", "cannot write nix/a.mfjob"),
    ],
)
def test_what_cannot_be_done_is_one_sentence_and_exit_2(ceremony, words, says):
    ceremony("job", "sign", "job.toml", "--key", "orders@acme.key")
    code, out, err = ceremony(*words.split())
    assert code == 2
    assert out == ""
    assert says in err
    assert err.startswith("edge: ")
    assert err.count("\n") == 1


def test_an_order_is_signed_and_verified(ceremony):
    told = document(ceremony("job", "sign", "job.toml", "--key", "orders@acme.key", "--json"))
    assert told["file"] == "job.mfjob"
    assert (told["issuer"], told["sequence"], len(told["keyids"])) == ("orders@acme", 1, 1)
    found = document(ceremony("verify", "job.mfjob", "--root", "root.json", "--json"))
    assert found["kind"] == "bundle"
    assert found["valid"] is True
    assert found["signers"] == ["orders@acme"]
    assert found["files"] == {"body.gcode": None}
    assert found["order"] == {k: v for k, v in told.items() if k not in ("file", "digest", "keyids")} | {
        "expired": False
    }
    code, out, _ = ceremony("verify", "job.mfjob", "--root", "root.json")
    assert code == 0
    assert "hashes     1 of 1 match" in out
    assert all(len(line) <= 80 for line in out.splitlines())


def test_an_expired_order_still_verifies_and_says_so(ceremony, tmp_path, monkeypatch):
    ceremony("job", "sign", "job.toml", "--key", "orders@acme.key")

    class InTheYear2099(datetime):
        @classmethod
        def now(cls, tz=None):
            return cls(2099, 1, 1, tzinfo=tz)

    monkeypatch.setattr(trust_verify, "datetime", InTheYear2099)
    code, out, _ = ceremony("verify", "job.mfjob", "--root", "root.json")
    assert code == 0
    assert "it has expired" in out


def test_a_second_key_holder_signs_the_same_bundle(ceremony, tmp_path):
    words = "root new --out two.json --name ACME --root root-1.pub --issuer orders@acme.pub qa@acme.pub"
    ceremony(*words.split(), "--threshold", "issuer=2")
    ceremony("root", "sign", "two.json", "--key", "root-1.key")
    ceremony("job", "sign", "job.toml", "--key", "orders@acme.key")
    code, out, _ = ceremony("verify", "job.mfjob", "--root", "two.json")
    assert code == 2
    assert "by orders@acme" in out
    assert "threshold: 1 valid signatures of the role 'issuer', needs 2" in out
    assert "signed     by 2 keys" in ceremony("job", "cosign", "job.mfjob", "--key", "qa@acme.key")[1]
    assert ceremony("verify", "job.mfjob", "--root", "two.json")[0] == 0


def test_both_keys_may_sign_at_once(ceremony):
    words = ["job", "sign", "job.toml", "--key", "orders@acme.key", "--key", "qa@acme.key", "--json"]
    assert len(document(ceremony(*words))["keyids"]) == 2


def test_an_envelope_without_its_bundle_is_cosigned_and_verified(ceremony, tmp_path):
    ceremony("job", "sign", "job.toml", "--key", "orders@acme.key")
    (tmp_path / "job.dsse.json").write_bytes(read_envelope(tmp_path / "job.mfjob"))
    assert ceremony("job", "cosign", "job.dsse.json", "--key", "qa@acme.key")[0] == 0
    found = document(ceremony("verify", "job.dsse.json", "--root", "root.json", "--json"))
    assert (found["kind"], found["signers"]) == ("envelope", ["orders@acme", "qa@acme"])


def hostile_bundle(tmp_path, content: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "job.mfjob") as good, zipfile.ZipFile(tmp_path / "bad.mfjob", "w") as bad:
        for name in good.namelist():
            bad.writestr(name, content if name.startswith("sha256/") else good.read(name))


def test_a_tampered_program_is_found_and_not_cosigned(ceremony, tmp_path):
    ceremony("job", "sign", "job.toml", "--key", "orders@acme.key")
    hostile_bundle(tmp_path, PROGRAM.replace(b"10", b"99"))
    code, out, _ = ceremony("verify", "bad.mfjob", "--root", "root.json")
    assert code == 2
    assert "body.gcode has the hash" in out
    assert "does not hold" in out
    code, _, err = ceremony("job", "cosign", "bad.mfjob", "--key", "qa@acme.key")
    assert code == 2
    assert "not signed" in err


def test_a_damaged_bundle_is_found(ceremony, tmp_path):
    ceremony("job", "sign", "job.toml", "--key", "orders@acme.key")
    raw = (tmp_path / "job.mfjob").read_bytes()
    (tmp_path / "job.mfjob").write_bytes(raw.replace(PROGRAM, PROGRAM.replace(b"10", b"99")))
    found = document(ceremony("verify", "job.mfjob", "--root", "root.json", "--json"), code=2)
    assert "Bad CRC" in found["problems"][0]


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (PayloadType.COMMAND, "0 valid signatures of the role 'operator', nobody has this role"),
        (PayloadType.BATCH, "no role of a trust root signs this type"),
        ("text/plain", "no role of a trust root signs this type"),
    ],
)
def test_other_envelopes_are_told_by_their_type(ceremony, tmp_path, kind, says):
    (tmp_path / "a.json").write_bytes(sign(kind, b"{}", [private_key("x")]))
    found = document(ceremony("verify", "a.json", "--root", "root.json", "--json"), code=2)
    assert found["problems"] == [says]
    assert found["payload_type"] == kind


def test_a_command_of_an_operator_verifies(ceremony, tmp_path):
    words = "root new --out op.json --name ACME --root root-1.pub --issuer orders@acme.pub --operator qa@acme.pub"
    ceremony(*words.split())
    ceremony("root", "sign", "op.json", "--key", "root-1.key")
    (tmp_path / "a.json").write_bytes(sign(PayloadType.COMMAND, b"{}", [load_private_key(tmp_path / "qa@acme.key")]))
    assert ceremony("verify", "a.json", "--root", "op.json")[0] == 0
    (tmp_path / "b.json").write_bytes(sign(PayloadType.COMMAND, b"{}", [private_key("x")]))
    assert "needs 1" in ceremony("verify", "b.json", "--root", "op.json")[1]


def test_the_parser_imports_nothing_heavy():
    code = (
        "import sys; from edge.cli.main import parser; parser(); "
        "print(sorted({'pydantic', 'cryptography', 'asyncio', 'edge.trust'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, timeout=30, capture_output=True).stdout == b"[]\n"


# The next versions of a root


def test_a_key_is_added_rotated_and_revoked_version_by_version(ceremony):
    for name in ("ops@acme", "new@acme", "root-3"):
        assert ceremony("key", "new", name)[0] == 0
    words = "root add root.json --out 2.json --operator ops@acme.pub --root root-3.pub --threshold root=2 --json"
    made = document(ceremony(*words.split()))
    assert (made["root"]["version"], made["missing"], made["follows"]) == (2, 2, None)
    assert made["root"]["roles"]["operator"]["threshold"] == 1
    document(ceremony(*["root", "sign", "2.json", "--key", "root-3.key", "--json"]))
    document(ceremony(*["root", "sign", "2.json", "--key", "root-2.key", "--json"]))
    shown = document(ceremony(*["root", "show", "2.json", "--after", "root.json", "--json"]))
    assert (shown["valid"], shown["follows"]) == (True, True)
    assert "follows root.json" in ceremony(*["root", "show", "2.json", "--after", "root.json"])[1]
    assert "edge root show 2.json --after FILE" in ceremony(*["root", "show", "2.json"])[1]

    made = document(ceremony(*["root", "rotate", "2.json", "orders@acme", "new@acme.pub", "--out", "3.json", "--json"]))
    names = {key["name"] for key in made["root"]["keys"].values()}
    assert ("new@acme" in names, "orders@acme" in names) == (True, False)
    for name in ("root-1", "root-2"):
        document(ceremony("root", "sign", "3.json", "--key", f"{name}.key", "--json"))
    assert ceremony(*["root", "show", "3.json", "--after", "2.json"])[0] == 0
    code, said, _ = ceremony(*["root", "show", "3.json", "--after", "root.json"])
    assert (code, "version 3, must have 2" in " ".join(said.split())) == (1, True)

    words = ["root", "revoke", "3.json", "qa@acme", "--reason", "laptop stolen", "--compromise", "--out", "4.json"]
    assert "revoked: laptop stolen" in ceremony(*words)[1]
    assert ceremony("verify", "4.json", "--root", "3.json")[0] == 2
    for name in ("root-1", "root-3"):
        assert ceremony("root", "sign", "4.json", "--key", f"{name}.key")[0] == 0
    assert ceremony("verify", "4.json", "--root", "3.json")[0] == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("root add root.json --out x.json", "nothing is added"),
        ("root add root.json --out root.json --issuer root-2.pub", "is there already and is not overwritten"),
        ("root add job.toml --out x.json --issuer root-2.pub", "not JSON"),
        ("root rotate root.json nobody root-2.pub --out x.json", "has no key 'nobody'"),
        ("root rotate root.json qa@acme root-2.pub --out x.json", "is in the trust root already"),
        ("root revoke root.json qa@acme --reason x --out x.json --expires-at soon", "RFC 3339 time in UTC"),
        ("root add root.json --out /nowhere/x.json --issuer root-2.pub", "cannot write /nowhere/x.json"),
    ],
)
def test_a_ceremony_that_goes_wrong_says_so(ceremony, words, says):
    code, _, complaint = ceremony(*words.split())
    assert code == 2
    assert says in complaint


def test_a_root_follows_only_one_that_is_complete(shell):
    for name in ("r1", "i"):
        shell("key", "new", name)
    shell(*["root", "new", "--out", "root.json", "--name", "ACME", "--root", "r1.pub", "--issuer", "i.pub"])
    code, _, complaint = shell(*["root", "revoke", "root.json", "i", "--reason", "lost", "--out", "2.json"])
    assert (code, "has 0 valid signatures" in complaint) == (2, True)


def test_an_expiry_stays_unless_another_is_given(ceremony):
    revoke = ["root", "revoke", "root.json", "qa@acme", "--reason", "left", "--json", "--out"]
    assert document(ceremony(*revoke, "a.json"))["root"]["expires_at"] is None
    timed = document(ceremony(*revoke, "b.json", "--expires-at", "2036-01-01T00:00:00Z"))
    assert timed["root"]["expires_at"] == "2036-01-01T00:00:00Z"
    assert document(ceremony(*revoke, "c.json", "--expires-at", "never"))["root"]["expires_at"] is None


# Commands


def test_a_command_is_signed(ceremony):
    words = "command sign cancel --site berlin-1 --job 01J9ZK3V5Q8M2N4P6R7S9T0W1X --key qa@acme.key -o c.json"
    told = document(ceremony(*words.split(), "--json"))["command"]
    assert (told["issuer"], told["verb"], told["machine"]) == ("qa@acme", "cancel", None)
    command = parse_command(parse(Path("c.json").read_bytes()).payload)
    assert command.expires_at - command.issued_at == timedelta(minutes=10)
    assert "cancel 01J9ZK3V5Q8M2N4P6R7S9T0W1X at berlin-1" in ceremony(*words.split())[1]
    assert ceremony(*words.split(), "--minutes", "11")[0] == 2
    assert "nobody has this role" in " ".join(ceremony("verify", "c.json", "--root", "root.json")[1].split())
    code, _, complaint = ceremony(*words.replace("cancel", "hold").split())
    assert (code, "must name a run_id or an if_revision" in complaint) == (2, True)


def test_whoever_signs_a_command_is_named(ceremony):
    words = "command sign cancel --site berlin-1 --job 01J9ZK3V5Q8M2N4P6R7S9T0W1X --key alone.key -o c.json"
    Path("qa@acme.key").rename("alone.key")
    code, _, complaint = ceremony(*words.split())
    assert (code, "whose key is alone.key?" in complaint) == (2, True)
    assert document(ceremony(*words.split(), "--issuer", "qa@acme", "--json"))["command"]["issuer"] == "qa@acme"


# Passphrases


@pytest.fixture
def locked(shell, tmp_path):
    """A root key and an issuer's key under a passphrase, and the file that it is in."""
    (tmp_path / "pass").write_text("correct horse battery\n")
    (tmp_path / "pass").chmod(0o600)
    for name in ("root-1", "orders@acme"):
        assert shell("key", "new", name, "--passphrase-file", "pass")[0] == 0
    (tmp_path / "body.gcode").write_bytes(PROGRAM)
    (tmp_path / "job.toml").write_text(ORDER)
    shell(
        *["root", "new", "--out", "root.json", "--name", "ACME", "--root", "root-1.pub", "--issuer", "orders@acme.pub"]
    )
    return shell


SIGNING = (
    "root sign root.json --key root-1.key",
    "job sign job.toml --key orders@acme.key",
    "job cosign job.mfjob --key root-1.key",
    "command sign cancel --site b --job 01J9ZK3V5Q8M2N4P6R7S9T0W1X --key orders@acme.key -o c.json",
    "key show orders@acme.key",
)


def test_every_signing_command_asks_for_the_passphrase(locked, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO())  # nobody is at a terminal
    for words in SIGNING:
        code, _, complaint = locked(*words.split())
        assert (code, "--passphrase-file" in complaint) == (2, True), words
        assert locked(*words.split(), "--passphrase-file", "pass")[0] == 0, words
    (tmp_path / "pass").write_text("another one\n")
    code, _, complaint = locked(*SIGNING[-1].split(), "--passphrase-file", "pass")
    assert (code, "orders@acme.key is not opened by this passphrase" in complaint) == (2, True)


def test_a_passphrase_is_asked_twice_at_a_terminal(shell, monkeypatch):
    answers = iter(["correct horse", "correct house", "correct horse", "correct horse", "correct horse"])
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(answers))
    code, _, complaint = shell("key", "new", "a", "--passphrase")
    assert (code, "differ; no key was made" in complaint, Path("a.key").exists()) == (2, True, False)
    assert shell("key", "new", "a", "--passphrase")[0] == 0
    assert shell("key", "show", "a.key")[0] == 0


def test_neither_a_private_key_nor_a_passphrase_is_written_anywhere_else(locked, tmp_path, caplog):
    said = ""
    for words in (*SIGNING, "root revoke root.json orders@acme --reason lost --out 2.json"):
        for more in ("--passphrase-file pass", "--passphrase-file pass --json", "--passphrase-file job.toml"):
            _, out, complaint = locked(*words.split(), *(more.split() if "revoke" not in words else ()))
            said += out + complaint
    passphrase = b"correct horse battery"
    secrets = [passphrase]
    for name in ("root-1.key", "orders@acme.key"):
        seed = load_private_key(tmp_path / name, lambda: passphrase).private_bytes_raw()
        secrets += [seed, seed.hex().encode(), base64.b64encode(seed), (tmp_path / name).read_bytes().splitlines()[1]]
    written = [file for file in tmp_path.rglob("*") if file.is_file() and file.suffix != ".key" and file.name != "pass"]
    assert {file.name for file in written} >= {"root.json", "2.json", "job.mfjob", "c.json"}
    for content in (said.encode(), caplog.text.encode(), *(file.read_bytes() for file in written)):
        assert not [secret for secret in secrets if secret in content]
