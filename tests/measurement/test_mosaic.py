"""Mosaics: tiles by hand and by brute force, and how much of a sample is one training image."""

import pytest
import torch
from denoisers import ATTRIBUTABLE, TABLE, resnet
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from elslightning.machines import BoundaryBrokenScoreMachine, IdealScoreMachine, LocalScoreMachine
from elslightning.measurement.attribution import Attribution, attribute
from elslightning.measurement.consistency import nearest_centres
from elslightning.measurement.mosaic import memorisation, mosaic, nearest_training_image
from elslightning.system.errors import InputError
from elslightning.testing import levels, random_images, random_noise

every_machine = pytest.mark.parametrize("name", ATTRIBUTABLE)
DTYPES = [torch.float32, torch.float64]


def pieced(image, down=0, right=0, weight=1.0):
    """An attribution of one image whose pixels come from `image` at the offsets `down` and `right`."""
    image = torch.as_tensor(image)
    height, width = image.shape
    rows = (torch.arange(height)[:, None] + torch.as_tensor(down)) % height
    columns = (torch.arange(width) + torch.as_tensor(right)) % width
    weights = torch.as_tensor(weight).expand(height, width)
    sources = (tensor.expand(height, width)[None, ..., None].clone() for tensor in (image, rows, columns))
    return Attribution(
        levels(0.5), torch.tensor([3]), *sources, weights[None, ..., None], torch.zeros(1, height, width)
    )


def test_tiles_are_regions_of_one_image_by_size():
    found = mosaic(pieced([[5, 5, 2, 2], [5, 9, 2, 2], [9, 9, 5, 2]]), circular=False)
    # Regions that meet at a corner only are apart, and of two of one size the one that begins first comes first.
    assert found.tile.tolist() == [[[1, 1, 0, 0], [1, 2, 0, 0], [2, 2, 3, 0]]]
    assert [sizes.tolist() for sizes in found.sizes] == [[5, 3, 3, 1]]
    assert list(found.rows()) == [
        {
            "sample": 0,
            "tiles": 4,
            "mean_size": 3,
            "largest": 5,
            "largest_share": 5 / 12,
            "images": 3,
            "main_image": 2,
            "main_share": 5 / 12,
            "decided": 1,
        }
    ]


def test_the_main_image_may_have_many_tiles_and_the_first_of_several_counts():
    found = mosaic(pieced([[4, 1, 4], [3, 3, 3], [4, 1, 4]]), circular=False)
    assert (found.tiles.item(), found.main_image.item(), found.main_share.item()) == (7, 4, pytest.approx(4 / 9))
    assert mosaic(pieced([[2, 1], [1, 2]]), circular=False).main_image.item() == 1


def test_one_image_at_two_offsets_makes_two_tiles():
    found = mosaic(pieced([[6] * 4] * 4, down=torch.tensor([0, 0, 1, 1])[:, None]), circular=False)
    # The last row comes from the first, three rows above it.
    assert found.tile.tolist() == [[[0] * 4, [0] * 4, [1] * 4, [2] * 4]]
    assert found.down[0, :, 0].tolist() == [0, 0, 1, -3]
    assert (found.main_share.item(), found.images.item()) == (1, 1)


def test_around_the_border_offsets_count_modulo_the_image():
    found = mosaic(pieced([[6] * 5] * 4, down=torch.tensor([1, 1, 1, 1])[:, None], right=3), circular=True)
    assert found.tile.max() == 0
    assert found.down.unique().tolist() == [1]
    assert found.right.unique().tolist() == [-2]
    assert mosaic(pieced([[6] * 5] * 4, right=3), circular=False).right.unique().tolist() == [-2, 3]


def test_tiles_do_not_continue_across_the_border():
    assert mosaic(pieced([[1, 2, 1]]), circular=True).tile.tolist() == [[[0, 1, 2]]]


def test_decided_pixels_are_those_whose_source_has_more_than_half():
    found = mosaic(pieced([[1, 1], [1, 1]], weight=torch.tensor([[0.5, 0.51], [0.2, 1.0]])), circular=False)
    assert found.decided.item() == 0.5


