"""Facts about reads of objects by several threads; the server's answers are made here."""

import threading
from types import SimpleNamespace

from snapmig.stores import object as objects
from snapmig.stores.location import ObjectUrl
from snapmig.stores.source import SourcePlan

CONTENT = bytes(range(256)) * (objects.BLOCK // 256) * 3 * objects.BLOCKS


class _Client:
    # Has another reader come between a request and its answer, once.
    between = staticmethod(lambda: None)

    def __init__(self, _url):
        pass

    def start(self, length):
        return SimpleNamespace(size=len(CONTENT), version="1", start=CONTENT[:length])

    def stream(self, offset, length, _version, take):
        between, _Client.between = _Client.between, lambda: None
        between()
        take(CONTENT[offset : offset + length])


def test_others_may_push_blocks_out_meanwhile(monkeypatch):
    """Bytes across two blocks are right though others fill the cache while one is fetched."""
    monkeypatch.setattr(objects, "ObjectClient", _Client)
    source = objects.ObjectSource(ObjectUrl("bucket", "key"), SourcePlan("s3://bucket/key"))

    def others():
        for number in range(2, 2 + objects.BLOCKS):
            source.read(number * objects.BLOCK, 1)

    monkeypatch.setattr(_Client, "between", staticmethod(others))
    found = source.read(objects.BLOCK - 5, 10)

    assert found == CONTENT[objects.BLOCK - 5 : objects.BLOCK + 5]


def test_a_late_range_delays_no_other(monkeypatch):
    """While one of two requests waits for its answer, the other turn takes all further ranges."""
    come, late = threading.Event(), threading.Event()
    fetched = []

    class Client(_Client):
        def stream(self, offset, length, version, take):
            if not offset:
                late.wait(60)
            super().stream(offset, length, version, take)
            fetched.append(offset)
            if len(fetched) == 3:
                come.set()

    monkeypatch.setattr(objects, "ObjectClient", Client)
    source = objects.ObjectSource(ObjectUrl("bucket", "key"), SourcePlan("s3://bucket/key"))
    source.limit_requests(2)
    starts = [number * 4 * objects.GAP for number in range(4)]
    source.prefetch([(start, 10) for start in starts])

    assert come.wait(60)
    assert sorted(fetched) == starts[1:]
    late.set()
    assert source.read(0, 10) == CONTENT[:10]


def test_announced_bytes_are_counted_as_they_come(monkeypatch):
    """Whoever counts them hears of ranges that nobody has read yet."""
    arrived, come = [], threading.Event()

    def add(length):
        arrived.append(length)
        if len(arrived) == 2:
            come.set()

    monkeypatch.setattr(objects, "ObjectClient", _Client)
    source = objects.ObjectSource(ObjectUrl("bucket", "key"), SourcePlan("s3://bucket/key"))
    source.count_arrivals(add)
    source.prefetch([(0, 10), (4 * objects.GAP, 20)])

    assert come.wait(60)
    assert sorted(arrived) == [10, 20]
