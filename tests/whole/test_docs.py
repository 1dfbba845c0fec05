"""The README and the pages of docs/: their commands, their links, and the reference of the API.

A command in a block is run here, shrunk, unless `<!-- not run: WHY -->` stands before the block, or, before the first
heading, for the whole page. The words of the others are composed, those in the midst of a line as well.
"""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from files import write_images
from hydra.core.override_parser.overrides_parser import OverridesParser
from tiny import MEASUREMENT, TRAIN, cli, compose_config

import elslightning as els
from elslightning.cli.explaining import explain
from elslightning.cli.keys import choices, composed, keys
from elslightning.cli.main import VERBS
from elslightning.cli.tools import TOOLS
from elslightning.runs.configuration import key_of
from elslightning.runs.paths import for_grammar

CHECKOUT = Path(__file__).resolve().parents[2]
PAGES = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("sweeps/*.md")]
pytestmark = [
    pytest.mark.skipif(not PAGES, reason="the pages lie in the checkout only"),
    pytest.mark.usefixtures("no_drawing", "little_training"),
]
RUN_BY = {
    "completion": "cli/test_keys.py",
    "doctor": "cli/test_doctor.py",
    "explain": "cli/test_keys.py",
    "export": "runs/test_exchange.py",
    "figures": "report/test_paper.py",
    "import-official": "runs/test_exchange.py",
    "report": "report/test_report.py",
    "sweep-report": "report/test_sweep_report.py",
}
"""The tests that run the tools."""
SMALL = {
    "train": TRAIN,
    "calibrate": ["data.train_size=40", "data.val_size=10", *MEASUREMENT],
    "compare": MEASUREMENT,
    "sample": ["num_samples=2", "steps=2"],
    "create": ["num_samples=2", "steps=2", "max_images=20", "followed=1", *MEASUREMENT[:3]],
}
PLACES = ("outputs/demo", "outputs/other", "outputs/unet", "OTHER_RUN", "RUN_DIR", "RUN", "digits_S", "digits_T")
"""What stands for the directory of a run."""
MARK = re.compile(r"<!-- not run: .+? -->\n")


class Command(NamedTuple):
    """A command of a page: its words after `elslightning`, and whether it is to be run here."""

    page: str
    words: tuple[str, ...]
    run: bool

    @property
    def verb(self) -> str:
        return self.words[0]


def commands(page: Path) -> list[Command]:
    text, name = page.read_text("utf-8"), page.relative_to(CHECKOUT).as_posix()
    head = text.partition("\n## ")[0]
    whole = bool(MARK.search(head)) and not re.search(MARK.pattern + " *```", head)
    found, rest = [], []
    for part in re.split(r"((?:<!-- not run: .+? -->\n)?^ *```[\s\S]*?^ *```$)", text, flags=re.MULTILINE):
        if "```" not in part:
            rest += re.findall(r"`elslightning\s+([a-z][^`]*)`", part)
            continue
        lines = re.sub(r"\\\n", " ", part).splitlines()
        typed = [
            line.strip().removeprefix("elslightning ") for line in lines if line.strip().startswith("elslightning ")
        ]
        run = not whole and not part.startswith("<!--")
        found += [Command(name, tuple(shlex.split(line, comments=True)), run) for line in typed]
    return found + [Command(name, tuple(shlex.split(line)), False) for line in rest]


