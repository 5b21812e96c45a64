"""What is wrong with a site's configuration is one clear line on standard error, and exit code 2."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers.site import SITE, SiteFolder


def _site(text: str) -> Callable[[SiteFolder], None]:
    def change(site: SiteFolder) -> None:
        site.config.write_text(text)

    return change


def _replaced(old: str, new: str) -> Callable[[SiteFolder], None]:
    def change(site: SiteFolder) -> None:
        content = site.config.read_text()
        assert old in content
        site.config.write_text(content.replace(old, new))

    return change


def _remove_root(site: SiteFolder) -> None:
    (site.folder / "root.dsse.json").unlink()


def _spoil_root(site: SiteFolder) -> None:
    (site.folder / "root.dsse.json").write_text("{}")


def _file_at_the_socket(site: SiteFolder) -> None:
    site.socket.write_text("precious")


HOLD = "import sys; port = open(sys.argv[1], 'r+b', buffering=0); print('held', flush=True); sys.stdin.read()"

CASES = {
    "garbage": (_site("[site\n"), ["not TOML", "line 1"]),
    "not text": (lambda site: site.config.write_bytes(b"\xff\xfe"), ["not UTF-8 at byte 0"]),
    "no file": (lambda site: site.config.unlink(), ["cannot be read: No such file", "edge init"]),
    "no [site]": (_site(""), ["[site] is missing"]),
    "unknown key": (
        _replaced('id = "berlin-1"', 'id = "berlin-1"\ncolour = "red"'),
        ["site.colour: unknown key", "known here: id"],
    ),
    "unknown table": (
        _site(SITE + "[spoon]\n"),
        ["spoon: unknown key", "known here: site, time, artifacts, spool, machines"],
    ),
    "missing port": (_replaced('port = "', 'url = "'), ["machines[0] (prn-1).connection", "tcp://host:port"]),
    "neither port nor url": (
        _replaced("connection = {port", "connection = {baud = 9600} #"),
        ["either port", "or url"],
    ),
    "unknown connection key": (
        _replaced("baud = ", "speed = "),
        ["connection.speed: unknown key", "port, baud, window, uuid, url"],
    ),
    "driver": (
        _replaced('"gcode"', '"gocde"'),
        ["machines[0] (prn-1).driver", "no driver 'gocde'", "installed: gcode"],
    ),
    "no trust root": (_remove_root, ["root.dsse.json", "No such file", "edge root new"]),
    "a root that is none": (_spoil_root, ["root.dsse.json", "no usable trust root"]),
    "state_dir": (_replaced('"state"', '"site.toml/state"'), ["site.state_dir", "site.toml is no directory"]),
    "socket path": (_replaced('"edge.sock"', f'"{"s" * 120}"'), ["site.socket", "at most 107"]),
    "a file at the socket": (_file_at_the_socket, ["site.socket", "is no socket"]),
}


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("case", CASES)
def test_one_clear_line_and_exit_2(tmp_path: Path, case: str, command: str) -> None:
    change, words = CASES[case]
    site = SiteFolder(tmp_path)
    change(site)
    done = site.edge(command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("edge: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr
    assert not site.state_dir.exists(), "nothing was made"


def test_a_file_at_the_socket_is_still_there_afterwards(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path)
    site.socket.write_text("precious")
    site.edge("run")
    assert site.socket.read_text() == "precious"


def test_a_missing_port_is_told_by_check_and_does_not_keep_the_site_from_running(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path)
    done = site.edge("check")
    assert done.returncode == 2
    assert done.stderr.startswith(f"edge: prn-1: the port {tmp_path}/printer does not exist; there ")
    assert done.stderr.count("\n") == 1
    daemon = site.start(ready="prn-1 is offline")
    offline = f"warning: prn-1 is offline: the port {tmp_path}/printer does not exist; there "
    assert daemon.wait_line("offline").startswith(offline)
    status = site.json("status", code=1)
    assert f"prn-1 is OFFLINE: the port {tmp_path}/printer does not exist" in status["attention"][0]["text"]
    assert daemon.end() == 0


def test_a_port_that_another_process_holds_is_told_with_its_holder(tmp_path: Path) -> None:
    ours, theirs = os.openpty()
    try:
        (tmp_path / "printer").symlink_to(os.ttyname(theirs))
        command = [sys.executable, "-c", HOLD, os.ttyname(theirs)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, close_fds=True) as holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            site = SiteFolder(tmp_path)
            done = site.edge("check")
            assert done.returncode == 2
            assert done.stderr.count("\n") == 1
            assert f"(process {holder.pid})" in done.stderr
            daemon = site.start(ready="prn-1 is offline")
            assert f"(process {holder.pid})" in daemon.wait_line("prn-1 is offline")
            assert daemon.end() == 0
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_private_key_without_permission(tmp_path: Path) -> None:
    key = tmp_path / "orders.key"
    key.write_text("secret")
    key.chmod(0)
    _refused_to_sign(tmp_path, key, "Permission denied")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda key: None, "No such file"),
        (lambda key: key.mkdir(), "Is a directory"),
        (lambda key: (key.write_text("garbage"), key.chmod(0o600)), "holds no private key"),
        (lambda key: (key.write_text("secret"), key.chmod(0o640)), "chmod 600"),
    ],
)
def test_a_private_key_that_cannot_be_used(tmp_path: Path, make: Callable[[Path], object], words: str) -> None:
    key = tmp_path / "orders.key"
    make(key)
    _refused_to_sign(tmp_path, key, words)


def _refused_to_sign(folder: Path, key: Path, words: str) -> None:
    (folder / "order.toml").write_text('site = "berlin-1"\n')
    site = SiteFolder(folder)
    done = site.edge("job", "sign", "order.toml", "--key", str(key))
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert words in done.stderr


def test_a_newcomer_is_led_by_the_hand_from_an_empty_folder_to_a_site_that_runs(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path, "")
    for path in (site.config, tmp_path / "root.dsse.json"):
        path.unlink()
    assert "--site: is 'my site', must be 1 to 64" in site.edge("init", "new", "--site", "my site").stderr
    assert not (tmp_path / "new").exists(), "what `edge check` refuses is not written"
    made = site.edge("init", ".").stdout
    assert f"edge check --config {site.config}" in made
    assert site.edge("init", ".").returncode == 2, "nothing is overwritten"
    first = site.edge("check")
    assert "edge root new" in first.stderr
    before = site.edge("status")
    assert before.returncode == 1
    assert "this site has not run yet" in before.stdout
    assert "edge run" in before.stdout
    typed = [line.strip() for line in made.replace("\\\n", "").splitlines()]
    for line in typed:
        if line.startswith(("edge key", "edge root")):
            assert site.edge(*line.split()[1:]).returncode == 0, line
    second = site.edge("check")
    assert second.returncode == 1
    assert "no machine yet: add a table [[machines]] to it" in second.stdout
    template = site.config.read_text()
    table = template[template.index("# [[machines]]") :]
    site.config.write_text(template.replace(table, table.replace("\n# ", "\n").removeprefix("# ")))
    third = site.edge("check")
    assert (third.returncode, third.stderr.count("\n")) == (2, 1), third
    assert "does not exist" in third.stderr
    site.config.write_text(template + '\n[spool]\ndir = "nowhere"\n')
    fourth = site.edge("check")
    assert (fourth.returncode, fourth.stderr) == (1, f"edge: spool: {tmp_path / 'nowhere'} is no directory; make it\n")


def test_no_configuration_at_all_says_where_one_was_looked_for(tmp_path: Path) -> None:
    command = SiteFolder(tmp_path).command("status")
    place = command.index("--config")
    (tmp_path / "empty").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "EDGE_CONFIG"}
    done = subprocess.run(
        [*command[:place], *command[place + 2 :]],
        cwd=tmp_path / "empty",
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "edge init" in done.stderr


def test_a_stale_socket_of_a_killed_daemon_is_replaced(tmp_path: Path) -> None:
    site = SiteFolder(tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(site.socket))
    assert site.edge("check").stderr.startswith("edge: prn-1: the port")
    assert site.start(ready="is up").end() == 0
