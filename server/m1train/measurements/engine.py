"""`engine`: the training loop beside a plain script and beside compute alone, on the same network, by turns.

The loop is the real one (`engine.loop`), on a scratch directory: batches prepared as the profile says, augmentation,
the journal with its metrics, and a look at what the daemon wants before each step. Not in its turns: validation and
checkpoints. All ways train on scikit-learn's digits, drawn up to 32 x 32. The plain script trains on the CPU, the
others where the profile says; where that is elsewhere, the titles name it, and a ratio to the plain script has no goal.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from m1.checkpoint_state import Origin
from m1.columns import Column
from m1.jobdir import Desired, Want, checkpoints_path
from m1.journal import Finding, JournalWriter, journal_path
from m1.metrics import LOSS
from m1.process.control import Control, StopRequested
from m1.process.journal import Journal
from m1.trials import median_interval, paired_ratio

from m1train.checkpoints.writer import CheckpointWriter
from m1train.engine.batches import Batches
from m1train.engine.device import Device, place
from m1train.engine.loop import Context, Loop, Material
from m1train.engine.position import Position
from m1train.engine.training import Training
from m1train.job.results import Results
from m1train.measurements import plain
from m1train.measurements.context import MeasurementContext
from m1train.measurements.declared import EngineConfig
from m1train.randomness import epoch_order
from m1train.recipes.cifar import CifarConfig
from m1train.recipes.cifar.network import Cifar
from m1train.task.recipe import Arrays, Batch, DataInfo, Rows

_DTYPES = ("float32", "bfloat16")
_NOT_TIMED = 2
# Longer than any measurement: the end of the training is not in it.
_EPOCHS = 100_000
_TITLES = {
    "plain": "plain script, float32",
    "memory_float32": "compute alone, float32",
    "memory_bfloat16": "compute alone, bfloat16",
    "float32": "the engine, float32",
    "bfloat16": "the engine, bfloat16",
}
_NOTES = {
    "plain": "a process of its own, PIL transforms a sample, no workers, contiguous, eager, AdamW's default",
    "memory_float32": "tensors in memory, nothing augmented or recorded, the profile's memory format and optimizer",
}
# Which way is held against which, and what the project has set itself.
_RATIOS = (
    ("float32", "plain", "goal: at least 1.3"),
    ("bfloat16", "plain", "goal: at least 2.2 where the processor has bf16 instructions"),
    ("float32", "memory_float32", "goal: at least 0.95"),
    ("bfloat16", "memory_bfloat16", "goal: at least 0.95"),
)

Turn = Callable[["_TurnControl"], None]


class _TurnControl(Control):
    """What a turn looks at before each step: leaves when it is over, and says how long the timed steps took."""

    def __init__(self, context: MeasurementContext, steps: int) -> None:
        super().__init__(Path())
        self._context, self._end, self._looks = context, _NOT_TIMED + steps, 0
        self._began = 0.0
        self.seconds = 0.0
        self.held = False

    def look(self) -> Desired:
        """Go on, until the turn is over."""
        now = time.perf_counter()
        if self._looks == self._end:
            self.seconds = now - self._began
            raise StopRequested("stopped")
        self.held = self._context.heed() or self.held
        if self._looks == _NOT_TIMED:
            self._began = now
        self._looks += 1
        return Desired(Want.RUN)


class Engine:
    """The measurement."""

    def __init__(self, config: EngineConfig) -> None:
        self._config = config

    def measure(self, context: MeasurementContext) -> None:
        """Time all ways, round after round, and publish after each.

        Raises:
            StopRequested: the daemon wants this process to go.
        """
        config = self._config
        context.plan(config.rounds * len(_TITLES))
        context.phase("set up")
        speeds: dict[str, list[float]] = {way: [] for way in _TITLES}
        with tempfile.TemporaryDirectory(prefix="m1-engine-") as scratch, ExitStack() as ends:
            turns = self._turns(context, Path(scratch), ends)
            began = time.perf_counter()
            for done in range(config.rounds):
                if done >= 2 and time.perf_counter() - began > config.limit_s:
                    break
                for way, turn in turns.items():
                    context.phase(_TITLES[way])
                    speeds[way].append(self._images_per_s(context, turn))
                    context.part_done({f"engine/{way}/images_per_s": speeds[way][-1]})
                context.found(findings(speeds, context.profile.device))

    def _images_per_s(self, context: MeasurementContext, turn: Turn) -> float:
        """The speed of one turn; one that was held is made again."""
        while True:
            watch = _TurnControl(context, self._config.steps)
            try:
                turn(watch)
            except StopRequested:
                if not watch.seconds:  # it is the daemon that wants us to leave
                    raise
            if not watch.held:
                return self._config.steps * self._config.batch_size / watch.seconds

    def _turns(self, context: MeasurementContext, scratch: Path, ends: ExitStack) -> dict[str, Turn]:
        at = {dtype: place(replace(context.profile, dtype=dtype)) for dtype in _DTYPES}
        turns = {"plain": self._plain(context, ends)}
        turns |= {f"memory_{dtype}": self._in_memory(at[dtype]) for dtype in _DTYPES}
        return turns | {dtype: self._engine(at[dtype], scratch / dtype, ends) for dtype in _DTYPES}

    def _plain(self, context: MeasurementContext, ends: ExitStack) -> Turn:
        script = plain.Script(context.profile.threads, self._config.batch_size)
        ends.callback(script.close)

        def turn(watch: _TurnControl) -> None:
            while True:
                watch.look()
                script.step()

        return turn

    def _in_memory(self, at: Device) -> Turn:
        trainer = plain.Trainer(at.compiled(at.prepare_model(plain.network())), at)
        images, numbers = plain.tensors(len(plain.digits()[1]))
        on_device = at.to_device(Batch({"image": images, "label": numbers}))
        inputs, labels = on_device["image"], on_device["label"]
        size = self._config.batch_size

        def turn(watch: _TurnControl) -> None:
            for epoch in range(_EPOCHS):
                order = torch.from_numpy(epoch_order(0, epoch, len(labels)))
                for first in range(0, len(labels) - size + 1, size):
                    watch.look()
                    chosen = order[first : first + size]
                    trainer.step(inputs[chosen], labels[chosen])

        return turn

    def _engine(self, at: Device, directory: Path, ends: ExitStack) -> Turn:
        checkpoints_path(directory).mkdir(parents=True)
        journal = Journal(JournalWriter(journal_path(directory, 1)))
        config = CifarConfig(
            batch_size=self._config.batch_size, epochs=_EPOCHS, checkpoint_every_epochs=0, checkpoint_every_s=0
        )
        pixels, numbers = plain.digits()
        columns: Arrays = {"image": pixels, "label": np.array(numbers, np.int64)}
        label = Column("label", "label", "int64", classes=tuple(str(digit) for digit in range(10)))
        info = DataInfo({"label": label})
        training = Training.assemble(Cifar(config), at, info, None)
        # Whole batches only, so that every step is as large as the next.
        used, none = np.arange(len(numbers) // config.batch_size * config.batch_size), np.arange(0)
        samples = Rows(columns)
        material = Material(info, samples, used, samples, none, samples, none)
        writer = CheckpointWriter(directory, journal, 1, LOSS, None)
        ends.callback(writer.close)
        context = Context({}, [], Origin(), Control(directory), journal, writer, Results(directory, journal))
        batches = Batches(samples, used, config.batch_size, 0)

        def turn(watch: _TurnControl) -> None:
            Loop(training, material, batches, Position(), replace(context, control=watch)).run()

        return turn


def findings(speeds: Mapping[str, Sequence[float]], device: str) -> list[Finding]:
    """What the images per second of each way's turns say; `device` is where all but the plain script train."""
    found = []
    titles = dict(_TITLES)
    if device != "cpu":
        titles = {way: f"{title}, on {'cpu' if way == 'plain' else device}" for way, title in _TITLES.items()}
    for way, title in titles.items():
        speed = median_interval(speeds[way])
        note = _NOTES.get(way, "")
        found.append(
            Finding(f"engine/{way}", title, speed.value, "images/s", speed.low, speed.high, speed.n, note=note)
        )
    for way, other, goal in _RATIOS:
        ratio = paired_ratio(speeds[way], speeds[other])
        title = f"{titles[way]}, over {titles[other]}"
        note = f"no goal: {device} beside a CPU" if other == "plain" and device != "cpu" else goal
        key = f"engine/{way}_over_{other}"
        found.append(Finding(key, title, ratio.value, "x", ratio.low, ratio.high, ratio.n, note=note))
    return found
