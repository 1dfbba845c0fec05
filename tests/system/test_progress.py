"""Bars: what is being done, how far it is, and that they end."""

import io

import pytest
import torch
from tiny import digits, network, trainer
from tqdm import tqdm

from elslightning.system import progress
from elslightning.system.progress import Bars
from elslightning.training import bar as fitting
from elslightning.training.bar import FitProgress
from elslightning.training.task import DenoisingTask


@pytest.fixture
def bars(monkeypatch):
    """Every bar that is made, in order; they print to nowhere."""
    made = []

    class Recorded(tqdm):
        def __init__(self, **options):
            super().__init__(file=io.StringIO(), **options)
            self.closed = False
            made.append(self)

        def close(self):
            super().close()
            self.closed = True

    for module in (progress, fitting):
        monkeypatch.setattr(module, "tqdm", Recorded)
    return made


def test_a_bar_reaches_its_total_and_closes(bars):
    show = Bars()
    for done in (1, 2, 5):
        show("sampling", done, 5)
    assert [(bar.desc.rstrip(": "), bar.n, bar.total, bar.closed) for bar in bars] == [("sampling", 5, 5, True)]


def test_a_bar_is_open_until_its_total(bars):
    Bars()("sampling", 2, 5)
    assert [(bar.n, bar.closed) for bar in bars] == [(2, False)]


def test_another_task_gets_another_bar_and_ends_the_first(bars):
    show = Bars()
    show("network", 1, 4)
    show("bbels", 3, 6)
    assert [(bar.n, bar.total, bar.closed) for bar in bars] == [(1, 4, True), (3, 6, False)]


def test_a_finished_task_that_begins_again_gets_a_new_bar(bars):
    show = Bars()
    for done in (1, 2, 1, 2):
        show("ls", done, 2)
    assert [(bar.n, bar.closed) for bar in bars] == [(2, True), (2, True)]


def test_the_end_of_a_task_told_twice_gets_no_second_bar(bars):
    show = Bars()
    for done in (1, 2, 2):
        show("ls", done, 2)
    assert [(bar.n, bar.closed) for bar in bars] == [(2, True)]


def test_fractions_of_steps_add_up(bars):
    show = Bars()
    for done in (0.25, 0.5, 1.75, 2):
        show("ls", done, 2)
    assert [(bar.n, bar.closed) for bar in bars] == [(2, True)]


def test_close_ends_an_unfinished_bar_and_may_be_called_twice(bars):
    show = Bars()
    show.close()
    show("ls", 1, 2)
    show.close()
    show.close()
    assert [bar.closed for bar in bars] == [True]


def test_bars_print_what_is_done_to_standard_error(capsys):
    Bars()("calibrating ls", 3, 3)
    printed = capsys.readouterr()
    assert "calibrating ls" in printed.err
    assert "100%" in printed.err
    assert printed.out == ""


def fit(tmp_path, callback, **options):
    fitter = trainer(tmp_path, max_epochs=2, callbacks=[callback], enable_progress_bar=True, **options)
    fitter.fit(DenoisingTask(network()), digits(train_size=40, batch_size=20))
    return fitter


def test_training_has_one_bar_over_all_steps_which_closes(bars, tmp_path):
    fitter = fit(tmp_path, FitProgress())
    assert [(bar.n, bar.total, bar.closed) for bar in bars] == [(4, 4, True)]
    assert fitter.global_step == 4


def test_the_bar_counts_optimizer_steps_not_batches(bars, tmp_path):
    fit(tmp_path, FitProgress(), accumulate_grad_batches=2)
    assert [(bar.n, bar.total) for bar in bars] == [(2, 2)]


def test_the_bar_shows_the_losses_of_the_epoch(bars, tmp_path):
    fitter = fit(tmp_path, FitProgress())
    for name in ("train/loss", "val/loss"):
        assert f"{name}={float(fitter.callback_metrics[name]):.4f}" in bars[0].postfix


def test_a_disabled_bar_prints_nothing(bars, tmp_path, capsys):
    callback = FitProgress()
    callback.disable()
    fit(tmp_path, callback)
    assert bars == []
    assert "training" not in capsys.readouterr().err


def test_a_bar_enabled_again_is_shown(bars, tmp_path):
    callback = FitProgress()
    callback.disable()
    callback.enable()
    fit(tmp_path, callback)
    assert [bar.n for bar in bars] == [4]


def test_the_bar_closes_when_training_fails(bars, tmp_path):
    class Failing(DenoisingTask):
        def training_step(self, batch, batch_idx):
            raise RuntimeError("out of memory")

    fitter = trainer(tmp_path, callbacks=[FitProgress()], enable_progress_bar=True)
    with pytest.raises(RuntimeError, match="out of memory"):
        fitter.fit(Failing(network()), digits())
    assert [bar.closed for bar in bars] == [True]


def test_validation_alone_shows_no_bar(bars, tmp_path):
    torch.manual_seed(0)
    losses = trainer(tmp_path, callbacks=[FitProgress()], enable_progress_bar=True).validate(
        DenoisingTask(network()), digits(), verbose=False
    )
    assert losses[0]["val/loss"] > 0
    assert bars == []
