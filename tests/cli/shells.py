"""Shells in which somebody types: what a real one completes is asked of it, not of its script."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pexpect

from tests.manual.__main__ import COMPLETIONS

# Ctrl-T inserts all that could stand here, Ctrl-Y prints the line and empties it.
_KEYS = "\x14\x19"
_BASH = r"""
PS1='$ '
bind 'set enable-bracketed-paste off'
bind '"\C-t": insert-completions'
show() { printf '<<%s>>\n' "$READLINE_LINE"; READLINE_LINE=; }
bind -x '"\C-y": show'
"""
_ZSH = r"""
PS1='$ '
fpath=($PWD/scripts $fpath)
autoload -Uz compinit && compinit -u -d $PWD/scripts/dump
zle -C all-matches complete-word _generic
zstyle ':completion:all-matches:*' completer _all_matches _complete
zstyle ':completion:all-matches:*' insert yes
bindkey '^T' all-matches
show() { print -r -- "<<$BUFFER>>"; BUFFER= }
zle -N show
bindkey '^Y' show
"""
BASH_COMPLETION = Path("/usr/share/bash-completion/bash_completion")


class Typed:
    """
    A shell behind a terminal.

    :param command: that starts it
    :param setup: what it reads first
    :param home: where it works, and keeps what it needs in a folder "scripts"
    """

    def __init__(self, command: list[str], setup: str, home: Path) -> None:
        (home / "scripts" / "setup").write_text(setup)
        self._terminal = pexpect.spawn(
            command[0],
            command[1:],
            cwd=str(home),
            env=_environment(home),
            dimensions=(50, 4000),
            encoding="utf-8",
            timeout=60,
        )
        self._terminal.sendline(". scripts/setup; echo rea''dy")
        self._terminal.expect("ready\r\n")

    def complete(self, line: str) -> set[str]:
        """Return what could stand where the line ends; empty where nothing could."""
        self._terminal.send(line + _KEYS)
        self._terminal.expect(r"<<(.*?)>>")
        shown = str(self._terminal.match[1])
        return set() if shown == line else _words(line, shown[line.rfind(" ") + 1 :].split())

    def close(self) -> None:
        """End it."""
        self._terminal.close(force=True)


class Fish:
    """A fish that is asked for what it would complete."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def complete(self, line: str) -> set[str]:
        """As :meth:`Typed.complete`."""
        done = subprocess.run(
            ["fish", "-c", f"complete -C {_quoted(line)}"],
            cwd=self._home,
            env=_environment(self._home),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return _words(line, [text.split("\t")[0] for text in done.stdout.splitlines()])

    def close(self) -> None:
        """Nothing runs."""


def open_shell(name: str, home: Path) -> Typed | Fish:
    """
    Return a shell that has our completion, from where it looks for it itself.

    :param name: bash, bash-completion (bash with that package), zsh or fish
    """
    scripts = home / "scripts"
    scripts.mkdir()
    if name == "fish":
        _place(scripts / "fish" / "completions" / "snapmig.fish", "snapmig.fish")
        _program(scripts / "snapmig")
        return Fish(home)
    if name == "zsh":
        _place(scripts / "_snapmig", "_snapmig")
        return Typed(["zsh", "-f", "-i"], _ZSH, home)
    _place(scripts / "completions" / "snapmig", "snapmig.bash")
    first = "scripts/completions/snapmig" if name == "bash" else BASH_COMPLETION
    return Typed(["bash", "--norc", "--noprofile", "-i"], f". {first}\n{_BASH}", home)


def _environment(home: Path) -> dict[str, str]:
    scripts = str(home / "scripts")
    return {
        "PATH": f"{scripts}:{os.defpath}",
        "HOME": scripts,
        "TERM": "dumb",
        "LC_ALL": "C.UTF-8",
        "BASH_COMPLETION_USER_DIR": scripts,
        "XDG_CONFIG_HOME": scripts,
        "XDG_DATA_HOME": scripts,
    }


def _place(path: Path, name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((COMPLETIONS / name).read_bytes())


def _program(path: Path) -> None:
    # fish completes only what there is; nobody runs it.
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o755)


def _words(line: str, found: list[str]) -> set[str]:
    # Some shells give back what stands before a colon or an equals sign, and some what follows.
    typed = re.match(r".*[:=]|", line[line.rfind(" ") + 1 :])
    assert typed is not None
    return {word.removeprefix(typed[0]).rstrip("=/") for word in found}


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
