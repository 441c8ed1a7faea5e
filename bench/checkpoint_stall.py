"""How long a checkpoint stalls the step, beside torch.save of the same state in the same run.

    python bench/checkpoint_stall.py cifar --checkpoints 10
    python bench/checkpoint_stall.py large --checkpoints 5

`cifar` is the recipe's network, batch 128; `large` has 75M parameters, 0.9 GB with AdamW's moments. After some plain
steps, each checkpoint is handed over as the loop does it, and training steps go on until its files are durable. Per
checkpoint, in milliseconds:

    blocked     what the training's thread waited: making the snapshot, handing it over, awaiting the copy
    first_step  how much longer the step with the checkpoint took, all told, than the median of the plain ones before
    until_durable  how much longer all steps took, together, while the files were written and hashed: shared cores
    torch_save  torch.save of the same state to the same file system, which the training would stand for (no fsync)

Prints one JSON line with medians, all values and the median of plain steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from m1.checkpoint_state import State
from m1.jobdir import Profile, checkpoints_path
from m1.journal import JournalWriter, journal_path
from m1.metrics import LOSS
from m1.process.journal import Journal
from m1d.machine.topology import default_threads, read_topology
from m1train import catalogue as recipes
from m1train.checkpoints.snapshot import Snapshot
from m1train.checkpoints.writer import CheckpointWriter
from m1train.engine.device import set_up
from m1train.randomness import initial_weights
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer


def cifar() -> tuple[nn.Module, Optimizer, Callable[[], Tensor]]:
    """The recipe's network and the loss of one batch of 128."""
    recipe = recipes.load(recipes.declaration("cifar"), {})
    model = recipe.model(10).to(memory_format=torch.channels_last)
    images = torch.linspace(0, 1, 128 * 3 * 32 * 32).reshape(128, 3, 32, 32)
    images = images.contiguous(memory_format=torch.channels_last)
    return model, recipe.optimizer(model), lambda: model(images, None).square().mean()


def large() -> tuple[nn.Module, Optimizer, Callable[[], Tensor]]:
    """18 layers of 2048 x 2048: 75.5M parameters."""
    model = nn.Sequential(*(nn.Linear(2048, 2048) for _ in range(18)))
    rows = torch.linspace(-1, 1, 256 * 2048).reshape(256, 2048)
    return model, AdamW(model.parameters(), fused=True), lambda: model(rows).square().mean()


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=("cifar", "large"))
    parser.add_argument("--checkpoints", type=int, default=5)
    parser.add_argument("--plain", type=int, default=7, help="plain steps before each checkpoint")
    parser.add_argument("--threads", type=int, default=default_threads(read_topology()))
    chosen = parser.parse_args()
    set_up(Profile(threads=chosen.threads))
    with initial_weights(0):
        model, optimizer, loss = {"cifar": cifar, "large": large}[chosen.model]()

    def step(before_optimizer: Callable[[], None] = lambda: None) -> float:
        began = time.perf_counter()
        loss().backward()  # type: ignore[no-untyped-call]
        before_optimizer()
        optimizer.step()
        optimizer.zero_grad()
        return time.perf_counter() - began

    step()
    found: dict[str, list[float]] = {
        "plain": [],
        "blocked": [],
        "first_step": [],
        "until_durable": [],
        "torch_save": [],
    }
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        checkpoints_path(directory).mkdir()
        writer = CheckpointWriter(directory, Journal(JournalWriter(journal_path(directory, 1))), 1, LOSS, None)
        for number in range(1, chosen.checkpoints + 1):
            steps = [step() for _ in range(chosen.plain)]
            plain = statistics.median(steps)
            found["plain"] += steps
            began = time.perf_counter()
            snapshot = Snapshot(model, optimizer)
            writer.write(State(number, 0, 0, {}, None, {}, time.time()), 0, snapshot)
            handed_over = time.perf_counter() - began
            waited: list[float] = []
            first = handed_over + step(lambda snapshot=snapshot, waited=waited: waited.append(timed(snapshot.wait)))  # type: ignore[misc]
            found["blocked"].append(handed_over + waited[0])
            found["first_step"].append(first - plain)
            del snapshot
            extra = first - plain
            while not durable(writer):
                extra += step() - plain
            found["until_durable"].append(extra)
            file = directory / "torch.save"
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            found["torch_save"].append(timed(lambda state=state, file=file: torch.save(state, file)))  # type: ignore[misc]
            size = file.stat().st_size
            file.unlink()
        writer.close()
    result = {key: {"median_ms": ms(statistics.median(v)), "all_ms": [ms(x) for x in v]} for key, v in found.items()}
    del result["plain"]["all_ms"]
    about = {"model": chosen.model, "n": chosen.checkpoints, "threads": chosen.threads, "torch": torch.__version__}
    load = {"load_average_1m": os.getloadavg()[0]}
    print(json.dumps(about | {"state_bytes": size} | load | result))


def timed(action: Callable[[], object]) -> float:
    """The seconds that it took."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def durable(writer: CheckpointWriter) -> bool:
    """Whether the writer has nothing left to do."""
    return writer._tasks.unfinished_tasks == 0


def ms(seconds: float) -> float:
    """Milliseconds, to a tenth."""
    return round(1000 * seconds, 1)


if __name__ == "__main__":
    main()
