"""site.toml: where it is found, and the one sentence about what is wrong in it: file, field, value, what is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge import sitefile
from edge.errors import ConfigError
from edge.model.site import SiteConfig, validate

SITE = """\
[site]
id = "berlin-1"
state_dir = "state"
socket = "edge.sock"
trust_root = "root.dsse.json"
"""
MACHINE = """\
[[machines]]
id = "prn-1"
driver = "gcode"
processes = ["fdm"]
connection = {port = "/dev/ttyUSB0"}
"""


def load(folder: Path, text: str) -> SiteConfig:
    file = folder / "site.toml"
    file.write_text(text)
    return validate(sitefile.read(file))


def complaint(folder: Path, text: str) -> str:
    """The sentence, without the file's name, which it begins with."""
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    sentence = str(caught.value)
    assert sentence.startswith(f"{folder}/site.toml: ")
    assert "\n" not in sentence
    return sentence.removeprefix(f"{folder}/site.toml: ")


def test_paths_are_relative_to_the_file(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir("/")
    (tmp_path / "profiles").mkdir()
    site = load(tmp_path, SITE + 'profiles_dir = "profiles"\n').site
    assert site.state_dir == tmp_path / "state"
    assert site.socket == tmp_path / "edge.sock"
    assert site.trust_root == tmp_path / "root.dsse.json"
    assert site.profiles_dir == tmp_path / "profiles"


def test_absolute_paths_stay_what_they_are(tmp_path) -> None:
    site = load(tmp_path, SITE.replace('"state"', '"/var/lib/edge"').replace('"edge.sock"', '"/run/e.sock"')).site
    assert (site.state_dir, site.socket, site.profiles_dir) == (Path("/var/lib/edge"), Path("/run/e.sock"), None)


def test_machines_come_in_the_order_of_the_file_with_their_defaults(tmp_path) -> None:
    config = load(tmp_path, SITE + MACHINE + MACHINE.replace("prn-1", "A.b_2"))
    assert [machine.id for machine in config.machines] == ["prn-1", "A.b_2"]
    first = config.machines[0]
    assert (first.profile, first.properties, first.limits, first.record) == ("auto", {}, {}, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 'site: the table [site] is missing; it begins with id = "berlin-1"'),
        ("site = 5\n", 'site: the table [site] is missing; it begins with id = "berlin-1"'),
        (SITE.replace('id = "berlin-1"\n', ""), 'site.id: is missing; write id = "berlin-1"'),
        (SITE.replace('"berlin-1"', "5"), 'site.id: is 5, must be a text; write id = "berlin-1"'),
        (SITE.replace('"berlin-1"', '""'), "site.id: is '', must be a text; write id = \"berlin-1\""),
        (
            SITE.replace("berlin-1", "Berlin West"),
            "site.id: is 'Berlin West', must be 1 to 64 letters, digits, '.', '_' or '-', beginning with a letter or"
            " digit",
        ),
        (
            SITE.replace('trust_root = "root.dsse.json"', ""),
            'site.trust_root: is missing; add trust_root = "root.dsse.json"',
        ),
        (
            SITE.replace("trust_root =", "trustroot ="),
            "site.trustroot: unknown key; known here: id, state_dir, socket, trust_root",
        ),
        (
            SITE + "colour = 1\n",
            "site.colour: unknown key; known here: id, state_dir, socket, trust_root, profiles_dir",
        ),
        (SITE + "[spoon]\n", "spoon: unknown key; known here: site, time, artifacts, spool, machines"),
        (SITE + 'machines = "prn-1"\n', "site.machines: unknown key; known here: id, state_dir, socket, trust_root,"),
        ('machines = "x"\n' + SITE, "machines: is 'x', must be a valid list"),
        (SITE + MACHINE.replace("processes", "proceses"), "machines[0].proceses: unknown key; known here: id, driver"),
        (SITE + MACHINE.replace('driver = "gcode"\n', ""), 'machines[0].driver: is missing; add driver = "gcode"'),
        (SITE + MACHINE.replace('"gcode"', "7"), "machines[0].driver: is 7, must be a valid string"),
        (
            SITE + MACHINE + "nozzle = 1\n",
            "machines[0].nozzle: unknown key; known here: id, driver, profile, processes, connection, properties,"
            " limits, record",
        ),
        (SITE + MACHINE + 'record = "yes"\n', "machines[0].record: is 'yes', must be a valid boolean"),
        (SITE + MACHINE.replace('["fdm"]', "[]"), "machines[0].processes: is [], "),
        (SITE + MACHINE.replace('["fdm"]', '["fdm", "fdm"]'), "machines[0].processes: 'fdm' stands 2 times"),
        (
            SITE + MACHINE.replace('["fdm"]', '["FDM"]'),
            "machines[0].processes[0]: is 'FDM', must be the name of a process such as 'fdm' or 'robot.tend'",
        ),
        (SITE + MACHINE + MACHINE, "machines.id: 'prn-1' stands 2 times; each machine needs its own"),
        (
            SITE + MACHINE + "properties = {x = []}\n",
            "machines[0].properties.x: is [], must be a text, a finite number, true or false",
        ),
        (SITE + MACHINE + "properties = {x = nan}\n", "machines[0].properties.x: is nan, must be a text, a finite"),
        (SITE.replace("edge.sock", "s" * 110), "site.socket: "),
        (SITE + 'profiles_dir = "nowhere"\n', "site.profiles_dir: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, expected) -> None:
    assert complaint(tmp_path, text).startswith(expected)


def test_a_socket_path_that_is_too_long_says_how_long_it_is_and_may_be(tmp_path) -> None:
    long = f"/tmp/{'s' * 103}"
    said = complaint(tmp_path, SITE.replace('"edge.sock"', f'"{long}"'))
    assert f"{long} has 108 bytes" in said
    assert "at most 107" in said
    assert load(tmp_path, SITE.replace('"edge.sock"', f'"{long[:-1]}"')).site.socket == Path(long[:-1])


def test_what_is_no_toml_says_where(tmp_path) -> None:
    assert complaint(tmp_path, "[site\n").startswith("not TOML: ")
    (tmp_path / "site.toml").write_bytes(b"[site]\n\xff")
    with pytest.raises(ConfigError, match="not UTF-8 at byte 7"):
        sitefile.read(tmp_path / "site.toml")
    with pytest.raises(ConfigError, match=r"missing\.toml: cannot be read: No such file or directory; .*edge init"):
        sitefile.read(tmp_path / "missing.toml")


def test_files_and_spool_have_their_places_and_limits(tmp_path) -> None:
    config = load(tmp_path, SITE)
    assert (config.artifacts.max_bytes, config.artifacts.ca, config.spool) == (8 * 1024**3, None, None)
    more = '[artifacts]\nmax_bytes = 5\nca = "ca.pem"\n[spool]\ndir = "/media/stick"\n'
    config = load(tmp_path, SITE + more)
    assert (config.artifacts.max_bytes, config.artifacts.ca) == (5, tmp_path / "ca.pem")
    assert config.spool is not None
    assert config.spool.dir == Path("/media/stick")


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ("[artifacts]\nmax_bytes = 0", "artifacts.max_bytes: is 0, must be greater than or equal to 1"),
        ('[artifacts]\nsize = "1G"', "artifacts.size: unknown key; known here: max_bytes, ca"),
        ("[spool]", 'spool.dir: is missing; add dir = "/var/spool/edge"'),
        ('[spool]\npath = "/x"\ndir = "x"', "spool.path: unknown key; known here: dir"),
    ],
)
def test_a_wrong_table_of_files_or_spool_is_named(tmp_path, table: str, says: str) -> None:
    assert complaint(tmp_path, f"{SITE}{table}\n").startswith(says)


