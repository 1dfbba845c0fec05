"""Folders of images, written here: which files are found, in which order, with which labels, and what is decoded."""

import contextlib
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from files import picture, write_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from torch.testing import assert_close
from torchvision.transforms import v2 as transforms

from elslightning.data.decoding import decode, read_image
from elslightning.data.finding import find
from elslightning.data.folder import class_folders, divide, image_folder
from elslightning.data.module import ImageDataModule
from elslightning.data.request import Request
from elslightning.system.errors import InputError


def flat(folder, values, side=4):
    """Image files of one grey each, by name."""
    for name, value in values.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (value,) * 3).save(folder / name)


def read(root, **options):
    return image_folder(Request("folder", root, **({"channels": 3, "image_size": 4} | options)))


def paths(items):
    return [item.path.as_posix() for item in items]


def found(root):
    return [path.as_posix() for path in find(root).images]


def labels(items):
    return [item.label for item in items]


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "bmp", "webp", "PNG", "JPG"])
def test_formats_are_read(tmp_path, suffix):
    flat(tmp_path, {f"{n}.{suffix}": 40 * n for n in range(4)})
    train, val = read(tmp_path)
    assert train.images.dtype == torch.uint8
    values = torch.cat([train.images, val.images]).float()
    assert_close(values, torch.arange(4.0).mul(40).reshape(4, 1, 1, 1).expand(4, 3, 4, 4), rtol=0, atol=2)


@pytest.mark.parametrize("size", [(12, 10), (10, 13), (9, 9), (178, 218)])
@pytest.mark.parametrize("side", [4, 8, 20])
def test_central_square_is_resized_with_antialiasing(tmp_path, size, side):
    image = picture(size)
    image.save(tmp_path / "a.png")
    expected = transforms.Resize([side, side])(transforms.CenterCrop(min(size))(image))
    # An odd margin may be split either way.
    if (size[0] - size[1]) % 2 == 0:
        np.testing.assert_array_equal(read_image(tmp_path / "a.png", 3, side), np.asarray(expected).transpose(2, 0, 1))
    assert read_image(tmp_path / "a.png", 3, side).shape == (3, side, side)


def test_square_keeps_its_pixels_without_resizing(tmp_path):
    image = picture((6, 6))
    image.save(tmp_path / "a.png")
    for side in (6, None):
        np.testing.assert_array_equal(read_image(tmp_path / "a.png", 3, side), np.asarray(image).transpose(2, 0, 1))


