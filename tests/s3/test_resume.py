"""Uploads that are gone on with: what the server has is not sent again."""

from __future__ import annotations

import os
import re
import signal

import pytest

import snapmig
from tests.s3.conftest import CHANGED, RAM
from tests.support import program, ram
from tests.support.objects.proxy import Hold
from tests.support.steady import STEADY

pytestmark = pytest.mark.usefixtures("store")

PART = r"PUT \S+partNumber="
BIG = RAM + ram.noise(8192, 3).tobytes()
"""Several parts that are sent before the end."""


class StopError(Exception):
    """The end of a save in its middle."""


@pytest.fixture
def interrupted(monkeypatch):
    """Give a function to begin a save that ends when all its parts are sent."""
    from snapmig.stores.s3 import ObjectClient

    def stop(*_arguments, **_options):
        raise StopError

    def save(image, url, **options):
        with monkeypatch.context() as patch:
            patch.setattr(ObjectClient, "complete", stop)
            with pytest.raises(StopError):
                snapmig.save(image, url, resume=True, jobs=1, **options)

    return save


def sent(proxy):
    """Return how many parts were sent."""
    return sum(re.match(PART, request) is not None for request in proxy.requests)


@pytest.fixture
def image(tmp_path):
    """Give an image."""
    return ram.write(tmp_path / "big.ram", BIG)


def test_parts_on_the_server_are_not_sent_again(interrupted, proxy, image, url, restored):
    """They are found by their MD5."""
    interrupted(image, url, **STEADY)
    before = sent(proxy)

    result = snapmig.save(image, url, resume=True, jobs=1, **STEADY)

    parts = -(-result.file_size // (8 << 20))
    assert 0 < result.kept_parts == parts - 1
    assert sent(proxy) - before == parts - result.kept_parts
    assert restored(url) == BIG


def test_an_image_that_changed_has_its_parts_sent(interrupted, image, url, restored):
    """A part with other bytes is sent again."""
    interrupted(image, url)
    ram.write(image, CHANGED + BIG[len(CHANGED) :])

    snapmig.save(image, url, resume=True, jobs=1)

    assert restored(url) == CHANGED + BIG[len(CHANGED) :]


def test_without_parts_there_is_nothing_to_keep(guest, url, restored):
    """The first save with resume is like any other."""
    assert snapmig.save(guest, url, resume=True, jobs=1).kept_parts == 0
    assert restored(url) == RAM


def test_other_settings_send_everything(interrupted, image, url, restored):
    """Parts of a save with another compression are of no use."""
    interrupted(image, url, compression="none")

    assert snapmig.save(image, url, resume=True, jobs=1).kept_parts < 5
    assert restored(url) == BIG


@pytest.mark.sweep
def test_an_upload_that_was_interrupted_is_gone_on_with(proxy, image, url, restored):
    """A signal, and SIGKILL, leave parts, and the same command goes on from there."""
    proxy.rule = Hold(PART, after=2_000_000)
    for number in (signal.SIGTERM, signal.SIGKILL):
        proxy.rule.reached.clear()
        process = program.start("save", "-j1", image, url, "--resume", env=dict(os.environ))
        assert proxy.rule.reached.wait(60)
        process.send_signal(number)
        process.communicate()
    proxy.rule.go.set()

    result = snapmig.save(image, url, resume=True, jobs=1)

    assert (result.kept_parts is not None, restored(url)) == (True, BIG)
