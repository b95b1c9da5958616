"""Requests under way: fewer where a server refuses some."""

import os

import pytest

from snapmig.operations.runs import windowed
from snapmig.stores.location import ObjectUrl
from snapmig.stores.upload import MIN_PART, PartialObject
from tests.s3.conftest import RAM
from tests.support.objects.proxy import SlowDown

pytestmark = [pytest.mark.sweep, pytest.mark.usefixtures("store")]


def _parsed(url: str) -> ObjectUrl:
    return ObjectUrl(*url.removeprefix("s3://").split("/", 1))


def test_a_refused_part_makes_an_upload_slower(proxy, url):
    """A part that had to be sent again is followed by fewer at once, and nothing is lost."""
    proxy.rule = SlowDown(r"PUT \S+partNumber=3", 1)
    with PartialObject(_parsed(url), 4 * MIN_PART, 4096) as partial:
        for at in range(0, 4 * MIN_PART, MIN_PART):
            partial.write(os.urandom(MIN_PART), at)
        before = partial.window.size
        partial.advance(4 * MIN_PART)
        partial.commit(force=False)

    assert partial.window.size < before


def test_refused_ranges_make_a_restore_slower(proxy, saved, restored, monkeypatch):
    """A range that had to be asked for again is followed by fewer at once; the RAM is right."""
    windows = []

    class Kept(windowed.Windowed):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            windows.append((self.window, self.window.size))
            proxy.rule = SlowDown(r"GET ", 1)  # to a worker

    monkeypatch.setattr(windowed, "Windowed", Kept)

    assert restored(saved) == RAM
    ((window, before),) = windows
    assert window.size < before
