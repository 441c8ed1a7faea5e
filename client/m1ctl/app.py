"""The command line, put together: global options, the verbs, and the way from an error to an exit code.

Nothing heavy is imported here, and of the verbs only the one that was typed; a verb loads grpc and rich when it runs.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from m1.errors import ExitCode, M1Error, Reason
from typer.core import TyperGroup

from m1ctl.output import Format, give_up_output, output_of, tell_error
from m1ctl.session import Session, check_not_empty, check_timeout

# ClickException, the root of what the parser raises: typer keeps it in another place in every other version.
_PARSE_ERROR: type[BaseException] = typer.BadParameter.__mro__[2]
# Every verb and group, in the order of --help, and where in m1ctl.commands it is: "module:name".
_VERBS = {
    "submit": "new_job.submit:submit",
    "run": "new_job.run:run",
    "tune": "new_job.tune:tune",
    "list": "jobs:list_",
    "show": "jobs:show",
    "watch": "watch:watch",
    "logs": "jobs:logs",
    "metrics": "jobs:metrics",
    "results": "results:results",
    "predict": "results:predict",
    "sample": "results:sample",
    "pause": "jobs:pause",
    "resume": "jobs:resume",
    "cancel": "jobs:cancel",
    "retry": "jobs:retry",
    "delete": "jobs:delete",
    "checkpoint": "checkpoints:checkpoint",
    "checkpoints": "checkpoints:checkpoints",
    "download": "checkpoints:download",
    "status": "daemon:status",
    "bench": "bench:app",
    "recipes": "recipes:app",
    "data": "data:app",
    "daemon": "daemon:app",
}
# What follows the command of another program is that program's.
_SETTINGS = {"run": {"allow_interspersed_args": False}}


class Verbs(TyperGroup):
    """The group of all verbs: turns an error into its sentence and exit code, in this one place."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        # By name alone, until one is asked for.
        self.commands: dict[str, Any] = dict.fromkeys(_VERBS)

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of --help."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb or a group, and import it first."""
        if cmd_name in self.commands and self.commands[cmd_name] is None:
            self.commands[cmd_name] = _imported(cmd_name)
        return self.commands.get(cmd_name)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Parse and run; what was typed wrong is one sentence, like every other error."""
        output = output_of(kwargs.get("args") or (args[0] if args and args[0] else sys.argv[1:]))
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except _PARSE_ERROR as error:
            sys.exit(_tell_usage(error, output))
        except M1Error as error:
            tell_error(error, output)
            sys.exit(error.exit_code)
        except OSError as error:
            # Of --help or --version, which the parser prints, or of a file that a verb reads or writes.
            give_up_output()
            problem = f'"{error.filename}": {error.strerror}' if error.filename else str(error.strerror or error)
            tell_error(problem, output)
            sys.exit(ExitCode.ERROR)
        sys.exit(code if isinstance(code, int) else ExitCode.OK)

    def invoke(self, ctx: Any) -> Any:
        """Run the verb."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            sys.exit(ExitCode.INTERRUPTED)
        except BrokenPipeError:  # whoever read us has seen enough
            give_up_output()
            sys.exit(ExitCode.ERROR)


def _imported(name: str) -> Any:
    """Import a verb or a group, and put it together."""
    module, _, attribute = _VERBS[name].partition(":")
    found = getattr(import_module(f"m1ctl.commands.{module}"), attribute)
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
        group: Any = typer.main.get_command(alone)
        return group.commands[name]
    alone.command(name, context_settings=_SETTINGS.get(name))(found)
    return typer.main.get_command(alone)


def _tell_usage(error: Any, output: Format) -> int:
    """Say what was typed wrong and where the right way is written; the exit code."""
    message: str = error.format_message()
    if message.startswith("Usage:"):  # nothing was typed: the help itself
        error.show()
    else:
        command = error.ctx.command_path if getattr(error, "ctx", None) else "m1ctl"
        sentence = f"{message[:1].lower()}{message[1:].rstrip('.')}"
        hint = f"see {command} --help"
        if output is Format.json:
            tell_error(M1Error(Reason.INVALID_ARGUMENT, sentence, hint), output)
        else:
            tell_error(f"{sentence} ({hint})")
    return int(error.exit_code)


app = typer.Typer(
    cls=Verbs,
    name="m1ctl",
    help="Submit, watch, pause, resume and checkpoint training jobs on this computer.",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(version("m1d"))
        raise typer.Exit


@app.callback()
def configure(
    context: typer.Context,
    home: Annotated[
        str | None, typer.Option(help="The daemon's home directory (default: $M1D_HOME, else ~/.m1d).")
    ] = None,
    timeout: Annotated[float | None, typer.Option(help="Seconds to wait for an answer (default: 10).")] = None,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Keep what the global options say for the verb."""
    check_not_empty("--home", home, "name a directory, or omit it")
    check_timeout(timeout)
    context.obj = Session(home, timeout)
