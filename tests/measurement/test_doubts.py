"""What is doubtful about a result is said, and nothing else."""

import pytest
import torch
from tiny import TRAIN, cli

from elslightning.machines.scales import ScaleTable
from elslightning.measurement.agreement import MEASURES
from elslightning.measurement.calibration import Calibration
from elslightning.measurement.candidates import sizes_only
from elslightning.measurement.comparison import Comparison
from elslightning.measurement.doubts import FEW_PAIRS, doubts
from elslightning.measurement.result import Result

pytestmark = [pytest.mark.reliability, pytest.mark.usefixtures("no_drawing")]


def compared(**r: list[float]) -> Result:
    """A result of machines with these Pearson r, a pair each; all else does not count."""
    rows = [
        {"pair": pair, "label": None, "machine": machine, "steps": 20, "network_steps": 20}
        | dict.fromkeys(MEASURES, value)
        for machine, values in r.items()
        for pair, value in enumerate(values)
    ]
    image = torch.zeros(len(next(iter(r.values()))), 1, 2, 2)
    return Result({}, {}, Comparison(rows, {20: image}, dict.fromkeys(r, image), None))


def calibrated(tried: list[int], taken: list[int]) -> Result:
    """A result of one machine that was calibrated."""
    levels = [0.9 - 0.1 * k for k in range(len(taken))]
    table = ScaleTable(levels, taken)
    agreement = torch.zeros(len(taken), len(tried), 1)
    found = Calibration(table, torch.tensor(levels, dtype=torch.float64), sizes_only(tried), agreement)
    return Result({"bbels": found}, {"bbels": table})


def around(middle: float, count: int = 100, width: float = 0.02, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    return (middle + width * torch.randn(count, generator=generator).double()).tolist()


def test_a_result_beyond_doubt_has_none():
    assert doubts(compared(bbels=around(0.9), ls=around(0.7))) == []
    assert doubts(calibrated([3, 5, 7], [5, 5])) == []
    assert doubts(Result({}, {})) == []


@pytest.mark.parametrize(("count", "doubtful"), [(FEW_PAIRS - 1, True), (FEW_PAIRS, False)])
def test_few_pairs_are_doubtful(count, doubtful):
    found = doubts(compared(bbels=around(0.9, count), ls=around(0.1, count)))
    assert [line.startswith(f"Few pairs: {count}. Below 30") for line in found] == [True] * doubtful


@pytest.mark.parametrize(
    ("tried", "taken", "said"),
    [
        (
            [3, 5, 7],
            [5, 7],
            ["bbELS takes the greatest patch size tried, 7, at 1 of 2 noise levels. Perhaps a"],
        ),
        (
            [3, 5, 7],
            [3, 3],
            ["bbELS takes the smallest patch size tried, 3, at 2 of 2 noise levels. Perhaps a"],
        ),
        ([3, 5], [3, 5], ["the greatest patch size tried, 5", "the smallest patch size tried, 3"]),
        ([1, 3, 5], [1, 3], []),
        ([5], [5, 5], []),
    ],
    ids=str,
)
def test_scales_at_the_edge_are_doubtful(tried, taken, said):
    found = doubts(calibrated(tried, taken))
    assert len(found) == len(said)
    for line, text in zip(found, said, strict=True):
        assert line.startswith("Scale at the edge: ")
        assert text in line


def test_machines_that_cannot_be_told_apart_are_doubtful():
    (line,) = doubts(compared(bbels=around(0.9, seed=1), ls=around(0.9, seed=2)))
    assert line.startswith(
        "Intervals overlap: bbELS and LS, against 20 network steps. Pair by pair they cannot be told"
    )


def test_pairs_may_tell_apart_what_intervals_do_not():
    r = around(0.8, width=0.1)
    (line,) = doubts(compared(bbels=r, ls=[value + 0.01 for value in r]))
    assert "Pair by pair LS is ahead nevertheless: the median difference of r is -0.010" in line


def test_every_verb_says_it_once(tmp_path):
    done = cli("train", *TRAIN, "comparison.every_n_epochs=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert done.code == 0, done.err
    found = [done]
    for verb in ("calibrate", "compare"):
        options = [f"checkpoint={tmp_path / 'run'}", "calibration.patch_sizes=[3,5]", "report=false"]
        found.append(cli(verb, *options, f"hydra.run.dir={tmp_path / verb}"))
    for done in found:
        said = [line for line in done.err.splitlines() if line.startswith("elslightning: warning: ")]
        assert any("Scale at the edge: " in line for line in said)
        assert len(said) == len(set(said))
    assert [done.err.count("Few pairs: 3.") for done in found] == [1, 0, 1]
