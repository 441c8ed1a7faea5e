"""Asking a recipe's planner: which settings fit this machine's speed, as a short-lived process measures it."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from m1.errors import M1Error, Reason
from m1.settings import Value
from m1.spec import JobSpec

from m1d.processes.environment import training_environment
from m1d.processes.tool import Tool

Choosing = Literal["now", "later", "never"]
# A machine that answers no sooner is too busy to say anything of its speed.
LIMIT_S = 180.0


@dataclass(frozen=True)
class Choice:
    """What a planner chose."""

    settings: Mapping[str, Value]
    """Empty: there was nothing to choose."""
    words: str
    """The plan as a person says it."""


class Planners:
    """The planners of the recipes. One measures at a time: two would measure each other."""

    def __init__(self, cache: Path, environment: Mapping[str, str]) -> None:
        """Keep what a process writes meanwhile in a directory that exists.

        `environment` is what of the daemon's reaches a process.
        """
        self._cache = cache
        self._environment = environment
        self._measuring = asyncio.Lock()

    async def ask(self, spec: JobSpec, rows: Mapping[str, int], *, choose: Choosing, beside: str = "") -> Choice:
        """Ask what a job's settings leave to the machine.

        Args:
            spec: the job, with its settings and its profile resolved.
            rows: how many samples its data have, by split; empty: that is not known.
            choose: now; later or never: only what is wrong is refused, and nothing is measured.
            beside: which job holds the machine meanwhile, if there is one.

        Raises:
            M1Error: INVALID_SETTING; WRONG_STATE for a machine that does not get done measuring.
        """
        async with self._measuring:
            with tempfile.TemporaryDirectory(prefix="plan-", dir=self._cache, ignore_cleanup_errors=True) as directory:
                more = ["--choose", choose, *(["--beside", beside] if beside else [])]
                return await self._ask(Path(directory), spec, rows, more)

    async def _ask(self, directory: Path, spec: JobSpec, rows: Mapping[str, int], more: Sequence[str]) -> Choice:
        settings, profile = directory / "settings.json", directory / "profile.json"
        settings.write_text(json.dumps(dict(spec.settings)))
        profile.write_text(json.dumps(asdict(spec.profile)))
        arguments = ["plan", "--recipe", spec.recipe, "--settings", str(settings), "--profile", str(profile)]
        arguments += ["--samples", str(rows["train"])] if "train" in rows else []
        arguments += ["--tested", str(rows["test"])] if "test" in rows else []
        arguments += more
        environment = training_environment(self._environment, spec.profile.threads)
        try:
            async with asyncio.timeout(LIMIT_S), Tool(arguments, environment, directory / "errors") as tool:
                line = await tool.line()
                if not line.endswith(b"\n"):
                    result = await tool.result()
                    message = f"m1train plan ended with status {result.status}"
                    raise M1Error(Reason.INTERNAL, message, result.errors)
        except TimeoutError:
            message = f"measuring how fast this machine trains {spec.recipe} took longer than {LIMIT_S:g} s"
            raise M1Error(Reason.WRONG_STATE, message, "submit it when less else is going on") from None
        said = json.loads(line)
        if "error" in said:
            raise M1Error(**{**said["error"], "reason": Reason(said["error"]["reason"])})
        return Choice(said["settings"], said["words"])
