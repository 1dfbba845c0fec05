"""The pages of the site that are made: those that lie elsewhere in the repository, the tour, the reference of the API.

MkDocs calls `on_files`, `on_page_markdown` and `on_post_build`.
"""

import ast
import base64
import json
import posixpath
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "README.md": "index.md",
    "sweeps/README.md": "sweeps.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "docs/tour.ipynb": "tour.md",
}
"""Pages by where they lie, and their names on the site."""
ROOMS = {
    "machines": "Machines: the theories",
    "measurement": "Measurements",
    "diffusion": "Schedules and sampling",
    "networks": "Networks",
    "runs": "Runs and checkpoints",
    "report": "Reports",
    "data": "Data",
    "training": "Training",
    "testing": "Tests for denoisers of your own",
    "system": "Errors",
    "cli": "The program",
}
"""The rooms of the package in the order of the reference, with their headings."""
CONTRACT = "elslightning.testing.DenoiserContract"


def public() -> dict[str, list[str]]:
    """Where the public names of every room are defined, in the order of the list that the package has of them."""
    tree = ast.parse((ROOT / "elslightning" / "__init__.pyi").read_text("utf-8"))
    found: dict[str, list[str]] = {room: [] for room in ROOMS}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found[node.module.split(".")[1]] += [f"{node.module}.{alias.name}" for alias in node.names]
    found["testing"].append(CONTRACT)
    return found


def reference() -> str:
    """The page of the API: every public name with its docstring."""
    lines = [
        "# API",
        "",
        "Every name is an attribute of `els`, as in `import elslightning as els`; the contract is "
        "`els.testing.DenoiserContract`. What does not stand here may change without a word.",
        "",
    ]
    for room, names in public().items():
        lines += [f"## {ROOMS[room]}", ""]
        lines += [line for name in names for line in (f"::: {name}", "    options: {heading_level: 3}", "")]
    return "\n".join(lines)


def moved(text: str, place: str) -> str:
    """The Markdown of a file at `place` in the repository, with its links as they are on the site.

    Links to files that are no pages become their words.
    """

    def link(found: re.Match[str]) -> str:
        words, target = found.groups()
        path, hash_sign, anchor = target.partition("#")
        path = posixpath.normpath(posixpath.join(posixpath.dirname(place), path))
        if ":" in target or target.startswith("#") or not (ROOT / path).exists():
            return found[0]  # MkDocs says which of these lead nowhere
        page = ELSEWHERE.get(path, path.removeprefix("docs/") if path.startswith("docs/") else None)
        return words if page is None else f"[{words}]({page}{hash_sign}{anchor})"

    return re.sub(r"\[([^\]]*)\]\(([^)\s]+)\)", link, text)


def notebook(path: Path) -> tuple[str, dict[str, bytes]]:
    """A notebook as Markdown, and its pictures by name."""
    parts, pictures = [], {}
    for cell in json.loads(path.read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", []):
            if text := "".join(output.get("text", "")):
                parts.append(f"```text\n{text.rstrip()}\n```")
            if picture := output.get("data", {}).get("image/png"):
                name = f"images/{path.stem}_{len(pictures) + 1}.png"
                pictures[name] = base64.b64decode(picture)
                parts.append(f"![What the cell above draws]({name})")
    return "\n\n".join(parts), pictures


def made(place: str, name: str) -> Iterator[tuple[str, str | bytes]]:
    """What becomes of a file that lies elsewhere: names and contents on the site."""
    if not place.endswith(".ipynb"):
        yield name, (ROOT / place).read_text("utf-8")
        return
    text, pictures = notebook(ROOT / place)
    yield name, text
    yield from pictures.items()


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are made."""
    from mkdocs.structure.files import File

    contents: dict[str, str | bytes] = {"api.md": reference()}
    for place, name in ELSEWHERE.items():
        contents |= dict(made(place, name))
    for name, content in contents.items():
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **kwargs: Any) -> str:
    """Turns links to places of the repository into those to pages."""
    places = {name: place for place, name in ELSEWHERE.items()}
    return moved(markdown, places.get(page.file.src_uri, f"docs/{page.file.src_uri}"))


def on_post_build(config: Any) -> None:
    """Fails if a public name is not in the inventory of what has been documented."""
    from mkdocs.exceptions import PluginError

    inventory = Path(config.site_dir, "objects.inv").read_bytes()
    body = zlib.decompress(inventory.split(b"zlib.\n", 1)[1]).decode()
    known = {line.split(" ", 1)[0] for line in body.splitlines()}
    if missing := [name for names in public().values() for name in names if name not in known]:
        raise PluginError(f"not in the reference: {', '.join(missing)}")
