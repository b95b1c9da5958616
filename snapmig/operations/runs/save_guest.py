"""``save qmp:SOCKET`` and ``libvirt:DOMAIN``: a running guest, its RAM and its device state."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from pathlib import Path

from snapmig.attachments import DOMAIN_XML, VIA, source_attachments
from snapmig.container.format import Layout
from snapmig.errors import UsageError
from snapmig.geometry import PAGE_SIZE, Geometry, RamBlock, block_problem
from snapmig.guests.addresses import Addresses, find_addresses, pieces_of_blocks
from snapmig.guests.domain import Domain
from snapmig.guests.guest import MOST_CHANNELS, Guest, Pause
from snapmig.guests.limits import LiveLimits
from snapmig.guests.monitor import MonitorError
from snapmig.guests.outgoing import (
    Outgoing,
    migrating,
    migrating_in_background,
    migrating_over_stream,
    open_stream,
)
from snapmig.images.file import ImageFile
from snapmig.images.formats import open_image
from snapmig.images.qemu.attachments import SHARED_STATE
from snapmig.images.readers.files import Part
from snapmig.images.readers.parts import PartsImage
from snapmig.images.source import ImageSource
from snapmig.migration.connections import Connections, PrivateSocket, accept_all
from snapmig.migration.main_channel import MainChannel
from snapmig.migration.wire import MigrationError
from snapmig.operations.options.parse import (
    BACKGROUND,
    GUEST_FORMAT,
    MAPPED_RAM,
    MULTIFD,
    SHARED,
    STREAM,
    guest_name,
)
from snapmig.operations.options.save import SaveOptions, SaveResult
from snapmig.operations.runs.guest_facts import FACTS, describe
from snapmig.operations.runs.receive import HEAD_S, Receiver, open_receiver
from snapmig.operations.runs.save import open_save_run
from snapmig.stores.location import Location
from snapmig.stores.opening import check_location
from snapmig.system.files import NamelessFile, descriptor_path, pread_all
from snapmig.system.libc import huge_page_size

__all__ = ("STATE", "save_guest")

STATE = SHARED_STATE


class UnreachableError(MonitorError):
    """QEMU could not connect to us: our socket is not in its mount namespace, or forbidden."""


_NEEDS_FIXED = "pages that come in any order, or again, need the fixed layout"
_REMEDY = "memory-backend-file with share=on and mem-path avoids that"
_DOMAIN_REMEDY = (
    "<source type='file'/> and <access mode='shared'/> in the domain's <memoryBacking> avoid that"
)
_HIDDEN_REMEDY = "root, or QEMU's user, can avoid that"


def save_guest(source: str | Domain, path: Location, options: SaveOptions) -> SaveResult:
    """
    Save the guest behind a monitor's socket, or of libvirt's, and let it continue.

    :raises MonitorError: QEMU's monitor can't be reached, or refused a command
    :raises UsageError: the way asked for can't be gone with this guest
    """
    check_location(path, force=options.force)
    shown = guest_name(source)
    with Guest(source, options.monitor) as guest:
        guest.check_can_be_saved()
        if options.live == BACKGROUND and guest.status != "running":
            options = options._replace(live=False)  # older QEMUs would have it run afterwards
        way = _choose_way(guest, options)
        try:
            result = _WAYS[way](guest, shown, path, options)
        except UnreachableError as error:
            if options.via is not None or options.live:
                raise
            way = MAPPED_RAM
            result = _save_through_file(guest, shown, path, options)
            warning = f"QEMU can't connect to a socket of ours: {error.message}"
            result = replace(result, warnings=(warning, *result.warnings))
        return replace(result, via=way)


def _choose_way(guest: Guest, options: SaveOptions) -> str:
    if options.live == BACKGROUND:
        return _way_in_background(guest, options)
    problems = {SHARED: guest.unshared, MULTIFD: None, MAPPED_RAM: None}
    if options.layout != Layout.FIXED:
        problems[MULTIFD] = problems[STREAM] = _NEEDS_FIXED
    elif options.via == STREAM:
        problems[STREAM] = guest.stream_problem(background=False)
    elif options.via == MULTIFD or guest.unshared is not None:
        problems[MULTIFD] = guest.multifd_problem or (guest.live_problem if options.live else None)
    if options.live:
        problems[MAPPED_RAM] = "QEMU stops the guest for it, so it is not live"
    if options.via is not None:
        if problem := problems[options.via]:
            raise UsageError(f"the guest can't be saved via {options.via}: {problem}")
        return options.via
    way = next((way for way, problem in problems.items() if problem is None), None)
    if way is None:
        reasons = "; ".join(f"via {way}: {problem}" for way, problem in problems.items())
        raise UsageError(f"the guest can't be saved live: {reasons}")
    return way


def _way_in_background(guest: Guest, options: SaveOptions) -> str:
    if options.via not in (None, STREAM):
        message = f"the guest can't be saved in the background via {options.via}, only via {STREAM}"
        raise UsageError(message)
    problem = guest.stream_problem(background=True)
    if options.layout != Layout.FIXED:
        problem = _NEEDS_FIXED
    if problem is not None:
        raise UsageError(f"the guest can't be saved in the background: {problem}")
    return STREAM


def _save_shared(guest: Guest, shown: str, path: Location, options: SaveOptions) -> SaveResult:
    if options.live and options.layout != Layout.FIXED:
        raise UsageError("a live save writes packets again, so it needs the fixed layout")
    with ExitStack() as stack:
        source = stack.enter_context(_open_ram(guest, shown))
        run = stack.enter_context(open_save_run(source, path, options))
        if options.live:
            run.write_pass()
        state = os.memfd_create("snapmig-state", os.MFD_CLOEXEC)
        stack.callback(os.close, state)
        with guest.paused() as pause:
            domain = _domain_xml(guest, options)
            guest.save_state(state)
            place_ram(
                source, find_addresses(guest.monitor)
            )  # firmware may have moved some of it meanwhile
            run.write_pass(changed_only=bool(options.live))
        if options.live:
            run.warn_of_writes()
        kept = {
            **_facts(guest, SHARED),
            STATE: pread_all(state, os.fstat(state).st_size, 0),
        }
        source.attachments = kept
        return run.finish({**source_attachments(source), **domain}, pause.seconds)


def _save_through_file(
    guest: Guest, shown: str, path: Location, options: SaveOptions
) -> SaveResult:
    # Only QEMU can read this guest's memory, so it writes a file, and the file is saved.
    folder = path.parent if isinstance(path, Path) else Path(tempfile.gettempdir())
    with ExitStack() as stack:
        file = stack.enter_context(NamelessFile(folder))
        with guest.paused() as pause:
            domain = _domain_xml(guest, options)
            kind = guest.save_file(file.fd, options.jobs)
            addresses = find_addresses(guest.monitor)
        source = open_image(descriptor_path(file.fd), kind)
        place_ram(source, addresses)
        source.shown = shown
        stack.callback(source.close)
        run = stack.enter_context(open_save_run(source, path, options))
        if guest.unshared is not None:
            run.warnings.append(
                f"{guest.unshared}, so QEMU wrote all RAM to a {kind} file in {folder} first; "
                f"{_remedy(guest)}"
            )
        run.write_pass()
        kept = {**source.attachments, **_facts(guest, MAPPED_RAM)}
        source.attachments = kept
        return run.finish({**source_attachments(source), **domain}, pause.seconds)


def _remedy(guest: Guest) -> str:
    if guest.monitor.peer is None and all(item.shared for item in guest.facts.memory):
        return _HIDDEN_REMEDY
    return _REMEDY if guest.monitor.renewal is None else _DOMAIN_REMEDY


def _domain_xml(guest: Guest, options: SaveOptions) -> dict[str, bytes]:
    # Asked before QEMU stops the guest, for the pause to be short. No device comes or goes later:
    # QEMU refuses that during a migration.
    xml = None if DOMAIN_XML in options.attach else guest.monitor.domain_xml()
    return {} if xml is None else {DOMAIN_XML: xml}


def _save_over_multifd(
    guest: Guest, shown: str, path: Location, options: SaveOptions
) -> SaveResult:
    channels = min(options.jobs, MOST_CHANNELS)
    with (
        PrivateSocket(guest.process_now.uid) as private,
        guest.paused(private=str(private.path)) as pause,
    ):
        domain = _domain_xml(guest, options)
        with (
            migrating(guest, private.uri, channels, _live_limits(options)) as outgoing,
            _with_reasons(outgoing),
            _accepted(guest, outgoing, private, channels) as connections,
        ):
            main = MainChannel(connections.main, shown, multifd=True)
            state = main.read_head(HEAD_S, outgoing.check)
            with open_receiver(connections, main, state, path, options) as receiver:
                end = _End(guest, outgoing, main, receiver, pause)
                # A guest that is saved live runs on as soon as all of it has come: if the rest
                # fails, it is QEMU's all the same. Otherwise it is let go when it is stored.
                receiver.receive(outgoing.check, end.let_go if options.live else end.keep)
                if options.live:
                    end.keep()
                result = receiver.finish(domain)
                end.let_go()
    return replace(result, pause_seconds=round(pause.seconds, 4))


def _save_over_stream(guest: Guest, shown: str, path: Location, options: SaveOptions) -> SaveResult:
    background = options.live == BACKGROUND
    guarded = background and guest.must_end_snapshots
    with (
        open_stream(guest) as (stream, uri),
        guest.paused(stream if guarded else None) as pause,
    ):
        domain = _domain_xml(guest, options)
        at_start = find_addresses(guest.monitor) if background else None
        began_ns = time.time_ns()
        sending = (
            migrating_in_background(guest, uri, stream)
            if background
            else migrating_over_stream(guest, uri, stream, _live_limits(options))
        )
        with sending as outgoing, _with_reasons(outgoing):
            main = MainChannel(stream, shown, multifd=False)
            connections = Connections(stream, ())
            with _received(outgoing, connections, main, path, options) as receiver:
                place_ram(receiver.source, at_start or find_addresses(guest.monitor))
                stop = guest.stop_of(pause) if background else None
                created_ns = None
                if background:  # libvirt passes on no events
                    created_ns = began_ns if stop is None else stop.stopped_ns
                result = _finish(guest, outgoing, main, receiver, domain, created_ns)
            if not background:
                pause.started = outgoing.stopped_at or pause.started
    seconds = pause.seconds
    if background and stop is None:
        seconds = (outgoing.downtime_ms or 0) / 1000
    return replace(result, pause_seconds=round(seconds, 4))


def _live_limits(options: SaveOptions) -> LiveLimits | None:
    return options.live_limits if options.live else None


@contextmanager
def _accepted(
    guest: Guest, outgoing: Outgoing, private: PrivateSocket, channels: int
) -> Iterator[Connections]:
    try:
        connections = accept_all(
            private.listener,
            channels,
            HEAD_S,
            outgoing.check,
            peer=guest.process_now,
            cancel=outgoing.cancel,
        )
    except MonitorError as error:
        raise UnreachableError(error.message, path=error.path) from error
    private.close()
    with closing(connections):
        try:
            yield connections
        except BaseException:
            outgoing.cancel()
            raise


@contextmanager
def _with_reasons(outgoing: Outgoing) -> Iterator[None]:
    # Whatever QEMU knows about the end of a connection is a better reason than its end.
    try:
        yield
    except MigrationError as error:
        raise outgoing.reason() or error from None


@contextmanager
def _received(
    outgoing: Outgoing,
    connections: Connections,
    main: MainChannel,
    path: Location,
    options: SaveOptions,
) -> Iterator[Receiver]:
    state = main.read_head(HEAD_S, outgoing.check)
    with open_receiver(connections, main, state, path, options) as receiver:
        receiver.receive(outgoing.check)
        yield receiver


def _finish(
    guest: Guest,
    outgoing: Outgoing,
    main: MainChannel,
    receiver: Receiver,
    domain: Mapping[str, bytes],
    created_ns: int | None = None,
) -> SaveResult:
    # The migration is acknowledged once the snapshot is on stable storage: until then the guest is
    # QEMU's.
    kept = {**receiver.attachments(), **_facts(guest, STREAM)}
    receiver.source.attachments = kept
    result = receiver.finish(domain, created_ns)
    taken = not guest.keeps_state
    main.return_path.finish(taken=taken)
    outgoing.wait_for_end(taken=taken)
    return result


def _facts(guest: Guest, way: str) -> dict[str, bytes]:
    return {FACTS: describe(guest.facts), VIA: way.encode()}


class _End:
    # The end of a migration over channels: the acknowledgement, and what the guest then goes with.
    def __init__(
        self,
        guest: Guest,
        outgoing: Outgoing,
        main: MainChannel,
        receiver: Receiver,
        pause: Pause,
    ) -> None:
        self._guest = guest
        self._outgoing = outgoing
        self._main = main
        self._receiver = receiver
        self._pause = pause
        self._is_over = False

    def keep(self) -> None:
        """Take all that a snapshot has besides pages."""
        place_ram(self._receiver.source, find_addresses(self._guest.monitor))
        kept = {**self._receiver.attachments(), **_facts(self._guest, MULTIFD)}
        self._receiver.source.attachments = kept

    def let_go(self) -> None:
        """Acknowledge the migration, and resume the guest if it ran before."""
        if not self._is_over:
            self._is_over = True
            taken = not self._guest.keeps_state
            self._main.return_path.finish(taken=taken)
            self._outgoing.wait_for_end(taken=taken)
            self._pause.started = self._outgoing.stopped_at or self._pause.started
            self._pause.end()


@contextmanager
def _open_ram(guest: Guest, shown: str) -> Iterator[PartsImage]:
    memory = guest.facts.memory
    with guest.open_memory(os.O_RDONLY) as opened:
        paths = [descriptor_path(fd) for fd in opened]
        blocks = [
            RamBlock(item.name, item.size, page_size=huge_page_size(path) or PAGE_SIZE)
            for item, path in zip(memory, paths, strict=True)
        ]
        files = [ImageFile(path) for path in paths]
    geometry = Geometry(tuple(blocks), PAGE_SIZE)
    parts = [
        Part(
            file.path,
            geometry.block_start(number),
            geometry.block_start(number) + item.size,
            item.file_offset,
        )
        for number, (file, item) in enumerate(zip(files, memory, strict=True))
    ]
    source = PartsImage(GUEST_FORMAT, blocks, parts, files)
    source.shown = shown
    place_ram(source, find_addresses(guest.monitor))
    try:
        yield source
    finally:
        source.close()


_WAYS = {
    SHARED: _save_shared,
    MULTIFD: _save_over_multifd,
    MAPPED_RAM: _save_through_file,
    STREAM: _save_over_stream,
}


def place_ram(source: ImageSource, addresses: Addresses) -> None:
    """Give a source's RAM blocks the guest physical addresses reported by QEMU, if any."""
    pieces = pieces_of_blocks(
        addresses.regions, {block.name: block.size for block in source.blocks}
    )
    placed = tuple(replace(block, pieces=pieces.get(block.name, ())) for block in source.blocks)
    # Impossible addresses are no reason to leave a guest unsaved.
    if pieces and block_problem(placed) is None:
        source.blocks = placed
    source.architecture = addresses.architecture or source.architecture
