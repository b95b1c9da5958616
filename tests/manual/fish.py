"""The completion for fish."""

from __future__ import annotations

from collections.abc import Iterator

from tests.manual.verbs import Option, Value, Verb, valued_flags

_SCRIPT = r"""# Completion of snapmig for fish 3.0 or newer.
# Made by "make docs" from the program's options.

# Prints, a line each, the words before the cursor that are neither options nor their values.
function __snapmig_places
    set -l skip 0
    set -l only_places 0
    for word in (commandline -opc)[2..-1]
        if test $skip = 1
            set skip 0
        else if test $only_places = 1
            printf '%s\n' "$word"
        else if test "$word" = --
            set only_places 1
        else if contains -- "$word" @VALUED@
            set skip 1
        else if not string match -q -- '-?*' "$word"
            printf '%s\n' "$word"
        end
    end
end

# Says whether these words are the verb, and if a number comes first, whether so many places follow
# the verb; with a "+" behind the number, so many or more. Never where the name of an object begins,
# for which there are no words.
function __snapmig_at
    string match -q '*s3://*' -- (commandline -ct); and return 1
    set -l places (__snapmig_places)
    set -l number
    if string match -qr '^[0-9]' -- $argv[1]
        set number $argv[1]
        set -e argv[1]
    end
    set -l length (count $argv)
    test (count $places) -ge $length; or return 1
    if test $length -gt 0
        test "$places[1..$length]" = "$argv"; or return 1
    end
    set -l behind (math (count $places) - $length)
    switch "$number"
        case ''
            return 0
        case '*+'
            test $behind -ge (string replace + '' -- $number)
        case '*'
            test $behind -eq $number
    end
end

# A path behind the first equals sign.
function __snapmig_assignment
    set -l word (string replace -r '^--[a-z-]*=' '' -- (commandline -ct))
    set -l parts (string split -m 1 = -- $word)
    if test (count $parts) = 2
        __fish_complete_path $parts[2] | string replace -r '^' "$parts[1]="
    end
end

complete -c snapmig -f
@LINES@
"""


def make_fish(program: Verb) -> str:
    """Return the script."""
    lines = "\n".join(line for verb in program.walk() for line in _verb(verb))
    script = _SCRIPT.replace("@VALUED@", " ".join(valued_flags(program)))
    return script.replace("@LINES@", lines)


def _verb(verb: Verb) -> Iterator[str]:
    first = f"0 {verb.name}".strip()
    for below in verb.verbs:
        yield _complete(first, f"-a {below.name.split()[-1]}", below.help)
    for option in verb.options:
        yield _complete(first if verb.verbs else verb.name, _option(option), option.help)
    for number, place in enumerate(verb.places):
        many = "+" if place.repeats else ""
        if words := _value(place.value):
            yield _complete(f"{number}{many} {verb.name}", words)


def _complete(at: str, words: str, text: str = "") -> str:
    described = f" -d {_quoted(text)}" if text else ""
    return f"complete -c snapmig -n '__snapmig_at {at}' {words}{described}"


def _option(option: Option) -> str:
    flags = " ".join(
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
    )
    if not option.value.name:
        return flags
    return f"{flags} -r {_value(option.value) or '-f'}"


def _value(value: Value) -> str:
    if value.completed == "choices":
        return f"-f -a {_quoted(' '.join(value.choices))}"
    if value.completed == "assignment":
        return "-f -a '(__snapmig_assignment)'"
    return "-F" if value.completed == "file" else ""


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
