"""The facts that a figure depends on: image, machine, versions, commit."""

import json
import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    **{name: name for name in ("isal", "numpy", "xxhash", "multiprocess", "zstandard")},
    "lz4_package": "lz4",
}
"""Python packages, and their names in the facts: a program too is called lz4."""
PEERS = ("igzip", "pigz", "zstd", "lz4")


def processors() -> int:
    """Processors that this process may run on."""
    return len(os.sched_getaffinity(0))


def collect(image: Path) -> dict[str, Any]:
    """All facts, flat, as they stand in each line of the results."""
    return {**_image(image), **_machine(), **_versions()}


def _image(image: Path) -> dict[str, Any]:
    facts = image.stat()
    found = {
        "image": image.name,
        "image_bytes": facts.st_size,
        "image_disk_bytes": facts.st_blocks * 512,
    }
    beside = image.with_name(image.name + ".json")
    if beside.is_file():
        known = json.loads(beside.read_text())
        found |= {f"image_{name}": value for name, value in known.items()}
    return found


def _machine() -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "machine_cpu": _cpu_model(),
        "machine_processors": processors(),
        "machine_memory_bytes": memory,
        "machine_kernel": platform.release(),
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def _versions() -> dict[str, Any]:
    found = {"version_python": platform.python_version(), "version_snapmig": _package("snapmig")}
    found |= {f"version_{name}": _package(package) for name, package in PACKAGES.items()}
    found |= {f"version_{name}": program_version(name) for name in PEERS}
    return {**found, "git_commit": _commit()}


def program_version(name: str) -> str | None:
    """Return what a program says of itself, None where it is not installed."""
    try:
        done = subprocess.run([name, "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    number = re.search(r"\d+\.\d+[.\d]*", done.stdout + done.stderr)
    return number[0].rstrip(".") if number else None


def _package(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def filesystem(path: Path) -> str:
    """Return the kind of filesystem that a folder is on."""
    best, kind = -1, "unknown"
    resolved = path.resolve()
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        mount = Path(left.split()[4])
        if resolved.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), right.split()[0]
    return kind
