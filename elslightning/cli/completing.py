"""Tab completion: the scripts for bash, zsh and fish, and what they ask for."""

from collections.abc import Sequence

from elslightning.cli.keys import choices, composed, keys
from elslightning.runs.paths import is_path
from elslightning.system.errors import InputError

QUERY = "query"

SCRIPTS = {
    # Bash takes `=` and `:` for ends of words, and replaces what stands behind the last of them only.
    "bash": """\
_elslightning() {
  local line="${COMP_LINE:0:COMP_POINT}" word
  word="${line##* }"
  local kept="" IFS=$'\\n'
  case "$word" in *[=:]*) kept="${word%"${word##*[=:]}"}";; esac
  COMPREPLY=($("${COMP_WORDS[0]}" completion query "$line" 2>/dev/null))
  COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}
complete -o nospace -o default -F _elslightning elslightning
""",
    "zsh": """\
#compdef elslightning
_elslightning() {
  local -a found
  found=("${(@f)$(elslightning completion query "${LBUFFER}" 2>/dev/null)}")
  [[ -n "${found[1]}" ]] && compadd -Q -S '' -- "${found[@]}" || { compset -P '*='; _files }
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _elslightning elslightning
""",
    "fish": """\
complete -c elslightning -e
complete -c elslightning -a '(elslightning completion query (commandline -cp | string collect) 2>/dev/null)'
""",
}
"""By shell; `eval "$(elslightning completion bash)"` in its start-up file puts one to work."""


def completion(words: Sequence[str], verbs: Sequence[str], tools: Sequence[str]) -> str:
    """The script of a shell; or, for `query LINE`, the words that the last one of a line may become, a line each.

    Args:
        words: the name of a shell, or `query` and the line up to the cursor.
        verbs: that have a configuration.
        tools: that have none.

    Raises:
        InputError: for another shell.
    """
    if len(words) == 2 and words[0] == QUERY:
        return "\n".join(candidates(words[1], verbs, tools))
    if len(words) != 1 or words[0] not in SCRIPTS:
        raise InputError(f"completion is there for {', '.join(SCRIPTS)}: elslightning completion bash")
    return SCRIPTS[words[0]]


def candidates(line: str, verbs: Sequence[str], tools: Sequence[str]) -> list[str]:
    """What the last word of a line may become; nothing where a path is to be typed.

    >>> candidates("elslightning cal", ["train", "calibrate"], ["doctor"])
    ['calibrate']
    """
    words = line.split()
    word = "" if line[-1:].isspace() or not words else words.pop()
    if len(words) <= 1:
        return [verb for verb in (*verbs, *tools) if verb.startswith(word)]
    verb, before = words[1], words[2:]
    if verb == "completion":
        return [shell for shell in SCRIPTS if shell.startswith(word)]
    if verb not in verbs and verb != "explain":
        return []
    options = choices()
    key, equals, _ = word.partition("=")
    if equals:
        if is_path(key):
            return []
        return [found for option in options.get(key, ()) if (found := f"{key}={option}").startswith(word)]
    config = composed(verb if verb in verbs else verbs[0], before)
    known = keys(config)
    sections = {one.rpartition(".")[0] for one in known if "." in one}
    ends = [f"{one}." if one in sections else f"{one}=" for one in known]
    ends += [f"{group}=" for group in options if group in config or group == "experiment"]
    ends += ["--multirun", "--cfg", "--help"] if word.startswith("-") else []
    if verb == "explain":
        ends = [end.rstrip("=") for end in ends]
    deep = word.count(".")
    return sorted({end for end in ends if end.startswith(word) and end.rstrip(".").count(".") <= deep})