def test_images_are_turned_as_their_exif_says(tmp_path):
    image = picture((6, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", 3, None)[0], np.rot90(np.asarray(image)[:, :, 0], -1))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_mode_of_bytes_becomes_grey_or_colour(tmp_path, mode, channels):
    image = picture().convert(mode)
    image.save(tmp_path / "a.png")
    expected = np.asarray(image.convert({1: "L", 3: "RGB"}[channels]).crop((1, 0, 11, 10))).reshape(10, 10, channels)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png", channels, None), expected.transpose(2, 0, 1))


def test_cmyk_jpeg_becomes_colour(tmp_path):
    picture().convert("CMYK").save(tmp_path / "a.jpg")
    assert read_image(tmp_path / "a.jpg", 3, 5).shape == (3, 5, 5)


def test_sixteen_bits_are_refused(tmp_path):
    Image.fromarray(np.full((8, 8), 40000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image: its pixels have more than 8 bits"):
        read_image(tmp_path / "a.png", 3, 4)


@pytest.mark.parametrize("channels", [2, 4])
def test_other_channels_are_refused(tmp_path, channels):
    with pytest.raises(InputError, match=rf"data\.channels must be 1 or 3 for a folder of images, not {channels}"):
        read(tmp_path, channels=channels)


def test_images_are_found_at_any_depth_in_the_order_of_their_paths(tmp_path):
    names = ["b.png", "a/z.jpg", "a/b/y.PNG", "a.png", "c/d/e/x.webp", "A.bmp"]
    write_images(tmp_path, names)
    for other in ("notes.txt", "a/list.csv", ".hidden.png", ".cache/w.png", "a/._z.jpg", "png", "x.gif"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_text("no image")
    assert found(tmp_path) == ["A.bmp", "a/b/y.PNG", "a/z.jpg", "a.png", "b.png", "c/d/e/x.webp"]


def test_links_to_files_are_read_and_links_to_folders_that_may_be_classes_are_followed(tmp_path):
    write_images(tmp_path / "elsewhere", ["a.png", "b.png", "in/c.png"])
    (tmp_path / "elsewhere" / "further").symlink_to(tmp_path / "elsewhere" / "in")
    root = tmp_path / "root"
    write_images(root, ["cow/c.png", "cow/d.png"])
    (root / "cow" / "linked.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    (root / "dog").symlink_to(tmp_path / "elsewhere")
    (root / "cow" / "deeper").symlink_to(tmp_path / "elsewhere")
    for name, target in (("loop", root), ("up", tmp_path)):
        (root / name).symlink_to(target)
    files = ["cow/c.png", "cow/d.png", "cow/linked.png", "dog/a.png", "dog/b.png", "dog/in/c.png"]
    assert found(root) == files
    assert class_folders(root) == ["cow", "dog"]
    left = find(root).left
    assert set(left) == {"link loop/", "link up/", "link cow/deeper/", "link dog/further/"}
    (tmp_path / "link").symlink_to(root)
    assert found(tmp_path / "link") == files


@pytest.mark.reliability
def test_sets_and_their_classes_may_be_links(tmp_path):
    for part in ("train", "val"):
        write_images(tmp_path / "store" / part, ["cat/1.png", "dog/1.png"])
        (tmp_path / "pics" / part).mkdir(parents=True)
        for kind in ("cat", "dog"):
            (tmp_path / "pics" / part / kind).symlink_to(tmp_path / "store" / part / kind)
    train, val = read(tmp_path / "pics")
    assert train.labels.tolist() == val.labels.tolist() == [0, 1]


@pytest.mark.reliability
@pytest.mark.parametrize(("train", "held"), [("training", "testing"), ("Train", "Test"), ("TRAIN", "Validation")])
def test_sets_in_other_words_are_the_two_sets(train, held):
    items, val = divided(f"{train}/1.png", f"{train}/2.png", f"{held}/3.png")
    assert paths(items) == [f"{train}/1.png", f"{train}/2.png"]
    assert paths(val) == [f"{held}/3.png"]
    assert labels(items + val) == [None] * 3


@pytest.mark.reliability
def test_what_was_understood_is_said_in_a_line(tmp_path):
    flat(tmp_path, {f"{kind}/{n}.png": 9 * n for kind, count in (("cat", 4), ("dog", 3)) for n in range(count)})
    for other in ("cat/@eaDir/0.png/thumb.png", "notes.txt", "bird/1.gif", "bird/2.gif", ".hidden.png"):
        (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / other).write_text("no image")
    train, _ = read(tmp_path, num_classes=2)
    assert train.about == (
        f"data.root={tmp_path}: 5 images to train and 2 to validate on (the last tenth of each class for validation); "
        "2 classes: cat (4), dog (3); left out: 2 .gif, 1 hidden, 1 folder @eaDir/, 1 .txt"
    )
    assert f"data.root={tmp_path} has a folder bird/ that is no class, for .gif files are not read" in train.doubts
    assert any(f"7 of 7 images are of one colour, first {tmp_path}" in doubt for doubt in train.doubts)
    module = ImageDataModule("folder", channels=3, root=tmp_path, image_size=4)
    module.setup()
    assert (module.about, module.doubts) == (train.about, train.doubts)


@pytest.mark.reliability
def test_the_sets_are_said_and_what_is_in_neither(tmp_path):
    write_images(tmp_path, ["Train/1.png", "val/2.png", "test/3.png", "4.png"])
    train, _ = read(tmp_path)
    assert train.about == (
        f"data.root={tmp_path}: 1 images to train and 1 to validate on (sets Train/ and val/); no classes; "
        "left out: 2 not in Train/ or val/"
    )
    assert train.doubts == ()


@pytest.mark.reliability
def test_classes_that_are_named_like_sets_are_doubtful(tmp_path):
    write_images(tmp_path, ["Train/1.png", "Train/2.png", "plane/1.png"])
    (doubt,) = read(tmp_path)[0].doubts
    assert f"data.root={tmp_path} has classes that are named like sets: Train; two sets are" in doubt


@pytest.mark.reliability
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "P"])
@pytest.mark.parametrize("channels", [1, 3])
def test_drawings_on_a_transparent_ground_are_drawn_on_white(tmp_path, mode, channels):
    """Black lines, and nothing but black below what is transparent."""
    alpha = np.zeros((4, 4), np.uint8)
    alpha[1, 2], alpha[3, 3] = 255, 128
    image = Image.fromarray(np.dstack([np.zeros((4, 4, 3), np.uint8), alpha]))
    if mode == "P":
        alpha[3, 3] = 0
        image = Image.fromarray((alpha == 255).astype(np.uint8), "P")
        image.putpalette([0, 0, 0, 0, 0, 0])
        image.info["transparency"] = 0
        image.save(tmp_path / "a.png", transparency=0)
    else:
        image.convert("RGBA" if mode == "PA" else mode).save(tmp_path / "a.png")
    found = read_image(tmp_path / "a.png", channels, None)
    expected = torch.from_numpy(255.0 - alpha).expand(channels, 4, 4)
    assert_close(torch.from_numpy(found.copy()).double(), expected.double(), rtol=0, atol=1)


@pytest.mark.reliability
def test_images_with_long_texts_are_read(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "a cat " * 2**18, zip=True)
    picture((6, 6)).save(tmp_path / "a.png", pnginfo=text)
    assert read_image(tmp_path / "a.png", 3, None).shape == (3, 6, 6)


def test_broken_link_is_named(tmp_path):
    write_images(tmp_path, ["a.png"])
    (tmp_path / "b.png").symlink_to(tmp_path / "nothing")
    with pytest.raises(InputError, match=r"b\.png cannot be read as an image: .*No such file"):
        read(tmp_path)


def test_folder_without_images_is_told(tmp_path):
    (tmp_path / "a.gif").write_text("no image")
    with pytest.raises(InputError, match=rf"data\.root={tmp_path} holds no \.png, .* file; left out: 1 \.gif"):
        read(tmp_path)


def test_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", refuse)  # for the superuser, who may read everything
    with pytest.raises(InputError, match=f"cannot read {tmp_path}: Permission denied"):
        find(tmp_path)


def divided(*names):
    return divide([Path(name) for name in sorted(names)], "here")


def test_flat_folder_has_no_labels_and_its_last_tenth_is_for_validation():
    train, val = divided(*(f"{n:03}.jpg" for n in range(30)))
    assert paths(train) == [f"{n:03}.jpg" for n in range(27)]
    assert paths(val) == ["027.jpg", "028.jpg", "029.jpg"]
    assert set(labels(train + val)) == {None}


@pytest.mark.parametrize(
    "names",
    [
        ["img/1.png", "img/2.png", "img/3.png"],  # one sub-folder
        ["img/a/1.png", "img/b/2.png", "img/b/3.png"],
        ["a/1.png", "b/2.png", "3.png"],  # not all in sub-folders
    ],
)
def test_these_have_no_labels(names):
    train, val = divided(*names)
    assert labels(train + val) == [None] * 3
    assert len(val) == 1


def test_sub_folders_are_classes_that_take_turns():
    train, val = divided(*(f"cat/{n}.png" for n in range(4)), "ant/x/0.png", "ant/1.png", "bee/0.png")
    assert paths(train) == ["ant/1.png", "bee/0.png", "cat/0.png", "cat/1.png", "cat/2.png"]
    assert labels(train) == [0, 1, 2, 2, 2]
    assert paths(val) == ["ant/x/0.png", "cat/3.png"]
    assert labels(val) == [0, 2]


@pytest.mark.parametrize("held", ["val", "valid", "validation", "test"])
@pytest.mark.parametrize("classes", [True, False])
def test_train_and_validation_folders_are_the_two_sets(held, classes):
    inner = ("ant/", "bee/") if classes else ("",)
    train, val = divided(*(f"{part}/{kind}{n}.png" for part in ("train", held) for n in range(2) for kind in inner))
    assert {path.split("/")[0] for path in paths(train)} == {"train"}
    assert {path.split("/")[0] for path in paths(val)} == {held}
    assert labels(train) == labels(val) == ([0, 1, 0, 1] if classes else [None, None])


def test_val_goes_before_test_and_files_beside_the_sets_are_in_none():
    train, val = divided("train/a.png", "val/b.png", "test/c.png", "example.png")
    assert paths(train) == ["train/a.png"]
    assert paths(val) == ["val/b.png"]


def test_class_that_training_lacks_is_refused():
    with pytest.raises(InputError, match=r"val/cow/1\.png in here is of no class of the training images: ant, bee"):
        divided("train/ant/1.png", "train/bee/1.png", "val/cow/1.png")


def test_train_without_validation_is_a_class_like_others():
    assert labels(divided("train/1.png", "train/2.png", "plane/1.png")[0]) == [0, 1]
    assert labels(divided("train/1.png", "train/2.png", "plane/1.png", "test/1.png")[0]) == [0, 1, 2]


@pytest.mark.parametrize("names", [["a.png"], ["a/1.png", "b/1.png"]])
def test_too_few_images_are_refused(names):
    with pytest.raises(InputError, match="here has too few images"):
        divided(*names)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["", "a/", "b/", "train/", "val/", "a/c/"]), st.integers(0, 30)), min_size=2))
