"""What `m1ctl run` adds to the start of a program: from the call to the program's first line, beside a plain start.

    python bench/program_start.py [--turns 20]

Both by turns, on a daemon and a home of its own. Prints medians and all values, in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from m1ctl import connect

TELLS = "import sys, time; open(sys.argv[1], 'w').write(repr(time.time()))"


def started_after_ms(start: float, said: Path) -> float:
    return 1e3 * (float(said.read_text()) - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=20)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory(prefix="m1-", dir="/tmp") as folder:
        home, said = Path(folder) / "h", Path(folder) / "said"
        m1ctl = [sys.executable, "-P", "-m", "m1ctl", "--home", str(home)]
        subprocess.run([*m1ctl, "daemon", "start"], check=True, capture_output=True)
        command = [sys.executable, "-c", TELLS, str(said)]
        plain, sdk, typed = [], [], []
        try:
            with connect(home) as client:
                for _ in range(turns):
                    start = time.time()
                    subprocess.run(command, check=True)
                    plain.append(started_after_ms(start, said))
                    start = time.time()
                    client.wait(client.run(command, directory=folder))
                    sdk.append(started_after_ms(start, said))
                    start = time.time()
                    done = subprocess.run([*m1ctl, "run", "--", *command], check=True, capture_output=True, text=True)
                    client.wait(client.get(done.stdout.split()[0]))
                    typed.append(started_after_ms(start, said))
        finally:
            subprocess.run([*m1ctl, "daemon", "stop"], check=True, capture_output=True)
    for name, values in (("plain", plain), ("SDK's run", sdk), ("m1ctl run", typed)):
        shown = " ".join(f"{value:.0f}" for value in values)
        print(f"{name:10}  median {statistics.median(values):.0f} ms  (n = {turns}: {shown})")


if __name__ == "__main__":
    main()
