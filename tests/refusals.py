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


def rounds(cases: Cases, together: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """The names of all cases, in as few commands as is said."""
    taken = [name for names in together for name in names]
    return [*map(tuple, together), *((name,) for name in cases if name not in taken)]


def assert_refused(cases: Cases, names: Sequence[str], *more: str) -> list[str]:
    """Every case of a round is said in a line of its own, and nothing else is; the lines."""
    (verb,) = {cases[name][0][0] for name in names}
    words = {word.split("=")[0]: word for name in names for word in cases[name][0][1:]}
    lines = problems(verb, *more, *words.values())
    assert len(lines) == len(names), lines
    for name in names:
        assert sum(cases[name][1] in line for line in lines) == 1, (name, lines)
    return lines