def test_no_file_is_in_both_sets_or_twice(parts):
    names = {f"{folder}{n}.png" for folder, n in parts}
    try:
        train, val = divided(*names)
    except InputError:
        return
    assert train
    assert val
    assert len(set(paths(train + val))) == len(train) + len(val) <= len(names)


def test_labels_go_with_their_images(tmp_path):
    flat(tmp_path, {f"{kind}/{n}.png": 100 * label + n for label, kind in enumerate("ab") for n in range(3)})
    module = ImageDataModule("folder", channels=3, num_classes=2, root=tmp_path, image_size=4)
    module.setup()
    values = ((module.train_images[:, 0, 0, 0] + 1) * 127.5).round().int()
    assert values.tolist() == [0, 100, 1, 101]
    assert module.train_labels.tolist() == [0, 1, 0, 1]
    assert module.val_labels.tolist() == [0, 1]


def test_more_folders_than_classes_are_refused_before_decoding(tmp_path):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for n in range(2):
            (tmp_path / name / f"{n}.png").write_text("no image")
    with pytest.raises(InputError, match=r"data\.num_classes=2, but .* has 3 folders of images"):
        read(tmp_path, num_classes=2)


def test_only_images_that_are_asked_for_are_decoded(tmp_path):
    flat(tmp_path, {f"{n:02}.png": n for n in range(20)})
    for n in (5, 17, 19):
        (tmp_path / f"{n:02}.png").write_text("no image")
    train, val = read(tmp_path, train_size=5, val_size=1)
    assert train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert val.images[:, 0, 0, 0].tolist() == [18]
    with pytest.raises(InputError, match=r"05\.png cannot be read as an image"):
        read(tmp_path, train_size=6, val_size=1)
    with pytest.raises(InputError, match=r"19\.png cannot be read as an image"):
        read(tmp_path, train_size=5)


