"""Bars: what is being done, how far it is, and that they end."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
import torch
from tiny import digits, network, trainer
from tqdm import tqdm

from elslightning.system import progress
from elslightning.system.progress import Bars
from elslightning.training.bar import FitProgress
from elslightning.training.task import DenoisingTask


@pytest.fixture
def bars(monkeypatch):
    """Every bar that is made, in order; they print to nowhere."""
    made = []

    class Recorded(tqdm):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options | {"file": io.StringIO()})
            self.closed = False
            made.append(self)

        def close(self):
            super().close()
            self.closed = True

    monkeypatch.setattr(progress, "tqdm", Recorded)
    return made


class Terminal(io.StringIO):
    def isatty(self):
        return True


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


def test_bars_print_what_is_done_to_standard_error(capsys, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    Bars()("calibrating ls", 3, 3)
    assert "calibrating ls" in sys.stderr.getvalue()
    assert "100%" in sys.stderr.getvalue()
    assert capsys.readouterr().out == ""


def test_where_there_is_no_terminal_a_line_comes_when_it_is_due(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    stream = progress.Lines()
    for now[0] in (0, 10, 29, 31, 40, 60, 62, 63):
        stream.write(f"\rtraining: {now[0]}%   ")
    stream.write("\n")
    assert capsys.readouterr().err == "training: 31%\ntraining: 62%\n"


def test_lines_say_what_bars_do_and_end_a_line(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    show = Bars()
    for done in (1, 2):
        show("calibrating ls", done, 2)
    training = progress.bar(total=4, desc="training")
    training.set_postfix({"val/loss": "0.5"}, refresh=False)
    training.update(4)
    training.close()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" [")[0] for line in lines] == [
        *("calibrating ls:   0%", "calibrating ls: 100%"),
        *("training:   0%", "training: 100%"),
    ]
    assert lines[-1].endswith(", val/loss=0.5]")


@pytest.fixture
def now(monkeypatch):
    """The time, in a list."""
    seconds = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_plan_says_what_is_left_of_all(now):
    plan = progress.Plan({"training": 60, "calibrating ls": 20, "ls, 2 steps": 20})
    assert plan.ahead("training", 0.0) == (0.0, 100.0)
    now[0] = 160.0  # half of the training took twice as long as expected
    assert plan.ahead("training", 0.5) == (60 / 200, 140.0)
    assert plan.ahead("something else", 0.5) is None
    # What comes later has what was before behind it.
    assert plan.ahead("ls, 2 steps", 0.5).seconds == 10


def test_a_training_that_goes_on_is_paced_by_what_is_done_now(now):
    plan = progress.Plan({"training": 100})
    plan.ahead("training", 0.6)
    now[0] += 20
    assert plan.ahead("training", 0.8).seconds == pytest.approx(20)


def test_what_comes_last_goes_by_the_clock(now):
    plan = progress.Plan({"ls, 2 steps": 100}, last=40)
    assert plan.ahead("before all", 0.5) is None
    plan.ahead("ls, 2 steps", 0.0)
    now[0] += 50
    assert plan.ahead("ls, 2 steps", 1.0) == (50 / 70, 20)  # twice as fast as expected
    assert plan.ahead("ls, again", 0.1).seconds == pytest.approx(20)
    now[0] += 15
    assert plan.ahead("attribution", 0.1) == (65 / 70, 5)
    now[0] += 15
    assert plan.ahead("attribution", 0.9).seconds == 1


def test_bars_and_lines_say_what_is_left_of_the_plan(capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    progress.plan({"network": 10, "ls": 20})
    Bars()("network", 5, 10)
    progress.plan({})
    assert re.search(r", in all \d+%, \d+ s left\]$", capsys.readouterr().err.splitlines()[-1])
    Bars()("network", 5, 5)
    assert "in all" not in capsys.readouterr().err


@pytest.mark.parametrize(("encoding", "cells"), [("utf-8", "███▋      "), ("ascii", "###7      ")])
def test_a_terminal_shows_all_as_a_bar(monkeypatch, encoding, cells):
    terminal = SimpleNamespace(isatty=lambda: True, encoding=encoding)
    monkeypatch.setattr(progress.sys, "stderr", terminal)
    assert str(progress.Ahead(0.37, 960)) == f"in all 37%|{cells}| 16 min left"


def test_what_takes_no_half_minute_says_nothing_in_a_log(capsys):
    for what in ("network", "bbels"):
        Bars()(what, 1, 1)
    assert capsys.readouterr() == ("", "")


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
