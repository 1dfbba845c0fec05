"""Numbers that are not finite: a training ends in one line, and its last good checkpoint stays."""

import pytest
import torch
from tiny import TRAIN, cli, digits, network, trainer

from elslightning.runs.checkpoints import open_network
from elslightning.system.errors import DivergedError
from elslightning.training.finite import FiniteCheck
from elslightning.training.task import DenoisingTask

pytestmark = pytest.mark.reliability

STEPS = 2
"""Of an epoch."""


def test_a_training_that_diverges_ends_in_one_line(tmp_path):
    done = cli("train", *TRAIN, "optimizer.lr=1e30", "trainer.max_epochs=5", f"hydra.run.dir={tmp_path}")
    assert done.code == 1
    said = [line for line in done.err.splitlines() if line.startswith("elslightning")]
    assert len(said) == 1
    assert "Traceback" not in done.err
    assert " in step " in said[0]
    assert "no checkpoint was written" in said[0]
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_step_the_times_and_the_last_good_checkpoint_are_named(tmp_path, monkeypatch, value):
    step = DenoisingTask.training_step
    seen = {}

    def failing(self, batch, batch_idx):
        loss = step(self, batch, batch_idx)
        seen["times"] = self.time_range
        return loss * value if self.global_step == STEPS + 1 else loss

    monkeypatch.setattr(DenoisingTask, "training_step", failing)
    done = cli("train", *TRAIN, "trainer.max_epochs=9", f"hydra.run.dir={tmp_path}")
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if line.startswith("elslightning")]
    low, high = seen["times"]
    assert 0 < low < high <= 1
    assert line == (
        f"elslightning: error: the loss is {value} in step {STEPS + 2}, whose batch had times t from {low:.4g} to "
        f"{high:.4g}; the last good checkpoint is {tmp_path}/checkpoints/last.ckpt; a smaller learning rate may help"
    )
    loaded, _ = open_network(tmp_path)
    assert all(bool(value.isfinite().all()) for value in loaded.state_dict().values())


def test_weights_are_looked_at_before_a_checkpoint_is_written(tmp_path, monkeypatch):
    def spoil(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.denoiser.backbone.down_projection.bias[0] = float("nan")

    monkeypatch.setattr("elslightning.training.resuming.RandomState.on_train_epoch_end", spoil)
    done = cli("train", *TRAIN, f"hydra.run.dir={tmp_path}")
    assert done.code == 1
    assert "weights are not finite after step 2, first in denoiser.backbone.down_projection.bias" in done.err
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_one_process_stops_where_another_diverged(tmp_path, monkeypatch):
    fitter = trainer(tmp_path, callbacks=[FiniteCheck()])
    monkeypatch.setattr(fitter.strategy, "reduce_boolean_decision", lambda decision, all: False)
    with pytest.raises(DivergedError, match="the loss of another process is not finite in step 1"):
        fitter.fit(DenoisingTask(network()), digits())


def test_a_training_that_goes_well_is_left_alone(tmp_path):
    weights = []
    for callbacks in ([], [FiniteCheck()]):
        torch.manual_seed(0)
        task = DenoisingTask(network())
        trainer(tmp_path, callbacks=callbacks).fit(task, digits())
        weights.append(task.denoiser.state_dict())
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=0)
