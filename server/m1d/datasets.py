"""Reading a data set into the cache, in a process of its own, with progress."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

from m1.datasets import CachedDataset, check_source
from m1.errors import M1Error, Reason
from m1.paths import Home

from m1d.process import Tool, training_environment
from m1d.submission import check_name

# One file for standard error each, however many are read at a time.
_numbers = itertools.count(1)


@dataclass(frozen=True)
class ReadProgress:
    """How far it is; `total` is 0 when it is not known."""

    phase: str
    done: int
    total: int


async def prepare(home: Home, source: str, name: str) -> AsyncIterator[ReadProgress | CachedDataset]:
    """Read a data set; progress first, the data set last. Leaving early ends the reading.

    Raises:
        M1Error: what is wrong with the source, and with which file of it.
    """
    check_source(home.data, source)
    check_name(name)
    arguments = ["prepare", "--data-root", str(home.data), "--source", source, *(["--name", name] if name else [])]
    async with Tool(arguments, training_environment(), home.cache / f"prepare-{next(_numbers)}.err") as tool:
        last: CachedDataset | None = None
        async for line in tool.lines():
            said = json.loads(line)
            if "progress" in said:
                yield ReadProgress(**said["progress"])
            elif "error" in said:
                raise M1Error(**{**said["error"], "reason": Reason(said["error"]["reason"])})
            else:
                last = CachedDataset(**said["dataset"])
        result = await tool.result()
    if last is None or result.status != 0:
        raise M1Error(Reason.INTERNAL, f"m1train prepare ended with status {result.status}", result.errors)
    yield last
