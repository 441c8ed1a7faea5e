"""`claims`: rules of thumb about training, each measured on this machine by short trials that alternate.

The recipe that this project set out from came with these rules. Where it gave a figure, the figure stands in the rule;
for the others it gave none. A factor is a speed over a speed: above 1, the rule's way is the faster one.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from m1.columns import Column
from m1.journal import Finding
from m1.processor import this_one_has_bfloat16
from m1.trials import Estimate, median_interval, paired_ratio
from torch import Tensor, nn

from m1train.engine.device import Device, place
from m1train.engine.training import Training
from m1train.measurements import plain
from m1train.measurements.context import MeasurementContext
from m1train.measurements.declared import ClaimsConfig
from m1train.measurements.work import matmul, triad, triad_array_bytes
from m1train.randomness import Draw, initial_weights
from m1train.recipes.cifar import CifarConfig
from m1train.recipes.cifar.network import Cifar
from m1train.task.recipe import Batch, DataInfo, Moment

_LOADED_IMAGES, _LOADED_BATCH, _WORKERS = 768, 64, 4
_CLAIMED_THREADS = 8
_LEAST_TRIALS, _MOST_TRIALS = 3, 100
_MICRO_BATCHES = 4
_CALLS = 1000
_SMALL = 2**14
# Widths of a network of eight square layers: 1, 10 and 100 million parameters, as near as whole hundreds come.
_WIDTHS = {"1M": 354, "10M": 1118, "100M": 3536}
_GPU_LAYERS, _GPU_BATCH = 8, 64
_NO_GPU = "not measured: torch finds no GPU here"

Action = Callable[[], object]


@dataclass(frozen=True)
class Rule:
    """A row of the table."""

    name: str
    claimed: str
    measure: Callable[[Trials], list[Finding]]


@dataclass
class Trials:
    """Timing beside a daemon that may want the process to wait: what a hold fell into is timed again."""

    context: MeasurementContext
    seconds: float
    """About how long two things are compared."""
    batch: int
    """Images of a training step."""

    def pairs(self, a: Action, b: Action) -> tuple[list[float], list[float]]:
        """Seconds of a and of b in turn, the first of a pair by turns, after one of each that is not timed."""
        self.once(a)
        self.once(b)
        times: tuple[list[float], list[float]] = ([], [])
        began = time.perf_counter()
        while len(times[0]) < _LEAST_TRIALS or (
            time.perf_counter() - began < self.seconds and len(times[0]) < _MOST_TRIALS
        ):
            if len(times[0]) % 2:
                second, first = self.once(b), self.once(a)
            else:
                first, second = self.once(a), self.once(b)
            times[0].append(first)
            times[1].append(second)
        return times

    def once(self, action: Action) -> float:
        """Seconds of an action, once more when it was held within it."""
        while True:
            self.heed()
            self._held = False
            began = time.perf_counter()
            action()
            took = time.perf_counter() - began
            if not self._held:
                return took

    def heed(self) -> None:
        """Between two parts of an action."""
        if self.context.heed():
            self._held = True


class Claims:
    """The measurement."""

    def __init__(self, config: ClaimsConfig) -> None:
        self._config = config

    def measure(self, context: MeasurementContext) -> None:
        """Measure rule after rule, and publish after each.

        Raises:
            StopRequested: the daemon wants this process to go.
        """
        chosen = [rule for rule in RULES if self._config.only in ("all", rule.name)]
        context.plan(len(chosen))
        began = time.perf_counter()
        found: list[Finding] = []
        for rule in chosen:
            context.phase(rule.name)
            context.heed()
            if time.perf_counter() - began > self._config.limit_s:
                why = f"not measured: limit_s={self._config.limit_s:g} was over; --set only={rule.name} measures it"
                rows = [_absent(rule.name, rule.name, why)]
            else:
                rows = rule.measure(Trials(context, self._config.seconds_per_rule, self._config.batch_size))
            found += [replace(row, claimed=rule.claimed) for row in rows]
            context.found(found)
            context.part_done({f"claims/{row.key}": row.value for row in rows if row.value is not None})


def _faster(key: str, title: str, slow: Sequence[float], fast: Sequence[float], note: str) -> Finding:
    """How many times as fast: seconds of the other way over seconds of the rule's way."""
    return _found(key, title, "x", paired_ratio(slow, fast), note)


def _found(key: str, title: str, unit: str, estimate: Estimate, note: str) -> Finding:
    return Finding(key, title, estimate.value, unit, estimate.low, estimate.high, estimate.n, note=note)


