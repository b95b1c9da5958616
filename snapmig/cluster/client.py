"""
Jobs on the hosts of a Dask cluster, each a process of its own. The only module that imports Dask.

A worker declares the hosts it serves as resources. A job is pinned to one worker: it is lost
together with that worker, and Dask does not run it again elsewhere. Jobs report through events
under one topic; the worker sees a cancellation in the state of its own task, and that state also
changes when the client is gone.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import Any

from distributed import Client, get_worker
from distributed.core import Status
from distributed.security import Security

from snapmig.cluster.members import Answer, RemoteJob, Worker, first_cause, lost, read_worker
from snapmig.cluster.remote import GRACE_S, run_snapmig
from snapmig.cluster.scheduler import Scheduler
from snapmig.errors import SnapmigError, UsageError, WorkerDiedError
from snapmig.system.limits import start_thread
from snapmig.version import __version__

__all__ = ("Cluster", "run_there")

_TOPIC = "snapmig"
_LOGGERS = ("distributed", "tornado", "asyncio")
_CONNECT_S = 10.0
_ASK_S, _SILENCE_S = 15.0, 30.0
_WATCH_S, _POLL_S = 0.5, 0.1
_BEGIN_S = 3.0
_SERVING = (Status.running, Status.paused, Status.closing_gracefully)


class Cluster:
    """
    A connection to a scheduler; a context manager.

    :raises SnapmigError: no scheduler answers there
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._workers: dict[str, Worker] = {}
        self._heard = time.monotonic()
        self._lost: str | None = None
        self._ended = threading.Event()
        self._runs: dict[str, SimpleQueue[Mapping[str, Any]]] = {}
        self._busy: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._client: Any  # Dask's methods have no types

    def __enter__(self) -> Cluster:
        with ExitStack() as stack:
            stack.enter_context(_without_log())
            self._client = self._connect()
            stack.callback(self._client.close, timeout=2)
            self._look()
            self._client.subscribe_topic(_TOPIC, self._receive)
            stack.callback(self._ended.set)
            start_thread(threading.Thread(target=self._watch, name="snapmig-cluster", daemon=True))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: Any) -> None:
        self._stack.__exit__(*exc)

    def check(self, hosts: Iterable[str]) -> None:
        """
        Check the presence of workers with this version of snapmig on all hosts.

        :raises UsageError: a host without workers
        :raises SnapmigError: a worker without snapmig, or with another version, or without an
            answer
        """
        wanted = set(hosts)
        known = {host for worker in self._workers.values() for host in worker.places}
        for host in sorted(wanted - known):
            names = f"; it has {', '.join(sorted(known))}" if known else "; it has no worker"
            raise UsageError(f"no worker serves host {host!r} at {self._scheduler.address}{names}")
        serving = [worker for worker in self._workers.values() if wanted & worker.places.keys()]
        versions = self._versions(serving)
        for worker in serving:
            found = versions.get(worker.address)
            if isinstance(found, Exception):
                raise SnapmigError(f"worker {worker.name} can't use snapmig: {found}")
            if found != __version__:
                message = f"worker {worker.name} has snapmig {found}, expected {__version__}"
                raise SnapmigError(message)

    def places(self, host: str) -> int:
        """Return the number of jobs a host may run at a time; at least 1, for one to fail."""
        return max(1, sum(worker.places.get(host, 0) for worker in self._workers.values()))

    def run(
        self,
        host: str,
        arguments: Sequence[str],
        progress: Callable[[Mapping[str, Any]], None],
        poll: Callable[[], None],
    ) -> Answer:
        """
        Run snapmig on a host until it ends. Any thread may call this.

        :param progress: called with each line of progress
        :param poll: called ten times a second; if it raises, the job there is ended first
        :raises WorkerDiedError: the worker or the scheduler is gone
        :raises SnapmigError: nobody serves the host any more, or the worker can't run snapmig
        """
        run = uuid.uuid4().hex
        queue: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        self._runs[run] = queue
        worker = self._take_place(host)
        try:
            self._check_here(worker)
            future = self._client.submit(
                run_there,
                run,
                list(arguments),
                key=f"snapmig-{run}",
                workers=[worker.address],
                resources={host: 1},
                retries=0,
                pure=False,
            )
            job = RemoteJob(worker, queue, future)
            try:
                return self._follow(job, progress, poll)
            except BaseException:
                self._end(job)
                raise
        finally:
            del self._runs[run]
            with self._lock:
                self._busy[worker.address] -= 1

    def _connect(self) -> Any:
        where = self._scheduler
        security = None
        if where.encrypted:
            security = Security(  # type: ignore[no-untyped-call]
                tls_ca_file=str(where.tls_ca),
                tls_client_cert=str(where.tls_cert),
                tls_client_key=str(where.tls_key or where.tls_cert),
                require_encryption=True,
            )
        try:
            return Client(  # type: ignore[no-untyped-call]
                where.address,
                timeout=_CONNECT_S,
                security=security,
                set_as_default=False,
                name="snapmig",
            )
        except (OSError, ValueError, RuntimeError) as error:
            message = f"no Dask scheduler can be reached at {where.address}: {first_cause(error)}"
            raise SnapmigError(message) from error

    def _watch(self) -> None:
        # In a thread: watch the members for as long as the scheduler lists them.
        while not self._ended.wait(_WATCH_S):
            try:
                self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody is heard any more
                if not self._ended.is_set():
                    self._lost = str(error) or type(error).__name__
                return

    def _look(self) -> None:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        if self._client.status != "running":
            raise SnapmigError("its connection is closed")
        self._workers = {address: read_worker(address, facts) for address, facts in workers.items()}
        self._heard = time.monotonic()

    def _receive(self, event: tuple[float, Mapping[str, Any]]) -> None:
        # In Dask's thread. Other runs use the same topic.
        content = event[1]
        queue = self._runs.get(content.get("run", ""))
        if queue is not None:
            queue.put(content)

    def _versions(self, workers: Sequence[Worker]) -> Mapping[str, Any]:
        # Asked in a thread, because a stopped worker would block us for ever.
        answers: SimpleQueue[Mapping[str, Any]] = SimpleQueue()

        def ask() -> None:
            addresses = [worker.address for worker in workers]
            with suppress(Exception):  # the silence tells
                answers.put(self._client.run(_version, workers=addresses, on_error="return"))

        start_thread(threading.Thread(target=ask, name="snapmig-versions", daemon=True))
        try:
            return answers.get(timeout=_ASK_S)
        except Empty:
            names = ", ".join(worker.name for worker in workers)
            raise SnapmigError(f"of the workers {names} not all answered") from None

    def _take_place(self, host: str) -> Worker:
        with self._lock:
            serving = [worker for worker in self._workers.values() if host in worker.places]
            if not serving:
                raise SnapmigError(f"no worker serves host {host!r} any more")
            worker = min(
                serving, key=lambda each: self._busy.get(each.address, 0) / each.places[host]
            )
            self._busy[worker.address] = self._busy.get(worker.address, 0) + 1
            return worker

    def _follow(
        self,
        job: RemoteJob,
        progress: Callable[[Mapping[str, Any]], None],
        poll: Callable[[], None],
    ) -> Answer:
        while True:
            poll()
            event = job.next_event(_POLL_S)
            kind = None if event is None else event["kind"]
            if event is None:
                self._check(job)
            elif kind == "began" and job.begun:
                raise lost(job.worker)  # Dask runs it again: the first time it died
            elif kind == "began":
                job.begun = True
            elif kind == "progress":
                progress(event)
            elif kind == "ended":
                return Answer(job.worker.name, event["code"], event["result"], event["message"])

    def _check(self, job: RemoteJob) -> None:
        # Nothing was heard of a job for a moment.
        status = job.future.status
        if status == "error":
            error = job.future.exception(timeout=_CONNECT_S)
            if type(error).__name__ == "KilledWorker":
                raise lost(job.worker)
            raise SnapmigError(f"worker {job.worker.name} can't run snapmig: {error!r}")
        self._check_here(job.worker)
        if status in ("finished", "cancelled", "lost") and job.events.empty():
            raise WorkerDiedError(f"worker {job.worker.name} did not say how the job ended")

    def _check_here(self, worker: Worker) -> None:
        where = self._scheduler.address
        if self._client.status != "running" or self._lost is not None:
            raise WorkerDiedError(f"the connection to the scheduler at {where} was lost")
        if time.monotonic() - self._heard > _SILENCE_S:
            message = f"the scheduler at {where} has not answered for {_SILENCE_S:.0f} s"
            raise WorkerDiedError(message)
        if worker.address not in self._workers:
            raise lost(worker)

    def _end(self, job: RemoteJob) -> None:
        # End the process there and wait for it: then its guest runs and its files are gone.
        try:
            self._check_here(job.worker)
        except SnapmigError:
            return  # nobody to tell: it sees that for itself
        with suppress(Exception):  # likewise
            self._client.cancel([job.future], force=True)
        end = time.monotonic() + (GRACE_S if job.begun else _BEGIN_S)
        while time.monotonic() < end and job.worker.address in self._workers:
            event = job.next_event(_POLL_S)
            kind = None if event is None else event["kind"]
            if kind == "began":
                end = time.monotonic() + GRACE_S
            if kind == "ended":
                return


def run_there(run: str, arguments: Sequence[str]) -> None:
    """Run snapmig in a worker; called by Dask there."""
    worker = get_worker()
    key = worker.get_current_task()

    def tell(kind: str, content: Mapping[str, Any]) -> None:
        worker.log_event(_TOPIC, {**content, "run": run, "kind": kind})

    def wanted() -> bool:
        task = worker.state.tasks.get(key)
        return worker.status in _SERVING and task is not None and task.state == "executing"

    tell("began", {})
    tell("ended", run_snapmig(arguments, lambda line: tell("progress", line), wanted))


@contextmanager
def _without_log() -> Iterator[None]:
    # Dask logs lost connections, which our own messages tell.
    known = logging.root.manager.loggerDict
    names = [name for name in known if name.partition(".")[0] in _LOGGERS]
    before = [(logger, logger.level) for logger in map(logging.getLogger, {*_LOGGERS, *names})]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in before:
            logger.setLevel(level)


def _version() -> str:
    return __version__
