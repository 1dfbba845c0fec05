"""Run directories of earlier versions: what opens them opens them still, and finds the same numbers."""

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from tiny import cli, snapshot

from elslightning.runs.metrics import CHECK
from elslightning.runs.run import read_run
from elslightning.runs.writing import write

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
VERSIONS = ["version_0_1"]
CLOSE = {"rel": 1e-3, "abs": 1e-4}
"""Processors differ in their last digits, and a network is asked step after step."""
pytestmark = pytest.mark.usefixtures("no_drawing", "plain_fonts")


@pytest.fixture(params=VERSIONS)
def earlier(request, tmp_path, monkeypatch):
    """Copies of the runs of a version, in the working directory: their checkpoints are named from there."""
    shutil.copytree(FIXTURES / request.param, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(*words: str) -> str:
    found = cli(*words)
    assert found.code == 0, found.err
    return found.out


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def numbers(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """Rows with what is a number as one, to be held against others."""
    return [{key: pytest.approx(float(v), **CLOSE) if is_number(v) else v for key, v in row.items()} for row in rows]


def values(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    return [{key: float(v) if is_number(v) else v for key, v in row.items()} for row in rows]


def is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.\d*)?(e-?\d+)?", text) is not None


def tables(text: str) -> list[tuple[str, ...]]:
    """The numbers of every row of the tables of a report, after its title."""
    lines = [line.split("|")[1:] for line in text.splitlines() if line.startswith("|")]
    return [(title.strip(), *re.findall(r"-?\d+(?:\.\d+)?", " ".join(cells))) for title, *cells in lines]


def holds(row: tuple[str, ...], earlier: tuple[str, ...]) -> bool:
    """Whether a row has the title and all the numbers of an earlier one, in their order; it may have more."""
    rest = iter(row[1:])
    return row[0] == earlier[0] and all(number in rest for number in earlier[1:])


@pytest.mark.parametrize("name", ["run", "compared", "sweep/0", "sweep/1"])
def test_what_was_read_is_written_byte_for_byte(earlier, tmp_path, name):
    before = snapshot(earlier / name)
    written = write(read_run(earlier / name).result, tmp_path / "again")
    assert {"comparison.csv", "summary.json", "scales.json"} <= {path.name for path in written}
    for path in written:
        content = path.read_bytes()
        if path.name == "summary.json":  # with the checksums of the others, which that version did not have
            summary = json.loads(content)
            assert summary.pop("checksum").startswith("sha256:")
            assert set(summary.pop("files")) == {path.name for path in written} - {"summary.json"}
            content = json.dumps(summary, indent=2).encode() + b"\n"
        assert content == before[path.name]


@pytest.mark.usefixtures("no_rendering")
@pytest.mark.parametrize("name", ["run", "compared"])
def test_reports_have_the_same_numbers(earlier, name):
    before = tables((earlier / name / "report.md").read_text())
    assert "report: " in done("report", name)
    after = tables((earlier / name / "report.md").read_text())
    assert len(before) > 20
    assert [row for row in before if not any(holds(other, row) for other in after)] == []
    assert "There is no explorer" not in (earlier / name / "report.md").read_text()


@pytest.mark.parametrize("checkpoint", ["run", "run/checkpoints/last.ckpt", "run.safetensors"])
def test_a_network_is_compared_as_it_was(earlier, checkpoint):
    given = ["data=digits", "data.train_size=40", "data.val_size=10", "comparison.num_pairs=4", "report=false"]
    # What an exported network does not know of the run that it is from.
    rest = ["scales=run/scales.json", "comparison.steps=2", "comparison.network_steps=2", "machines=[bbels,ls,is]"]
    rest = rest if checkpoint.endswith(".safetensors") else []
    done("compare", f"checkpoint={checkpoint}", *given, *rest, "hydra.run.dir=new")
    for name in ("comparison.csv", "consistency.csv"):
        before = rows(earlier / "compared" / name)
        after = [{column: row[column] for column in before[0]} for row in rows(earlier / "new" / name)]
        assert values(after) == numbers(before)


def test_a_training_goes_on(earlier):
    before = rows(earlier / "unfinished" / "metrics.csv")
    done("train", "resume=unfinished", "trainer.max_epochs=2")
    after = rows(earlier / "unfinished" / "metrics.csv")
    assert [row["epoch"] for row in after] == ["0", "0", "1", "1"]
    kept = [{key: value for key, value in row.items() if value and key != CHECK} for row in after]
    assert all({key: value for key, value in row.items() if value} in kept for row in before)


def test_figures_are_drawn(earlier):
    done("figures", "run", "output=figures")
    names = ["fig4a_receptive_field", "fig4b_patch_size", "fig5_pairs", "fig5_scatter", "fig10_grid", "ranking"]
    assert {path.name for path in (earlier / "figures").iterdir()} == {
        f"{n}{end}" for n in names for end in (".png", ".pdf")
    }


def test_samples_are_read(earlier):
    run = read_run(earlier / "sampled")
    assert (run.sampled, run.summary["source"], run.drawn["samples"].shape) == (True, "bbels", (4, 1, 8, 8))


def test_the_table_of_a_sweep_is_the_same(earlier):
    before = rows(earlier / "sweep" / "sweep.csv")
    done("sweep-report", "sweep")
    assert rows(earlier / "sweep" / "sweep.csv") == before
    assert (earlier / "sweep" / "figures" / "sweep.png").is_file()


def test_fixtures_name_no_place_on_the_machine_that_made_them():
    for version in VERSIONS:
        for name, content in snapshot(FIXTURES / version).items():
            assert not re.search(rb"/(tmp|home|root|work)/", content), name
