"""What of the daemon's environment reaches the training, and what that means for its bits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from harness import PATIENCE_S, RunningDaemon
from m1.arithmetic import comparable, decides_bits, fingerprint, unlike
from m1.errors import M1Error
from m1.jobdir import checkpoint_path
from m1.paths import Home
from m1.v1 import job_pb2
from m1d.home.config import EnvironmentConfig, read_config
from m1d.processes.environment import environment, training_environment, variables

SHELL = {
    "PATH": "/bin",
    "HOME": "/home/u",
    "LC_TIME": "C",
    "https_proxy": "http://proxy:3128",
    "CUDA_VISIBLE_DEVICES": "1",
    "M1D_HOME": "/home/u/.m1d",
    "HF_HOME": "/data",
    "EDITOR": "vi",
    "AWS_SECRET_ACCESS_KEY": "secret",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "OMP_NUM_THREADS": "7",
}


def test_a_process_gets_what_it_needs_to_find_things_and_nothing_that_a_shell_happens_to_have() -> None:
    passed = environment(SHELL, EnvironmentConfig())
    assert passed.keys() == {"PATH", "HOME", "LC_TIME", "https_proxy", "CUDA_VISIBLE_DEVICES", "M1D_HOME"}
    assert passed.items() <= SHELL.items()


def test_a_person_lets_more_through_and_sets_what_the_shell_has_otherwise() -> None:
    config = EnvironmentConfig(("HF_*", "ONEDNN_MAX_CPU_ISA"), {"EDITOR": "ed", "HF_HOME": "/elsewhere"})
    passed = environment(SHELL, config)
    assert (passed["HF_HOME"], passed["EDITOR"], passed["ONEDNN_MAX_CPU_ISA"]) == ("/elsewhere", "ed", "SSE41")
    told = variables(SHELL, config)
    assert told.fixed == ("EDITOR", "HF_HOME")
    assert "ONEDNN_MAX_CPU_ISA" in told.passed
    assert told.withheld == ("AWS_SECRET_ACCESS_KEY", "OMP_NUM_THREADS")
    assert variables(SHELL, EnvironmentConfig()).deciding == ("ONEDNN_MAX_CPU_ISA",)


def test_the_threads_are_the_profiles_whatever_passes() -> None:
    passed = environment(SHELL, EnvironmentConfig(("*",)))
    assert passed == SHELL
    assert training_environment(passed, 2) | SHELL == SHELL | {"PYTHONUNBUFFERED": "1", "MKL_NUM_THREADS": "2"}
    assert training_environment(passed, 2)["OMP_NUM_THREADS"] == "2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[environment]\npass = "HF_*"', 'pass = ["HF_*"]'),
        ('[environment]\npass = ["HF HOME"]', "environment.pass"),
        ("[environment]\npas = []", 'did you mean "pass"'),
        ("[environment.set]\nK = 1", 'K = "1"'),
        ('[environment.set]\nOMP_NUM_THREADS = "2"', "profile"),
        ('[environment.set]\n"A B" = "2"', "letters"),
        ('[environment]\nset = "A"', "[environment.set]"),
    ],
)
def test_a_wrong_environment_is_refused_in_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(M1Error) as caught:
        read_config(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_configured_environment_is_read(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('[environment]\npass = ["HF_*", "WANDB_API_KEY"]\n[environment.set]\nK = "a b"\n')
    assert read_config(path).environment == EnvironmentConfig(("HF_*", "WANDB_API_KEY"), {"K": "a b"})


@pytest.mark.parametrize(
    "name",
    [
        *("ONEDNN_MAX_CPU_ISA", "DNNL_DEFAULT_FPMATH_MODE", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
        *("ATEN_CPU_CAPABILITY", "OMP_DYNAMIC", "OMP_THREAD_LIMIT", "KMP_DETERMINISTIC_REDUCTION", "OPENBLAS_CORETYPE"),
        *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUBLAS_WORKSPACE_CONFIG", "GLIBC_TUNABLES"),
        *(
            "NPY_DISABLE_CPU_FEATURES",
            "PYTORCH_MPS_FAST_MATH",
            "TORCHINDUCTOR_MAX_AUTOTUNE",
            "LD_PRELOAD",
            "MKL_DEBUG_CPU_TYPE",
        ),
    ],
)
def test_what_a_library_chooses_its_arithmetic_by_decides_bits_and_is_withheld(name: str) -> None:
    assert decides_bits(name)
    assert name not in environment({name: "1"}, EnvironmentConfig())


@pytest.mark.parametrize("name", ["PATH", "OMP_NUM_THREADS", "ONEDNN_VERBOSE", "TORCH_HOME", "TORCHINDUCTOR_CACHE_DIR"])
def test_what_changes_no_number_decides_no_bits(name: str) -> None:
    assert not decides_bits(name)


def test_a_fingerprint_without_variables_says_nothing_of_them() -> None:
    set_now, unset = fingerprint({"MKL_CBWR": "AVX2", "PATH": "/bin"}), fingerprint({"PATH": "/bin", "MKL_CBWR": ""})
    assert unset == {"variables": 0}
    assert comparable({"torch": "2"}, set_now) == ({"torch": "2"}, {})
    before, now = comparable(set_now, unset)
    assert (before, now) == ({"$MKL_CBWR": "AVX2"}, {})
    assert unlike("$MKL_CBWR", "AVX2", None) == "MKL_CBWR was AVX2, is unset"


SHORT: dict[str, bool | float | str] = {"epochs": 1, "batch_size": 40, "seed": 7}
# A smaller set of instructions than any x86-64 processor of today has: oneDNN computes the convolutions otherwise.
OTHER_ARITHMETIC = {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


def trained(daemon: RunningDaemon) -> tuple[str, job_pb2.Job]:
    job = daemon.client.submit("cifar", data="few", settings=SHORT)
    job = daemon.client.wait(job, timeout_s=PATIENCE_S)
    assert job.state == job_pb2.JOB_STATE_SUCCEEDED, job
    weights = checkpoint_path(Home(daemon.home).job(job.id), job.progress.step) / "weights.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest(), job


def test_the_shell_that_starts_the_daemon_does_not_decide_what_is_trained(quiet_daemon: RunningDaemon) -> None:
    quiet_daemon.start()
    plain, job = trained(quiet_daemon)
    quiet_daemon.stop()

    quiet_daemon.start(**OTHER_ARITHMETIC)
    assert trained(quiet_daemon)[0] == plain
    shown = json.loads(quiet_daemon.m1ctl("daemon", "status", "-o", "json").stdout)["environment"]
    assert set(OTHER_ARITHMETIC) == set(shown["withheld_deciding"])
    assert "ONEDNN_MAX_CPU_ISA" in quiet_daemon.m1ctl("daemon", "status").stdout
    quiet_daemon.stop()

    # Let through by hand, it counts: whoever goes on from that checkpoint is told by name.
    Home(quiet_daemon.home).config.write_text('[environment]\npass = ["ONEDNN_*"]\n')
    quiet_daemon.start(**OTHER_ARITHMETIC)
    checkpoint = list(quiet_daemon.client.list_checkpoints(job.id))[-1]
    longer = {**SHORT, "epochs": 2}
    again = quiet_daemon.client.submit("cifar", data="few", settings=longer, from_checkpoint=checkpoint.id)
    again = quiet_daemon.client.wait(again, timeout_s=PATIENCE_S)
    assert "ONEDNN_MAX_CPU_ISA was unset, is SSE41" in list(again.approximate)