def test_more_images_to_validate_on_than_there_are_are_refused_before_decoding(tmp_path):
    for n in range(20):
        (tmp_path / f"{n:02}.png").write_text("no image")
    with pytest.raises(InputError, match=r"data\.val_size=3, but folder has only 2 images"):
        read(tmp_path, val_size=3)


def test_of_fewer_images_to_train_than_asked_for_all_are_taken_with_a_word(tmp_path):
    flat(tmp_path, {f"{n:02}.png": n for n in range(20)})
    train, _ = read(tmp_path, train_size=19)
    assert train.images[:, 0, 0, 0].tolist() == list(range(18))
    (word,) = [doubt for doubt in train.doubts if "train_size" in doubt]
    assert word == f"data.train_size=19, but data.root={tmp_path} has only 18 images to train: all are taken"
    assert not [doubt for doubt in read(tmp_path, train_size=18)[0].doubts if "train_size" in doubt]


@pytest.mark.reliability
@pytest.mark.parametrize("bad", [[0, 90, 250], range(0, 300, 20)], ids=len)
def test_the_first_ten_bad_images_of_many_are_named_at_once(tmp_path, bad):
    flat(tmp_path, {f"{n:03}.png": 1 for n in range(300)}, side=2)
    for n in bad:
        (tmp_path / f"{n:03}.png").write_text("no image")
    with pytest.raises(InputError) as error:
        read(tmp_path)
    named = [line for line in error.value.problems if "cannot be read" in line]
    assert [Path(line.split(" cannot")[0]).name for line in named] == [f"{n:03}.png" for n in bad][:10]
    more = [f"and {len(bad) - 10} files more"] if len(bad) > 10 else []
    assert list(error.value.problems[len(named) :]) == more


