"""Indices in a folder: found by the very same bank, made anew where they are damaged, refused where they lie."""

import errno
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import FileLock
from noised import LEVELS, noisy
from torch.testing import assert_close

from elslightning.machines import MACHINES, estimating, shelf
from elslightning.machines.index import Candidates, build
from elslightning.machines.shelf import Shelf
from elslightning.machines.tiles import tilings
from elslightning.system.errors import InputError
from elslightning.system.locking import alone
from elslightning.system.tensorfiles import read_tensors, write_tensors

LEVEL = LEVELS[1:2]


@pytest.fixture(autouse=True)
def _forgotten(monkeypatch):
    """Nothing is left of machines before."""
    monkeypatch.setattr(estimating, "MOST_KEPT", 0)


@pytest.fixture(scope="module")
def bank(digits):
    return digits[:60]


@pytest.fixture(scope="module")
def candidates(bank):
    (tiles, *_) = tilings(MACHINES["els"](bank, scales=3), 3)
    return Candidates(bank.flatten(2).numpy(), np.arange(len(bank)), tiles.table)


@pytest.fixture(scope="module")
def cells(candidates):
    return build(candidates, 0, 1, 256)


@pytest.mark.parametrize("name", ["bbels", "soft_els"])
def test_a_later_machine_builds_nothing_and_says_the_same(name, digits, bank, few, tmp_path, monkeypatch):
    x_t, index = noisy(digits[400:401], LEVEL), tmp_path / "kept" / "here"
    asked = {"scales": 3, "accuracy": 0.05}
    first = MACHINES[name](bank, **asked, index=index)(x_t, LEVEL)
    assert_close(MACHINES[name](bank, **asked)(x_t, LEVEL), first, rtol=0, atol=0)
    written = {path: path.stat().st_mtime_ns for path in index.iterdir()}
    assert written
    monkeypatch.setattr(estimating, "build", None)  # whoever calls it fails
    assert_close(MACHINES[name](bank, **asked, index=str(index))(x_t, LEVEL), first, rtol=0, atol=0)
    assert {path: path.stat().st_mtime_ns for path in index.iterdir()} == written
    with pytest.raises(TypeError):
        MACHINES[name](bank.flip(0), **asked, index=index)(x_t, LEVEL)  # another bank


def test_what_goes_from_memory_comes_from_the_folder(digits, bank, few, tmp_path, monkeypatch):
    x_t = noisy(digits[400:401], LEVEL)
    machine = MACHINES["els"](bank, scales=3, accuracy=0.05, index=tmp_path, memory_budget=1)
    first = machine(x_t, LEVEL)
    for _ in machine.sweep(x_t, LEVEL, [5, 7]):
        pass
    monkeypatch.setattr(estimating, "build", None)
    assert_close(machine(x_t, LEVEL), first, rtol=0, atol=0)


def test_a_damaged_file_is_made_anew(digits, bank, few, tmp_path, capfd):
    x_t = noisy(digits[400:401], LEVEL)
    first = MACHINES["els"](bank, scales=3, accuracy=0.05, index=tmp_path)(x_t, LEVEL)
    for path in tmp_path.iterdir():
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    assert_close(MACHINES["els"](bank, scales=3, accuracy=0.05, index=tmp_path)(x_t, LEVEL), first, rtol=0, atol=0)
    assert "made anew" in capfd.readouterr().err
    MACHINES["els"](bank, scales=3, accuracy=0.05, index=tmp_path)(x_t, LEVEL)
    assert capfd.readouterr().err == ""


WRONG = {
    "a number of no candidate": lambda cells: {"order": np.where(cells.order == 7, 10**6, cells.order)},
    "a number below all": lambda cells: {"order": np.where(cells.order == 7, -1, cells.order)},
    "a candidate twice": lambda cells: {"order": np.where(cells.order == 7, 8, cells.order)},
    "cells that go back": lambda cells: {"starts": np.r_[0, cells.starts[-1], cells.starts[2:]]},
    "cells beyond the end": lambda cells: {"starts": np.r_[cells.starts[:-1], 10**6]},
    "codes elsewhere": lambda cells: {"places": cells.places + 10**9},
    "codes cut off": lambda cells: {"codes": cells.codes[:-1]},
    "a width that is none": lambda cells: {"steps": np.full_like(cells.steps, np.nan)},
    "another type": lambda cells: {"order": cells.order.astype(np.int64)},
    "another shape": lambda cells: {"means": cells.means[:-1]},
    "no cells": lambda cells: {"starts": cells.starts[:1]},
    "a number in place of many": lambda cells: {"starts": np.array(3)},
}


