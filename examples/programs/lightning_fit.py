"""Lightning as a job: a callback reports the loss, and its checkpoints become the job's.

m1ctl run -- python lightning_fit.py --steps 200
"""

import argparse

import lightning
import m1job
import torch
from torch import nn


class M1Callback(lightning.Callback):
    """Give it to any Trainer: lightning.Trainer(..., callbacks=[M1Callback(run)])."""

    def __init__(self, run):
        self.run = run

    def on_train_start(self, trainer, module):
        self.run.plan(int(trainer.estimated_stepping_batches), trainer.global_step)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        step = trainer.global_step
        self.run.log(step, loss=outputs["loss"])
        if self.run.wants_checkpoint:
            self.run.save(step, lambda directory: trainer.save_checkpoint(directory / "last.ckpt"))
        if self.run.wants_machine and step < trainer.estimated_stepping_batches:
            trainer.should_stop = True
            self.run.leave(step)

    def on_validation_end(self, trainer, module):
        self.run.log(trainer.global_step, {f"val/{key}": value for key, value in trainer.callback_metrics.items()})


class Line(lightning.LightningModule):
    """y = a x + b."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def training_step(self, batch, _index):
        x, y = batch
        return nn.functional.mse_loss(self.linear(x), y)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.05)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    x = torch.arange(100.0)[:, None] / 50
    points = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x - 1), batch_size=10)
    run = m1job.attach()
    newest = run.resume()
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[M1Callback(run)],
    )
    trainer.fit(Line(), points, ckpt_path=newest / "last.ckpt" if newest else None)
    print("ended at step", trainer.global_step)
