"""A checkpoint arrives whole and verified, or not at all."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from m1.errors import ExitCode, M1Error, Reason
from m1.v1.checkpoint_pb2 import Checkpoint, DownloadCheckpointResponse
from m1ctl.sdk.download import receive

WEIGHTS = b"weights" * 1000
CHECKPOINT = Checkpoint(
    id="j1@5", job_id="j1", step=5, size_bytes=len(WEIGHTS) + 2, weights_sha256=hashlib.sha256(WEIGHTS).hexdigest()
)


def part(file: str, chunk: bytes, size: int | None = None) -> DownloadCheckpointResponse:
    return DownloadCheckpointResponse(file=file, file_size_bytes=len(chunk) if size is None else size, chunk=chunk)


def whole() -> list[DownloadCheckpointResponse]:
    half = len(WEIGHTS) // 2
    return [
        part("state.json", b"{}"),
        part("weights.safetensors", WEIGHTS[:half], len(WEIGHTS)),
        part("weights.safetensors", WEIGHTS[half:], len(WEIGHTS)),
    ]


def test_the_files_appear_as_they_were_sent(tmp_path: Path) -> None:
    progress: list[int] = []
    receive(CHECKPOINT, iter(whole()), tmp_path / "here", lambda done, total: progress.append(total - done))
    assert sorted(path.name for path in (tmp_path / "here").iterdir()) == ["state.json", "weights.safetensors"]
    assert (tmp_path / "here" / "weights.safetensors").read_bytes() == WEIGHTS
    assert progress[-1] == 0
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([part("state.json", b"{}")], id="no weights"),
        pytest.param(whole()[:2], id="cut"),
        pytest.param([part("weights.safetensors", WEIGHTS[:-1] + b"!")], id="altered"),
        pytest.param([part("../escape", b"x"), *whole()], id="a path"),
        pytest.param([part("..", b"x"), *whole()], id="the parent"),
        pytest.param([part("", b"x"), *whole()], id="no name"),
    ],
)
def test_what_is_not_whole_leaves_nothing(tmp_path: Path, chunks: list[DownloadCheckpointResponse]) -> None:
    with pytest.raises(M1Error, match='checkpoint "j1@5" was damaged on the way') as caught:
        receive(CHECKPOINT, iter(chunks), tmp_path / "here")
    assert caught.value.reason is Reason.BAD_CHECKPOINT
    assert list(tmp_path.iterdir()) == []


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def broken() -> Iterator[DownloadCheckpointResponse]:
        yield from whole()[:2]
        raise M1Error(Reason.UNREACHABLE, "gone")

    with pytest.raises(M1Error, match="gone"):
        receive(CHECKPOINT, broken(), tmp_path / "here")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    with pytest.raises(M1Error, match="already exists") as caught:
        receive(CHECKPOINT, iter(whole()), tmp_path / "here")
    assert caught.value.exit_code == ExitCode.USAGE
    assert list((tmp_path / "here").iterdir()) == []


def test_a_directory_without_a_parent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match="cannot be created"):
        receive(CHECKPOINT, iter(whole()), tmp_path / "not" / "here")
