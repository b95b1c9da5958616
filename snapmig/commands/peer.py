"""Options of verbs whose other end of a migration belongs to somebody else."""

from __future__ import annotations

from snapmig.commands.arguments import Options
from snapmig.operations.options.peer import CHANNELS

__all__ = ("add_peer",)


def add_peer(parser: Options, *, insecure: str, timeout: str) -> None:
    """
    Add them.

    :param insecure: help of ``--insecure``
    :param timeout: help of ``--timeout``
    """
    parser.add_argument(
        "--channels",
        type=int,
        default=CHANNELS,
        metavar="N",
        help=f"multifd-channels of that QEMU, 0 without multifd ({CHANNELS})",
    )
    parser.add_argument("--tls", metavar="DIR", help="certificates as for QEMU's tls-creds-x509")
    parser.add_argument("--insecure", action="store_true", help=insecure)
    parser.add_argument("--timeout", type=float, metavar="S", help=timeout)
