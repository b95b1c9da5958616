"""Authorities and certificates in the folders of QEMU's ``tls-creds-x509``, made by openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.support.requirements import requires

ENDS = ("server", "client")


def make_authority(folder: Path) -> Path:
    """Make an authority's key and certificate in a new folder."""
    requires("openssl")
    folder.mkdir()
    _run(folder, "req", "-x509", "-days", "2", "-subj", "/CN=authority", *_new_key("ca"))
    return folder


def make_ends(authority: Path, folder: Path, address: str, days: int = 2) -> Path:
    """
    Make a new folder with an authority's certificate, and keys and certificates of both ends.

    :param address: of the server
    :param days: for which they are valid; negative ones have passed
    """
    folder.mkdir()
    for name in ("ca-cert.pem", "ca-key.pem"):
        shutil.copy(authority / name, folder)
    (folder / "names").write_text(f"subjectAltName=IP:{address}\n")
    for end in ENDS:
        subject = ("-subj", f"/CN={end}")
        _run(folder, "req", "-out", f"{end}.csr", *subject, *_new_key(end, certificate=False))
        signed = ("-CA", "ca-cert.pem", "-CAkey", "ca-key.pem", "-extfile", "names")
        wanted = ("-CAcreateserial", "-in", f"{end}.csr", "-out", f"{end}-cert.pem")
        _run(folder, "x509", "-req", "-days", str(days), *signed, *wanted)
    (folder / "ca-key.pem").unlink()
    return folder


def _new_key(name: str, *, certificate: bool = True) -> list[str]:
    key = ["-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}-key.pem"]
    return [*key, "-out", f"{name}-cert.pem"] if certificate else key


def _run(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)
