"""A training process that learns to write: interrupted it goes on exactly, and what it writes stands by itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from m1.checkpoint_state import STATE_FILE, read_state
from m1.jobdir import checkpoint_path, result_path
from m1.journal import CheckpointWritten, Exited, Metrics, Plan, Record, Result, Started
from training_process import Job, assert_same, exited, is_a, trained

# 100 lines of 15 characters: the last tenth tests, 8 of the 89 windows before it validate, 80 train.
BOOK = "".join(f"the line no {i:02}\n" for i in range(100))
SMALL = {"n_layer": 1, "n_head": 2, "n_embd": 16, "block_size": 15, "epochs": 2, "batch_size": 8, "warmup": 2}
STEPS = 20


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "data"


def new(tmp_path: Path, root: Path, name: str, text: str = BOOK, **settings: object) -> Job:
    book = tmp_path / "book.txt"
    if not book.exists():
        book.write_text(text)
    return Job.new(tmp_path / name, str(book), root, recipe="chars", **SMALL | settings)  # type: ignore[arg-type]


def of(records: list[Record], prefix: str) -> list[Metrics]:
    return [r for r in records if isinstance(r, Metrics) and any(key.startswith(prefix) for key in r.values)]


def test_a_text_is_trained_validated_sampled_and_tested(tmp_path: Path, root: Path) -> None:
    job = new(tmp_path, root, "job", validate_every_steps=8)
    records = job.run()

    assert exited(records) == Exited("succeeded", step=STEPS)
    assert next(r for r in records if isinstance(r, Plan)).total_steps == STEPS
    assert {"train/loss", "train/bits_per_char", "train/samples_per_s"} <= set(of(records, "train/")[0].values)
    assert {r.step for r in of(records, "val/")} >= {8, 16}
    assert set(of(records, "test/")[0].values) == {"test/loss", "test/bits_per_char"}
    samples = [r for r in records if isinstance(r, Result)]
    assert {(r.name, r.form) for r in samples} == {("sample", "text")}
    assert len(samples) == len(of(records, "val/"))
    text = result_path(job.directory, "sample", "text").read_text()
    assert len(text) == 400
    assert set(text) <= set(BOOK)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_killed_in_the_middle_of_an_epoch_it_goes_on_to_the_same_weights(
    tmp_path: Path, root: Path, dropout: float
) -> None:
    undisturbed = new(tmp_path, root, "undisturbed", dropout=dropout)
    undisturbed.run()
    job = new(tmp_path, root, "job", dropout=dropout, checkpoint_every_steps=3)
    with job.started() as attempt:
        attempt.wait_for(is_a(CheckpointWritten))
        attempt.wait_for(trained(4))
        attempt.kill()
    started = job.run()[0]

    assert isinstance(started, Started)
    assert started.resumed_from_step is not None
    assert started.resumed_from_step % 3 == 0
    assert_same(job, undisturbed, STEPS)


def test_what_it_learnt_of_the_text_is_in_its_checkpoints_and_it_writes_without_the_text(
    tmp_path: Path, root: Path
) -> None:
    job = new(tmp_path, root, "job")
    job.run()
    (tmp_path / "book.txt").unlink()
    state = read_state((checkpoint_path(job.directory, STEPS) / STATE_FILE).read_bytes())
    assert state.job is not None
    assert set(json.loads(state.job.facts)["characters"]) == set(BOOK)

    (tmp_path / "options").write_text(json.dumps({"prompt": "the line", "length": 40}))
    written = use(job, tmp_path / "options")
    assert written == use(job, tmp_path / "options")
    assert "".join(row["row"]["text"] for row in written).startswith("the line")
    (tmp_path / "options").write_text(json.dumps({"prompt": "THE line"}))
    (refused,) = use(job, tmp_path / "options")
    assert "the prompt has 'T', which the model has never seen" in refused["error"]["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("a" * 1000, "the text has no character but 'a'"), ("too short", "the text is too short")],
)
def test_a_text_of_which_nothing_can_be_learnt_fails_with_a_sentence(
    tmp_path: Path, root: Path, text: str, words: str
) -> None:
    ended = exited(new(tmp_path, root, "job", text).run())

    assert ended.outcome == "failed"
    assert words in ended.message
    assert ended.step == 0


def use(job: Job, options: Path) -> list[dict[str, dict[str, str]]]:
    command = [sys.executable, "-m", "m1train", "use", "--directory", str(job.directory), "--use", "sample"]
    command += ["--step", str(STEPS), "--options", str(options)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    return [json.loads(line) for line in done.stdout.splitlines()]
