"""The notebook of the tour runs from top to bottom, and what it stores was made by such a run."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

TOUR = Path(__file__).resolve().parents[2] / "docs" / "tour.ipynb"
pytestmark = pytest.mark.skipif(not TOUR.is_file(), reason="the tour lies in the checkout only")

SMALL = """
FOLDER, SIDE, TRAIN_SIZE, SEED = None, 8, 300, 0
WIDTH, EPOCHS = 32, 12
PATCH_SIZES, SAMPLES, PAIRS, STEPS = [3, 5], 4, 12, 10
"""
PROBE = """
import json
import sys
print(json.dumps({
    "python": sys.executable,
    "summary": comparison.summary()["machines"],
    "skill": {name: values.median().item() for name, values in skill.items()},
    "recalled": els.memorisation(machines["is"], drawn["is"]).pearson_r.min().item(),
    "sizes": scales["bbels"].patch_size.tolist(),
    "tiles": mosaic.tiles.tolist(),
}))
"""


@pytest.fixture(scope="module")
def tour() -> NotebookNode:
    return nbformat.read(TOUR, as_version=4)


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Runs a notebook; once more if another process took the ports that were free before the kernel could."""
    options = {"timeout": 300, "startup_timeout": 40, "kernel_name": "python3"}
    try:
        NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **options).execute()
    except RuntimeError as error:
        if "didn't respond" not in str(error):
            raise
        NotebookClient(notebook, resources={"metadata": {"path": str(folder)}}, **options).execute()


@pytest.fixture(scope="module")
def again(tmp_path_factory):
    """The notebook, run with small settings in an empty home, and what a probe at its end found."""
    notebook = nbformat.read(TOUR, as_version=4)
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    named = set(re.findall(r"\b[A-Z_]{4,}\b", parameters.source.replace("PNG", "")))
    assert named == set(re.findall(r"\b[A-Z_]{4,}\b", SMALL)), "the settings of the test are those of the tour"
    parameters.source = SMALL
    notebook.cells.append(nbformat.v4.new_code_cell(PROBE))
    folder = tmp_path_factory.mktemp("tour")
    with pytest.MonkeyPatch.context() as patch:
        # The kernel of this environment, and not one of the user's by the same name.
        for name in ("JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
            patch.setenv(name, str(folder / name))
        patch.delenv("JUPYTER_PATH", raising=False)
        patch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
        patch.setenv("OMP_NUM_THREADS", "1")
        execute(notebook, folder)
    printed = "".join(output.text for output in notebook.cells[-1].outputs if output.output_type == "stream")
    return notebook, json.loads(printed)


def test_the_kernel_is_that_of_this_environment(again):
    assert Path(again[1]["python"]).parent == Path(sys.executable).parent


def test_it_finds_what_the_theory_says(again):
    found = again[1]
    medians = {name: steps["10"]["pearson_r"]["median"] for name, steps in found["summary"].items()}
    assert medians["bbels"] > medians["is"]
    assert found["summary"]["bbels"]["10"]["beats_is"] > 0.5
    assert 0 < found["skill"]["bbels"] < 1
    assert found["recalled"] > 0.999  # the ideal score machine only recalls
    assert len(found["sizes"]) == 10
    assert set(found["sizes"]) <= {3, 5}
    assert min(found["tiles"]) > 1


def test_every_cell_runs_and_every_picture_is_there(again, tour):
    for pair in zip(again[0].cells, tour.cells, strict=False):
        kinds = ([kind for output in cell.get("outputs", []) for kind in output.get("data", {})] for cell in pair)
        now, before = map(sorted, kinds)
        assert now == before
    assert sum("image/png" in output.get("data", {}) for cell in tour.cells for output in cell.get("outputs", [])) == 7


def test_the_stored_outputs_are_of_one_whole_run(tour):
    cells = [cell for cell in tour.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert {output.output_type for output in outputs} == {"stream", "display_data"}
    assert all(output.name == "stdout" for output in outputs if output.output_type == "stream")
    (conclusion,) = re.findall(r"predicts (\d+)% of this network's creativity", outputs[-1].text)
    assert int(conclusion) > 0
    assert TOUR.stat().st_size < 1_000_000


def test_the_prose_has_no_numbers_of_its_own(tour):
    prose = " ".join(cell.source for cell in tour.cells if cell.cell_type == "markdown")
    assert re.findall(r"\d+\.\d+|\d+ ?%", prose.replace("2412.20292", "")) == []


def test_nothing_tells_where_it_was_made(tour):
    text = TOUR.read_text()
    assert not re.search(r"/(tmp|home|root|work|Users)/", text)
    assert all("execution" not in cell.metadata for cell in tour.cells)
