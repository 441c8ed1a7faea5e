"""The profile as torch takes it. The `meta` device stands for a GPU: it computes nothing, and is another device."""

import os
import platform
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from m1.checkpoint_state import State
from m1.columns import Column
from m1.jobdir import Profile
from m1train.checkpoints.resume import changes
from m1train.checkpoints.snapshot import Snapshot, restore
from m1train.engine import device
from m1train.engine.batches import Batches
from m1train.engine.device import Device
from m1train.engine.steps import Steps
from m1train.engine.training import Training
from m1train.recipes.cifar import CifarConfig
from m1train.recipes.cifar.network import Cifar
from m1train.task.recipe import Batch, DataInfo, Rows
from torch import nn
from torch.optim import SGD, Adagrad, AdamW, NAdam, Optimizer, RMSprop


class Scaled(nn.Module):
    """A vector and a scalar, as CLIP's logit scale is one."""

    def __init__(self) -> None:
        super().__init__()
        self.vector = nn.Parameter(torch.ones(3))
        self.scale = nn.Parameter(torch.tensor(2.0))


def elsewhere(**profile: object) -> Device:
    return Device(torch.device("meta"), torch.float32, torch.channels_last, Profile(**profile))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Watched(Device):
    """Says which threads bring something to the device."""

    seen: list[str] = field(default_factory=list)

    def to_device(self, batch: Batch) -> Batch:
        self.seen.append(threading.current_thread().name)
        return super().to_device(batch)


def test_batches_are_brought_to_the_device_by_the_training_s_thread_alone() -> None:
    profile = Profile(prefetch=1)
    at = Watched(torch.device("cpu"), torch.float32, torch.channels_last, profile)
    label = Column("label", "label", "int64", classes=("cat", "dog"))
    training = Training.assemble(Cifar(CifarConfig(batch_size=4, epochs=1)), at, DataInfo({"label": label}), None)
    samples = Rows({"image": np.zeros((8, 32, 32, 3), np.uint8), "label": np.arange(8, dtype=np.int64) % 2})
    steps = Steps(training, Batches(samples, np.arange(8), 4, 0))
    try:
        for step in range(2):
            steps.train(step)
    finally:
        steps.close()
    assert at.seen == [threading.current_thread().name] * 2


def test_images_that_are_laid_out_keep_their_layout_on_the_device() -> None:
    at = elsewhere()
    batch = at.laid_out(Batch({"image": torch.zeros(2, 3, 8, 8), "label": torch.zeros(2, dtype=torch.int64)}))
    ready = batch["image"]
    assert (ready.device.type, ready.stride()) == ("cpu", (192, 1, 24, 3))
    assert at.laid_out(batch)["image"] is ready, "a second time it costs nothing"
    moved = at.to_device(batch)
    assert (moved["image"].device.type, moved["image"].stride()) == ("meta", ready.stride())
    assert moved["label"].device.type == "meta"


def test_what_no_convolution_takes_is_laid_out_as_it_is() -> None:
    tokens, mask = torch.zeros(2, 9, dtype=torch.int64), torch.zeros(2, 8, 8, 3, dtype=torch.uint8)
    ready = elsewhere().laid_out(Batch({"tokens": tokens, "mask": mask}))
    assert ready["tokens"] is tokens
    assert ready["mask"] is mask


def test_only_an_optimizer_that_has_no_state_yet_is_fused_on_a_gpu() -> None:
    on_gpu, model = elsewhere(), Scaled().to("meta")
    assert on_gpu.prepare_optimizer(AdamW(model.parameters())).param_groups[0]["fused"] is True
    adagrad = on_gpu.prepare_optimizer(Adagrad(model.parameters()))
    assert adagrad.param_groups[0]["fused"] is None
    assert {state["step"].device.type for state in adagrad.state.values()} == {"cpu"}
    on_cpu = device.place(Profile())
    assert on_cpu.prepare_optimizer(Adagrad(Scaled().parameters())).param_groups[0]["fused"] is True


