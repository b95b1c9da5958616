"""Arguments that several verbs share, and the shape of their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NoReturn

from snapmig.architectures import ARCHITECTURES
from snapmig.encodings.compressions import COMPRESSIONS
from snapmig.encodings.engines import ENGINES
from snapmig.errors import SnapmigError
from snapmig.guests.wait import parse_monitor_timeout
from snapmig.operations.options.addresses import parse_addresses
from snapmig.operations.options.parse import WINDOWS, default_jobs, parse_packet_size
from snapmig.operations.runs.workers import parse_rate
from snapmig.printable import printable

__all__ = (
    "Parser",
    "Verbs",
    "add_accelerator",
    "add_addresses",
    "add_bwlimit",
    "add_common",
    "add_encoding",
    "add_jobs",
    "add_monitor_timeout",
    "add_page_digests",
    "add_progress",
    "add_remote_parents",
    "checked",
)

Verbs = Any
"""What argparse's ``add_subparsers`` returns; the type has no public name."""


class Parser(argparse.ArgumentParser):
    """A parser of the program, or of a verb; its help and its errors have one form."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, **options)

    def error(self, message: str) -> NoReturn:
        """End the program for an error of usage, with nothing in it that a terminal obeys."""
        super().error(printable(message))


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help of 80 columns with each option on a line of its own where that is possible."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=80)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """Add ``--jobs``."""
    parser.add_argument(
        "-j",
        "--jobs",
        type=int,
        metavar="N",
        help=f"worker processes, as channels in multifd ({default_jobs()})",
    )


def add_accelerator(parser: argparse.ArgumentParser) -> None:
    """Add which engine does deflate, and how much it has in flight."""
    parser.add_argument(
        "--accelerator",
        choices=("auto", *ENGINES),
        default="auto",
        metavar="NAME",
        help='what does zlib, see "snapmig accelerators" (auto)',
    )
    parser.add_argument(
        "--depth", type=int, metavar="N", help="packets in flight per worker, where it can"
    )


def add_addresses(parser: argparse.ArgumentParser) -> None:
    """Add where RAM is for the guest's processors, and what these are."""
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        type=_checked_address,
        metavar="BLOCK=GPA",
        help="guest physical address of BLOCK, or of BLOCK@OFFSET",
    )
    parser.add_argument(
        "--arch",
        choices=ARCHITECTURES,
        metavar="NAME",
        help="the guest's architecture: x86_64, aarch64, ...",
    )


def _checked_address(text: str) -> str:
    try:
        parse_addresses([text])
    except SnapmigError as error:
        raise argparse.ArgumentTypeError(error.message) from error
    return text


def add_encoding(parser: argparse.ArgumentParser, *, again: bool = False) -> None:
    """
    Add how packets are stored.

    :param again: the default is what a snapshot has already
    """

    def default(word: str) -> str:
        return "as it is" if again else word

    parser.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default=None if again else "zlib",
        metavar="NAME",
        help=f"zlib (read everywhere), zstd, lz4, none ({default('zlib')})",
    )
    add_accelerator(parser)
    parser.add_argument(
        "--level",
        metavar="N",
        help="zlib 0 to 3 (4 to 9 are slow: without ISA-L), zstd -7\n"
        "to 19, lz4 1 to 12; auto follows the disk's speed (1)",
    )
    parser.add_argument(
        "--window",
        choices=WINDOWS,
        metavar="SIZE",
        help=f"of zlib: 32k, or 4k for hardware's decoders ({default('32k')})",
    )
    if not again:
        parser.add_argument(
            "--huffman",
            choices=("dynamic", "fixed", "trained"),
            default="dynamic",
            metavar="KIND",
            help="qpl's tables: dynamic, fixed, trained (dynamic)",
        )
    parser.add_argument(
        "--packet-size",
        type=checked(parse_packet_size),
        metavar="SIZE",
        help=f"64K to 4M of RAM at once ({default('512K, or the parent has')})",
    )
    parser.add_argument(
        "--layout",
        choices=("fixed", "packed"),
        metavar="KIND",
        help=f"fixed places with holes, or packed as on s3:// ({default('fixed')})",
    )
    add_page_digests(parser, default("parent's"))


def add_page_digests(parser: argparse.ArgumentParser, default: str) -> None:
    """
    Add ``--page-digests`` and its contrary.

    :param default: in words
    """
    parser.add_argument(
        "--page-digests",
        action="store_true",
        default=None,
        help=f"for faster saves on it; --no-page-digests ({default})",
    )
    parser.add_argument(
        "--no-page-digests", dest="page_digests", action="store_false", help=argparse.SUPPRESS
    )


def add_remote_parents(parser: argparse.ArgumentParser) -> None:
    """Add ``--follow-remote-parents``."""
    parser.add_argument(
        "--follow-remote-parents",
        action="store_true",
        help="find parents anywhere (beside a snapshot and below)",
    )


def add_bwlimit(parser: argparse.ArgumentParser) -> None:
    """Add ``--bwlimit``."""
    parser.add_argument(
        "--bwlimit",
        type=checked(parse_rate),
        metavar="RATE",
        help="write at most RATE bytes per second, like 200M",
    )


def add_monitor_timeout(parser: argparse.ArgumentParser, default: str = "30") -> None:
    """
    Add ``--monitor-timeout``.

    :param default: in words
    """
    parser.add_argument(
        "--monitor-timeout",
        type=checked(parse_monitor_timeout),
        metavar="S",
        help=f"seconds for a guest's QEMU to answer ({default})",
    )


def add_progress(parser: argparse.ArgumentParser) -> None:
    """Add ``--progress``."""
    parser.add_argument(
        "--progress",
        choices=("auto", "tty", "json", "none"),
        default="auto",
        metavar="KIND",
        help="auto (a bar on a terminal), tty, json (lines), none",
    )


def add_common(
    parser: argparse.ArgumentParser, json_help: str = "print the result as a line of JSON"
) -> None:
    """Add what every verb has."""
    parser.add_argument("--json", action="store_true", help=json_help)
    parser.add_argument("--debug", action="store_true", help="show where in the code it failed")


def checked(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a parser of one argument whose refusal argparse shows with the option's name."""

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except SnapmigError as error:
            raise argparse.ArgumentTypeError(error.message) from error

    return parse_argument