def _absent(key: str, title: str, why: str) -> Finding:
    return Finding(key, title, None, "", n=0, note=why)


class _Step:
    """A training step of the `cifar` recipe on one batch, as a device takes it."""

    def __init__(self, at: Device, batch: int) -> None:
        labels = Column("label", "label", "int64", classes=tuple(str(digit) for digit in range(10)))
        self._training = Training.assemble(Cifar(CifarConfig()), at, DataInfo({"label": labels}), None)
        self.model = self._training.model
        images, numbers = plain.tensors(batch)
        self._batch = at.to_device(Batch({"image": images, "label": numbers}))

    def __call__(self) -> None:
        self.learn(slice(None), 1)
        self.update()

    def learn(self, chosen: slice, parts: int) -> None:
        """Add up the gradients of a part of the batch."""
        part = self._batch.map(lambda tensor: tensor[chosen])
        loss, _ = self._training.loss(part, Draw(0, 0, np.arange(part.size, dtype=np.uint64)))
        self._training.add_gradients(loss / parts)

    def update(self) -> None:
        """Change the weights; returns when that is done."""
        self._training.clip()
        self._training.update(Moment(0, 1, 1))
        _synchronise(self._training.device.device)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def _at(trials: Trials, **changes: str) -> Device:
    """The job's profile with some fields in their place; without compiling, which takes longer than the trials."""
    return place(replace(trials.context.profile, **{"dtype": "float32", "compile": False, **changes}))  # type: ignore[arg-type]


def _step_note(trials: Trials) -> str:
    return f"training step of cifar, batch {trials.batch}"


def _threads(trials: Trials) -> list[Finding]:
    key, own = "threads/8", trials.context.profile.threads
    title = f"{_CLAIMED_THREADS} threads over {own}"
    if own == _CLAIMED_THREADS:
        return [_absent(key, title, f"not measured: this machine's own profile has {own} threads")]
    step = _Step(_at(trials), trials.batch)

    def with_threads(count: int) -> Action:
        def act() -> None:
            torch.set_num_threads(count)
            step()

        return act

    try:
        many, few = trials.pairs(with_threads(_CLAIMED_THREADS), with_threads(own))
    finally:
        torch.set_num_threads(own)
    return [_faster(key, title, few, many, f"{_step_note(trials)}; {own} is the profile's count")]


def _torchscript(trials: Trials) -> list[Finding]:
    key, title = "torchscript", "TorchScript over eager"
    inputs, labels = plain.tensors(trials.batch)
    at = plain.place_of_a_script(trials.context.profile.threads)
    eager = plain.Trainer(plain.network(), at)
    try:
        compiled = plain.Trainer(torch.jit.script(plain.network()), at)
        for _ in range(2):  # it compiles while it is called for the first times
            trials.once(lambda: compiled.step(inputs, labels))
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        return [_absent(key, title, f"not measured: this torch does not compile it ({reason})")]
    ours, theirs = trials.pairs(lambda: compiled.step(inputs, labels), lambda: eager.step(inputs, labels))
    return [_faster(key, title, theirs, ours, f"training step of the plain network, batch {trials.batch}, float32")]


def _images() -> plain.Images:
    pixels, labels = plain.digits()
    return plain.Images(pixels[:_LOADED_IMAGES], labels[:_LOADED_IMAGES])


def _epoch(trials: Trials, loader: plain.Loader) -> Action:
    def act() -> None:
        for _ in loader:
            trials.heed()

    return act


_LOADING = f"loading alone, {_LOADED_IMAGES} images with PIL's transforms, batches of {_LOADED_BATCH}"


def _workers(trials: Trials) -> list[Finding]:
    images = _images()
    many, none = trials.pairs(
        _epoch(trials, plain.loader(images, _LOADED_BATCH, _WORKERS, persistent=True)),
        _epoch(trials, plain.loader(images, _LOADED_BATCH)),
    )
    return [_faster("workers/4", f"{_WORKERS} workers over none", none, many, f"{_LOADING}; their start not counted")]


def _persistent(trials: Trials) -> list[Finding]:
    images = _images()
    kept, made_anew = trials.pairs(
        _epoch(trials, plain.loader(images, _LOADED_BATCH, _WORKERS, persistent=True)),
        _epoch(trials, plain.loader(images, _LOADED_BATCH, _WORKERS)),
    )
    lost = median_interval([new - old for new, old in zip(made_anew, kept, strict=True)])
    return [
        _faster("persistent", "persistent workers over new ones each epoch", made_anew, kept, _LOADING),
        _found("persistent/start", f"what starting {_WORKERS} workers takes an epoch", "s", lost, "of any length"),
    ]


