"""What a training process imports before it can train, and what it does without."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path

import pytest
from m1train.attempt.imports import uncollected

TRAIN_AND_SAY = """
import sys
from m1train.__main__ import main
assert main(sys.argv[1:]) == 0
print(*sys.modules)
"""
SMALL = {
    "cifar": ("--set", "batch_size=32"),
    "cifar-fast": ("--set", "batch_size=32"),
    "chars": ("--set", "n_layer=1", "--set", "n_embd=16", "--set", "n_head=1", "--set", "batch_size=64"),
}
# An optimizer, then what a recipe of one's own may do: import from the compiler, keep a function from it, compile.
LATE = """
import sys, torch
from m1train.attempt.imports import keep_the_compiler_out
keep_the_compiler_out()
weights = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([weights], lr=1.0)
weights.sum().backward()
optimizer.step()
optimizer.zero_grad()
assert "torch._dynamo.utils" not in sys.modules and weights.tolist() == [0.0, 0.0], weights

if sys.argv[1] == "imports":
    import torch._dynamo.config as config
    from torch._dynamo import utils
    assert config is sys.modules["torch._dynamo.config"] is torch._dynamo.config
    assert utils is sys.modules["torch._dynamo.utils"]

@torch.compiler.disable
def doubled(x):
    return x * 2

assert "torch._dynamo.utils" in sys.modules
print(torch.compile(lambda x: doubled(x) + 1, backend="eager")(torch.ones(1)).item())
optimizer.zero_grad()
print(torch.optim.Optimizer.zero_grad.__wrapped__.__dynamo_disable._torchdynamo_disable)
"""


@pytest.mark.process
@pytest.mark.parametrize("recipe", SMALL)
def test_a_recipe_of_ours_trains_without_torchs_compiler(recipe: str, images: Path, tmp_path: Path) -> None:
    data = images
    if recipe == "chars":
        data = tmp_path / "book.txt"
        data.write_text("All that is gold does not glitter. " * 60)
    arguments = [recipe, "--data", str(data), "--epochs", "1", "--threads", "1", "--out", str(tmp_path / "job")]
    environment = {"M1D_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = run(TRAIN_AND_SAY, *arguments, *SMALL[recipe], environment=environment)
    loaded = set(done.splitlines()[-1].split())
    assert "torch.optim" in loaded
    assert loaded & {"torch._dynamo.config", "sympy", "torch.distributed.fsdp", "torchvision"} == set()


@pytest.mark.process
@pytest.mark.parametrize("first", ["imports", "compiles"])
def test_the_compiler_comes_when_it_is_wanted_after_all(first: str) -> None:
    assert run(LATE, first).split() == ["3.0", "True"]


def test_no_garbage_is_looked_for_while_modules_are_imported() -> None:
    held = gc.get_freeze_count()
    try:
        with uncollected():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > held
        with pytest.raises(ImportError), uncollected():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def run(code: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    command = [sys.executable, "-P", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout
