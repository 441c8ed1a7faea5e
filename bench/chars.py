"""The `chars` recipe beside nanoGPT's train.py, by turns: tokens a second, and the validation loss at the same step.

    git clone https://github.com/karpathy/nanoGPT DIR
    python bench/chars.py DIR --turns 5 --steps 1000

Both train the model of nanoGPT's example for a CPU (4 layers, 4 heads, width 128, windows of 64, batches of 12, without
dropout and compile) on the same symbols of the same text, Python's standard library, with the same optimizer, rates and
number of threads. Each turn runs train.py as it is, in float32, which is all that it knows on a CPU; then our steps in
float32; then in bfloat16, where the processor has it. Tokens a second are of all steps but the first ten, by their sum
of seconds, without what either evaluates. The losses are of the last tenth of the text: ours of all of it, train.py's
of 200 random batches.

Prints a line for each run, and at the end medians, all values and the ratios by turn as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import numpy as np
from m1.columns import Column
from m1.jobdir import Profile
from m1train import catalogue
from m1train.engine import device
from m1train.engine.batches import Batches
from m1train.engine.steps import Steps
from m1train.engine.training import Training
from m1train.recipes.chars import DECLARATION
from m1train.recipes.chars.samples import Vocabulary, Windows, count_characters, most_frequent
from m1train.task.recipe import DataInfo

LAYERS, HEADS, WIDTH, WINDOW, BATCH, WARMUP = 4, 4, 128, 64, 12, 100
LR, MIN_LR, BETA2, DECAY = 1e-3, 1e-4, 0.99, 0.1
UNTIMED = 10
TEXT_BYTES = 4_000_000
_ITERATION = re.compile(r"iter (\d+): loss ([\d.]+), time ([\d.]+)ms")
_EVALUATED = re.compile(r"step (\d+): train loss ([\d.]+), val loss ([\d.]+)")


def write_text(folder: Path) -> None:
    """The text in nanoGPT's form: symbols of its first nine tenths and of the rest, and how many there are."""
    content, modules = b"", sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    while len(content) < TEXT_BYTES:
        content += modules.pop(0).read_bytes()
    text = np.frombuffer(content, np.uint8)
    n = len(content.decode()) * 9 // 10
    vocabulary = most_frequent(count_characters(text, n))
    symbols = vocabulary.encoded(text).astype(np.uint16)
    symbols[:n].tofile(folder / "train.bin")
    symbols[n:].tofile(folder / "val.bin")
    (folder / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": len(vocabulary)}))
    (folder / "vocabulary.json").write_text(json.dumps(vocabulary.to_json()))


def ours(folder: Path, steps: int, threads: int, dtype: str, seed: int) -> dict[str, float]:
    """Our engine's steps, as a training takes them."""
    train, val = (Windows(np.fromfile(folder / f"{name}.bin", np.uint16), WINDOW) for name in ("train", "val"))
    settings = {"n_layer": LAYERS, "n_head": HEADS, "n_embd": WIDTH, "block_size": WINDOW, "batch_size": BATCH}
    settings |= {"lr": LR, "min_lr": MIN_LR, "beta2": BETA2, "weight_decay": DECAY, "warmup": WARMUP}
    task = catalogue.load(DECLARATION, settings | {"epochs": 1, "seed": seed})
    # As many windows as make this number of steps in one epoch, over which the rates fall.
    n = steps * BATCH
    if n > len(train):
        raise SystemExit(f"the text has {len(train)} windows: --steps is {len(train) // BATCH} at most")
    indices = np.arange(n) * len(train) // n
    vocabulary = Vocabulary.from_json(json.loads((folder / "vocabulary.json").read_text()))
    info = DataInfo({"text": Column("text", "text", "uint8")}, vocabulary.to_json())
    at = device.set_up(Profile(threads=threads, dtype=dtype))
    training = Training.assemble(task, at, info, None)
    stepping = Steps(training, Batches(train, indices, BATCH, seed))
    began = 0.0
    for step in range(steps):
        if step == UNTIMED:
            began = time.perf_counter()
        stepping.train(step).metrics()
    seconds = time.perf_counter() - began
    stepping.close()
    judged = training.evaluate(val, np.arange(len(val)), task.evaluation(info, "val")).metrics()
    return {"tokens_per_s": (steps - UNTIMED) * BATCH * WINDOW / seconds, "val_loss": judged["loss"]}


def nanogpt(checkout: Path, folder: Path, steps: int, threads: int) -> dict[str, float]:
    """train.py, as it is."""
    options = {
        "dataset": folder.name,
        "out_dir": "out",
        "device": "cpu",
        "compile": False,
        "dtype": "float32",
        "eval_interval": steps,
        "eval_iters": 200,
        "log_interval": 1,
        "block_size": WINDOW,
        "batch_size": BATCH,
        "gradient_accumulation_steps": 1,
        "n_layer": LAYERS,
        "n_head": HEADS,
        "n_embd": WIDTH,
        "dropout": 0.0,
        "max_iters": steps,
        "lr_decay_iters": steps,
        "warmup_iters": WARMUP,
        "learning_rate": LR,
        "min_lr": MIN_LR,
        "beta2": BETA2,
        "weight_decay": DECAY,
    }
    command = [sys.executable, str(checkout / "train.py"), *(f"--{key}={value}" for key, value in options.items())]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    cwd = folder.parent.parent
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=cwd, env=environment)
    times = [float(ms) / 1000 for number, _, ms in _ITERATION.findall(done.stdout) if UNTIMED <= int(number) < steps]
    losses = {int(number): float(loss) for number, _, loss in _EVALUATED.findall(done.stdout)}
    return {"tokens_per_s": len(times) * BATCH * WINDOW / sum(times), "val_loss": losses[steps]}


