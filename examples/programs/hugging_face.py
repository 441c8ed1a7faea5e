"""Hugging Face's Trainer as a job: a callback reports what it logs, and its checkpoints become the job's.

m1ctl run -- python hugging_face.py --steps 200
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import m1job
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments


class M1Callback(TrainerCallback):
    """Give it to any Trainer: Trainer(..., callbacks=[M1Callback(run)])."""

    def __init__(self, run):
        self.run = run

    def on_train_begin(self, args, state, control, **_):
        self.run.plan(state.max_steps, state.global_step)

    def on_step_end(self, args, state, control, **_):
        self.run.step = state.global_step
        control.should_save = control.should_save or self.run.wants_checkpoint
        control.should_training_stop = control.should_training_stop or self.run.wants_machine

    def on_log(self, args, state, control, logs=None, **_):
        numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, (int, float))}
        of_an_evaluation = {key: value for key, value in numbers.items() if key.startswith("eval_")}
        self.run.log(state.global_step, {key: numbers[key] for key in numbers.keys() - of_an_evaluation.keys()})
        if of_an_evaluation:
            self.run.log(state.global_step, {f"val/{key[5:]}": of_an_evaluation[key] for key in of_an_evaluation})

    def on_save(self, args, state, control, **_):
        made = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.run.save(state.global_step, lambda directory: shutil.copytree(made, directory, dirs_exist_ok=True))

    def on_train_end(self, args, state, control, **_):
        if self.run.wants_machine and state.global_step < state.max_steps:
            self.run.leave(state.global_step)


class Line(nn.Module):
    """y = a x + b, in the shape that a Trainer wants."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x, labels):
        predicted = self.linear(x)
        return {"loss": nn.functional.mse_loss(predicted, labels), "logits": predicted}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    steps = parser.parse_args().steps

    torch.manual_seed(0)
    points = [{"x": torch.tensor([k / 50]), "labels": torch.tensor([2 * k / 50 - 1])} for k in range(100)]
    run = m1job.attach()
    newest = run.resume()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=steps,
            per_device_train_batch_size=10,
            learning_rate=0.05,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        )
        trainer = Trainer(Line(), arguments, train_dataset=points, callbacks=[M1Callback(run)])
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    print("ended at step", trainer.state.global_step)
