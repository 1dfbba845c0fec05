"""ScaleTable: the nearest level counts, by angle; what it covers; its files."""

import dataclasses
import json
import math
import pickle

import pytest
import torch
from torch.testing import assert_close

from elslightning.diffusion.schedule import CosineSchedule
from elslightning.diffusion.schedules import SCHEDULES
from elslightning.machines.parameters import Parameter, ParameterTable
from elslightning.machines.scales import ScaleTable, load_scales, save_scales
from elslightning.system.errors import InputError
from elslightning.testing import levels


def at_angles(*angles):
    """Noise levels at given angles arccos(sqrt(alpha_bar))."""
    return torch.tensor(angles, dtype=torch.float64).cos().square()


@pytest.fixture
def table():
    return ScaleTable(at_angles(0.2, 0.4, 0.8), [3, 7, 5])


def test_entries_run_from_low_to_high_noise_however_given():
    table = ScaleTable([0.1, 0.9, 0.5], [7, 3, 5])
    assert table.alpha_bar.tolist() == [0.9, 0.5, 0.1]
    assert table.patch_size.tolist() == [3, 5, 7]
    assert len(table) == 3


def test_given_levels_have_their_own_size(table):
    assert table.at(table.alpha_bar).tolist() == [3, 7, 5]


def test_nearest_level_by_angle_counts(table):
    assert table.at(at_angles(0.29, 0.31, 0.59, 0.61)).tolist() == [3, 7, 7, 5]


def test_nearest_by_angle_is_not_nearest_by_alpha_bar():
    table = ScaleTable(at_angles(0.1, 1.3), [3, 5])
    middle = sum(table.alpha_bar.tolist()) / 2
    angle = math.acos(math.sqrt(middle))
    assert angle > 0.7
    assert table.at(at_angles((angle + 0.7) / 2)).tolist() == [5]


def test_half_way_the_one_with_less_noise_counts(table):
    assert table.at(at_angles(0.3, 0.6)).tolist() == [3, 7]


def test_order_of_queries_is_kept_and_shape_is_that_of_the_batch(table):
    assert table.at(at_angles(0.8, 0.2, 0.4, 0.2)).tolist() == [5, 3, 7, 3]


def test_ends_reach_by_the_gap_to_their_neighbour(table):
    assert table.at(at_angles(1e-6, 1.2 - 1e-6)).tolist() == [3, 5]


@pytest.mark.parametrize("angle", [1.21, 1.5])
def test_noise_beyond_the_ends_is_refused(table, angle):
    level = at_angles(angle)
    with pytest.raises(InputError, match=f"not {level.item():.6g}"):
        table.at(torch.cat([at_angles(0.3), level]))


def test_signal_beyond_the_ends_is_refused():
    with pytest.raises(InputError, match=r"covers alpha_bar from .* not 0\.999"):
        ScaleTable(at_angles(0.4, 0.5), [3, 5]).at(levels(0.999))


def test_a_table_down_to_nearly_pure_noise_speaks_for_all_that_is_noisier():
    assert ScaleTable([0.5, 2e-4, 1e-4], [3, 5, 7]).at(levels(1e-9)).tolist() == [7]
    with pytest.raises(InputError, match=r"covers alpha_bar from .* not 1e-09"):
        ScaleTable([0.5, 2.1e-3, 2e-3], [3, 5, 7]).at(levels(1e-9))


def test_a_table_up_to_nearly_clean_images_speaks_for_all_that_is_less_noisy():
    assert ScaleTable([0.96, 0.955, 0.5], [3, 5, 7]).at(levels(1 - 1e-9)).tolist() == [3]
    with pytest.raises(InputError, match=r"covers alpha_bar from .* not 1"):
        ScaleTable([0.94, 0.935, 0.5], [3, 5, 7]).at(levels(1 - 1e-9))


@pytest.mark.parametrize("other", SCHEDULES)
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_table_of_one_schedules_grid_serves_the_grid_of_any_other(name, other):
    table = ScaleTable(SCHEDULES[name]().noise_levels(20), list(range(39, 0, -2)))
    found = table.at(SCHEDULES[other]().noise_levels(20))
    assert (found.diff() <= 0).all()
    if name == other:
        assert found.tolist() == list(range(39, 0, -2))


def test_one_entry_covers_everything():
    assert ScaleTable([0.5], [5]).at(levels(1e-6, 0.5, 1 - 1e-9)).tolist() == [5, 5, 5]


