"""Commands for the daemon: in the background, or as a service of the system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from m1.errors import ExitCode, M1Error, Reason

from m1ctl.commands.options import Output
from m1ctl.output import Format, put, put_json, tell, tell_error
from m1ctl.session import session_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from m1ctl.sdk.client import Client

app = typer.Typer(help="Start, stop or install the daemon.", no_args_is_help=True, rich_markup_mode=None)

STOP_TIMEOUT_S = 30.0


@app.command()
def start(context: typer.Context) -> None:
    """Start the daemon in the background.

    Returns when it is ready.
    """
    from m1ctl.sdk.background import START_TIMEOUT_S, DaemonExitedError, start_daemon

    session = session_of(context)
    with session.connect() as client:
        try:
            info = client.system_info()
        except M1Error as error:
            if error.reason is not Reason.UNREACHABLE:
                raise
        else:
            tell(f"already running: m1d {info.version}, pid {info.pid}, {info.home}")
            return
        check_installed()
        limit_s = session.timeout_s or START_TIMEOUT_S
        try:
            info = start_daemon(session.home, client, limit_s)
        except DaemonExitedError as error:
            # Of several that were started at once, one got the home: what was wanted is that it serves.
            is_beaten = error.code == ExitCode.WRONG_STATE
            if not (is_beaten and client.connection.wait_until_ready(limit_s)):
                tell_error(str(error))
                raise typer.Exit(error.code) from error
            info = client.system_info()
    tell(f"running: m1d {info.version}, pid {info.pid}, {info.home}")


@app.command()
def stop(
    context: typer.Context,
    yield_: Annotated[
        bool, typer.Option("--yield", help="Checkpoint the running job and free its memory first.")
    ] = False,
) -> None:
    """Stop the daemon; training continues without it.

    Returns when the daemon has exited. With --yield, the running job stops, too; the next daemon resumes it.
    """
    from m1.endpoint import listener_pid

    from m1ctl.sdk.background import Departure

    session = session_of(context)
    with session.connect() as client:
        info = client.system_info()
        if listener_pid(session.home) not in {info.pid, None}:
            _stop_elsewhere(client, info.pid, yield_=yield_, timeout_s=session.timeout_s)
            return
        with Departure(info.pid) as departure:
            client.shutdown(yield_job=yield_, timeout_s=session.timeout_s)
            limit_s = session.timeout_s or STOP_TIMEOUT_S
            if not departure.wait(limit_s):
                raise M1Error(
                    Reason.TIMED_OUT,
                    f"the daemon (pid {info.pid}) is still running after {limit_s:g} s",
                    f"see {session.home.log}, or allow more time with --timeout",
                )
    tell(f"stopped m1d (pid {info.pid})")


def _stop_elsewhere(client: Client, pid: int, *, yield_: bool, timeout_s: float | None) -> None:
    """Stop a daemon of another machine or pid namespace: its process cannot be watched from here, but its answers."""
    client.shutdown(yield_job=yield_, timeout_s=timeout_s)
    limit_s = timeout_s or STOP_TIMEOUT_S
    if not client.connection.wait_until_gone(limit_s):
        raise M1Error(
            Reason.TIMED_OUT,
            f"the daemon (pid {pid}, not of this machine or container) still answers after {limit_s:g} s",
            "allow more time with --timeout",
        )
    tell(f"stopped m1d (pid {pid}, not of this machine or container)")


@app.command()
def status(context: typer.Context, output: Output = Format.text) -> None:
    """Show the running daemon and what it is doing."""
    from m1ctl.sdk.states import ACTIVE
    from m1ctl.views.pages import daemon_page

    with session_of(context).connect() as client:
        info = client.system_info()
        busy = list(client.list_jobs(ACTIVE)) if output is Format.text else []
    if output is Format.json:
        put_json(info)
    else:
        put(daemon_page(info, busy))


@app.command()
def install(context: typer.Context) -> None:
    """Start the daemon at login and keep it running.

    Uses launchd on macOS and systemd on Linux; the daemon also comes back after a crash or a reboot.
    """
    from m1service import install as install_service

    check_installed()
    _with_the_system(install_service, session_of(context).home.root)


@app.command()
def uninstall(context: typer.Context) -> None:
    """Stop starting the daemon at login.

    Removes the service and stops the daemon; training continues without it.
    """
    from m1service import uninstall as uninstall_service

    _with_the_system(uninstall_service, session_of(context).home.root)


def _with_the_system(act: Callable[[Path], str], home: Path) -> None:
    try:
        tell(act(home))
    except OSError as error:
        raise M1Error(
            Reason.NOT_ALLOWED,
            f"cannot change the service's file: {error}",
            "check who owns its directory",
        ) from error


def check_installed() -> None:
    """Refuse to start a daemon that is not installed.

    Raises:
        M1Error: UNSUPPORTED, with the way to get it.
    """
    from m1ctl.sdk.background import is_daemon_installed

    if not is_daemon_installed():
        raise M1Error(
            Reason.UNSUPPORTED,
            "only the client is installed here, not the daemon",
            "pip install 'm1d[daemon]'",
        )
