"""The system that a service is installed on, as the installers see it: who asks, and how a command is run.

Everything that touches the world is in `System`, so that each platform's installer is tested on any of them with the
answers that its commands gave on a real one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from m1.errors import M1Error, Reason

from m1service.render import ServiceSettings

LABEL = "dev.m1d.agent"
UNIT = "m1d"
_COMMAND_TIMEOUT_S = 120
_NOT_FOUND = 127


@dataclass(frozen=True)
class Answer:
    """What a command gave."""

    code: int
    text: str
    """Its stdout and stderr."""

    @property
    def summary(self) -> str:
        """The text in one line."""
        return " ".join(self.text.split()) or f"exit code {self.code}"


@dataclass(frozen=True)
class System:
    """Who asks, and how a command is run."""

    platform: str
    """sys.platform."""
    user_home: Path
    config_home: Path
    """$XDG_CONFIG_HOME, ~/.config."""
    uid: int
    python: Path
    run: Callable[[Sequence[str]], Answer]
    monotonic: Callable[[], float]
    """Seconds."""
    sleep: Callable[[float], None]


def this_system() -> System:
    """Return the system that this runs on."""
    user_home = Path.home()
    return System(
        platform=sys.platform,
        user_home=user_home,
        config_home=Path(os.environ.get("XDG_CONFIG_HOME") or user_home / ".config"),
        uid=os.getuid(),
        python=Path(sys.executable),
        run=run_command,
        monotonic=time.monotonic,
        sleep=time.sleep,
    )


def run_command(command: Sequence[str]) -> Answer:
    """Run a command to its end, without forking Python; a program that is not there answers 127, as in a shell."""
    program = shutil.which(command[0])
    if program is None:
        return Answer(_NOT_FOUND, f"{command[0]}: not found")
    try:
        done = subprocess.run(
            [program, *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            close_fds=False,  # with an absolute path: posix_spawn
            timeout=_COMMAND_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise M1Error(
            Reason.TIMED_OUT, f'"{" ".join(command)}" did not end in {_COMMAND_TIMEOUT_S} s', "try again"
        ) from error
    return Answer(done.returncode, done.stdout)


def settings_for(system: System, home: Path) -> ServiceSettings:
    """Return a home's service: the default home's has the plain name, another's a suffix."""
    suffix = name_suffix(system, home)
    own = str(system.python.parent)
    common = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
    directories = [own, *(["/opt/homebrew/bin"] if system.platform == "darwin" else []), *common]
    path = ":".join(dict.fromkeys(directories))
    return ServiceSettings(f"{LABEL}.{suffix}" if suffix else LABEL, system.python, home, path)


def name_suffix(system: System, home: Path) -> str:
    """Empty for ~/.m1d; eight digits that depend on the path for another home."""
    if home == system.user_home / ".m1d":
        return ""
    return hashlib.sha256(os.fsencode(home)).hexdigest()[:8]


def failed(doing: str, answer: Answer, hint: str) -> M1Error:
    """Return the error for a command that should have worked."""
    return M1Error(Reason.INTERNAL, f"{doing} failed ({answer.summary[:300]})", hint)
