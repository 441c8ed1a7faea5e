"""The service's files, filled in: the templates beside this module and one function.

The templates are read by people as they are; what stands between @ in them is replaced here and nowhere else, with
what each format asks for to keep a path with a space, a quote, a % or a $ in it one word.
"""

from __future__ import annotations

import plistlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from m1.errors import M1Error, Reason

Kind = Literal["launchd", "systemd"]
TEMPLATES: dict[Kind, str] = {"launchd": "dev.m1d.agent.plist", "systemd": "m1d.service"}


@dataclass(frozen=True)
class ServiceSettings:
    """What differs between one installed service and another."""

    label: str
    """The service's name for launchd; systemd's is its file's."""
    python: Path
    """The interpreter that m1d is installed for; absolute, and not resolved: in a venv it is a link."""
    home: Path
    """The daemon's home; absolute."""
    path: str
    """The PATH of the daemon and of the training."""


def render(kind: Kind, settings: ServiceSettings) -> bytes:
    """Return the content of the service's file.

    Raises:
        M1Error: INVALID_ARGUMENT, for a path that is not absolute or has a control character in it.
    """
    for field, path in (("python", settings.python), ("home", settings.home)):
        if not path.is_absolute() or not str(path).isprintable():
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f"the path of {field}, {str(path)!r}, cannot be written into a service's file",
                "it must be absolute and contain no control characters",
                field=field,
                value=str(path),
            )
    template = resources.files("m1service").joinpath(TEMPLATES[kind]).read_bytes()
    if kind == "launchd":
        words = {"label": settings.label, "python": str(settings.python), "home": str(settings.home)}
        return plistlib.dumps(_filled(plistlib.loads(template), words | {"path": settings.path}), sort_keys=False)
    words = {
        "python": _systemd_word(str(settings.python)),
        "home": _systemd_word(str(settings.home)),
        "home_variable": _systemd_word(f"M1D_HOME={settings.home}"),
        "path_variable": _systemd_word(f"PATH={settings.path}"),
        # A description is not split into words: only % is special in it.
        "home_described": str(settings.home).replace("%", "%%"),
    }
    return _replaced(template.decode(), words).encode()


def _filled(value: Any, words: dict[str, str]) -> Any:
    """Return a property list with the words put into its strings."""
    if isinstance(value, str):
        return _replaced(value, words)
    if isinstance(value, list):
        return [_filled(item, words) for item in value]
    if isinstance(value, dict):
        return {key: _filled(item, words) for key, item in value.items()}
    return value


def _replaced(text: str, words: dict[str, str]) -> str:
    """Return the text with each @word@ replaced, once: what is put in is not looked at again."""
    parts = text.split("@")
    return "".join(words[part] if index % 2 else part for index, part in enumerate(parts))


def _systemd_word(text: str) -> str:
    """Return the text as one word of a unit's line (systemd.syntax(7), systemd.unit(5))."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'
