"""What launchd knows: every key of launchd.plist(5) on macOS 14 with its type.

launchd ignores a key that it does not know without a word, and a wrong type at best: only a table shows a slip before
a Mac does. Deprecated keys are not in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ArrayOf:
    """An array whose items are of one type."""

    items: Type


@dataclass(frozen=True)
class DictionaryOf:
    """A dictionary with keys of its writer's choosing."""

    values: Type


@dataclass(frozen=True)
class OneOf:
    """A string out of a few."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class Either:
    """A value of any of some types."""

    types: tuple[Type, ...]


Type = type[str] | type[int] | type[bool] | ArrayOf | DictionaryOf | OneOf | Either | Mapping[str, "Type"]

_CALENDAR: Mapping[str, Type] = {"Minute": int, "Hour": int, "Day": int, "Weekday": int, "Month": int}
_LIMITS: Mapping[str, Type] = {
    "Core": int,
    "CPU": int,
    "Data": int,
    "FileSize": int,
    "MemoryLock": int,
    "NumberOfFiles": int,
    "NumberOfProcesses": int,
    "ResidentSetSize": int,
    "Stack": int,
}
_SOCKET: Mapping[str, Type] = {
    "SockType": OneOf(("stream", "dgram", "seqpacket")),
    "SockPassive": bool,
    "SockNodeName": str,
    "SockServiceName": Either((str, int)),
    "SockFamily": OneOf(("IPv4", "IPv6", "IPv4v6", "Unix")),
    "SockProtocol": OneOf(("TCP", "UDP")),
    "SockPathName": str,
    "SecureSocketWithKey": str,
    "SockPathOwner": int,
    "SockPathGroup": int,
    "SockPathMode": int,
    "Bonjour": Either((bool, str, ArrayOf(str))),
    "MulticastGroup": str,
    "ReceivePacketInfo": bool,
}
KEYS: Mapping[str, Type] = {
    "Label": str,
    "Disabled": bool,
    "UserName": str,
    "GroupName": str,
    "inetdCompatibility": {"Wait": bool, "Instances": int},
    "LimitLoadToHosts": ArrayOf(str),
    "LimitLoadFromHosts": ArrayOf(str),
    "LimitLoadToSessionType": Either((str, ArrayOf(str))),
    "LimitLoadToHardware": DictionaryOf(ArrayOf(str)),
    "LimitLoadFromHardware": DictionaryOf(ArrayOf(str)),
    "Program": str,
    "BundleProgram": str,
    "ProgramArguments": ArrayOf(str),
    "EnableGlobbing": bool,
    "EnableTransactions": bool,
    "EnablePressuredExit": bool,
    "KeepAlive": Either(
        (
            bool,
            {
                "SuccessfulExit": bool,
                "PathState": DictionaryOf(bool),
                "OtherJobEnabled": DictionaryOf(bool),
                "Crashed": bool,
                "AfterInitialDemand": bool,
            },
        )
    ),
    "RunAtLoad": bool,
    "RootDirectory": str,
    "WorkingDirectory": str,
    "EnvironmentVariables": DictionaryOf(str),
    "Umask": Either((int, str)),
    "TimeOut": int,
    "ExitTimeOut": int,
    "ThrottleInterval": int,
    "InitGroups": bool,
    "WatchPaths": ArrayOf(str),
    "QueueDirectories": ArrayOf(str),
    "StartOnMount": bool,
    "StartInterval": int,
    "StartCalendarInterval": Either((_CALENDAR, ArrayOf(_CALENDAR))),
    "StandardInPath": str,
    "StandardOutPath": str,
    "StandardErrorPath": str,
    "Debug": bool,
    "WaitForDebugger": bool,
    "SoftResourceLimits": _LIMITS,
    "HardResourceLimits": _LIMITS,
    "Nice": int,
    "ProcessType": OneOf(("Background", "Standard", "Adaptive", "Interactive")),
    "AbandonProcessGroup": bool,
    "LowPriorityIO": bool,
    "LowPriorityBackgroundIO": bool,
    "MaterializeDatalessFiles": bool,
    "LaunchOnlyOnce": bool,
    "MachServices": DictionaryOf(Either((bool, {"ResetAtClose": bool, "HideUntilCheckIn": bool}))),
    "Sockets": DictionaryOf(Either((_SOCKET, ArrayOf(_SOCKET)))),
    "LaunchEvents": DictionaryOf(DictionaryOf(Either((str, int, bool, DictionaryOf(str))))),
    "SessionCreate": bool,
    "LegacyTimers": bool,
    "AssociatedBundleIdentifiers": Either((str, ArrayOf(str))),
}


def problems(value: object, expected: Type = KEYS, at: str = "") -> list[str]:
    """Return where a property list breaks the table, one sentence each."""
    if isinstance(expected, Either):
        return [] if any(not problems(value, kind, at) for kind in expected.types) else [f"{at} is {value!r}"]
    if isinstance(expected, OneOf):
        return [] if value in expected.words else [f"{at} is {value!r}, not one of {', '.join(expected.words)}"]
    if isinstance(expected, ArrayOf):
        if not isinstance(value, list):
            return [f"{at} is {value!r}, not an array"]
        return [p for index, item in enumerate(value) for p in problems(item, expected.items, f"{at}[{index}]")]
    if isinstance(expected, (DictionaryOf, Mapping)):
        if not isinstance(value, dict):
            return [f"{at} is {value!r}, not a dictionary"]
        found: list[str] = []
        for key, item in value.items():
            name = f"{at}.{key}" if at else key
            kind = expected.values if isinstance(expected, DictionaryOf) else expected.get(key)
            found += problems(item, kind, name) if kind is not None else [f"launchd knows no {name}"]
        return found
    # bool is an int to Python and another type to launchd.
    return [] if type(value) is expected else [f"{at} is {value!r}, not of type {expected.__name__}"]
