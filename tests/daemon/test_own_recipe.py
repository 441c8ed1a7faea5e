"""A recipe of the user's own, and those of installed packages: from what is typed to the last weight."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import psutil
import pytest
from harness import PATIENCE_S, RunningDaemon, make_home
from m1.errors import ExitCode, M1Error, Reason
from m1.jobdir import recipe_path
from m1.limits import RECIPE_FILE_BYTES
from m1.paths import Home
from m1.v1 import event_pb2, job_pb2, job_pb2_grpc
from m1ctl import recipe_file
from m1ctl.sdk.requests import build_settings
from m1d.catalogue.recipes import Recipes
from m1d.jobs.recipe_file import RecipeUpload

TEMPLATE = files("m1ctl").joinpath("recipe_template.txt").read_text()
# For the last step of a training, and not the first two, which are rehearsed.
THE_DAEMON_S = """
        import m1.errors as m
        if at.step > 1: raise m.M1Error(m.Reason.INTERNAL, "I am the daemon")
        return 1"""
SHORT: dict[str, bool | float | str] = {"epochs": 2, "batch_size": 12, "width": 4, "dropout": 0.5}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(TEMPLATE)
    return path


def weights(daemon: RunningDaemon, job: str) -> str:
    return next(iter(daemon.client.list_checkpoints(job))).weights_sha256


def submit_once(daemon: RunningDaemon, file: Path) -> job_pb2.Job:
    """Without the SDK's second try."""
    settings = build_settings(SHORT)
    spec = job_pb2.JobSpec(recipe_file=recipe_file(file), data="few", settings=settings)
    connection = daemon.client.connection
    answer = connection.unary(
        job_pb2_grpc.JobServiceStub(connection.channel).SubmitJob,
        job_pb2.SubmitJobRequest(spec=spec, request_id="once"),
    )
    job: job_pb2.Job = answer.job
    return job


