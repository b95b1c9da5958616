"""Debian packages taken from the machine's own apt and unpacked into folders, never installed."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

# Alternatives and helpers for installation scripts, useless in a plain file tree.
UNWANTED = frozenset({"locales", "locales-all", "mailcap", "mime-support", "debconf", "dpkg"})
MERGED = ("bin", "lib", "lib64", "sbin")
UNPACK = 'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --no-same-owner --keep-directory-symlink'
DEPENDENCY = re.compile(r"^ ([ |])(?:Pre)?Depends: (\S+)$")


class PackagesError(Exception):
    """The packages are not available here; the text gives the reason."""


def run_tool(*command: str, folder: Path | None = None) -> str:
    """Run a program and return its output; raise PackagesError if it fails."""
    program = shutil.which(command[0], path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if program is None:
        raise PackagesError(f"{command[0]} is not on this machine")
    done = subprocess.run(
        [program, *command[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PackagesError(f"{' '.join(command[:2])} failed: {last}")
    return done.stdout


def first_alternatives(listing: str) -> set[str]:
    """Read `apt-cache depends`: the first package to satisfy each dependency."""
    found: set[str] = set()
    in_alternative = virtual = False
    for line in listing.splitlines():
        match = DEPENDENCY.match(line)
        if match:
            name = match[2]
            virtual = name.startswith("<") and not in_alternative
            if not in_alternative and not virtual:
                found.add(name)
            in_alternative = match[1] == "|"
        elif virtual and line.startswith("    "):
            found.add(line.strip())
            virtual = False
    return found


def closure(names: Iterable[str]) -> list[str]:
    """Return the named packages and all their dependencies, sorted."""
    known: set[str] = set()
    fresh = set(names)
    while fresh:
        known |= fresh
        listing = run_tool("apt-cache", "depends", "-i", *sorted(fresh))
        fresh = first_alternatives(listing) - known - UNWANTED
    return sorted(known)


def unpack(names: Iterable[str], root: Path) -> None:
    """Download packages and unpack them below root."""
    root.mkdir(parents=True, exist_ok=True)
    quiet = ("-q", "-o", "APT::Sandbox::User=root")
    with tempfile.TemporaryDirectory(dir=root.parent) as name:
        folder = Path(name)
        run_tool("apt-get", *quiet, "download", *names, folder=folder)
        for package in sorted(folder.glob("*.deb")):
            run_tool("sh", "-c", UNPACK, "sh", str(package), str(root))


def merge_usr(root: Path) -> None:
    """Make /bin, /lib, /lib64 and /sbin links into /usr, as Debian does."""
    for name in MERGED:
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
