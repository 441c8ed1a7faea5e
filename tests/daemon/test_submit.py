"""What the daemon refuses, and that a refusal changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import RunningDaemon
from m1.errors import ExitCode, M1Error, Reason
from m1.profile import Chosen
from m1.v1 import job_pb2
from m1d.catalogue.choose_profile import choose_profile, has_cuda
from m1d.catalogue.profiles import Profiles
from m1d.jobs.parent import Parent
from m1d.machine.topology import CoreKind, Topology


def refused(daemon: RunningDaemon, call: Callable[[], object]) -> M1Error:
    """The error of a call that must change nothing."""
    before = daemon.client.system_info().revision
    with pytest.raises(M1Error) as caught:
        call()
    assert daemon.client.system_info().revision == before
    assert list(daemon.client.list_jobs()) == []
    return caught.value


@pytest.mark.parametrize(
    ("settings", "field", "words"),
    [
        ({"lr": "banana"}, "settings.lr", ["banana", "a number"]),
        ({"lr": -1}, "settings.lr", ["-1", "out of bounds"]),
        ({"lr": math.nan}, "settings.lr", ["nan", "not a number"]),
        ({"epochs": 0}, "settings.epochs", ["0", "at least 1", "from 1"]),
        ({"epochs": 1.5}, "settings.epochs", ["1.5", "a whole number"]),
        ({"epochs": True}, "settings.epochs", ["True", "a whole number"]),
        ({"epochs": "9" * 400}, "settings.epochs", ["a whole number"]),
        ({"seed": 2.0**60}, "settings.seed", ["a whole number"]),
        ({"epoch": 3}, "settings.epoch", ['did you mean "epochs"?']),
        ({"lr": [1]}, "settings.lr", ["a list"]),
        ({"lr": {}}, "settings.lr", ["an object"]),
        ({"lr": None}, "settings.lr", ["null"]),
        ({"epochs": "\u0663"}, "settings.epochs", ["a whole number"]),
        ({"epochs": " 3"}, "settings.epochs", ["a whole number"]),
        ({"batch_size": "64_0"}, "settings.batch_size", ["a whole number"]),
        ({"seed": "9007199254740993"}, "settings.seed", ["a whole number"]),
    ],
)
def test_a_setting_that_breaks_its_declaration_is_refused_with_its_name(
    daemon: RunningDaemon, settings: dict[str, object], field: str, words: list[str]
) -> None:
    error = refused(daemon, lambda: daemon.client.submit("cifar", data="digits", settings=settings))  # type: ignore[arg-type]
    assert error.reason is Reason.INVALID_SETTING
    assert error.exit_code is ExitCode.USAGE
    assert error.field == field
    assert any(word in str(error) for word in words), str(error)


def test_an_unknown_recipe_is_refused_with_the_nearest_name(daemon: RunningDaemon) -> None:
    error = refused(daemon, lambda: daemon.client.submit("ciffar", data="digits"))
    assert (error.reason, error.exit_code) == (Reason.RECIPE_NOT_FOUND, ExitCode.NOT_FOUND)
    assert 'did you mean "cifar"?' in str(error)


def test_an_unknown_data_set_is_refused_with_the_nearest_name(daemon: RunningDaemon) -> None:
    error = refused(daemon, lambda: daemon.client.submit("cifar", data="digit"))
    assert (error.reason, error.exit_code) == (Reason.DATASET_NOT_FOUND, ExitCode.NOT_FOUND)
    assert 'did you mean "digits"?' in str(error)


def test_a_path_that_does_not_exist_is_refused(daemon: RunningDaemon, tmp_path: Path) -> None:
    error = refused(daemon, lambda: daemon.client.submit("cifar", data=str(tmp_path / "absent")))
    assert error.reason is Reason.DATASET_NOT_FOUND
    assert "absent" in str(error)


def test_data_that_do_not_have_what_the_recipe_needs_are_refused_with_both(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    (tmp_path / "book.txt").write_text("It was a dark and stormy night. " * 1000)
    for recipe, data, words in (
        ("chars", "digits", "images"),
        ("cifar", str(tmp_path / "book.txt"), "text"),
    ):
        error = refused(daemon, lambda recipe=recipe, data=data: daemon.client.submit(recipe, data=data))  # type: ignore[misc]
        assert (error.reason, error.exit_code) == (Reason.BAD_DATA, ExitCode.USAGE)
        assert data in str(error)
        assert words in str(error)
        assert "expected" in str(error)
    assert daemon.client.submit("chars", data=str(tmp_path / "book.txt"), validate_only=True).sample_unit == "tokens"


@pytest.mark.parametrize("name", ["a/b", "../up", "j12", "-dash", "x" * 64, "sp ace", "nul\0", "@"])
def test_a_name_that_could_be_a_path_or_an_id_is_refused(daemon: RunningDaemon, name: str) -> None:
    error = refused(daemon, lambda: daemon.client.submit("cifar", data="digits", name=name))
    assert (error.reason, error.exit_code, error.field) == (Reason.INVALID_NAME, ExitCode.USAGE, "name")


@pytest.mark.parametrize(
    ("profile", "word"),
    [
        (job_pb2.Profile(device="tpu"), "tpu"),
        (job_pb2.Profile(threads=5000), "5000"),
        (job_pb2.Profile(dtype="float8"), "float8"),
        (job_pb2.Profile(memory_format="sideways"), "sideways"),
        pytest.param(job_pb2.Profile(device="cuda"), "no such GPU", marks=pytest.mark.skipif(has_cuda(), reason="GPU")),
    ],
)
def test_a_profile_that_is_not_possible_is_refused(daemon: RunningDaemon, profile: job_pb2.Profile, word: str) -> None:
    error = refused(daemon, lambda: daemon.client.submit("cifar", data="digits", profile=profile))
    assert error.exit_code is ExitCode.USAGE
    assert word in str(error)


def test_a_checkpoint_of_a_cpu_goes_on_on_mps_in_contiguous_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    profiles = Profiles(tmp_path, Topology("Apple M1", (CoreKind("performance", 4, 4),), 2**34), dict)
    parent = Parent(tmp_path, 5, 1, "cifar", "digits", {}, {"threads": 2})
    default = Chosen(profiles.untuned(), "default")

    found = choose_profile({"device": "mps"}, parent, default, profiles.cores)
    profile = found.profile
    assert (profile.device, profile.memory_format, profile.threads, found.source) == ("mps", "contiguous", 2, "parent")

    with pytest.raises(M1Error, match="use contiguous"):
        choose_profile({"device": "mps", "memory_format": "channels_last"}, parent, default, profiles.cores)


def test_threads_above_the_cores_are_refused_and_those_of_another_machine_s_checkpoint_made_fewer(
    tmp_path: Path,
) -> None:
    profiles = Profiles(tmp_path, Topology("Apple M1", (CoreKind("performance", 4, 4),), 2**34), dict)
    default = Chosen(profiles.untuned(), "default")
    with pytest.raises(M1Error, match="use 4 cores") as caught:
        choose_profile({"threads": 5}, None, default, profiles.cores)
    assert (caught.value.field, caught.value.value) == ("spec.profile.threads", "5")

    parent = Parent(tmp_path, 5, 1, "cifar", "digits", {}, {"threads": 64})
    assert choose_profile({}, parent, default, profiles.cores).profile.threads == 4


def test_a_checkpoint_of_0_1_0_goes_on_in_the_number_formats_that_it_was_trained_in(tmp_path: Path) -> None:
    emulating = Profiles(tmp_path, Topology("Apple M1", (CoreKind("performance", 4, 4),), 2**34), dict)
    default = Chosen(emulating.untuned(), "default")
    assert default.profile.optimizer_dtype == "float32"

    old = Parent(tmp_path, 5, 1, "cifar", "digits", {}, {"threads": 2})
    newer = Parent(tmp_path, 5, 1, "cifar", "digits", {}, {"threads": 2, "optimizer_dtype": "float32"})
    assert choose_profile({}, old, default, emulating.cores).profile.optimizer_dtype == "bfloat16"
    assert choose_profile({}, newer, default, emulating.cores).profile.optimizer_dtype == "float32"


@pytest.mark.parametrize(("field", "value"), [("dtype", "float8"), ("device", "tpu"), ("threads", 0), ("prefetch", 99)])
def test_a_checkpoint_s_profile_is_checked_as_one_that_was_typed(tmp_path: Path, field: str, value: int | str) -> None:
    profiles = Profiles(tmp_path, Topology("Apple M1", (CoreKind("performance", 4, 4),), 2**34), dict)
    parent = Parent(tmp_path, 5, 1, "cifar", "digits", {}, {field: value})
    with pytest.raises(M1Error, match=f'{field}="{value}" is not possible') as caught:
        choose_profile({}, parent, Chosen(profiles.untuned(), "default"), profiles.cores)
    assert caught.value.field == f"spec.profile.{field}"


def test_a_gpu_is_seen_by_what_its_driver_makes(tmp_path: Path) -> None:
    assert not has_cuda(tmp_path)
    (tmp_path / "kfd").touch()
    assert has_cuda(tmp_path)


def test_a_message_over_the_size_limit_is_refused(daemon: RunningDaemon) -> None:
    error = refused(daemon, lambda: daemon.client.submit("cifar", data="x" * 5_000_000))
    assert (error.reason, error.exit_code) == (Reason.MESSAGE_TOO_LARGE, ExitCode.ERROR)


def test_validation_alone_stores_nothing_and_shows_every_setting(daemon: RunningDaemon) -> None:
    job = daemon.client.submit("cifar", data="digits", settings={"batch_size": "64"}, validate_only=True)
    assert job.id == ""
    assert job.spec.settings["batch_size"] == 64
    assert job.spec.settings["lr"] == 0.001
    assert list(daemon.client.list_jobs()) == []


def test_the_same_request_twice_is_the_same_job(held_daemon: RunningDaemon) -> None:
    first = held_daemon.client.submit("cifar", data="digits", name="once", request_id="abc")
    again = held_daemon.client.submit("cifar", data="digits", name="once", request_id="abc")
    assert first.id == again.id
    assert sum(job.name == "once" for job in held_daemon.client.list_jobs()) == 1


def test_a_name_that_is_taken_is_refused_with_its_owner(held_daemon: RunningDaemon) -> None:
    job = held_daemon.client.submit("cifar", data="digits", name="mine")
    with pytest.raises(M1Error) as caught:
        held_daemon.client.submit("cifar", data="digits", name="mine")
    assert caught.value.reason is Reason.NAME_TAKEN
    assert job.id in str(caught.value)


def test_an_acknowledged_submit_survives_the_daemon_s_death(held_daemon: RunningDaemon) -> None:
    names = [held_daemon.client.submit("cifar", data="digits").name for _ in range(5)]
    held_daemon.kill()
    held_daemon.start()
    assert set(names) <= {job.name for job in held_daemon.client.list_jobs()}


def test_an_id_is_never_used_again(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    job = client.submit("cifar", data="digits")
    client.cancel(job.id)
    client.delete(job.id)
    held_daemon.kill()
    held_daemon.start()
    assert held_daemon.client.submit("cifar", data="digits").id > job.id


def test_jobs_come_in_pages_newest_first(held_daemon: RunningDaemon) -> None:
    import grpc
    from m1.v1.job_pb2_grpc import JobServiceStub

    ids = [held_daemon.client.submit("cifar", data="digits").id for _ in range(7)]
    stub = JobServiceStub(held_daemon.client.connection.channel)
    seen: list[str] = []
    token = ""
    while True:
        page = stub.ListJobs(job_pb2.ListJobsRequest(page_size=3, page_token=token))
        assert len(page.jobs) <= 3
        seen += [job.id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert seen[:7] == ids[::-1]
    with pytest.raises(grpc.RpcError):
        stub.ListJobs(job_pb2.ListJobsRequest(page_token="checkpoints-j1:3"))


def test_a_request_id_that_belongs_to_another_job_is_refused(held_daemon: RunningDaemon) -> None:
    job = held_daemon.client.submit("cifar", data="digits", request_id="abc")
    for other in ({"settings": {"epochs": 7}}, {"name": "other"}, {"data": "few"}):
        with pytest.raises(M1Error) as caught:
            held_daemon.client.submit("cifar", request_id="abc", **({"data": "digits"} | other))
        assert caught.value.field == "request_id"
        assert job.id in str(caught.value)


@pytest.mark.parametrize("reference", ["nobody", "x" * 100_000, "j\u0663", "j01", "j99999999999999999999", "\n"])
def test_a_job_that_is_not_there_is_not_found_however_it_is_called(held_daemon: RunningDaemon, reference: str) -> None:
    for k in range(130):
        held_daemon.client.submit("cifar", data="digits", name=f"{'long-' * 11}{k}")
    with pytest.raises(M1Error) as caught:
        held_daemon.client.get(reference)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.JOB_NOT_FOUND, ExitCode.NOT_FOUND)
    assert len(str(caught.value)) < 1200


def test_a_value_of_any_length_gets_its_own_sentence(daemon: RunningDaemon) -> None:
    long = "a" * 50_000
    for call, reason in (
        (lambda: daemon.client.submit(long, data="digits"), Reason.RECIPE_NOT_FOUND),
        (lambda: daemon.client.submit("cifar", data=long), Reason.DATASET_NOT_FOUND),
        (lambda: daemon.client.submit("cifar", data="digits", settings={long: 1}), Reason.INVALID_SETTING),
        (lambda: daemon.client.submit("cifar", data="digits", settings={"lr": long}), Reason.INVALID_SETTING),
        (lambda: daemon.client.submit("cifar", data="digits", name=long), Reason.INVALID_NAME),
        (lambda: daemon.client.get_checkpoint(long), Reason.CHECKPOINT_NOT_FOUND),
    ):
        assert refused(daemon, call).reason is reason


def test_a_request_that_is_no_message_is_an_invalid_argument_and_leaves_no_trace(daemon: RunningDaemon) -> None:
    import grpc

    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = daemon.client.connection.channel.unary_unary(
        "/m1.v1.JobService/GetJob"
    )
    for garbage in (b"\xff\xff\xff", b"\x0a\x02\xff\xfe"):
        with pytest.raises(grpc.RpcError) as caught:
            call(garbage)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "Traceback" not in daemon.log()


def test_a_filter_that_names_nothing_is_refused(daemon: RunningDaemon) -> None:
    import grpc
    from m1.v1 import event_pb2
    from m1.v1.event_pb2_grpc import EventServiceStub
    from m1.v1.job_pb2_grpc import JobServiceStub

    channel = daemon.client.connection.channel
    for number in (0, 99):
        with pytest.raises(grpc.RpcError, match="states"):
            JobServiceStub(channel).ListJobs(job_pb2.ListJobsRequest(states=[number]))  # type: ignore[list-item]
        with pytest.raises(grpc.RpcError, match="kinds"):
            next(EventServiceStub(channel).Watch(event_pb2.WatchRequest(kinds=[number])))  # type: ignore[list-item]


def test_a_recipe_without_data_of_its_own_asks_for_some(daemon: RunningDaemon) -> None:
    with pytest.raises(M1Error, match='the recipe "photos" has no data of its own: name some with --data'):
        daemon.client.submit("photos")
    assert list(daemon.client.list_jobs()) == []
