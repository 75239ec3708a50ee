"""What a shell completes after ``rlmix``: commands, their options, and the names that an option takes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from rlmix.common.groups import Option, options_of
from rlmix.common.ranges import OneOf
from rlmix.experiments.commands.reproduce import TABLES
from rlmix.experiments.families import FAMILIES, rows
from rlmix.experiments.help import spell_flag
from rlmix.recipes import DATA

COMMAND, OPTION, POSITIONAL = "COMMAND", "OPTION", ""
"""What may be completed beside an option's values, which go by the option's flag."""

SCRIPT = """\
# %(shell)s completion of rlmix
%(first)s_rlmix() {
    local word=${COMP_WORDS[COMP_CWORD]} place what= words=
    for ((place = COMP_CWORD - 1; place > 1; place--)); do
        [[ ${COMP_WORDS[place]} == --* ]] && what=${COMP_WORDS[place]} && break
    done
    [[ $word == -* ]] && what=%(OPTION)s
    [[ $word == : || ${COMP_WORDS[COMP_CWORD - 1]} == : ]] && what=PATH  # of npz:PATH
    ((COMP_CWORD == 1)) && what=%(COMMAND)s
    case "${COMP_WORDS[1]} $what" in
%(cases)s
    esac
    COMPREPLY=($(compgen -W "$words" -- "$word"))
    [[ -n $BASH_VERSION && ${COMPREPLY[0]} == *: ]] && compopt -o nospace
    return 0
}
complete -o default -F _rlmix rlmix
"""

FIRST = {
    "bash": "",
    "zsh": """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit; }
autoload -Uz bashcompinit && bashcompinit
""",
}
"""What stands above the script, by shell: zsh reads that of bash once it has bash's builtins for it."""


def script(shell: str, kinds: Mapping[str, type[Any]]) -> str:
    """Give the script that completes ``rlmix``; where it knows no names, the shell's own completion of paths follows.

    Args:
        shell: One of :data:`FIRST`.
        kinds: Each command's options, a composed configuration.
    """
    cases = {" ".join(kinds): [f'*" {COMMAND}"']}
    for command, kind in kinds.items():
        for what, words in completions(kind).items():
            cases.setdefault(" ".join(words), []).append(f'"{command} {what}"')
    lines = [f'        {" | ".join(patterns)}) words="{words}" ;;' for words, patterns in cases.items() if words]
    return SCRIPT % {"shell": shell, "first": FIRST[shell], "OPTION": OPTION, "COMMAND": COMMAND, "cases": "\n".join(lines)}


def completions(kind: type[Any]) -> dict[str, list[str]]:
    """A command's flags under OPTION, and the names that an option takes under its flag; those of an argument without one under POSITIONAL.

    Args:
        kind: Its options.
    """
    found: dict[str, list[str]] = {OPTION: ["--help"]}
    for name, option in options_of(kind).items():
        if "Suppress" in str(option.hint) or option.path[-1] == "hyperparameters":
            continue
        flag = spell_flag(name, option).partition(" ")[0]
        if not flag.startswith("--"):
            found[POSITIONAL] = list(_names(name, option))
            continue
        flags = [flag.replace("[no-]", ""), flag.replace("[no-]", "no-")] if "[no-]" in flag else [flag]
        found[OPTION] += flags
        found[flags[0]] = list(_names(name, option))
    return found


def _names(name: str, option: Option) -> Sequence[str]:
    """What an option may be called with, as far as that is names."""
    for hint in (option.type, *get_args(option.type)):
        if get_origin(hint) is Literal:
            return [str(value) for value in get_args(hint)]
    registered = [one for rule in option.rules if isinstance(rule, OneOf) for one in rule.names()]
    if registered:
        return registered
    data = [one.removesuffix("PATH") for one in DATA if one not in ("given", "module:function")]
    own = {"table": list(TABLES), "family": [*FAMILIES, "options"], "data": data}
    family = {"methods": "methods", "baseline": "methods", "model": "models", "models": "models"}.get(name)
    return own.get(name, [] if family is None else [one for one, _, _ in rows(family)])
