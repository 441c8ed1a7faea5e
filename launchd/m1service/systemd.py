"""m1d as a systemd user service: in ~/.config/systemd/user, back after a login, a crash, a reboot.

What fails leaves no unit behind.
"""

from __future__ import annotations

from pathlib import Path

from m1.durable import replace_file
from m1.errors import M1Error, Reason

from m1service.render import render
from m1service.system import UNIT, Answer, System, failed, name_suffix, settings_for

_BY_HAND = 'start it without systemd: "m1ctl daemon start"'


def install(system: System, home: Path) -> str:
    """Install and start the service of a home, in place of one that is there; a sentence that says so.

    Raises:
        M1Error: UNSUPPORTED without a user session of systemd, INTERNAL if systemctl fails or the daemon does not
            start.
    """
    _check_session(system)
    name = unit_name(system, home)
    unit = unit_path(system, name)
    content = render("systemd", settings_for(system, home))
    unit.parent.mkdir(parents=True, exist_ok=True)
    replace_file(unit, content, durable=True)
    # Not just start: one that runs already takes up the new unit. With Type=notify it returns when m1d is ready.
    for command in (["daemon-reload"], ["enable", name], ["restart", name]):
        answer = _systemctl(system, *command)
        if answer.code != 0:
            _remove(system, name)
            hint = f'see "journalctl --user -u {name}", or {_BY_HAND}'
            raise failed(f'"systemctl --user {" ".join(command)}"', answer, hint)
    return (
        f"installed {unit}: m1d is running, and starts at every login; "
        'to start it without a login, too: "loginctl enable-linger"'
    )


def uninstall(system: System, home: Path) -> str:
    """Stop and remove the service of a home; a sentence that says so. A training that runs goes on.

    Raises:
        M1Error: UNSUPPORTED without a user session of systemd, INTERNAL if systemctl cannot stop it.
    """
    name = unit_name(system, home)
    unit = unit_path(system, name)
    if not unit.exists():
        return f"no service {name} is installed"
    _check_session(system)
    answer = _remove(system, name)
    if answer.code != 0:
        raise failed(f"stopping {name}", answer, f'the unit is gone; see "systemctl --user status {name}"')
    return f"removed {unit}"


def unit_name(system: System, home: Path) -> str:
    """Return the unit of a home: "m1d.service" for the default one."""
    suffix = name_suffix(system, home)
    return f"{UNIT}-{suffix}.service" if suffix else f"{UNIT}.service"


def unit_path(system: System, name: str) -> Path:
    """Return where systemd looks for a user's own unit."""
    return system.config_home / "systemd" / "user" / name


def _remove(system: System, name: str) -> Answer:
    """Stop and forget the service; what stopping it said."""
    answer = _systemctl(system, "disable", "--now", name)
    unit_path(system, name).unlink(missing_ok=True)
    _systemctl(system, "daemon-reload")
    _systemctl(system, "reset-failed", name)
    return answer


def _check_session(system: System) -> None:
    answer = _systemctl(system, "show-environment")
    if answer.code != 0:
        raise M1Error(
            Reason.UNSUPPORTED,
            f"no systemd user session is available here ({answer.summary[:200]})",
            f"log in as this user on a system that runs systemd, or {_BY_HAND}",
        )


def _systemctl(system: System, *words: str) -> Answer:
    return system.run(["systemctl", "--user", *words])