@pytest.mark.reliability
@pytest.mark.parametrize("wrong", WRONG)
def test_what_would_lead_loops_astray_is_not_taken(wrong, candidates, cells, tmp_path, capfd):
    """Whole, with its checksum, and yet no index of these candidates."""
    kept = Shelf(tmp_path, "bank")
    path = kept.path("key")
    kept.put(path, cells)
    taken = kept.take(path, candidates)
    assert all(np.array_equal(value, vars(cells)[name]) for name, value in vars(taken).items())
    kept.put(path, replace(cells, **WRONG[wrong](cells)))
    assert kept.take(path, candidates) is None
    assert "made anew" in capfd.readouterr().err


@pytest.mark.reliability
def test_names_that_no_index_has_are_not_taken(candidates, cells, tmp_path):
    kept = Shelf(tmp_path, "bank")
    path = kept.path("key")
    kept.put(path, cells)
    tensors, _ = read_tensors(path)
    for changed in ({**tensors, "more": torch.zeros(1)}, {name: tensors[name] for name in list(tensors)[1:]}):
        write_tensors(path, changed, {})
        assert kept.take(path, candidates) is None


def test_each_of_what_an_index_depends_on_has_its_own_file(tmp_path):
    kept = Shelf(tmp_path, "bank")
    assert len({kept.path("key"), kept.path("other"), Shelf(tmp_path, "another bank").path("key")}) == 3


def test_where_nothing_can_be_written_the_index_stays_in_memory(candidates, cells, tmp_path, capfd, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("elslightning.machines.shelf.write_tensors", full)
    kept = Shelf(tmp_path, "bank")
    kept.put(kept.path("key"), cells)
    assert "No space left on device" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("index", ["", 3, True])
def test_what_is_no_folder_is_refused(index, bank, unchecked):
    with pytest.raises(InputError, match="index must be a folder"):
        MACHINES["bbels"](bank, scales=3, index=index)


def test_a_file_or_a_place_below_one_is_refused(bank, tmp_path):
    (tmp_path / "file").touch()
    for index in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InputError, match="is a file"):
            MACHINES["bbels"](bank, scales=3, index=index)


def test_a_place_that_is_read_only_is_refused(bank, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda place, mode: False)  # root may write anywhere
    with pytest.raises(InputError, match="read-only"):
        MACHINES["bbels"](bank, scales=3, index=tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_what_another_process_is_making_is_waited_for_and_made_last(digits, bank, few, tmp_path, monkeypatch):
    x_t, build_, built = noisy(digits[400:401], LEVEL), estimating.build, []
    first = MACHINES["bbels"](bank, scales=3, accuracy=0.05, index=tmp_path)(x_t, LEVEL)
    sizes = {path: path.stat().st_size for path in tmp_path.iterdir()}
    assert len(sizes) == 9  # the inside, four edges and four corners: no lock is left
    largest, *others = sorted(sizes, key=lambda path: -sizes[path])
    content = largest.read_bytes()
    for path in sizes:
        path.unlink()

    def build(*arguments):
        built.append(arguments)
        if len(built) == len(others):  # all else has been made
            largest.write_bytes(content)
            release.set()
        return build_(*arguments)

    def another():
        with alone(largest, 0) as free:
            taken.append(free)
            begun.set()
            release.wait(30)

    monkeypatch.setattr(estimating, "build", build)
    taken, begun, release = [], threading.Event(), threading.Event()
    thread = threading.Thread(target=another)
    thread.start()
    begun.wait(30)
    found = MACHINES["bbels"](bank, scales=3, accuracy=0.05, index=tmp_path)(x_t, LEVEL)
    thread.join()
    assert taken == [True]
    assert len(built) == len(others)
    assert_close(found, first, rtol=0, atol=0)
    assert set(tmp_path.iterdir()) == set(sizes)


def test_whoever_has_waited_too_long_makes_it(candidates, cells, tmp_path, monkeypatch):
    monkeypatch.setattr(shelf, "PATIENCE", 0.1)
    kept = Shelf(tmp_path, "bank")
    with alone(kept.path("key"), 0) as free:
        assert free
        assert kept.get("key", candidates, lambda: cells, False) is None
        assert kept.get("key", candidates, lambda: cells, True) is cells
    assert kept.take(kept.path("key"), candidates) is not None


@pytest.mark.parametrize("error", [OSError(errno.ENOSYS, "no locks"), PermissionError(errno.EACCES, "not here")])
def test_where_nothing_can_be_locked_it_is_made(error, candidates, cells, tmp_path, monkeypatch):
    def acquire(*arguments, **options):
        raise error

    monkeypatch.setattr(FileLock, "acquire", acquire)
    assert Shelf(tmp_path, "bank").get("key", candidates, lambda: cells, False) is cells
