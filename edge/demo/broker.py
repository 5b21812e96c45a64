"""The demo's MQTT broker: iotcore, in memory, on 127.0.0.1 only. Ends at SIGTERM.

    python -m edge.demo.broker PORT FOLDER

The file that it writes is rumqttd's own configuration, which is where iotcore turns on MQTT 5.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from edge.errors import UsageError

CONFIG = """\
id = 0

[router]
id = 0
max_connections = 100
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 262144
max_inflight_count = 100
"""


def check() -> None:
    """Raise `UsageError` if the broker is not installed."""
    try:
        import iotcore  # noqa: F401 - only whether it is there
    except ImportError as error:
        raise UsageError("the demo needs a broker: in a clone of edge, pip install '.[sim]'") from error


def main() -> int:
    """Serve until SIGTERM."""
    from iotcore import Broker

    port, folder = sys.argv[1], Path(sys.argv[2])
    config = folder / "broker.toml"
    config.write_text(CONFIG.format(port=port), encoding="utf-8")
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with Broker(config_path=str(config)):
        print(f"broker ready on 127.0.0.1:{port}", flush=True)
        signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
