"""photos, from the command line: the file of weights that is meant is the one that the person sees."""

from pathlib import Path

import torch
from harness import RunningDaemon
from m1.v1 import job_pb2

SMALL = ("--set", "network=mobilenet_v3_small", "--set", "size=32", "--set", "fit=squeeze", "--set", "epochs=1")


def test_a_relative_file_of_weights_is_read_from_where_the_command_was_typed(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    from torchvision import models

    network = models.get_model("mobilenet_v3_small", weights=None, num_classes=7)
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    submit = ("submit", "photos", "--data", "few", *SMALL)

    done = daemon.m1ctl(*submit, "--set", "init=./weights.pth", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    job = daemon.client.get("j1")
    assert job.spec.settings["init"] == str(tmp_path / "weights.pth")
    assert daemon.client.wait(job).state == job_pb2.JOB_STATE_SUCCEEDED
    assert "the head is new: 7 → 10 classes" in daemon.m1ctl("logs", "j1").stdout
