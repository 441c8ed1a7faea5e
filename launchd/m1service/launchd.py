"""m1d as an agent of launchd: in ~/Library/LaunchAgents, back after a login, a crash, a reboot.

Installing is bootout, waiting until launchd has let go, bootstrap: a bootstrap that races the bootout before it fails
with error 5. What fails leaves no agent behind.
"""

from __future__ import annotations

from pathlib import Path

from m1.durable import replace_file
from m1.errors import M1Error, Reason

from m1service.render import render
from m1service.system import System, failed, settings_for

# Longer than ExitTimeOut in the template: launchd kills what has not ended by then.
_GONE_TIMEOUT_S = 40.0
_POLL_S = 0.1
_BY_HAND = 'start it without launchd: "m1ctl daemon start"'


def install(system: System, home: Path) -> str:
    """Install and start the agent of a home, in place of one that is there; a sentence that says so.

    Raises:
        M1Error: UNSUPPORTED without a login session, TIMED_OUT if the old agent does not end, INTERNAL if launchctl
            fails.
    """
    domain = f"gui/{system.uid}"
    answer = system.run(["launchctl", "print", domain])
    if answer.code != 0:
        raise M1Error(
            Reason.UNSUPPORTED,
            f"this user has no launchd login session ({answer.summary[:200]})",
            f"log in on the Mac's own screen first, or {_BY_HAND}",
        )
    settings = settings_for(system, home)
    plist = agent_path(system, settings.label)
    content = render("launchd", settings)
    _remove(system, settings.label)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)  # launchd opens launchd.err before the daemon makes its home
    plist.parent.mkdir(parents=True, exist_ok=True)
    replace_file(plist, content, durable=True)
    # An agent that a person has disabled would be refused with error 5, too.
    system.run(["launchctl", "enable", f"{domain}/{settings.label}"])
    answer = system.run(["launchctl", "bootstrap", domain, str(plist)])
    if answer.code != 0:
        plist.unlink(missing_ok=True)
        raise failed(f"launchctl bootstrap of {settings.label}", answer, _BY_HAND)
    return f"installed {plist}: m1d is running, and starts at every login"


def uninstall(system: System, home: Path) -> str:
    """Stop and remove the agent of a home; a sentence that says so. A training that runs goes on.

    Raises:
        M1Error: TIMED_OUT if the agent does not end.
    """
    settings = settings_for(system, home)
    plist = agent_path(system, settings.label)
    there = plist.exists()
    loaded = _remove(system, settings.label)
    plist.unlink(missing_ok=True)
    return f"removed {plist}" if there or loaded else f"no agent {settings.label} is installed"


def agent_path(system: System, label: str) -> Path:
    """Return where launchd looks for the agent at login."""
    return system.user_home / "Library" / "LaunchAgents" / f"{label}.plist"


def _remove(system: System, label: str) -> bool:
    """Unload the agent and wait until launchd has let go of it; whether it was loaded."""
    target = f"gui/{system.uid}/{label}"
    if system.run(["launchctl", "print", target]).code != 0:
        return False
    # Its exit code says little: 36, "operation now in progress", is a success that takes a while.
    answer = system.run(["launchctl", "bootout", target])
    deadline = system.monotonic() + _GONE_TIMEOUT_S
    while system.run(["launchctl", "print", target]).code == 0:
        if system.monotonic() > deadline:
            raise M1Error(
                Reason.TIMED_OUT,
                f"the agent {label} is still running after {_GONE_TIMEOUT_S:.0f} s (bootout: {answer.summary[:200]})",
                f'see the log of m1d, or end it with "launchctl bootout {target}" and try again',
            )
        system.sleep(_POLL_S)
    return True
