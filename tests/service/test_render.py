"""The service's files: every key of the plist held against what launchd knows, the unit against systemd itself."""

import plistlib
import shlex
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from m1.errors import M1Error, Reason
from m1service.render import TEMPLATES, Kind, ServiceSettings, render
from m1service.schema import KEYS, problems

PATH = "/usr/local/bin:/usr/bin:/bin"


def settings(python: str = "/opt/m1d/.venv/bin/python", home: str = "/Users/ada/.m1d") -> ServiceSettings:
    return ServiceSettings("dev.m1d.agent", Path(python), Path(home), PATH)


def agent(given: ServiceSettings | None = None) -> dict[str, Any]:
    loaded: dict[str, Any] = plistlib.loads(render("launchd", given or settings()))
    return loaded


def unit(given: ServiceSettings | None = None) -> dict[str, list[str]]:
    lines = render("systemd", given or settings()).decode().splitlines()
    values: dict[str, list[str]] = {}
    for line in lines:
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            values.setdefault(key, []).append(value)
    return values


def test_launchd_knows_every_key_of_the_agent_with_its_type() -> None:
    assert problems(agent()) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"KeepAlve": True}, "launchd knows no KeepAlve"),
        ({"RunAtLoad": 1}, "RunAtLoad is 1, not of type bool"),
        ({"ThrottleInterval": True}, "ThrottleInterval is True, not of type int"),
        ({"KeepAlive": {"SuccesfulExit": False}}, "KeepAlive is {'SuccesfulExit': False}"),
        ({"ProcessType": "interactive"}, "ProcessType is 'interactive', not one of"),
        ({"ProgramArguments": ["python", 3]}, "ProgramArguments[1] is 3, not of type str"),
        ({"EnvironmentVariables": {"A": 1}}, "EnvironmentVariables.A is 1"),
        ({"ProgramArguments": "python"}, "ProgramArguments is 'python', not an array"),
        ({"SoftResourceLimits": {"Files": 3}}, "launchd knows no SoftResourceLimits.Files"),
    ],
)
def test_the_table_finds_a_slip(change: dict[str, object], problem: str) -> None:
    found = problems(agent() | change)

    assert len(found) == 1
    assert found[0].startswith(problem)


def test_the_table_has_the_keys_of_the_manual() -> None:
    # A few of each page of launchd.plist(5).
    assert {"Label", "Program", "KeepAlive", "Umask", "ExitTimeOut", "Sockets", "LegacyTimers"} <= KEYS.keys()
    assert len(KEYS) > 45


def test_the_agent_is_what_the_design_asks_for() -> None:
    assert agent() == {
        "Label": "dev.m1d.agent",
        "ProgramArguments": [
            "/opt/m1d/.venv/bin/python",
            "-P",
            "-m",
            "m1d",
            "serve",
            "--home",
            "/Users/ada/.m1d",
            "--quiet",
        ],
        "EnvironmentVariables": {"M1D_HOME": "/Users/ada/.m1d", "PATH": PATH},
        "RunAtLoad": True,
        "KeepAlive": {"SuccessfulExit": False},
        "ThrottleInterval": 10,
        "ExitTimeOut": 30,
        "ProcessType": "Interactive",
        "AbandonProcessGroup": True,
        "Umask": 0o077,
        "StandardOutPath": "/Users/ada/.m1d/launchd.err",
        "StandardErrorPath": "/Users/ada/.m1d/launchd.err",
    }


def test_the_unit_is_what_the_design_asks_for() -> None:
    values = unit()

    assert values["ExecStart"] == [':"/opt/m1d/.venv/bin/python" -P -m m1d serve --home "/Users/ada/.m1d"']
    assert values["Environment"] == [f'"M1D_HOME=/Users/ada/.m1d" "PATH={PATH}"']
    assert {key: values[key] for key in ("Type", "Restart", "KillMode", "UMask", "NoNewPrivileges")} == {
        "Type": ["notify"],
        "Restart": ["on-failure"],
        "KillMode": ["process"],
        "UMask": ["0077"],
        "NoNewPrivileges": ["yes"],
    }
    assert int(values["WatchdogSec"][0]) > 0


@pytest.mark.parametrize("home", ["/h/with a space", '/h/"quoted"', "/h/back\\slash", "/h/$HOME", "/h/a@b", "/h/<&>"])
def test_an_odd_path_stays_one_word(home: str) -> None:
    given = settings(home=home)

    assert agent(given)["ProgramArguments"][6] == home
    assert agent(given)["StandardErrorPath"] == f"{home}/launchd.err"
    # Inside double quotes systemd and the shell agree on backslashes; $ means nothing to either of them here.
    assert shlex.split(unit(given)["ExecStart"][0])[-1] == home
    assert shlex.split(unit(given)["Environment"][0])[0] == f"M1D_HOME={home}"


def test_a_percent_sign_is_doubled_for_systemd_alone() -> None:
    given = settings(home="/h/100%h")

    assert agent(given)["ProgramArguments"][6] == "/h/100%h"
    assert unit(given)["ExecStart"][0].endswith('"/h/100%%h"')
    assert unit(given)["Description"] == ["m1d, the training daemon (/h/100%%h)"]


@pytest.mark.parametrize("kind", list(TEMPLATES))
@pytest.mark.parametrize("home", ["relative/home", "/h/line\nExecStartPre=/bin/false", "/h/bell\a"])
def test_a_path_that_could_not_be_written_is_refused(kind: Kind, home: str) -> None:
    with pytest.raises(M1Error, match="the path of home") as caught:
        render(kind, settings(home=home))
    assert caught.value.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("kind", list(TEMPLATES))
def test_the_templates_are_there_and_nothing_is_left_of_their_marks(kind: Kind) -> None:
    assert b"@home" in resources.files("m1service").joinpath(TEMPLATES[kind]).read_bytes()
    assert b"@" not in render(kind, settings())


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze on this machine")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    # A real interpreter behind an odd path: systemd looks whether the program is there.
    python = tmp_path / "odd 100% $HOME" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    file = tmp_path / "m1d.service"
    file.write_bytes(render("systemd", settings(python=str(python), home=str(tmp_path / "a 50% home"))))

    def complaints() -> list[str]:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--user", "--man=no", str(file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            check=False,
            env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(tmp_path)},
        )
        # It also complains about other units of the machine: only what names ours counts.
        return [line for line in done.stdout.splitlines() if "m1d.service" in line]

    assert complaints() == []
    file.write_text(file.read_text().replace("KillMode=process", "KillMod=process"))
    assert "KillMod" in complaints()[0]  # it does look
    file.write_text(file.read_text().replace("KillMod=", "KillMode=").replace("/python", "/pithon"))
    assert "not executable" in complaints()[0]