@pytest.mark.parametrize("steps", [2, 3, 20, 150])
def test_table_of_a_grid_covers_every_time(steps):
    schedule = CosineSchedule()
    table = ScaleTable(schedule.noise_levels(steps), [2 * i + 1 for i in range(steps)])
    times = torch.linspace(1e-4, 1, 997, dtype=torch.float64)
    nearest = (torch.arange(steps, 0, -1) - 1)[
        (times[:, None] - schedule.grid(steps)[None, :-1]).abs().argmin(dim=1)
    ]  # the entry at t = (j + 1) / steps, by time instead of angle
    expected = 2 * (steps - 1 - nearest) + 1
    off_ties = ((times * steps) % 1 - 0.5).abs() > 1e-6
    assert torch.equal(table.at(schedule.alpha_bar(times))[off_ties], expected[off_ties])


@pytest.mark.parametrize("steps", [2, 3, 20])
def test_a_late_table_has_the_sizes_of_the_next_noisier_level(steps):
    """Position j of the paper's scales is calibrated at t = (j + 1) / T, and read at t = j / T."""
    schedule = CosineSchedule()
    grid = schedule.noise_levels(steps).flip(0)  # t = 1 / T … 1
    sizes = [2 * j + 1 for j in range(steps)]
    late = ScaleTable(grid, sizes).late(schedule.noise_levels(steps))
    assert late.at(grid[:-1]).tolist() == sizes[1:]
    assert len(late) == steps - 1


def test_a_late_table_takes_its_sizes_from_wherever_the_table_has_them(table):
    late = table.late(at_angles(0.25, 0.5, 0.7))
    assert late.alpha_bar.tolist() == at_angles(0.25, 0.5).tolist()
    assert late.patch_size.tolist() == [7, 5]
    with pytest.raises(InputError, match="covers alpha_bar"):
        table.late(at_angles(0.25, 1.5))


def test_table_cannot_be_changed(table):
    with pytest.raises(dataclasses.FrozenInstanceError):
        table.patch_size = torch.tensor([3, 3, 3])


@pytest.mark.parametrize(
    ("alpha_bar", "patch_size", "complaint"),
    [
        ([0.5, 0.4], [3], "2 and 1"),
        ([], [], "0 and 0"),
        ([0.5], [4], "odd and positive, not 4"),
        ([0.5], [-1], "odd and positive, not -1"),
        ([0.5], torch.tensor([3.5]), r"whole numbers, not \[3.5\]"),
        ([0.5, 1.0], [3, 5], r"in \(0, 1\): \[0.5, 1.0\]"),
        ([0.0], [3], r"in \(0, 1\): \[0.0\]"),
        ([float("nan")], [3], r"in \(0, 1\): \[nan\]"),
        ([0.5, 0.5], [3, 5], "twice"),
    ],
)
def test_bad_tables_are_refused(alpha_bar, patch_size, complaint):
    with pytest.raises(InputError, match=complaint):
        ScaleTable(alpha_bar, patch_size)


def test_whole_numbers_may_be_floats():
    assert ScaleTable([0.5, 0.1], torch.tensor([3.0, 5.0])).patch_size.tolist() == [3, 5]


def test_file_holds_every_digit(tmp_path, table):
    table.save(tmp_path / "scales.json")
    read = ScaleTable.load(tmp_path / "scales.json")
    assert torch.equal(read.alpha_bar, table.alpha_bar)
    assert torch.equal(read.patch_size, table.patch_size)


def test_file_is_two_lists_from_low_to_high_noise(tmp_path):
    ScaleTable([0.25, 0.75], [7, 3]).save(tmp_path / "scales.json")
    assert json.loads((tmp_path / "scales.json").read_text()) == {"alpha_bar": [0.75, 0.25], "patch_size": [3, 7]}