ALL = [command for page in sorted(PAGES) for command in commands(page)]
WRITTEN = list(
    {tuple(w for w in one.words if not w.startswith("hydra.run.dir=")): one for one in ALL if one.run}.values()
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of images in two classes."""
    root = tmp_path_factory.mktemp("docs") / "pictures"
    write_images(root, [f"{name}/{n:02}.png" for name in ("cat", "dog") for n in range(60)], size=(12, 12))
    return root


def filled(command, run, folder):
    """The words of a command, with a folder of data and a run in the place of those that are only named."""
    named = {"FOLDER": folder, "NAME": "digits", "S": 0, "N": 20, **dict.fromkeys(PLACES, run)}
    words = []
    for word in command.words:
        key, sign, value = word.rpartition("=")
        words.append(f"{key}{sign}{named.get(value, value)}")
    return words


def test_there_are_commands_on_every_page_that_has_a_block_of_them():
    assert {command.page for command in ALL} >= {
        "README.md",
        "docs/getting-started.md",
        "docs/data.md",
        "sweeps/README.md",
    }
    assert {command.verb for command in WRITTEN} >= {*VERBS}


@pytest.mark.parametrize("command", [one for one in ALL if one.verb in TOOLS], ids=lambda one: " ".join(one.words))
def test_a_tool_of_the_pages_is_there_and_has_a_test(command):
    assert f'"{command.verb}"' in (CHECKOUT / "tests" / RUN_BY[command.verb]).read_text("utf-8")


def test_the_words_of_all_commands_are_understood(trained_once, pictures):
    """Keys and choices; what is neither of the verb's is composed, of a sweep with the first value of each."""
    told = {one.words: one for one in ALL if one.verb in VERBS and one not in WRITTEN}
    parser, known, offered = OverridesParser.create(), {verb: {*keys(composed(verb))} for verb in VERBS}, choices()
    for command in told.values():
        words = [word for word in filled(command, trained_once, pictures)[1:] if word != "job" and word[:2] != "--"]
        if any(word.isupper() or "…" in word or word == "|" for word in words):
            continue  # a form of words
        plain, unknown = [], False
        for override in parser.parse_overrides(for_grammar(words, several=True)):
            if override.key_or_group.startswith("hydra"):
                continue
            swept = override.is_sweep_override()
            values = list(override.sweep_string_iterator()) if swept else [override.get_value_string()]
            plain.append(f"{override.get_key_element()}={values[0]}" if swept else override.input_line)
            key = override.key_or_group
            unknown |= not {*values} <= {*offered[key]} if key in offered else key not in known[command.verb]
        try:
            if unknown:
                compose_config(command.verb, Path("run"), plain)
        except Exception as error:
            raise AssertionError(f"{command.page}: {' '.join(command.words)}: {error}") from error


@pytest.mark.usefixtures("no_rendering")
@pytest.mark.parametrize("command", [one for one in WRITTEN if one.verb in VERBS], ids=lambda one: " ".join(one.words))
def test_a_command_runs(command, trained_once, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = [word for word in filled(command, trained_once, pictures)[1:] if key_of(word) != "hydra.run.dir"]
    small = [*SMALL[command.verb], *(["data.image_size=8"] if f"data.root={pictures}" in words else [])]
    done = cli(command.verb, *words, *small, f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "run.json").is_file()


def test_the_python_of_the_readme_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (CHECKOUT / "README.md").read_text("utf-8"), re.DOTALL)
    assert code in (CHECKOUT / "docs" / "data.md").read_text("utf-8")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["samples"].shape == (4, 1, 16, 16)


def test_every_key_that_the_pages_tell_to_explain_is_known():
    for command in ALL:
        if command.verb == "explain" and command.words[1:] != ("KEY",):
            assert explain(command.words[1])


def test_the_readme_is_short_and_begins_with_the_result():
    lines = (CHECKOUT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) < 150
    assert next(n for n, line in enumerate(lines) if line.startswith("|")) < 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`]*`(?!\])", "", page.read_text("utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if ":" in target:
            continue
        generated = {name: place for place, name in site().ELSEWHERE.items()} if page.parent.name == "docs" else {}
        place = page if not path else CHECKOUT / generated[path] if path in generated else page.parent / path
        assert place.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", place.read_text("utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, target


def site():
    spec = importlib.util.spec_from_file_location("site_pages", CHECKOUT / "docs" / "site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_is_in_the_reference():
    pages = site()
    rooms = {name for name in els.__all__ if getattr(els, name).__class__.__name__ == "module"}
    written = re.findall(r"^::: (\S+)$", pages.reference(), re.MULTILINE)
    assert sorted(name.rpartition(".")[2] for name in written) == sorted(
        {*els.__all__, "DenoiserContract"} - rooms - {"__version__"}
    )
    assert rooms - set(pages.ROOMS) <= {"cli", "system"}


def test_links_between_pages_are_those_of_the_site():
    moved = site().moved
    assert moved("[a](docs/results.md#x) [b](sweeps/README.md) [c](CITATION.cff)", "README.md") == (
        "[a](results.md#x) [b](sweeps.md) c"
    )
    assert moved("[a](../README.md) ![b](images/digits_pairs.png) [c](#d) [e](https://x.y)", "docs/results.md") == (
        "[a](index.md) ![b](images/digits_pairs.png) [c](#d) [e](https://x.y)"
    )
    assert moved("x[0](y) [a](nowhere.md)", "docs/data.md") == "x[0](y) [a](nowhere.md)"


def test_every_page_is_in_the_navigation():
    navigation = (CHECKOUT / "mkdocs.yml").read_text("utf-8").partition("\nnav:")[2]
    names = {page.name for page in CHECKOUT.glob("docs/*.md")} | {*site().ELSEWHERE.values(), "api.md"}
    assert set(re.findall(r"(\S+\.md)", navigation)) == names


def test_the_citation_is_of_this_version():
    version = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert f"version: {version}\n" in (CHECKOUT / "CITATION.cff").read_text("utf-8")
    assert f"{{{version}}}" in (CHECKOUT / "docs" / "cite.md").read_text("utf-8")
    assert f"## {version}" in (CHECKOUT / "CHANGELOG.md").read_text("utf-8")
    assert f"elslightning-{version}-" in (CHECKOUT / "docs" / "getting-started.md").read_text("utf-8")
