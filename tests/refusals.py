"""What is refused before any work: a line for each problem, so that one command can be wrong in several ways."""

from collections.abc import Mapping, Sequence

from tiny import cli

Cases = Mapping[str, tuple[Sequence[str], str]]
"""The words of a command, the verb first, and what is said of them, by name."""


def problems(*arguments: str) -> list[str]:
    """What is said, a line for each problem, with the first line taken off where there are several."""
    done = cli(*arguments)
    assert done.code == 2, done.err
    first, *rest = done.err.splitlines()
    assert first.startswith("elslightning: error: ")
    if not rest:
        return [first.removeprefix("elslightning: error: ")]
    assert first == f"elslightning: error: there are {len(rest)} problems:"
    assert all(line.startswith("  ") for line in rest)
    return [line.strip() for line in rest]


def all_problems(verb: str, *more: str, words: Mapping[str, str]) -> list[str]:
    """What is said of words that are all wrong: first what can be told of values by themselves, which is said before
    anything is imported, and all the rest where those are left out.

    Args:
        verb: what is to be done.
        more: words that are right.
        words: `key=value`, by key.
    """
    first = problems(verb, *more, *words.values())
    left = {key: word for key, word in words.items() if not any(line.startswith((f"{key} ", word)) for line in first)}
    if not left or len(first) == len(words):
        return first
    assert len(left) == len(words) - len(first), first
    return [*first, *problems(verb, *more, *left.values())]


def rounds(cases: Cases, together: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The names of all cases, in as few commands as is said."""
    taken = [name for names in together for name in names]
    return [*map(tuple, together), *((name,) for name in cases if name not in taken)]


def assert_refused(cases: Cases, names: Sequence[str], *more: str) -> list[str]:
    """Every case of a round is said in a line of its own, and nothing else is; the lines.

    What can be told of values by themselves is said before the rest is looked at: see `all_problems`.
    """
    lines = _said(cases, names, more)
    left = [name for name in names if not any(cases[name][1] in line for line in lines)]
    if left and len(lines) == len(names) - len(left):
        lines += _said(cases, left, more)
    assert len(lines) == len(names), lines
    for name in names:
        assert sum(cases[name][1] in line for line in lines) == 1, (name, lines)
    return lines


def _said(cases: Cases, names: Sequence[str], more: Sequence[str]) -> list[str]:
    (verb,) = {cases[name][0][0] for name in names}
    words = {word.split("=")[0]: word for name in names for word in cases[name][0][1:]}
    return problems(verb, *more, *words.values())
