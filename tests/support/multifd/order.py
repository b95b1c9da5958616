"""Good talks in another order of arrival, or in other pieces, as networks make them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import NamedTuple

from tests.support.multifd.talk import MAIN, Line, Step, Talk


class At(NamedTuple):
    """A step: the connection, the kind, and which of the kind."""

    line: str
    kind: str
    nth: int = 0


def held(talk: Talk, step: At, until: At) -> Talk:
    """Return the talk with a step sent when another connection's step has been read."""
    gate = f"{step} {until}"
    talk = talk.edited(step.line, lambda steps: _set(steps, talk.line(step.line), step, gate, ""))
    return talk.edited(
        until.line, lambda steps: _set(steps, talk.line(until.line), until, "", gate)
    )


def _set(steps: list[Step], line: Line, at: At, waits: str, opens: str) -> None:
    place = line.find(at.kind, at.nth)
    found = steps[place]
    assert not (found.waits and waits), "one gate a step"
    assert not (found.opens and opens), "one gate a step"
    steps[place] = found._replace(waits=waits or found.waits, opens=opens or found.opens)


def late(talk: Talk, name: str, number: int) -> Talk:
    """Return the talk with a connection's part of a round sent when others began the next one."""
    other = next(line for line in talk.lines if line.name not in (name, MAIN))
    ahead = next(step for step in other.steps if step.round == number + 1)
    mine = next(step for step in talk.line(name).steps if step.round == number)
    return held(talk, _place(talk.line(name), mine), _place(other, ahead))


def _place(line: Line, step: Step) -> At:
    same = [one for one in line.steps if one.kind == step.kind]
    return At(line.name, step.kind, next(i for i, one in enumerate(same) if one is step))


def channels_first(talk: Talk) -> Talk:
    """Return the talk with its connections made in the opposite order, main last."""
    return replace(talk, lines=tuple(reversed(talk.lines)))


def in_pieces(talk: Talk, size: int) -> Talk:
    """Return the talk with each step sent in pieces, of which the first ones are short."""

    def pieces(step: Step) -> list[Step]:
        # The heads of packets byte by byte would take long: some of them in ever longer pieces.
        cuts, at = [], 1
        while at < len(step.data):
            cuts.append(at)
            at += min(size, at + 6)
        bounds = [0, *cuts, len(step.data)]
        made = [Step(step.kind, step.data[a:b], step.round) for a, b in itertools.pairwise(bounds)]
        made[0] = made[0]._replace(waits=step.waits)
        made[-1] = made[-1]._replace(opens=step.opens)
        return made

    return replace(
        talk,
        lines=tuple(
            Line(line.name, tuple(piece for step in line.steps for piece in pieces(step)))
            for line in talk.lines
        ),
    )