def _pinned(trials: Trials) -> list[Finding]:
    key, title = "pinned", "pinned memory over pageable"
    if not torch.cuda.is_available():
        return [_absent(key, title, "not measured: only a CUDA device copies from pinned memory, and there is none")]
    pageable = torch.ones(2**24)
    pinned = pageable.pin_memory()

    def copied(source: Tensor) -> Action:
        def act() -> None:
            source.to("cuda", non_blocking=True)
            torch.cuda.synchronize()

        return act

    fast, slow = trials.pairs(copied(pinned), copied(pageable))
    return [_faster(key, title, slow, fast, "64 MiB to the device")]


def _dtype(trials: Trials) -> list[Finding]:
    plain_step = _Step(_at(trials), trials.batch)
    rows = []
    for dtype in ("bfloat16", "float16"):
        key, title = f"dtype/{dtype}", f"{dtype} over float32"
        if dtype == "float16" and trials.context.profile.device == "cpu":
            why = "not measured: it is not sound on a CPU, where small gradients become 0, and is not offered"
            rows.append(_absent(key, title, why))
            continue
        short, long = trials.pairs(_Step(_at(trials, dtype=dtype), trials.batch), plain_step)
        rows.append(_faster(key, title, long, short, f"{_step_note(trials)}, autocast"))
    return rows


def _bfloat16(trials: Trials) -> list[Finding]:
    title = "bfloat16 over float32, a matrix product on the CPU"
    short, long = matmul(torch.bfloat16), matmul(torch.float32)
    fast, slow = trials.pairs(short.call, long.call)
    has = "has instructions for it" if this_one_has_bfloat16() else "has no instructions for it, and emulates them"
    return [_faster("bfloat16", title, slow, fast, f"{short.note}; this processor {has}")]


def _memory_format(trials: Trials) -> list[Finding]:
    key, title = "memory_format", "channels_last over contiguous"
    if trials.context.profile.device == "mps":
        return [_absent(key, title, "not measured: BatchNorm's gradients are wrong in it on mps (pytorch#175189)")]
    last, first = trials.pairs(
        _Step(_at(trials, memory_format="channels_last"), trials.batch),
        _Step(_at(trials, memory_format="contiguous"), trials.batch),
    )
    return [_faster(key, title, first, last, f"{_step_note(trials)}, float32")]


def _gpu_device() -> torch.device | None:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps") if torch.backends.mps.is_available() else None


def _perceptron_step(device: torch.device, width: int) -> Action:
    """A training step of eight square layers."""
    with initial_weights(0):
        layers = [nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(_GPU_LAYERS)]
    model = nn.Sequential(*layers).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    inputs = torch.ones(_GPU_BATCH, width, device=device)

    def act() -> None:
        model(inputs).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        _synchronise(device)

    return act


def _gpu(trials: Trials) -> list[Finding]:
    device = _gpu_device()
    crossover = "gpu/crossover", "model size from which the GPU is faster"
    if device is None:
        return [
            *(_absent(f"gpu/{size}", f"CPU over GPU, {size} parameters", _NO_GPU) for size in _WIDTHS),
            _absent(*crossover, _NO_GPU),
        ]
    rows, ratios = [], []
    for size, width in _WIDTHS.items():
        cpu, gpu = trials.pairs(_perceptron_step(torch.device("cpu"), width), _perceptron_step(device, width))
        note = f"training step of {_GPU_LAYERS} layers of {width}, batch {_GPU_BATCH}, float32, on {device.type}"
        rows.append(_faster(f"gpu/{size}", f"CPU over GPU, {size} parameters", gpu, cpu, note))
        ratios.append((float(_GPU_LAYERS * width**2), rows[-1].value or 1.0))
    return [*rows, _crossing(*crossover, ratios)]


def _crossing(key: str, title: str, ratios: Sequence[tuple[float, float]]) -> Finding:
    """Where the factor passes 1, between two sizes on logarithmic scales."""
    for (small, before), (large, after) in itertools.pairwise(ratios):
        if before > 1 >= after:
            part = math.log(before) / math.log(before / after)
            size = math.exp(math.log(small) + part * math.log(large / small))
            return Finding(key, title, size / 1e6, "M parameters", n=len(ratios), note="between the sizes above")
    if all(ratio > 1 for _, ratio in ratios) or all(ratio <= 1 for _, ratio in ratios):
        winner = "CPU" if ratios[0][1] > 1 else "GPU"
        return _absent(key, title, f"none: the {winner} is the faster one at every size that was measured")
    return _absent(key, title, "none: the factors do not fall with the size")


