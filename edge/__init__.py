"""The edge runtime for micro-factories, a folder for each thing it does.

    daemon.py    everything wired by hand: where to begin reading
    serving/     the running site, as the local socket shows and steers it
    uplink/      what goes to the centre, and comes from it                    collector/  the centre's end of it
    running/     from an accepted order to a machine at work
    guard/       machines made safe while no daemon runs
    intake/      signed bytes from anywhere, judged; who may sign
    artifacts/   the files that orders name
    reading/     what the journal says, for those who only look
    journal/     what happened: events, chained and folded into tables
    trust/       envelopes, roots, signatures: who may say what                PURE but for its key files
    model/       orders, commands, events and configuration as typed values
    jobstate.py  how steps move: the one table                                 PURE

Beside them `driver.py` and `testing/`, all that an author of drivers needs; `transcript.py`, what crossed a wire as
text (PURE); `cli/` and `demo/`; and what several of these stand on: errors, clocks, files, logs. Each folder imports
from those below it alone, which `make check` proves.
"""

DISTRIBUTION = "microfactory-edge"
"""The name under which it is installed."""
