"""
A guest saved while Cloud Hypervisor hands it over: ``python -m tests.bench.hand_over IMAGE``.

Seconds that the guest stands still for it, from the last request to the answer, beside a daemon
that only copies.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.support.program import PROGRAM

_SAVE = (*PROGRAM, "daemon", "cloud-hypervisor", "--listen")


def measure(command: Sequence[object], socket: Path, image: Path, target: Path) -> str:
    """Return a row of the table, without its name."""
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stderr.readline()
    words = {"do": "send", "reference": str(image), "socket": str(socket)}
    sender = [sys.executable, "-m", "tests.support.vmm.cloud_hypervisor", json.dumps(words)]
    done = subprocess.run(sender, check=True, capture_output=True, text=True)
    process.communicate()
    found = json.loads(done.stdout)
    assert all(found["answers"])
    assert process.returncode == 0
    return f"{found['seconds']:.2f} s | {target.stat().st_blocks / 2048:.0f} MiB"


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", type=Path)
    options = parser.parse_args()
    print("| daemon | guest stands still | on disk |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        socket, target = folder / "s", folder / "guest.snap"
        for compression in ("zlib", "zstd", "lz4", "none"):
            save = [*_SAVE, socket, "-f", "--compression", compression, target]
            print(f"| {compression} |", measure(save, socket, options.image, target), "|")
        older = target.rename(folder / "older.snap")
        save = [*_SAVE, socket, "--parent", older, target]
        print("| zlib, nothing changed |", measure(save, socket, options.image, target), "|")
        plain = [sys.executable, "-m", "tests.support.vmm.plain_receiver", socket, target]
        print("| plain copy |", measure(plain, socket, options.image, target), "|")


if __name__ == "__main__":
    main()