def _small(trials: Trials) -> list[Finding]:
    rows = []
    for device in (torch.device("cpu"), _gpu_device()):
        if device is None:
            rows += [_absent(f"small/gpu_{part}", f"small operation on the GPU, {part}", _NO_GPU) for part in _PARTS]
            continue
        name = "CPU" if device.type == "cpu" else "GPU"
        one, many = torch.zeros(1, device=device), torch.zeros(_SMALL, device=device)
        small, large = trials.pairs(_additions(one), _additions(many))
        per_call = 1e6 / _CALLS
        launch = median_interval([seconds * per_call for seconds in small])
        compute = median_interval([(b - a) * per_call for a, b in zip(small, large, strict=True)])
        notes = (f"adding to 1 number, {_CALLS} times", f"adding to {_SMALL} numbers, less the launch")
        for part, estimate, note in zip(_PARTS, (launch, compute), notes, strict=True):
            title = f"small operation on the {name}, {part}"
            rows.append(_found(f"small/{name.lower()}_{part}", title, "µs", estimate, note))
    return rows


_PARTS = ("launch", "compute")


def _additions(x: Tensor) -> Action:
    def act() -> None:
        for _ in range(_CALLS):
            x.add_(1)
        _synchronise(x.device)

    return act


def _accumulation(trials: Trials) -> list[Finding]:
    size = trials.batch // _MICRO_BATCHES
    step = _Step(_at(trials), size * _MICRO_BATCHES)

    def in_parts() -> None:
        for part in range(_MICRO_BATCHES):
            step.learn(slice(part * size, (part + 1) * size), _MICRO_BATCHES)
        step.update()

    parts, whole = trials.pairs(in_parts, step)
    title = f"{_MICRO_BATCHES} x {size} images over 1 x {size * _MICRO_BATCHES}"
    return [_faster("accumulation", title, whole, parts, f"{_step_note(trials)}, float32")]


def _bandwidth(trials: Trials) -> list[Finding]:
    key, title = "bandwidth", "memory bandwidth that a training step uses"
    if trials.context.profile.device != "cpu":
        return [_absent(key, title, "not measured: the triad that it is compared with is the CPU's")]
    step = _Step(_at(trials), trials.batch)
    with _counted_bytes(step.model) as counted:
        step()
    stream = triad(triad_array_bytes(2**28))
    steps, triads = trials.pairs(step, stream.call)
    ratio = paired_ratio([counted[0] / 1e9 / s for s in steps], [stream.amount / s for s in triads])
    percent = Estimate(100 * ratio.value, ratio.low and 100 * ratio.low, ratio.high and 100 * ratio.high, ratio.n)
    note = (
        f"{_step_note(trials)}: {counted[0] / 1e6:.0f} MB counted as if nothing stayed in a cache, each layer's"
        " inputs, weights and outputs once forward and twice backward, AdamW's 7 arrays once"
    )
    return [_found(key, title, "% of the triad's", percent, note)]


@contextmanager
def _counted_bytes(model: nn.Module) -> Iterator[list[float]]:
    """What a step inside moves at least when no layer finds anything in a cache."""
    total = [0.0]

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights = sum(parameter.nbytes for parameter in module.parameters())
        total[0] += 3 * (inputs[0].nbytes + weights + output.nbytes)

    leaves = [module for module in model.modules() if not list(module.children())]
    handles = [module.register_forward_hook(count) for module in leaves]
    yield total
    for handle in handles:
        handle.remove()
    # Reads the weight, its gradient and both moments, writes the weight and both moments.
    total[0] += 7 * sum(parameter.nbytes for parameter in model.parameters())


RULES = (
    Rule("threads", "8 threads: 20-30 % faster", _threads),
    Rule("torchscript", "TorchScript: 15-25 % faster", _torchscript),
    Rule("workers", "four workers: 40 % less loading time, 1.67 x", _workers),
    Rule("persistent", "persistent workers: no figure", _persistent),
    Rule("pinned", "pinned memory: no figure", _pinned),
    Rule("dtype", "fp16 or bf16 against fp32: no figure", _dtype),
    Rule("bfloat16", "bf16 on a CPU without it: no figure", _bfloat16),
    Rule("memory_format", "channels_last: no figure", _memory_format),
    Rule("gpu", "the CPU before the GPU under 100M parameters", _gpu),
    Rule("small", "a small operation, launch and compute: no figure", _small),
    Rule("accumulation", "gradient accumulation: no figure", _accumulation),
    Rule("bandwidth", "memory bandwidth used: no figure", _bandwidth),
)