def test_a_recipe_of_one_s_own_trains_as_typed_and_resumes_bit_for_bit(daemon: RunningDaemon, tmp_path: Path) -> None:
    done = daemon.m1ctl("recipes", "new", "mine.py", cwd=tmp_path)
    assert done.returncode == ExitCode.OK, done.stderr
    again = daemon.m1ctl("recipes", "new", "mine.py", cwd=tmp_path)
    assert (again.returncode, (tmp_path / "mine.py").read_text()) == (ExitCode.USAGE, TEMPLATE)

    given = [word for name, value in SHORT.items() for word in ("--set", f"{name}={value}")]
    done = daemon.m1ctl("submit", "./mine.py:Mine", "--data", "few", *given, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (ExitCode.OK, "j1 mine-1\n"), done.stderr
    undisturbed = daemon.client.wait("j1")
    assert undisturbed.state == job_pb2.JOB_STATE_SUCCEEDED, undisturbed.error
    assert undisturbed.spec.recipe == "Mine"
    assert undisturbed.spec.recipe_file.sha256 == hashlib.sha256(TEMPLATE.encode()).hexdigest()
    assert undisturbed.spec.recipe_file.content == b""
    assert "Mine of mine.py (SHA-256 " in daemon.m1ctl("show", "j1").stdout

    # The daemon dies with the commit, before it could answer; the client that asks again gets the one job.
    daemon.kill()
    daemon.start(M1D_FAILPOINT="after.commit")
    with pytest.raises(M1Error):
        submit_once(daemon, tmp_path / "mine.py")
    daemon.start()
    assert submit_once(daemon, tmp_path / "mine.py").id == "j2"
    (tmp_path / "mine.py").unlink()  # the job has its own
    for response in daemon.client.watch("j2", from_revision=1, kinds=[event_pb2.EVENT_KIND_CHECKPOINT]):
        if response.events:
            break
    os.kill(daemon.client.get("j2").pid, signal.SIGKILL)
    job = daemon.client.wait("j2")
    assert (job.state, job.attempt, list(job.approximate)) == (job_pb2.JOB_STATE_SUCCEEDED, 2, [])
    assert weights(daemon, "j2") == weights(daemon, "j1")

    daemon.client.delete("j2")
    assert not Home(daemon.home).job("j2").exists()


READS = """
import torch, numpy as np
from torch import nn
from m1train.task.recipe import Task, Table

class Line(Task):
    \"\"\"A line through points that it reads itself.\"\"\"
    def read(self, source):
        x, y = np.loadtxt(source, delimiter=",", dtype=np.float32, unpack=True)
        return {"train": {"x": x[:, None], "y": y[:, None]}}
    def network(self, info): return nn.Linear(1, 1)
    def optimizer(self, model): return torch.optim.SGD(model.parameters(), lr=0.1)
    def training_loss(self, model, batch, draw):
        return ((model(batch["x"]) - batch["y"]) ** 2).mean(), {}
    def evaluation(self, info, split): return Error()

class Error:
    def __init__(self): self.total, self.n = 0.0, 0
    def add(self, model, batch):
        self.total += float(((model(batch["x"]) - batch["y"]) ** 2).sum()); self.n += batch.size
    def metrics(self): return {"loss": self.total / self.n}
    def results(self, model): return []
"""


def test_a_recipe_that_reads_its_data_itself_is_tried_with_them_and_trains_on_them(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    (tmp_path / "line.py").write_text(READS)
    (tmp_path / "points.csv").write_text("".join(f"{x / 100},{x / 50}\n" for x in range(200)))
    line = recipe_file(str(tmp_path / "line.py"))
    for data in ("", "digits", str(tmp_path / "absent.csv"), "points.csv"):
        with pytest.raises(M1Error, match="reads its data itself") as caught:
            daemon.client.submit(line, data=data)
        assert (caught.value.reason, caught.value.field) == (Reason.DATASET_NOT_FOUND, "data")
    (tmp_path / "words.csv").write_text("one,two\n")
    with pytest.raises(M1Error, match=r"line\.py") as caught:
        daemon.client.submit(line, data=str(tmp_path / "words.csv"))
    assert caught.value.reason is Reason.BAD_RECIPE
    with pytest.raises(M1Error, match="reads its data itself"):
        daemon.client.submit(line, purpose=job_pb2.PURPOSE_TUNE)
    assert list(daemon.client.list_jobs()) == []

    job = daemon.client.submit(line, data=str(tmp_path / "points.csv"), settings={"epochs": 20, "batch_size": 16})
    assert [metric.key for metric in job.metrics] == ["loss"]
    ended = daemon.client.wait(job)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended.error
    assert ended.latest_metrics["test/loss"] < 0.1


def test_a_bad_file_is_refused_with_its_line_and_leaves_nothing(daemon: RunningDaemon, mine: Path) -> None:
    mine.write_text("print('{}')\n" + TEMPLATE.replace("8 * width, n_classes", "8 * width, n_clases"))
    line = next(n for n, text in enumerate(mine.read_text().splitlines(), 1) if "n_clases" in text)
    done = daemon.m1ctl("submit", "./mine.py", cwd=mine.parent)
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    assert done.stderr == (
        f"m1ctl: mine.py:{line}: the first step of Mine fails (NameError: name 'n_clases' is not defined):"
        " put it right and submit it again\n"
    )
    mine.write_text(TEMPLATE)
    shown = daemon.m1ctl("recipes", "show", "./mine.py:Mine", cwd=mine.parent)
    assert shown.stdout.startswith("Mine: A small network for 32 x 32 images.\n"), shown.stderr
    assert "images of 32 px (squeeze) and a label for each" in shown.stdout
    assert "Channels of the first layer." in shown.stdout
    mine.write_text("import os\nos._exit(7)\n")
    with pytest.raises(M1Error, match=r"mine.py: it ended the process that checked it \(exit status 7\)"):
        daemon.client.submit(recipe_file(mine))
    for name, content in (("a/b.py", b""), ("mine.txt", b""), ("mine.py", b"#" * (RECIPE_FILE_BYTES + 1))):
        with pytest.raises(M1Error) as caught:
            daemon.client.submit(job_pb2.RecipeFile(name=name, content=content))
        assert caught.value.exit_code is ExitCode.USAGE
    assert daemon.m1ctl("submit", "./absent.py").returncode == ExitCode.NOT_FOUND
    assert list(daemon.client.list_jobs()) == []
    home = Home(daemon.home)
    assert list(home.jobs.iterdir()) == []
    assert not list(home.cache.glob("check-*"))


def test_a_file_that_never_ends_is_killed(tmp_path: Path) -> None:
    before = set(psutil.Process().children())
    recipes = Recipes(tmp_path, os.environ, limit_s=2.0)
    with pytest.raises(M1Error, match=r"mine.py: .* took longer than 2 s") as caught:
        asyncio.run(recipes.of_file(RecipeUpload("mine.py", "", b"import signal\nsignal.pause()\n"), {}))
    assert caught.value.reason is Reason.BAD_RECIPE
    assert set(psutil.Process().children()) <= before
    assert list(tmp_path.iterdir()) == []


def lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def begins(path: Path) -> str:
    """What a process writes into a file, once it is there."""
    while not path.exists() or not path.read_text():
        await asyncio.sleep(0.01)
    return path.read_text()


def test_a_check_that_never_ends_keeps_nobody_else_waiting(tmp_path: Path) -> None:
    recipes, pid = Recipes(tmp_path, os.environ, limit_s=100), tmp_path / "pid"
    content = f"import os\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\nwhile True: pass\n"

    async def others_are_checked() -> None:
        stuck = [
            asyncio.create_task(recipes.of_file(RecipeUpload(f"stuck{n}.py", "", content.encode()), {})) for n in "ab"
        ]
        await begins(pid)
        recipe = await recipes.of_file(RecipeUpload("mine.py", "", TEMPLATE.encode()), {})
        assert (recipe.name, (await recipes.get("cifar")).name) == ("Mine", "cifar")
        for task in stuck:
            assert not task.done()
            task.cancel()
        await asyncio.wait(stuck)

    asyncio.run(others_are_checked())


def test_what_a_file_has_started_does_not_outlive_its_check(tmp_path: Path) -> None:
    content = f"""
import os, subprocess
child = subprocess.Popen(["sleep", "1000"])
open({str(tmp_path / "pid")!r}, "w").write(str(child.pid))
"""

    async def its_child_is_gone(ending: str, said: str) -> None:
        with pytest.raises(M1Error, match=said) as caught:
            await Recipes(tmp_path, os.environ).of_file(RecipeUpload("mine.py", "", (content + ending).encode()), {})
        assert caught.value.reason is Reason.BAD_RECIPE
        pid = int(await begins(tmp_path / "pid"))
        async with asyncio.timeout(PATIENCE_S):
            while lives(pid):
                await asyncio.sleep(0.01)

    asyncio.run(its_child_is_gone("raise ValueError", "ValueError"))
    asyncio.run(its_child_is_gone("os._exit(7)", "exit status 7"))


# Writes into whatever is open, as if it were the process that checks it.
WRITES = """
import os
for fd in range(3, 64):
    try:
        os.write(fd, {written})
    except OSError:
        pass
"""


# Half of a surrogate pair where a name is expected.
HALF = r"""b'{"recipe": {"name": "\\ud800", "summary": "", "default_data": "", "settings": [], "bfloat16": 0,' \
    b'"measures": 0, "package": ""}}\n'"""


@pytest.mark.parametrize(
    "written", [r"b'A' * 50_000_000", r"b'[' * 200_000 + b'\n'", r"b'{}\n'", r"b'1\n'", HALF], ids=range(5)
)
def test_a_file_that_writes_into_the_answer_of_its_check_is_a_bad_recipe(tmp_path: Path, written: str) -> None:
    content = WRITES.format(written=written).encode()
    with pytest.raises(M1Error, match=r"mine.py: something else was written where") as caught:
        asyncio.run(Recipes(tmp_path, os.environ).of_file(RecipeUpload("mine.py", "", content), {}))
    assert caught.value.reason is Reason.BAD_RECIPE


def test_what_a_file_raises_arrives_however_long_and_of_whatever_letters(daemon: RunningDaemon, mine: Path) -> None:
    for raised, said in (
        ('"A" * 50_000_000', f"(Exception: {'A' * 286}...)"),
        (r'"\ud800 lone"', r"(Exception: \ud800 lone)"),
        (r'"\U0001f600" * 1000', "(Exception: \U0001f600"),
    ):
        mine.write_text(f"raise Exception({raised})\n")
        done = daemon.m1ctl("submit", "./mine.py", cwd=mine.parent)
        assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
        assert done.stderr.startswith(f"m1ctl: mine.py:1: it cannot be imported {said}")


def test_a_job_whose_copy_was_changed_or_whose_code_fails_later_says_where(
    held_daemon: RunningDaemon, mine: Path
) -> None:
    client = held_daemon.client
    failing = TEMPLATE + "\n    def rate(self, at):\n        return 1 / (3 - at.step)\n"
    changed = client.submit(recipe_file(mine), data="few", settings=SHORT)
    mine.write_text(failing)
    later = client.submit(recipe_file(mine), data="few", settings=SHORT)
    # Its model fits when it is checked, and not when it is trained; no line of the file is in the error's trace.
    mine.write_text(TEMPLATE.replace("8 * width, n", "8 * width + __file__.endswith('recipe.py'), n"))
    unfit = client.submit(recipe_file(mine), data="few", settings=SHORT)
    mine.write_text(failing.replace("return 1 / (3 - at.step)", THE_DAEMON_S))
    posing = client.submit(recipe_file(mine), data="few", settings=SHORT)
    path = recipe_path(Home(held_daemon.home).job(changed.id))
    assert path.read_text() == TEMPLATE
    path.write_text("raise SystemExit")
    client.cancel("holder")

    job = client.wait(changed.id)
    assert (job.state, job.error.code, job.attempt) == (job_pb2.JOB_STATE_FAILED, "BAD_RECIPE", 1)
    assert job.error.message.startswith("mine.py: its copy in the job's directory was changed")

    job = client.wait(later.id)
    assert (job.error.code, job.attempt) == ("BAD_RECIPE", 1)
    assert job.error.message == f"mine.py:{len(failing.splitlines())}: ZeroDivisionError: division by zero"

    job = client.wait(unfit.id)
    assert (job.error.code, job.attempt) == ("BAD_RECIPE", 1)
    assert job.error.message.startswith("mine.py: RuntimeError: mat1 and mat2 shapes cannot be multiplied")

    job = client.wait(posing.id)
    assert (job.error.code, job.attempt) == ("BAD_RECIPE", 1)
    assert job.error.message == f"mine.py:{len(failing.splitlines()) + 2}: M1Error: I am the daemon"


def test_another_file_goes_on_from_its_checkpoint_as_approximate(daemon: RunningDaemon, mine: Path) -> None:
    client = daemon.client
    first = client.wait(client.submit(recipe_file(mine), data="few", settings={**SHORT, "epochs": 1}))
    checkpoint = next(iter(client.list_checkpoints(first.id))).id
    mine.write_text(TEMPLATE + "# another one\n")
    job = client.wait(client.submit(recipe_file(mine), from_checkpoint=checkpoint, settings={"epochs": 2}))
    assert (job.state, job.spec.settings["width"]) == (job_pb2.JOB_STATE_SUCCEEDED, 4)
    assert [words.split("@")[0] for words in job.approximate] == ["epochs was 1, is 2", "recipe was Mine"]
    with pytest.raises(M1Error, match=r'"Mine", not of "engine": submit ./FILE.py, the file with the class Mine, or'):
        client.submit("engine", from_checkpoint=checkpoint)


def test_what_a_daemon_left_that_died_before_the_commit_is_removed(quiet_daemon: RunningDaemon, mine: Path) -> None:
    quiet_daemon.start(M1D_FAILPOINT="before.commit")
    with pytest.raises(M1Error):
        submit_once(quiet_daemon, mine)
    home = Home(quiet_daemon.home)
    assert recipe_path(home.job("j1")).exists()
    quiet_daemon.start()
    assert list(home.jobs.iterdir()) == []


@pytest.fixture
def packages(tmp_path: Path) -> Path:
    """Two installed packages: one that offers a recipe, and one that is broken."""
    root = tmp_path / "packages"
    for name, offers in (
        ("theirs", {"theirs": "theirs_recipes:Mine"}),
        ("broken", {"broken": "no_such_module:Mine", "cifar": "theirs_recipes:Mine"}),
    ):
        metadata = root / f"{name}-1.0.dist-info"
        metadata.mkdir(parents=True)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{entry} = {value}" for entry, value in offers.items()]
        (metadata / "entry_points.txt").write_text("\n".join(["[m1d.recipes]", *lines]))
    (root / "theirs_recipes.py").write_text("print('hello')\n" + TEMPLATE)
    return root


@pytest.fixture
def daemon_with_packages(data_cache: Path, packages: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(make_home(data_cache))
    try:
        running.start(PYTHONPATH=str(packages))
        yield running
    finally:
        running.end()


def test_installed_packages_offer_recipes_and_a_broken_one_breaks_nothing(
    daemon_with_packages: RunningDaemon, packages: Path
) -> None:
    daemon = daemon_with_packages
    known = {recipe.name: recipe.package for recipe in daemon.client.recipes()}
    assert known["theirs"] == "theirs"
    assert known["cifar"] == ""
    assert "broken" not in known
    assert 'the recipe "broken" of the package broken is left out: broken 1.0: no_such_module:Mine' in daemon.log()
    assert 'the recipe "cifar" of the package broken is left out: there is a recipe "cifar" already' in daemon.log()
    job = daemon.client.wait(daemon.client.submit("theirs", data="few", settings=SHORT))
    assert (job.state, job.name) == (job_pb2.JOB_STATE_SUCCEEDED, "theirs-1")

    shutil.rmtree(packages / "theirs-1.0.dist-info")
    daemon.kill()
    daemon.start(PYTHONPATH=str(packages))
    assert "theirs" not in {recipe.name for recipe in daemon.client.recipes()}
