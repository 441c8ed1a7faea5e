"""Installing and removing the service, with the answers that launchctl and systemctl gave on real machines."""

import plistlib
import stat
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import m1service
import pytest
from m1.errors import M1Error, Reason
from m1service.system import Answer, System, run_command, this_system

GONE = 'Bad request.\nCould not find service "{label}" in domain for user gui: 501\n'
NO_DOMAIN = "Bad request.\nCould not find domain for user gui: 501\n"
IN_PROGRESS = "Boot-out failed: 36: Operation now in progress\n"
RACING = "Bootstrap failed: 5: Input/output error\nTry re-running the command as root for richer errors.\n"
NO_BUS = "Failed to connect to bus: No medium found\n"
START_FAILED = (
    "Job for m1d.service failed because the control process exited with error code.\n"
    'See "systemctl --user status m1d.service" and "journalctl --user -xeu m1d.service" for details.\n'
)


@dataclass
class Launchd:
    """A launchd that answers as the real one does."""

    loaded: set[str] = field(default_factory=set)
    session: bool = True
    polls_to_end: int = 3
    """How often an agent is still there after its bootout."""
    refuse: str = ""
    asked: list[list[str]] = field(default_factory=list)
    ending: dict[str, int] = field(default_factory=dict)

    def __call__(self, command: Sequence[str]) -> Answer:
        assert command[0] == "launchctl"
        self.asked.append(list(command[1:]))
        verb, target, *rest = command[1:]
        label = target.removeprefix("gui/501").removeprefix("/")
        if verb == "print" and not label:
            return Answer(0, "gui/501 = {\n\ttype = user\n") if self.session else Answer(125, NO_DOMAIN)
        if verb == "print":
            if label in self.ending:
                self.ending[label] -= 1
                if self.ending[label] < 0:
                    del self.ending[label]
                    self.loaded.discard(label)
            found = label in self.loaded
            return Answer(0, f"{target} = {{\n\tstate = running\n") if found else Answer(113, GONE.format(label=label))
        if verb == "bootout":
            self.ending[label] = self.polls_to_end
            return Answer(36, IN_PROGRESS)
        if verb == "enable":
            return Answer(0, "")
        assert verb == "bootstrap"
        if self.refuse:
            return Answer(5, self.refuse)
        label = plistlib.loads(Path(rest[0]).read_bytes())["Label"]
        if label in self.loaded:
            return Answer(5, RACING)
        self.loaded.add(label)
        return Answer(0, "")


@dataclass
class Systemd:
    """A systemctl --user that answers as the real one does."""

    session: bool = True
    refuse: str = ""
    """The verb that fails."""
    asked: list[str] = field(default_factory=list)

    def __call__(self, command: Sequence[str]) -> Answer:
        assert command[:2] == ["systemctl", "--user"]
        self.asked.append(" ".join(command[2:]))
        if not self.session:
            return Answer(1, NO_BUS)
        return Answer(1, START_FAILED) if command[2] == self.refuse else Answer(0, "")


