"""Facts about the benchmark of links: its target, and the bytes that it counts."""

from types import SimpleNamespace

import pytest

from tests.bench.link import FRAMES, PAGES, WAYS, report
from tests.bench.summary import Results

FACTS = {"image": "a guest", "image_bytes": 2 << 30, "version_qemu": "10", "machine_processors": 2}
MIB = 1 << 20


def record(name, number, wall, sent):
    """One record of a guest sent over a link."""
    order = [way.name for way in WAYS].index(name)
    known = {"role": "snapmig", "operation": "restore", "destination": "link", "jobs": 2}
    known |= {"others_cpu_s": 0.0, "stolen_cpu_s": 0.0, "cpu_s": 1.0, "warm_up": False}
    return {**known, "name": name, "order": order, "round": number, "wall_s": wall} | {
        "sent_bytes": sent * MIB
    }


@pytest.mark.parametrize(
    ("frames", "words"), [(4.0, "3.50 met"), (7.0, "2.00 short by 33 %"), (None, "not measured")]
)
def test_frames_are_compared_with_pages(frames, words):
    """The ratio is that of the rounds that have both."""
    records = [record(PAGES, 0, 14.0, 1600), record(PAGES, 1, 99.0, 1600)]
    if frames is not None:
        records.append(record(FRAMES, 0, frames, 400))
    lines = report(Results(records), SimpleNamespace(jobs=2, rate="1gbit"), FACTS)
    assert lines[-1] == f"pages / zstd frames, at least 3: {words}"
    (row,) = [line for line in lines if line.startswith("pages  ")]
    assert row.split()[-5:] == ["1600.0", "1.00", "(1.00", "to", "1.00)"]