def test_without_image_size_all_must_have_the_same(tmp_path):
    write_images(tmp_path, ["a.png", "b.png", "c.png"])
    assert read(tmp_path, image_size=None)[0].images.shape == (2, 3, 10, 10)
    write_images(tmp_path, ["c.png"], size=(9, 11))
    with pytest.raises(InputError, match=r"c\.png gives 9 pixels where .*a\.png gives 10: give data\.image_size"):
        read(tmp_path, image_size=None)
    assert read(tmp_path, image_size=8)[0].images.shape == (2, 3, 8, 8)


def test_many_images_come_in_the_order_of_their_paths(tmp_path):
    flat(tmp_path, {f"{n:03}.png": n for n in range(200)}, side=2)
    bank = decode([tmp_path / f"{n:03}.png" for n in range(200)], 1, 2)
    assert bank[:, 0, 1, 1].tolist() == list(range(200))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_cut_image_is_named(tmp_path, suffix):
    write_images(tmp_path, [f"a.{suffix}"])
    content = (tmp_path / f"a.{suffix}").read_bytes()
    for end in range(0, len(content) - 20, 17):
        (tmp_path / f"a.{suffix}").write_bytes(content[:end])
        with pytest.raises(InputError, match=rf"a\.{suffix} cannot be read as an image: .+") as error:
            read_image(tmp_path / f"a.{suffix}", 3, 4)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp"])
def test_image_with_other_bytes_is_an_input_error_or_an_image(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    picture().save(path)
    content, generator = path.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        damaged = bytearray(content)
        for position in generator.integers(0, len(content), 4):
            damaged[position] = generator.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert read_image(path, 3, 4).shape == (3, 4, 4)


def test_picture_of_another_format_is_refused(tmp_path):
    picture().save(tmp_path / "a.gif")
    (tmp_path / "a.gif").rename(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image"):
        read_image(tmp_path / "a.png", 3, 4)


def test_huge_image_is_refused(tmp_path, monkeypatch):
    picture().save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(InputError, match=r"a\.png cannot be read as an image: .*120 pixels"):
        read_image(tmp_path / "a.png", 3, 4)