class Clock:
    """Time passes by sleeping."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def system(platform: str, user_home: Path, run: Callable[[Sequence[str]], Answer]) -> System:
    clock = Clock()
    python = Path("/opt/m1d/.venv/bin/python")
    return System(platform, user_home, user_home / ".config", 501, python, run, clock.monotonic, clock.sleep)


def files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_a_mac_gets_an_agent(tmp_path: Path) -> None:
    launchd = Launchd()

    said = m1service.install(tmp_path / ".m1d", system("darwin", tmp_path, launchd))

    plist = tmp_path / "Library/LaunchAgents/dev.m1d.agent.plist"
    assert str(plist) in said
    assert launchd.loaded == {"dev.m1d.agent"}
    agent = plistlib.loads(plist.read_bytes())
    assert agent["ProgramArguments"][0] == "/opt/m1d/.venv/bin/python"
    assert agent["EnvironmentVariables"]["PATH"].startswith("/opt/m1d/.venv/bin:/opt/homebrew/bin:/usr/local/bin:")
    assert stat.S_IMODE((tmp_path / ".m1d").stat().st_mode) == 0o700
    assert launchd.asked == [
        ["print", "gui/501"],
        ["print", "gui/501/dev.m1d.agent"],
        ["enable", "gui/501/dev.m1d.agent"],
        ["bootstrap", "gui/501", str(plist)],
    ]


def test_an_agent_that_is_loaded_is_replaced_when_launchd_has_let_go(tmp_path: Path) -> None:
    launchd = Launchd(loaded={"dev.m1d.agent"}, polls_to_end=5)

    m1service.install(tmp_path / ".m1d", system("darwin", tmp_path, launchd))

    verbs = [command[0] for command in launchd.asked]
    assert verbs == ["print", "print", "bootout", *["print"] * 6, "enable", "bootstrap"]
    assert launchd.loaded == {"dev.m1d.agent"}


def test_an_agent_that_does_not_end_is_an_error_and_stays_as_it_was(tmp_path: Path) -> None:
    launchd = Launchd(loaded={"dev.m1d.agent"}, polls_to_end=10**6)

    with pytest.raises(M1Error, match=r"is still running after 40 s .*Operation now in progress") as caught:
        m1service.install(tmp_path / ".m1d", system("darwin", tmp_path, launchd))

    assert caught.value.reason is Reason.TIMED_OUT
    assert files(tmp_path) == []


def test_another_home_gets_an_agent_of_its_own(tmp_path: Path) -> None:
    launchd = Launchd()
    here = system("darwin", tmp_path, launchd)

    m1service.install(tmp_path / ".m1d", here)
    m1service.install(tmp_path / "other", here)
    m1service.install(tmp_path / "third", here)

    assert len(launchd.loaded) == 3
    assert "dev.m1d.agent" in launchd.loaded
    assert all(label.startswith("dev.m1d.agent") for label in launchd.loaded)
    m1service.uninstall(tmp_path / "other", here)
    assert len(launchd.loaded) == 2
    assert len(files(tmp_path / "Library")) == 2


def test_without_a_login_session_a_mac_says_so_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match=r"no launchd login session .*m1ctl daemon start") as caught:
        m1service.install(tmp_path / ".m1d", system("darwin", tmp_path, Launchd(session=False)))

    assert caught.value.reason is Reason.UNSUPPORTED
    assert list(tmp_path.iterdir()) == []


def test_a_refused_bootstrap_leaves_no_agent(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match=r"Bootstrap failed: 5: Input/output error") as caught:
        m1service.install(tmp_path / ".m1d", system("darwin", tmp_path, Launchd(refuse=RACING)))

    assert caught.value.reason is Reason.INTERNAL
    assert files(tmp_path) == []


def test_a_mac_s_agent_is_removed_and_removing_it_again_is_no_error(tmp_path: Path) -> None:
    launchd = Launchd()
    here = system("darwin", tmp_path, launchd)
    m1service.install(tmp_path / ".m1d", here)

    assert m1service.uninstall(tmp_path / ".m1d", here).startswith("removed ")
    assert launchd.loaded == set()
    assert files(tmp_path) == []
    assert m1service.uninstall(tmp_path / ".m1d", here) == "no agent dev.m1d.agent is installed"


def test_linux_gets_a_user_unit(tmp_path: Path) -> None:
    systemd = Systemd()

    said = m1service.install(tmp_path / ".m1d", system("linux", tmp_path, systemd))

    unit = tmp_path / ".config/systemd/user/m1d.service"
    assert str(unit) in said
    assert "loginctl enable-linger" in said
    assert f'--home "{tmp_path}/.m1d"' in unit.read_text()
    assert "homebrew" not in unit.read_text()
    assert systemd.asked == ["show-environment", "daemon-reload", "enable m1d.service", "restart m1d.service"]


def test_linux_s_unit_is_removed_and_removing_it_again_is_no_error(tmp_path: Path) -> None:
    systemd = Systemd()
    here = system("linux", tmp_path, systemd)
    m1service.install(tmp_path / "other", here)
    systemd.asked.clear()

    assert m1service.uninstall(tmp_path / "other", here).startswith("removed ")
    name = systemd.asked[1].rpartition(" ")[2]
    assert name.startswith("m1d-")
    assert systemd.asked == ["show-environment", f"disable --now {name}", "daemon-reload", f"reset-failed {name}"]
    assert files(tmp_path) == []
    assert m1service.uninstall(tmp_path / "other", here) == f"no service {name} is installed"


def test_without_a_user_session_linux_says_so_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(M1Error, match=r"no systemd user session .*No medium found.*m1ctl daemon start") as caught:
        m1service.install(tmp_path / ".m1d", system("linux", tmp_path, Systemd(session=False)))

    assert caught.value.reason is Reason.UNSUPPORTED
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["daemon-reload", "enable", "restart"])
def test_a_service_that_does_not_start_is_not_left_behind(tmp_path: Path, verb: str) -> None:
    systemd = Systemd(refuse=verb)

    with pytest.raises(
        M1Error, match=r"failed \(Job for m1d.service failed.*journalctl --user -u m1d.service"
    ) as caught:
        m1service.install(tmp_path / ".m1d", system("linux", tmp_path, systemd))

    assert caught.value.reason is Reason.INTERNAL
    assert files(tmp_path) == []
    assert "disable --now m1d.service" in systemd.asked


def test_a_program_that_is_not_there_is_an_answer_and_not_a_crash() -> None:
    assert run_command(["m1d-no-such-program", "--user"]) == Answer(127, "m1d-no-such-program: not found")


def test_a_command_is_really_run() -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(3)"

    answer = run_command([sys.executable, "-u", "-c", code])

    assert answer == Answer(3, "out\nerr\n")
    assert answer.summary == "out err"
    assert Answer(3, "").summary == "exit code 3"


def test_this_system_is_told_as_it_is() -> None:
    here = this_system()

    assert (here.platform, here.python) == (sys.platform, Path(sys.executable))
    assert here.python.is_absolute()
