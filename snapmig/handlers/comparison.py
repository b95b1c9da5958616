"""The comparison of a save's packets with the parent's, if there is one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from snapmig.container.slots import SlotPlan
from snapmig.handlers.pipeline import Comparison, WithoutParent

if TYPE_CHECKING:
    from snapmig.chains.reader import ReadPlan

__all__ = ("compare_with",)


def compare_with(parents: Sequence[ReadPlan], plan: SlotPlan, *, deltas: bool | None) -> Comparison:
    """
    Return the comparison for a new snapshot.

    :param parents: the youngest first; none for a snapshot without a parent
    :param deltas: as in :class:`~snapmig.handlers.parent.ParentPackets`
    """
    page_digests = plan.page_digests_offset > 0
    if not parents:
        return WithoutParent(page_digests=page_digests)
    from snapmig.handlers.parent import ParentPackets  # noqa: PLC0415 - with the reader of chains

    return ParentPackets(parents, deltas=deltas, keep_digests=page_digests)