def _apart(arguments: argparse.Namespace, folder: Path, dtype: str, seed: int) -> dict[str, float]:
    """Our steps in a process of their own, as nanoGPT's are."""
    command = [sys.executable, __file__, str(arguments.nanogpt), "--steps", str(arguments.steps)]
    command += ["--threads", str(arguments.threads), "--ours", dtype, str(folder), str(seed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--ours", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.ours:
        dtype, folder, seed = arguments.ours
        print(json.dumps(ours(Path(folder), arguments.steps, arguments.threads, dtype, int(seed))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "data" / "text"
        folder.mkdir(parents=True)
        write_text(folder)
        shutil.copy(arguments.nanogpt / "configurator.py", temporary)
        runs: dict[str, list[dict[str, float]]] = {"nanogpt float32": [], "float32": [], "bfloat16": []}
        for turn in range(arguments.turns):
            runs["nanogpt float32"].append(nanogpt(arguments.nanogpt, folder, arguments.steps, arguments.threads))
            runs["float32"].append(_apart(arguments, folder, "float32", turn))
            runs["bfloat16"].append(_apart(arguments, folder, "bfloat16", turn))
            for name, found in runs.items():
                last = found[-1]
                print(
                    f"turn {turn + 1}  {name:16} {last['tokens_per_s']:9,.0f} tokens/s  val loss {last['val_loss']:.4f}"
                )
    base = [run["tokens_per_s"] for run in runs["nanogpt float32"]]
    for name, found in runs.items():
        rates, losses = [run["tokens_per_s"] for run in found], [run["val_loss"] for run in found]
        ratios = [rate / other for rate, other in zip(rates, base, strict=True)]
        summary = {
            "run": name,
            "n": len(found),
            "median_tokens_per_s": statistics.median(rates),
            "median_ratio": statistics.median(ratios),
            "median_val_loss": statistics.median(losses),
            "tokens_per_s": rates,
            "ratios": ratios,
            "val_loss": losses,
        }
        print(json.dumps(summary))


if __name__ == "__main__":
    main()