# Where it is found


def test_the_file_is_looked_for_in_order(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sitefile, "PLACES", (Path("site.toml"), tmp_path / "etc.toml"))
    monkeypatch.delenv("EDGE_CONFIG", raising=False)
    with pytest.raises(ConfigError, match=r"neither site\.toml nor .*edge init"):
        sitefile.find(None)
    (tmp_path / "etc.toml").write_text(SITE)
    assert sitefile.find(None) == tmp_path / "etc.toml"
    (tmp_path / "site.toml").write_text(SITE)
    assert sitefile.find(None) == Path("site.toml")
    monkeypatch.setenv("EDGE_CONFIG", "other.toml")
    assert sitefile.find(None) == Path("other.toml")
    assert sitefile.find(Path("given.toml")) == Path("given.toml")


def test_what_the_centre_may_do_is_off_unless_the_site_says_otherwise(tmp_path) -> None:
    off = load(tmp_path, SITE + MACHINE).remote
    assert (off.allow_clear, off.allow_release) == (False, False)
    some = load(tmp_path, SITE + "[remote]\nallow_clear = true\n" + MACHINE).remote
    assert (some.allow_clear, some.allow_release) == (True, False)
    told = complaint(tmp_path, SITE + "[remote]\nallow_start = true\n" + MACHINE)
    assert told == "remote.allow_start: unknown key; known here: allow_clear, allow_release"


