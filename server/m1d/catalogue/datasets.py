"""Reading a dataset into the cache, in a process of its own, with progress; and removing one."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from m1.columns import IMAGE_OPTIONS, Need, image_need
from m1.datasets import ABANDONED, CachedDataset, cached_datasets, check_source, dataset_directories, kinds_of
from m1.errors import M1Error, Reason, nearest
from m1.paths import Home
from m1.settings import resolve

from m1d.jobs.names import check_name
from m1d.jobs.states import FINAL, JobState
from m1d.processes.blocking import look_at
from m1d.processes.environment import training_environment
from m1d.processes.tool import Tool
from m1d.store import Store

# One file for standard error each, however many are read at a time.
_numbers = itertools.count(1)


@dataclass(frozen=True)
class ReadProgress:
    """How far it is; `total` is 0 when it is not known."""

    phase: str
    done: int
    total: int


def delete(home: Home, store: Store, name: str) -> int:
    """Remove every version of a dataset from the cache; the bytes that it took.

    A training process that has one open keeps it until it ends. A directory that is being removed bears the name of an
    abandoned one, which the next reading of a dataset removes should this process die.

    Raises:
        M1Error: DATASET_NOT_FOUND, or WRONG_STATE while a job that is not over wants it.
    """
    directories = dataset_directories(home.data, name)
    if not directories:
        known = [dataset.name for dataset in cached_datasets(home.data)]
        message = f'the dataset "{name}" is not in the cache'
        raise M1Error(Reason.DATASET_NOT_FOUND, message, nearest(name, known), field="name", value=name)
    for job in store.jobs(set(JobState) - FINAL):
        if job.spec.data == name:
            message = f'the dataset "{name}" cannot be deleted while {job.id} ({job.name}) is {job.state.value}'
            hint = f"m1ctl cancel {job.name} ends it first"
            raise M1Error(Reason.WRONG_STATE, message, hint, field="name", value=name)
    freed_bytes = 0
    for directory in directories:
        freed_bytes += sum(file.stat().st_size for file in directory.iterdir())
        trash = directory.with_name(f"{ABANDONED}-{directory.name}")
        if trash.exists():  # of a deletion that died in the middle
            shutil.rmtree(trash)
        directory.rename(trash)
        shutil.rmtree(trash)
    return freed_bytes


def needs_of(home: Home, source: str, settings: Mapping[str, object]) -> Sequence[Need]:
    """What a source is read for where no recipe says it: text where it is text, else labelled images as they are set.

    Raises:
        M1Error: INVALID_SETTING, for a setting that is unknown, out of bounds, or of images where there are none.
    """
    if (kinds_of(home.data, source) or ())[:1] != ("text",):
        return image_need(settings), Need("label")
    for setting in IMAGE_OPTIONS:
        if setting.name in settings:
            message = f'the setting {setting.name} is of images, and "{source}" is text'
            raise M1Error(Reason.INVALID_SETTING, message, "leave it out", field=f"settings.{setting.name}")
    resolve((), settings)  # refuses every other one
    return (Need("text"),)


def _checked_needs(home: Home, source: str, settings: Mapping[str, object]) -> Sequence[Need]:
    check_source(home.data, source)
    needs = needs_of(home, source, settings)
    check_source(home.data, source, needs)
    return needs


async def prepare(
    home: Home, environment: Mapping[str, str], source: str, name: str, settings: Mapping[str, object]
) -> AsyncIterator[ReadProgress | CachedDataset]:
    """Read a dataset as it is set; progress first, the dataset last. Leaving early ends the reading.

    `environment` is what of the daemon's reaches a process.

    Raises:
        M1Error: what is wrong with the source, and with which file of it, or with the settings.
    """
    check_name(name)
    needs = await look_at(source, _checked_needs, home, source, settings)
    arguments = ["prepare", "--data-root", str(home.data), "--source", source, *(["--name", name] if name else [])]
    arguments += ["--needs", json.dumps([asdict(need) for need in needs])]
    errors = home.cache / f"prepare-{next(_numbers)}.err"
    async with Tool(arguments, training_environment(environment), errors) as tool:
        last: CachedDataset | None = None
        async for line in tool.lines():
            said = json.loads(line)
            if "progress" in said:
                yield ReadProgress(**said["progress"])
            elif "error" in said:
                raise M1Error(**{**said["error"], "reason": Reason(said["error"]["reason"])})
            else:
                last = CachedDataset.from_json(said["dataset"])
        result = await tool.result()
    if last is None or result.status != 0:
        raise M1Error(Reason.INTERNAL, f"m1train prepare ended with status {result.status}", result.errors)
    yield last
