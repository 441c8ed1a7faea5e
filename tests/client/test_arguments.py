"""What is typed, before any daemon is asked."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from m1.errors import ExitCode, M1Error
from m1.profile import DECLARED
from m1.v1 import job_pb2
from m1ctl.commands.daemon import check_installed
from m1ctl.commands.parsing import data_source, parse_pairs, parse_profile
from m1ctl.sdk.client import Client
from m1ctl.sdk.requests import SAID_BY_THE_DAEMON
from m1ctl.session import reference

EXPECTED_COMMANDS = (
    "submit run tune list show watch logs metrics results predict sample pause resume cancel retry delete checkpoint"
    " checkpoints download status bench"
    " recipes data daemon"
)


def m1ctl(*arguments: str, home: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "m1ctl", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "M1D_HOME": str(home or "/tmp/m1-no-such-home")},
    )


def test_the_help_names_every_verb_without_a_colour() -> None:
    done = m1ctl("--help")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    listed = done.stdout.partition("Commands:\n")[2].splitlines()
    assert [line.split()[0] for line in listed] == EXPECTED_COMMANDS.split()
    assert not [line for line in listed if line.endswith("...")]


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing-like-this",),
        ("submit",),
        ("show", "a", "b"),
        ("list", "-o", "yaml"),
        ("--timeout", "0", "list"),
        ("--timeout", "soon", "list"),
        ("metrics", "--points", "0"),
        ("submit", "cifar", "--set", "lr"),
        ("submit", "cifar", "--profile", "threads=many"),
        ("submit", "cifar", "--epochs", "1", "--set", "epochs=2"),
        ("submit", "cifar", "--data", ""),
        ("submit", "cifar", "--priority", "99999999999"),
        ("submit", "cifar", "--retries", "99999999999"),
        ("submit", "cifar", "--profile", "dtype="),
        ("submit", "cifar", "--from", ""),
        ("submit", "cifar", "--name", ""),
        ("data", "import", "x", ""),
        ("data", "import", "", "."),
        ("--home", "", "list"),
        ("cancel", ""),
        ("delete", ""),
        ("list", "--state", "runing"),
    ],
)
def test_what_cannot_be_meant_is_a_usage_error_and_one_sentence(arguments: tuple[str, ...]) -> None:
    done = m1ctl(*arguments)
    assert done.returncode == ExitCode.USAGE
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("m1ctl: ")


def test_what_the_parser_refuses_is_one_line_with_the_way_out() -> None:
    assert m1ctl("submit").stderr == "m1ctl: missing argument 'RECIPE' (see m1ctl submit --help)\n"
    assert "Did you mean 'list'? (see m1ctl --help)" in m1ctl("lst").stderr


def test_an_error_is_json_where_the_output_is(tmp_path: Path) -> None:
    for arguments, reason in (
        (("show", "first", "-o", "json"), "UNREACHABLE"),
        (("list", "-ojson"), "UNREACHABLE"),
        (("show", "a", "b", "--output=json"), "INVALID_ARGUMENT"),
        (("submit", "cifar", "--set", "lr", "--output", "json"), "INVALID_ARGUMENT"),
    ):
        done = m1ctl(*arguments, home=tmp_path)
        assert done.stdout == ""
        error = json.loads(done.stderr)["error"]
        assert error["reason"] == reason
        assert error["message"]
    assert m1ctl("show", "a", "--", "-o", "json", home=tmp_path).stderr.startswith("m1ctl: ")


def test_a_shell_completes_a_verb() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "m1ctl"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "_M1CTL_COMPLETE": "complete_bash", "COMP_WORDS": "m1ctl su", "COMP_CWORD": "1"},
    )
    assert done.stdout.split() == ["submit"]


def test_without_a_verb_the_help_is_shown() -> None:
    done = m1ctl()
    assert done.returncode == ExitCode.USAGE
    assert (done.stdout + done.stderr).startswith("Usage: m1ctl")


@pytest.mark.parametrize("timeout", ["nan", "inf", "-1", "0", "1e300"])
def test_a_timeout_is_a_finite_number_of_seconds_above_zero(timeout: str) -> None:
    done = m1ctl("--timeout", timeout, "list")
    assert done.returncode == ExitCode.USAGE
    assert "must be above 0 and at most 10000000 seconds" in done.stderr


def test_an_output_that_cannot_be_written_is_one_sentence() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    for arguments in (("--help",), ("--version",)):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [sys.executable, "-P", "-m", "m1ctl", *arguments],
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
            )
        assert done.returncode == ExitCode.ERROR
        assert done.stderr == "m1ctl: No space left on device\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("list",),
        ("show", "first"),
        ("watch",),
        ("submit", "cifar"),
        ("pause",),
        ("checkpoint",),
        ("recipes",),
        ("recipes", "show", "cifar"),
        ("data", "list"),
        ("daemon", "status"),
        ("status",),
        ("results",),
        ("daemon", "stop"),
    ],
)
def test_without_a_daemon_every_verb_says_how_to_start_one(arguments: tuple[str, ...], tmp_path: Path) -> None:
    done = m1ctl(*arguments, home=tmp_path)
    assert done.returncode == ExitCode.UNREACHABLE
    assert done.stdout == ""
    assert done.stderr == (f"m1ctl: no daemon is running at {tmp_path}/m1d.sock: start one with m1ctl daemon start\n")
    assert list(tmp_path.iterdir()) == []


def test_a_home_whose_socket_path_is_too_long_is_a_usage_error() -> None:
    done = m1ctl("--home", "/tmp/" + "x" * 100, "list")
    assert done.returncode == ExitCode.USAGE
    assert "choose a shorter home with --home or M1D_HOME" in done.stderr


def test_settings_are_pairs_and_the_last_one_counts() -> None:
    assert parse_pairs("--set", ["a=1", "b=x=y", "c=", "a=2"]) == {"a": "2", "b": "x=y", "c": ""}


@pytest.mark.parametrize("text", ["lr", "=1", "", "="])
def test_what_is_no_pair_is_refused(text: str) -> None:
    with pytest.raises(M1Error, match="is not KEY=VALUE"):
        parse_pairs("--set", [text])


def test_every_field_of_a_profile_is_declared_or_the_daemon_s_to_say() -> None:
    assert {*DECLARED, *SAID_BY_THE_DAEMON} == set(job_pb2.Profile.DESCRIPTOR.fields_by_name)


def test_a_profile_holds_only_what_was_given() -> None:
    profile = parse_profile({"threads": "2", "dtype": "bfloat16"})
    assert {field.name: value for field, value in profile.ListFields()} == {"threads": 2, "dtype": "bfloat16"}


@pytest.mark.parametrize("word", ["False", "OFF", "no", "0"])
def test_a_switch_is_typed_as_a_setting_s_is(word: str) -> None:
    profile = parse_profile({"compile": word, "fused": "True"})
    assert (profile.HasField("compile"), profile.compile, profile.fused) == (True, False, True)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"threadz": "1"}, 'there is no profile field "threadz": did you mean "threads"'),
        ({"origin": "me"}, "there is no profile field"),
        ({"threads": "0"}, 'threads="0" is invalid'),
        ({"threads": "-1"}, "is invalid"),
        ({"interop_threads": "many"}, r"expected a whole number \(threads\), from 1 to 1024"),
        ({"dtype": ""}, "--profile dtype is empty"),
        ({"threads": "99999999999"}, "is invalid"),
        ({"compile": "maybe"}, "expected true or false"),
        ({"dtype": "float8"}, "expected one of float32, bfloat16, float16"),
        ({"prefetch": "65"}, "expected a whole number, from 0 to 64"),
    ],
)
def test_a_profile_that_is_none_is_refused(given: dict[str, str], sentence: str) -> None:
    with pytest.raises(M1Error, match=sentence):
        parse_profile(given)


def test_a_job_left_out_is_the_one_that_runs_and_an_empty_one_is_refused() -> None:
    assert reference(None) == ""
    assert reference("first") == "first"
    with pytest.raises(M1Error, match="JOB is empty"):
        reference("")


def knows(*names: str) -> Client:
    """A client whose daemon knows these datasets."""
    return cast("Client", SimpleNamespace(datasets=lambda: [SimpleNamespace(name=name) for name in names]))


@pytest.mark.parametrize(
    ("typed", "sent"),
    [
        ("digits", "digits"),
        ("photos", "{here}/photos"),
        ("known", "known"),
        ("./known", "{here}/known"),
        ("photos/", "{here}/photos"),
        ("../x.tar", "{parent}/x.tar"),
        ("/a/../b", "/b"),
        ("~/pictures", "{home}/pictures"),
        (".", "{here}"),
    ],
)
def test_a_path_is_sent_absolute_and_a_name_as_it_is(
    typed: str, sent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "known").mkdir()
    monkeypatch.chdir(tmp_path)
    expected = sent.format(here=tmp_path, parent=tmp_path.parent, home=os.path.expanduser("~"))
    assert data_source(knows("digits", "known"), typed) == expected


def test_a_client_alone_says_how_to_get_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("m1ctl.sdk.background.is_daemon_installed", lambda: False)
    with pytest.raises(M1Error, match=r"only the client is installed here, .*: pip install 'm1d\[daemon\]'"):
        check_installed()