UPLINK = (
    SITE
    + """
[uplink]
kind = "mqtt"
url = "mqtts://broker.acme"
ca = "ca.pem"
certificate = "site.crt"
key = "site.tls.key"
"""
)


def test_an_uplink_is_read_with_its_files_beside_the_site_file(tmp_path: Path) -> None:
    found = load(tmp_path, UPLINK).uplink
    assert found is not None
    assert (found.host, found.port, found.tls) == ("broker.acme", 8883, True)
    assert (found.ca, found.certificate) == (tmp_path / "ca.pem", tmp_path / "site.crt")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("mqtts://broker.acme", "http://broker.acme"), "uplink.url: is 'http://broker.acme'; write mqtts://HOST"),
        (("mqtts://broker.acme", "mqtts://"), "uplink.url"),
        (("mqtts://broker.acme", "mqtts://broker.acme:port"), "uplink.url"),
        (("mqtts://broker.acme", "mqtts://user@broker.acme"), "uplink.url"),
        (("mqtts://broker.acme", "mqtt://127.0.0.1"), "which speaks no TLS"),
        (('key = "site.tls.key"\n', ""), "uplink.key: is missing; it belongs to uplink.certificate"),
        (('certificate = "site.crt"\n', ""), "uplink.certificate: is missing; it belongs to uplink.key"),
        (('kind = "mqtt"', 'kind = "amqp"'), "uplink.kind"),
        (
            ('kind = "mqtt"', 'kind = "mqtt"\nuser = "me"'),
            "uplink.password_file: is missing; it belongs to",
        ),
        (('kind = "mqtt"', 'kind = "mqtt"\npassword_file = "p"'), "uplink.user: is missing; it belongs to"),
        (('kind = "mqtt"', 'kind = "mqtt"\ntelemetry_every_s = 0.5'), "is 0.5, must be 0 for never, or at least 1"),
        (('kind = "mqtt"', 'kind = "mqtt"\ntelemetry_every_s = nan'), "uplink.telemetry_every_s"),
        (('kind = "mqtt"', 'kine = "mqtt"'), "uplink.ki"),
    ],
)
def test_an_uplink_that_is_wrong_is_told_with_what_would_be_right(
    tmp_path: Path, change: tuple[str, str], words: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, UPLINK.replace(*change))
    assert words in str(raised.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_a_broker_on_this_host_needs_no_tls_and_any_other_does(tmp_path: Path, host: str) -> None:
    found = load(tmp_path, SITE + f'[uplink]\nkind = "mqtt"\nurl = "mqtt://{host}"\n').uplink
    assert found is not None
    assert (found.port, found.tls) == (1883, False)
    with pytest.raises(ConfigError, match="anybody on the way"):
        load(tmp_path, SITE + '[uplink]\nkind = "mqtt"\nurl = "mqtt://broker.acme"\n')


@pytest.mark.parametrize("port", ["0", "70000", '"many"'])
def test_a_metrics_port_that_is_none_is_refused(tmp_path: Path, port: str) -> None:
    with pytest.raises(ConfigError, match=r"metrics\.port"):
        load(tmp_path, SITE + f"[metrics]\nport = {port}\n")


@pytest.mark.parametrize("url", ["mqtts://me:secret@broker.acme", "mqtts://me:secret@[broken", "http://me:secret@b"])
def test_a_password_in_the_address_is_refused_and_not_repeated(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, UPLINK.replace("mqtts://broker.acme", url))
    assert "they belong into uplink.user and uplink.password_file" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_a_login_is_read_with_its_file_beside_the_site_file(tmp_path: Path) -> None:
    found = load(tmp_path, UPLINK + 'user = "me"\npassword_file = "secret/password"\ntelemetry_every_s = 0\n').uplink
    assert found is not None
    assert (found.user, found.password_file) == ("me", tmp_path / "secret" / "password")
    assert found.telemetry_every_s == 0