def flooded(source):
    """The regions of equal sources of one image, a list of rows, by filling one after the other."""
    height, width = len(source), len(source[0])
    regions, seen = [], set()
    for start in ((y, x) for y in range(height) for x in range(width)):
        front, region = [start], set()
        while front:
            y, x = front.pop()
            inside = 0 <= y < height and 0 <= x < width
            if not inside or (y, x) in seen or source[y][x] != source[start[0]][start[1]]:
                continue
            seen.add((y, x))
            region.add((y, x))
            front += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        if region:
            regions.append(region)
    return sorted(regions, key=lambda region: (-len(region), min(region)))


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 6),
    width=st.integers(1, 6),
    images=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_tiles_equal_a_flood_fill_and_do_not_depend_on_the_order_of_the_bank(batch, height, width, images, seed):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(images, (batch, height, width), generator=generator)
    parts = [pieced(one) for one in image]
    fields = ("alpha_bar", "patch_size", "image", "row", "column", "weight", "entropy")
    whole = Attribution(*(torch.cat([getattr(part, field) for part in parts]) for field in fields))
    found = mosaic(whole, circular=False)
    for one, tile in zip(image.tolist(), found.tile, strict=True):
        regions = [{tuple(at) for at in (tile == k).nonzero().tolist()} for k in range(int(tile.max()) + 1)]
        assert regions == flooded(one)
    order = torch.randperm(images, generator=generator) * 7
    other = Attribution(*(order[whole.image] if name == "image" else getattr(whole, name) for name in fields))
    again = mosaic(other, circular=False)
    assert torch.equal(again.tile, found.tile)
    assert torch.equal(again.main_share, found.main_share)
    assert_close(found.mean_size * found.tiles, torch.full((batch,), height * width, dtype=torch.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@every_machine
def test_a_training_image_is_one_tile_and_not_novel(name, dtype):
    images = random_images(5, 2, 6, 8).to(dtype)
    found = memorisation(ATTRIBUTABLE[name](images, scales=TABLE), images)
    assert found.nearest.tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(found.mosaic.image, torch.arange(5)[:, None, None].expand(5, 6, 8))
    assert_close(found.pearson_r, torch.ones(5, dtype=torch.float64))
    assert found.share.tolist() == [1] * 5
    assert found.novelty.tolist() == [0] * 5
    assert found.mosaic.tiles.tolist() == [1] * 5
    assert found.mosaic.decided.tolist() == [1] * 5


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["ls", "els", "bbels"])
def test_even_background_counts_for_the_image_that_is_memorised(name, dtype):
    images = torch.full((80, 1, 9, 9), -1.0, dtype=dtype)
    images[:, :, 3:6, 3:6] = random_images(80, 1, 3, 3).to(dtype)
    found = memorisation(ATTRIBUTABLE[name](images, scales=3), images[70:73])
    assert found.nearest.tolist() == [70, 71, 72]
    assert found.share.tolist() == [1] * 3
    assert found.mosaic.decided.max() < 1  # the background could come from any of them
    rows = list(found.rows())
    assert (rows[2]["sample"], rows[2]["nearest_image"], rows[2]["novelty"], rows[2]["tiles"]) == (2, 72, 0, 1)


@pytest.mark.parametrize("name", ["els", "es"])
def test_a_shifted_training_image_is_one_tile_of_a_circular_machine(name):
    images = random_images(4, 1, 6, 8).float()
    found = memorisation(ATTRIBUTABLE[name](images, scales=3), images[2:3].roll((2, -3), dims=(2, 3))).mosaic
    assert (found.tiles.item(), found.main_image.item()) == (1, 2)
    assert (found.down.unique().tolist(), found.right.unique().tolist()) == ([-2], [3])


def test_halves_of_two_images_are_two_tiles_of_a_local_machine_and_one_of_the_ideal():
    images = random_images(4, 1, 8, 8).float()
    joined = images[1:2].clone()
    joined[..., 4:] = images[3:, ..., 4:]
    local, ideal = (
        memorisation(machine, joined) for machine in (LocalScoreMachine(images, scales=1), IdealScoreMachine(images))
    )
    assert local.mosaic.tile.tolist() == [[[0] * 4 + [1] * 4] * 8]
    assert local.mosaic.image[0, 0].tolist() == [1] * 4 + [3] * 4
    assert (local.share.item(), local.novelty.item()) == (0.5, 0.5)
    assert ideal.share.item() == 1
    assert ideal.pearson_r.item() < 0.99


def test_noise_is_more_novel_than_a_spoilt_training_image():
    images = random_images(6, 1, 8, 8).float()
    spoilt = images[:1] + 0.05 * random_noise(1, 1, 8, 8).float()
    found = memorisation(
        BoundaryBrokenScoreMachine(images, scales=3), torch.cat([spoilt, random_noise(1, 1, 8, 8).float()])
    )
    assert found.novelty[0] < 0.1 < 0.3 < found.novelty[1]
    assert found.pearson_r[0] > 0.99 > 0.5 > found.pearson_r[1]
    assert found.mosaic.tiles[0] < found.mosaic.tiles[1]


def test_the_source_does_not_depend_on_the_noise_level_that_samples_are_seen_at():
    images = random_images(6, 1, 8, 8)
    machine, samples = BoundaryBrokenScoreMachine(images, scales=3), random_images(2, 1, 8, 8, seed=4)
    found = memorisation(machine, samples).mosaic
    for level in (0.01, 0.9):
        one = attribute(machine, level**0.5 * samples, levels(level, level), top=1)
        assert torch.equal(one.image[..., 0], found.image)


@pytest.mark.parametrize("dtype", DTYPES)
@every_machine
def test_pixels_are_copied_from_the_nearest_centres(name, dtype):
    images, samples = random_images(6, 2, 6, 7).to(dtype), random_images(2, 2, 6, 7, seed=4).to(dtype)
    machine = ATTRIBUTABLE[name](images, scales=3)
    found = memorisation(machine, samples).mosaic
    rows, columns = (torch.arange(6)[:, None] + found.down) % 6, (torch.arange(7) + found.right) % 7
    copied = images.permute(0, 2, 3, 1)[found.image, rows, columns].permute(0, 3, 1, 2)
    assert_close(copied, nearest_centres(samples, machine), rtol=0, atol=1e-5)


@every_machine
def test_only_images_of_the_class_count(name):
    images, classes = random_images(6, 1, 5, 5).float(), torch.tensor([0, 1, 0, 1, 0, 1])
    found = memorisation(ATTRIBUTABLE[name](images, classes, scales=3), images[:2], torch.tensor([1, 1]))
    assert (classes[found.nearest].tolist(), found.nearest[1].item()) == ([1, 1], 1)
    assert bool((classes[found.mosaic.image] == 1).all())
    assert (found.share[1].item(), found.pearson_r[0] < 1) == (1, True)


def test_an_unconditional_machine_takes_no_notice_of_labels():
    images = random_images(3, 1, 5, 5)
    assert memorisation(IdealScoreMachine(images), images, torch.arange(3)).nearest.tolist() == [0, 1, 2]


@pytest.mark.parametrize("budget", [None, 3000])
def test_nearest_image_is_that_of_the_greatest_correlation(budget):
    images, samples = random_images(40, 2, 4, 4), random_images(3, 2, 4, 4, seed=7)
    images[0] = 0.5
    images[30:] = images[20:30]
    nearest, r = nearest_training_image(IdealScoreMachine(images, memory_budget=budget), samples)
    table = torch.stack(
        [torch.corrcoef(torch.stack([s.flatten(), i.flatten()]))[0, 1] for s in samples for i in images]
    )
    expected = table.reshape(3, 40).nan_to_num(0)
    assert_close(r, expected.amax(dim=1))
    assert nearest.tolist() == [(row >= row.max() - 1e-9).nonzero()[0].item() for row in expected]


def test_an_image_without_variance_has_no_correlation():
    images = torch.full((2, 1, 4, 4), 0.3)
    assert nearest_training_image(IdealScoreMachine(images), images[:1])[1].tolist() == [0]


def test_bytes_are_the_images_they_stand_for():
    stored = torch.randint(0, 256, (5, 1, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    found = memorisation(LocalScoreMachine(stored, scales=3), (stored / 127.5 - 1)[3:])
    assert (found.nearest.tolist(), found.share.tolist()) == ([3, 4], [1, 1])


@pytest.mark.usefixtures("unchecked")
def test_bad_input_is_refused():
    images = random_images(3, 1, 5, 6).float()
    machine = LocalScoreMachine(images, scales=3)
    with pytest.raises(InputError, match="not NetworkDenoiser"):
        memorisation(resnet(images, None), images)
    with pytest.raises(InputError, match="takes images of 1 x 5 x 6"):
        memorisation(machine, images[..., 1:])
    with pytest.raises(InputError, match="needs a label per image"):
        memorisation(LocalScoreMachine(images, torch.arange(3), scales=3), images)
    with pytest.raises(InputError, match="no training image with label 5"):
        memorisation(LocalScoreMachine(images, torch.arange(3), scales=3), images, torch.tensor([0, 5, 1]))
    with pytest.raises(InputError, match="takes noisy images of numbers"):
        memorisation(machine, images / 0)
