"""The manual pages: one of the program, and one of each of its verbs."""

from __future__ import annotations

import re
from itertools import groupby

from tests.manual.epilog import Epilog, read_epilog
from tests.manual.roff import bold, escape, italic, item, literal, paragraph, section
from tests.manual.verbs import Option, Place, Verb, read_program
from tests.manual.words import DESCRIPTION, ENVIRONMENT, FILES, SEE_ALSO, Pairs

DATE = "@DATE@"
"""What stands in a page until it gets its date."""

_STATUS = "0 when all is done, 2 for an error of usage; snapmig(1) has all codes."
_PREFIX = '.\\" Made by "make docs" from the program\'s options; changes here are lost.'


def make_pages() -> dict[str, str]:
    """Return the pages by the names of their files, with :data:`DATE` in each date's place."""
    program = read_program()
    return {
        f"{verb.command.replace(' ', '-')}.1": _page(verb, program)
        for verb in (program, *program.verbs)
    }


def _page(verb: Verb, program: Verb) -> str:
    name = verb.command.replace(" ", "-")
    epilog = read_epilog(verb.epilog)
    head = verb.help or verb.description.partition(",")[0]
    head = head[0].lower() + head[1:]
    lines = [
        _PREFIX,
        f'.TH {name.upper()} 1 "{DATE}" "snapmig" "User Commands"',
        ".nh",  # what is typed is not to be cut
        ".ad l",
        *section("NAME", [rf"{escape(name, typed=True)} \- {escape(head)}"]),
        *section("SYNOPSIS", _synopsis(verb)),
        *section("DESCRIPTION", [*_description(verb), *_notes(epilog), *_places(verb)]),
        *section("OPTIONS", _options(verb)),
        *(_verb_list(verb) if verb is program else _own_verbs(verb)),
        *section("EXIT STATUS", _status(epilog)),
        *section("ENVIRONMENT", _pairs(ENVIRONMENT.get(verb.name, ()))),
        *section("FILES", _pairs(FILES.get(verb.name, ()), files=True)),
        *section("EXAMPLES", literal(_examples(verb))),
        *section("SEE ALSO", _see_also(verb, program)),
    ]
    return "\n".join(lines) + "\n"


def _synopsis(verb: Verb) -> list[str]:
    lines = []
    for one in verb.verbs if verb.name and verb.verbs else (verb,):
        rest = one.usage.removeprefix(one.command).strip()
        words = " ".join(_usage_word(word) for word in rest.split())
        lines += [".br", f"{bold(one.command)} {words}"]
    return lines[1:]


def _usage_word(word: str) -> str:
    if word.startswith("--"):
        return bold(word)
    parts = re.split(r"([A-Za-z]+(?:\.toml)?)", word)
    return "".join(italic(part) if part[:1].isalpha() else part for part in parts)


def _description(verb: Verb) -> list[str]:
    lines = paragraph(verb.description)
    for words in DESCRIPTION.get(verb.name, ()):
        lines += [".PP", *paragraph(words)]
    return lines


def _notes(epilog: Epilog) -> list[str]:
    lines = []
    for words, shown in epilog.notes:
        lines += [".PP", *paragraph(words), *(literal(shown) if shown else ())]
    return lines


def _places(verb: Verb) -> list[str]:
    return [line for place in verb.places for line in item(_place(place), place.help)]


def _place(place: Place) -> str:
    return italic(place.value.name) + (" ..." if place.repeats else "")


def _options(verb: Verb) -> list[str]:
    lines = []
    for group, options in groupby(verb.options, key=lambda option: option.group):
        title = f"{group[:1].upper()}{group[1:]}"
        lines += [] if group == "options" else [f'.SS "{title}"']
        lines += [line for option in options for line in _option(option)]
    return lines


def _option(option: Option) -> list[str]:
    value = option.value
    shown = f" {italic(value.name)}" if value.name else ""
    lines = item(", ".join(map(bold, option.flags)) + shown, option.help, value.choices)
    words = re.split(r"[\s,()]+", option.help)
    if value.choices and not set(value.choices) <= set(words):
        lines[-1] += "; one of"
        lines += [f"{bold(choice)}," for choice in value.choices[:-1]] + [bold(value.choices[-1])]
    return lines


def _verb_list(verb: Verb) -> list[str]:
    items = [
        line
        for below in verb.verbs
        for line in item(f"{bold(below.command.replace(' ', '-'))}(1)", below.help)
    ]
    return section("VERBS", items)


def _own_verbs(verb: Verb) -> list[str]:
    lines = []
    for below in verb.verbs:
        synopsis = _synopsis(below)
        lines += [f'.SS "{escape(below.command, typed=True)}"', *synopsis, ".PP"]
        lines += [*paragraph(below.description), *_notes(read_epilog(below.epilog))]
        lines += [*_places(below), *_options(below)]
    return section("VERBS", lines)


def _status(epilog: Epilog) -> list[str]:
    said = f"{epilog.said[:1].upper()}{epilog.said[1:].rstrip('.')}." if epilog.said else ""
    lines = [] if epilog.codes else paragraph(said)
    lines = lines or ([] if "0" in dict(epilog.codes) else paragraph(_STATUS))
    for code, meaning in epilog.codes:
        lines += item(bold(code), meaning)
    if said and epilog.codes:
        lines += [".PP", *paragraph(said)]
    return lines


def _pairs(pairs: Pairs, *, files: bool = False) -> list[str]:
    lines = []
    for names, words in pairs:
        shown = italic if files else bold
        lines += item(", ".join(map(shown, names.split(", "))), words)
    return lines


def _examples(verb: Verb) -> list[str]:
    examples = list(read_epilog(verb.epilog).examples)
    for below in verb.verbs if verb.name else ():
        examples += [one for one in read_epilog(below.epilog).examples if one not in examples]
    return examples


def _see_also(verb: Verb, program: Verb) -> list[str]:
    if verb is program:
        names = [f"snapmig-{below.name}" for below in program.verbs]
    else:
        names = ["snapmig", *(f"snapmig-{name}" for name in SEE_ALSO[verb.name])]
    return [f"{bold(name)}(1)" + ("," if name != names[-1] else "") for name in names]
