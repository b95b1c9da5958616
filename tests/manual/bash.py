"""
The completion for bash.

Files are left to readline (``-o default``), which knows quotes, ``~`` and what stands behind a
colon or an equals sign; so nothing here does anything with the names of files.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from tests.manual.verbs import Value, Verb, valued_flags

_SCRIPT = r"""# Completion of snapmig for bash 4.4 or newer.
# Made by "make docs" from the program's options.

# Sets "words" to those before the cursor, whole: bash cuts at colons and equals signs.
_snapmig_words() {
    local line=$COMP_LINE blank piece i
    words=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        piece=${COMP_WORDS[i]}
        blank=${line%%[![:blank:]]*}
        line=${line#"$blank"}
        line=${line#"$piece"}
        if [[ $i -gt 0 && -z $blank && ($piece == [:=]* || ${words[-1]} == *[:=]) ]]; then
            words[-1]+=$piece
        else
            words+=("$piece")
        fi
    done
}

# Sets "verb"; "verbs", those that can be here; and "place", the number of arguments without a name
# that stand before the word.
_snapmig_place() {
    local i=2
    verb=${words[1]}
    verbs=
    place=0
    case ${#words[@]} in
    2) verb= verbs=$(_snapmig_verbs '') ;;
    3) verbs=$(_snapmig_verbs "$verb") ;;
    *) [[ -n $(_snapmig_verbs "$verb") ]] && verb+=" ${words[2]}" i=3 ;;
    esac
    for (( ; i < ${#words[@]} - 1; i++)); do
        if [[ -n $only_places ]]; then
            place=$((place + 1))
        elif [[ ${words[i]} == -- ]]; then
            only_places=yes
        elif [[ " @VALUED@ " == *" ${words[i]} "* ]]; then
            i=$((i + 1))
        elif [[ ${words[i]} != -?* ]]; then
            place=$((place + 1))
        fi
    done
}

# Offers the words given. Bash replaces what stands behind the last colon or equals sign only.
_snapmig_offer() {
    local piece=${COMP_WORDS[COMP_CWORD]} i
    [[ $piece == [:=] ]] && piece=
    local kept=${current%"$piece"}
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current")
    for i in "${!COMPREPLY[@]}"; do
        COMPREPLY[i]=${COMPREPLY[i]#"$kept"}
    done
    compopt +o default
}

_snapmig_verbs() {
    case $1 in
@VERBS@
    esac
}

_snapmig_options() {
    case $1 in
@OPTIONS@
    esac
}

# Offers what may follow an option, or stand at a place. A file is offered by readline, but what is
# in a bucket by nobody.
_snapmig_values() {
    local before=${2-} choices=
    case $1 in
@VALUES@
    @FILES@) [[ $current != *s3://* ]] && return ;;
    esac
    [[ -n $choices ]] && choices=$before${choices// / $before}
    _snapmig_offer "$choices"
}

_snapmig() {
    local words verb verbs place only_places= current last
    _snapmig_words
    _snapmig_place
    current=${words[-1]}
    last=${words[-2]}
    if [[ $last == *[\<\>] ]]; then
        return
    elif [[ -n $verbs ]]; then
        [[ $current == -* ]] && verbs=$(_snapmig_options "$verb")
        _snapmig_offer "$verbs"
    elif [[ -n $only_places ]]; then
        _snapmig_values "$verb $place"
    elif [[ " @VALUED@ " == *" $last "* ]]; then
        _snapmig_values "$verb $last"
    elif [[ $current == --*=* ]]; then
        _snapmig_values "$verb ${current%%=*}" "${current%%=*}="
    elif [[ $current == -* ]]; then
        _snapmig_offer "$(_snapmig_options "$verb")"
    else
        _snapmig_values "$verb $place"
    fi
}

complete -o default -F _snapmig snapmig
"""


def make_bash(program: Verb) -> str:
    """Return the script."""
    verbs = list(program.walk())
    parents = [verb for verb in verbs if verb.verbs]
    lists = {
        verb.name: " ".join(below.name.split()[-1] for below in verb.verbs) for verb in parents
    }
    options = {
        verb.name: " ".join(flag for option in verb.options for flag in option.flags)
        for verb in verbs
    }
    values = [pair for verb in verbs for pair in _values(verb)]
    parts = {
        "VALUED": " ".join(valued_flags(program)),
        "VERBS": "\n".join(
            _case(name, f"echo {shlex.quote(words)}") for name, words in lists.items()
        ),
        "OPTIONS": "\n".join(
            _case(name, f"echo {shlex.quote(words)}") for name, words in options.items()
        ),
        "VALUES": "\n".join(_choices(values)),
        "FILES": " | \\\n        ".join(
            _pattern(name) for name, value in values if value.completed in ("file", "assignment")
        ),
    }
    script = _SCRIPT
    for name, text in parts.items():
        script = script.replace(f"@{name}@", text)
    return script


def _values(verb: Verb) -> Iterator[tuple[str, Value]]:
    # What is completed, under "VERB --option" and "VERB number"; "VERB *" is any later number.
    for option in verb.options:
        for flag in option.flags if option.value.name else ():
            yield f"{verb.name} {flag}", option.value
    for number, place in enumerate(verb.places):
        yield f"{verb.name} {number}", place.value
        if place.repeats:
            yield f"{verb.name} *", place.value


def _choices(values: list[tuple[str, Value]]) -> Iterator[str]:
    names: dict[tuple[str, ...], list[str]] = {}
    for name, value in values:
        if value.completed == "choices":
            names.setdefault(value.choices, []).append(name)
    for choices, known in names.items():
        patterns = " | \\\n        ".join(map(_pattern, known))
        yield f"    {patterns}) choices={shlex.quote(' '.join(choices))} ;;"


def _pattern(name: str) -> str:
    return f"'{name[:-1]}'[0-9]*" if name.endswith("*") else f"'{name}'"


def _case(name: str, command: str) -> str:
    return f"    '{name}') {command} ;;"
