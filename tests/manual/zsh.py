"""The completion for zsh: specifications for its ``_arguments``."""

from __future__ import annotations

from collections.abc import Iterator

from tests.manual.verbs import Option, Place, Value, Verb

_SCRIPT = r"""#compdef snapmig
# Completion of snapmig for zsh.
# Made by "make docs" from the program's options.

# Files, also behind the word that says that it is a guest's socket.
_snapmig_file() {
  compset -P 'qmp:'
  _files
}

# NAME=FILE
_snapmig_assignment() {
  compset -P '*=' && _files
}

@FUNCTIONS@
_snapmig "$@"
"""

_PARENT = r"""@FUNCTION@() {
  local context state state_descr line
  typeset -A opt_args
  local -a verbs=(
@VERBS@
  )
  _arguments -C \
@OPTIONS@ \
    '1:verb:->verb' \
    '*::argument:->argument'
  case $state in
    verb) _describe verb verbs ;;
    argument)
      if (( $verbs[(I)${(b)words[1]}:*] )); then
        @FUNCTION@_$words[1]
      else
        _message 'no such verb'
      fi
      ;;
  esac
}
"""

_LEAF = r"""@FUNCTION@() {
  _arguments -s -S \
@ARGUMENTS@
}
"""


def make_zsh(program: Verb) -> str:
    """Return the script."""
    return _SCRIPT.replace("@FUNCTIONS@", "\n".join(map(_function, program.walk())))


def _function(verb: Verb) -> str:
    name = f"_{verb.command.replace(' ', '_')}"
    options = [spec for option in verb.options for spec in _option(option)]
    if not verb.verbs:
        places = list(_places(verb.places))
        text = " \\\n".join(f"    {spec}" for spec in [*options, *places])
        return _LEAF.replace("@ARGUMENTS@", text).replace("@FUNCTION@", name)
    verbs = [f"{below.name.split()[-1]}:{below.help}" for below in verb.verbs]
    text = _PARENT.replace("@VERBS@", "\n".join(f"    {_quoted(words)}" for words in verbs))
    text = text.replace("@OPTIONS@", " \\\n".join(f"    {spec}" for spec in options))
    return text.replace("@FUNCTION@", name)


def _option(option: Option) -> Iterator[str]:
    ends = {"--help", "--version"} & set(option.flags)
    excluded = [*option.excluded, *(() if option.repeats else option.flags)]
    before = "(- : *)" if ends else f"({' '.join(excluded)})" if excluded else ""
    for flag in option.flags:
        ending = "" if not option.value.name else "=" if flag.startswith("--") else "+"
        text = f"[{_escaped(option.help, '[]')}]"
        value = f":{_value(option.value)}" if option.value.name else ""
        star = "*" if option.repeats else ""
        yield _quoted(f"{before}{star}{flag}{ending}{text}{value}")


def _places(places: tuple[Place, ...]) -> Iterator[str]:
    for number, place in enumerate(places, 1):
        yield _quoted(f"{number}:{_value(place.value)}")
        if place.repeats:
            yield _quoted(f"*:{_value(place.value)}")


def _value(value: Value) -> str:
    name = _escaped(value.name, ":")
    if value.completed == "choices":
        return f"{name}:({' '.join(_escaped(choice, ':') for choice in value.choices)})"
    if value.completed == "nothing":
        return f"{name}: "
    return f"{name}:_snapmig_{value.completed}"


def _escaped(text: str, characters: str) -> str:
    text = text.replace("\\", "\\\\")
    for character in characters:
        text = text.replace(character, f"\\{character}")
    return text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