@pytest.mark.parametrize(("make", "counters_on"), [(RMSprop, "cpu"), (NAdam, "cpu"), (AdamW, "meta"), (Adagrad, "cpu")])
def test_moments_come_back_beside_their_parameters_a_scalar_s_too(
    make: Callable[[Iterator[nn.Parameter]], Optimizer], counters_on: str
) -> None:
    trained = Scaled()
    optimizer = make(trained.parameters())
    (trained.vector.sum() * trained.scale).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    weights, moments = Snapshot(trained, optimizer).tensors()

    model = Scaled().to("meta")
    there = elsewhere().prepare_optimizer(make(model.parameters()))
    restore(model, there, weights, moments)
    for parameter in (model.vector, model.scale):
        state = there.state[parameter]
        assert state["step"].device.type == counters_on
        moments_on = {key: t.device.type for key, t in state.items() if key not in {"step", "mu_product"}}
        assert set(moments_on.values()) == {"meta"}, moments_on


def test_sgd_has_no_counters_and_its_momentum_comes_back() -> None:
    trained = Scaled()
    optimizer = SGD(trained.parameters(), lr=0.1, momentum=0.9)
    (trained.vector.sum() * trained.scale).backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    weights, moments = Snapshot(trained, optimizer).tensors()
    model = Scaled().to("meta")
    there = elsewhere(fused=False).prepare_optimizer(SGD(model.parameters(), lr=0.1, momentum=0.9))
    restore(model, there, weights, moments)
    assert there.state[model.scale]["momentum_buffer"].device.type == "meta"


@pytest.fixture
def switched_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    threads = torch.get_num_threads()
    yield
    device.switch(Profile(threads=threads))
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def set_now() -> Sequence[object]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.backends.cudnn.deterministic,
        torch.backends.cudnn.benchmark,
        os.environ.get("CUBLAS_WORKSPACE_CONFIG"),
    )


@pytest.mark.usefixtures("switched_back")
def test_cuda_is_asked_for_its_deterministic_algorithms_and_the_cpu_is_left_as_it_is() -> None:
    device.switch(Profile())
    assert set_now() == (False, False, False, False, None)
    device.switch(Profile(device="cuda"))
    assert set_now() == (True, True, True, False, ":4096:8")


def differing(old: dict[str, str | int], new: dict[str, str | int]) -> list[str]:
    return changes(State(5, 1, 1, {}, None, old, 0.0), new, CifarConfig())


def test_another_processor_is_a_reason_to_call_a_resume_approximate_and_an_unknown_one_is_none() -> None:
    now = device.fingerprint(Profile())
    before = {key: value for key, value in now.items() if key != "processor"}
    assert differing(now, now) == []
    assert differing(before, now) == [], "a checkpoint of an earlier version"
    assert differing(before | {"processor": "Xeon"}, before | {"processor": "EPYC"}) == ["processor was Xeon, is EPYC"]


def test_a_resume_on_a_gpu_is_called_approximate_with_the_reason() -> None:
    cpu = device.fingerprint(Profile())
    unproven = "a resume on cuda is not proven exact"
    cuda = cpu | {"device": "cuda", "gpu": "A100"}
    assert differing(cuda, cuda) == [unproven]
    assert differing(cuda, cuda | {"gpu": "H100"}) == ["gpu was A100, is H100", unproven]
    assert differing(cpu, cuda) == ["device was cpu, is cuda", unproven]
    assert differing(cuda, cpu) == ["device was cuda, is cpu"]


FAULTS = """
import resource, torch
from m1.checkpoint_state import State
from m1.columns import Column
from m1.jobdir import Profile
from m1train.engine.device import set_up

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
before = faults()
set_up(Profile())
print(before, *(faults() for _ in range(20)))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked to keep memory")
def test_a_step_finds_the_memory_of_the_step_before_it() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    before, *after = map(int, done.stdout.split())
    pages = 2**24 * 4 // resource.getpagesize()
    assert before > pages // 600, "64 MB were given back to the system, and came back in pages that were touched anew"
    assert max(after[10:]) < pages // 600, "once there are blocks to take"