def test_file_of_several_machines(tmp_path, table):
    path = tmp_path / "scales.json"
    save_scales(path, {"ls": table, "bbels": ScaleTable([0.5], [9])})
    assert set(load_scales(path)) == {"ls", "bbels"}
    assert_close(ScaleTable.load(path, "ls").alpha_bar, table.alpha_bar, rtol=0, atol=0)
    assert ScaleTable.load(path, "bbels").patch_size.tolist() == [9]
    with pytest.raises(InputError, match="no scales for els; it has ls, bbels"):
        ScaleTable.load(path, "els")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("[1, 2]", "not a scale table"),
        ('{"alpha_bar": [0.5]}', "not a scale table"),
        ('{"alpha_bar": 0.5, "patch_size": 3}', "lists of numbers"),
        ('{"alpha_bar": ["a"], "patch_size": [3]}', "lists of numbers"),
        ('{"alpha_bar": [0.5], "patch_size": [true]}', "lists of numbers"),
        ('{"alpha_bar": [0.5], "patch_size": [4]}', "not 4"),
        ('{"alpha_bar": [0.5], "patch_size": [null]}', "lists of numbers"),
        ('{"alpha_bar": [0.5], "patch_size": [3], "response": [null]}', "lists of numbers"),
        ('{"alpha_bar": [0.5], "patch_size": [3], "softness": [null, 1]}', "1 and 2"),
        ('{"alpha_bar": [0.5], "patch_size": [3], "softness": [0]}', "softness must be positive"),
        ('{"alpha_bar": [0.5], "patch_s', "not a JSON file"),
    ],
)
def test_foreign_file_is_named(tmp_path, content, complaint):
    path = tmp_path / "foreign.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"foreign.json.*{complaint}"):
        ScaleTable.load(path)


def test_further_columns_are_further_lists(tmp_path):
    path = tmp_path / "scales.json"
    soft = ScaleTable([0.25, 0.75], [7, 3], {"softness": [math.inf, 1.5], "response": [0.0, 0.7]})
    threshold = ParameterTable([0.1], {"threshold": [0.25]})
    save_scales(path, {"soft_ls": soft, "pca": threshold, "ls": ScaleTable([0.5], [9])})
    assert json.loads(path.read_text()) == {
        "soft_ls": {
            "alpha_bar": [0.75, 0.25],
            "patch_size": [3, 7],
            "softness": [1.5, None],
            "response": [0.7, 0.0],
        },
        "pca": {"alpha_bar": [0.1], "threshold": [0.25]},
        "ls": {"alpha_bar": [0.5], "patch_size": [9]},
    }
    read = load_scales(path)
    assert {name: type(table) for name, table in read.items()} == {
        "soft_ls": ScaleTable,
        "pca": ParameterTable,
        "ls": ScaleTable,
    }
    assert read["soft_ls"].at(levels(0.25, 0.75)).tolist() == [7, 3]
    assert read["soft_ls"].at(levels(0.25, 0.75), "softness").tolist() == [math.inf, 1.5]
    assert read["pca"].at(levels(0.9), "threshold").tolist() == [0.25]
    assert ScaleTable.load(path, "soft_ls").to_dict() == soft.to_dict()
    with pytest.raises(InputError, match=r"scales.json, pca is not a scale table"):
        ScaleTable.load(path, "pca")


def test_every_column_goes_by_the_same_levels():
    table = ParameterTable(at_angles(0.8, 0.2, 0.4), {"patch_size": [5, 3, 7], "softness": [1.0, 2.0, 0.5]})
    wanted = at_angles(0.29, 0.31, 0.61)
    assert table.at(wanted).tolist() == [3, 7, 5]
    assert table.at(wanted, "softness").tolist() == [2.0, 0.5, 1.0]
    assert table.late(at_angles(0.25, 0.5, 0.7)).columns["softness"].tolist() == [0.5, 1.0]


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({}, "at least one parameter"),
        ({"softness": [1.0, 2.0]}, "one softness per alpha_bar: it got 1 and 2"),
        ({"softness": [0.0]}, "softness must be positive, or infinite for a hard box, not 0"),
        ({"softness": [float("nan")]}, "softness must be positive.*not nan"),
        ({"response": [-1.0]}, "response must be zero or positive, and finite, not -1"),
        ({"response": [math.inf]}, "response must be zero or positive, and finite, not inf"),
        ({"unheard_of": [math.inf]}, "unheard_of must be finite, not inf"),
        ({"patch_size": [3], "response": [-1.0]}, "response must be"),
        ({"patch_size": [math.inf]}, "whole numbers"),
    ],
)
def test_columns_are_checked(columns, complaint):
    with pytest.raises(InputError, match=complaint):
        ParameterTable([0.5], columns)


def test_a_missing_column_is_named():
    with pytest.raises(InputError, match="has no softness; it has patch_size"):
        ScaleTable([0.5], [3]).at(levels(0.5), "softness")
    with pytest.raises(InputError, match="has no patch_size; it has threshold"):
        _ = ParameterTable([0.5], {"threshold": [0.1]}).patch_size


def test_a_parameter_is_a_number_or_a_table():
    number = Parameter("softness", 1.5)
    assert number.at(levels(0.1, 0.9)).tolist() == [1.5, 1.5]
    assert number.values == [1.5]
    table = Parameter("response", ScaleTable([0.9, 0.1, 0.05], [3, 5, 7], {"response": [0.0, 0.7, 0.7]}))
    assert table.at(levels(0.1, 0.9)).tolist() == [0.7, 0.0]
    assert table.values == [0.0, 0.7]
    assert Parameter("patch_size", 5).at(levels(0.5)).dtype == torch.int64
    with pytest.raises(InputError, match="softness must be positive, or infinite for a hard box, not -2"):
        Parameter("softness", -2)
    with pytest.raises(InputError, match="has no softness"):
        Parameter("softness", ScaleTable([0.5], [3]))


@pytest.mark.parametrize("content", ["[]", "{}", '{"ls": [3, 5]}', '{"pca": {"alpha_bar": [0.5]}}'])
def test_foreign_file_of_several_machines_is_named(tmp_path, content):
    path = tmp_path / "foreign.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"foreign\.json"):
        load_scales(path)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing\.json"):
        ScaleTable.load(tmp_path / "missing.json")


# Scale files of the paper's code.

PUBLISHED = [3, 3, 5, 5, 5, 7, 7, 7, 9, 9, 11, 11, 11, 11, 13, 15, 15, 15, 15, 15]


def by_torch(path, content):
    torch.save(content, path)


def by_pickle(path, content):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [by_torch, by_pickle])
def test_position_j_of_an_official_file_is_the_time_j_plus_1_over_T(tmp_path, write):
    write(tmp_path / "official.pt", PUBLISHED)
    schedule = CosineSchedule()
    table = ScaleTable.from_official(tmp_path / "official.pt", schedule)
    times = torch.arange(1, 21, dtype=torch.float64) / 20
    assert table.at(schedule.alpha_bar(times)).tolist() == PUBLISHED
    assert_close(table.alpha_bar, schedule.alpha_bar(times), rtol=1e-12, atol=0)
    assert table.at(schedule.noise_levels(20)).tolist() == PUBLISHED[::-1]
    assert table.at(schedule.alpha_bar(levels(1e-4))).tolist() == [3]


def test_official_files_may_have_any_number_of_steps_and_any_schedule(tmp_path):
    by_torch(tmp_path / "official.pt", [3, 5])
    schedule = CosineSchedule(1.02)
    table = ScaleTable.from_official(str(tmp_path / "official.pt"), schedule)
    assert table.at(schedule.alpha_bar(levels(0.5, 1.0))).tolist() == [3, 5]


class Payload:
    """Creates a file where it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("write", [by_torch, by_pickle])
def test_nothing_in_an_official_file_runs(tmp_path, write):
    write(tmp_path / "evil.pt", [3, 5, Payload(tmp_path / "canary")])
    with pytest.raises(InputError, match=r"evil\.pt names \w+\.open"):
        ScaleTable.from_official(tmp_path / "evil.pt", CosineSchedule())
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("write", [by_torch, by_pickle])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([], "no list of whole numbers"),
        (5, "no list of whole numbers"),
        ((3, 5), "no list of whole numbers"),
        ({"scales": [3, 5]}, "no list of whole numbers"),
        ([3, 5.0], "no list of whole numbers"),
        ([3, True], "no list of whole numbers"),
        ([3, [5]], "no list of whole numbers"),
        ([3, 4], "odd and positive, not 4"),
        ([3, -5], "odd and positive, not -5"),
        ([3, 2**80 + 1], "official.pt"),
        (torch.tensor([3, 5]), r"names torch\."),
    ],
    ids=str,
)
def test_official_files_of_anything_else_are_refused(tmp_path, content, complaint, write):
    write(tmp_path / "official.pt", content)
    with pytest.raises(InputError, match=complaint) as caught:
        ScaleTable.from_official(tmp_path / "official.pt", CosineSchedule())
    assert str(tmp_path / "official.pt") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_official_files_are_refused(tmp_path):
    for write in (by_torch, by_pickle):
        write(tmp_path / "whole.pt", PUBLISHED)
        content = (tmp_path / "whole.pt").read_bytes()
        for end in range(0, len(content), 5):
            (tmp_path / "cut.pt").write_bytes(content[:end])
            with pytest.raises(InputError, match=r"cut\.pt"):
                ScaleTable.from_official(tmp_path / "cut.pt", CosineSchedule())


def test_missing_official_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"missing\.pt"):
        ScaleTable.from_official(tmp_path / "missing.pt", CosineSchedule())
