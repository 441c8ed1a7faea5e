"""What a watcher says about recorded responses."""

import io
import json
import re
from collections.abc import Mapping

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from m1.errors import ExitCode
from m1.v1 import checkpoint_pb2, event_pb2, job_pb2, result_pb2, system_pb2
from m1ctl.views.follow import end_of
from m1ctl.views.monitor import Monitor, draw
from m1ctl.views.watched import Watched, stats_words
from rich.console import Console

NOON = 1_780_000_000


def at(second: float) -> Timestamp:
    return Timestamp(seconds=NOON + int(second), nanos=int(second % 1 * 1e9))


def a_job(state: job_pb2.JobState = job_pb2.JOB_STATE_RUNNING) -> job_pb2.Job:
    progress = job_pb2.Progress(step=0, total_steps=200, total_epochs=2)
    declared = [
        job_pb2.MetricInfo(key="accuracy", unit="fraction", better=job_pb2.BETTER_MORE),
        job_pb2.MetricInfo(key="loss", better=job_pb2.BETTER_LESS),
    ]
    return job_pb2.Job(
        id="j1", name="first", state=state, progress=progress, create_time=at(0), metrics=declared, sample_unit="images"
    )


def told(*events: event_pb2.Event) -> event_pb2.WatchResponse:
    return event_pb2.WatchResponse(events=events)


def measured(second: float, step: int, values: Mapping[str, float] | None = None) -> event_pb2.Event:
    values = values or {"train/loss": 2.0}
    of_step = all(key.startswith("train/") for key in values)
    recorded = event_pb2.MetricsRecorded(step=step, values=values, of_step=of_step)
    return event_pb2.Event(time=at(second), metrics_recorded=recorded)


def changed(second: float, before: job_pb2.JobState, job: job_pb2.Job, reason: str = "") -> event_pb2.Event:
    change = event_pb2.StateChanged(**{"from": before}, to=job.state, job=job, reason=reason)
    return event_pb2.Event(time=at(second), state_changed=change)


def texts(watched: Watched, *events: event_pb2.Event) -> list[str]:
    """The lines without their time of day."""
    return [line.text.split("  ", 1)[1] for line in watched.take(told(*events))]


def test_a_step_is_told_with_its_place_in_the_plan_and_the_time_left() -> None:
    watched = Watched(a_job())
    (line,) = texts(watched, measured(0, 1, {"train/loss": 2.5, "train/accuracy": 0.125, "train/lr": 0.001}))
    assert line == "epoch 1/2  step 1/200  loss 2.5  accuracy 12.50 %  lr 0.001"
    (line,) = texts(watched, measured(10, 11))
    assert line.endswith("step 11/200  loss 2  ETA 3m 09s")


def test_a_job_s_own_metrics_units_and_samples_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    job = a_job()
    del job.metrics[:]
    job.metrics.add(key="bits_per_char", unit="bits", better=job_pb2.BETTER_LESS)
    job.metrics.add(key="f1", unit="fraction", better=job_pb2.BETTER_MORE)
    job.sample_unit = "tokens"
    watched = Watched(job)
    values = {"train/loss": 1.5, "train/f1": 0.5, "train/samples_per_s": 5012.3, "train/seconds/forward": 0.1}
    (line,) = texts(watched, measured(0, 1, values))
    assert line == "epoch 1/2  step 1/200  loss 1.5  f1 50.00 %  5012 tokens/s"
    (line,) = texts(watched, measured(1, 1, {"val/f1": 0.75, "val/bits_per_char": 2.25, "val/loss": 1.0}))
    assert line == "val after step 1: bits_per_char 2.25 bits  f1 75.00 %  loss 1"
    assert list(watched.validated) == [2.25]
    ended = job_pb2.Job()
    ended.CopyFrom(job)
    ended.state = job_pb2.JOB_STATE_SUCCEEDED
    ended.latest_metrics["test/bits_per_char"] = 2.0
    (line,) = texts(watched, changed(5, job_pb2.JOB_STATE_RUNNING, ended))
    assert line.endswith("succeeded  test/bits_per_char 2 bits")


def test_an_event_of_0_1_0_is_of_a_step_by_its_keys() -> None:
    watched = Watched(job_pb2.Job(id="j1"))
    old = event_pb2.MetricsRecorded(step=3, values={"train/loss": 2.0, "train/images_per_s": 301.4})
    (line,) = texts(watched, event_pb2.Event(time=at(1), metrics_recorded=old))
    assert line == "step 3  loss 2  301 images/s"


def test_a_result_is_told_with_its_title() -> None:
    stored = result_pb2.Result(name="sample", title="What it writes", step=40)
    event = event_pb2.Event(time=at(1), result_stored=event_pb2.ResultStored(result=stored))
    assert texts(Watched(a_job()), event) == ["result sample  What it writes  step 40"]


def test_steps_are_told_at_most_once_a_second_and_nothing_else_is_thinned() -> None:
    watched = Watched(a_job())
    steps = [measured(step / 10, step) for step in range(1, 31)]
    evaluated = [measured(3.0, 30, {"val/loss": 1.0, "val/accuracy": 0.5}), measured(3.0, 30, {"test/accuracy": 0.4})]
    notice = event_pb2.Event(time=at(3), notice_raised=event_pb2.NoticeRaised(message="a word"))
    lines = texts(watched, *steps, *evaluated, notice)
    assert [line for line in lines if " step " in line and "after" not in line] == lines[:3]
    assert lines[3:] == [
        "val after step 30: accuracy 50.00 %  loss 1",
        "test after step 30: accuracy 40.00 %",
        "a word",
    ]
    assert watched.job.progress.step == 30
    assert len(watched.losses) == 30


def test_the_last_step_is_always_told() -> None:
    watched = Watched(a_job())
    assert texts(watched, measured(0.0, 198), measured(0.1, 199), measured(0.2, 200))[1:] == [
        "epoch 1/2  step 200/200  loss 2  ETA 0.0 s"
    ]


def test_every_state_change_is_told_with_its_reason() -> None:
    watched = Watched(a_job(job_pb2.JOB_STATE_QUEUED))
    lines = texts(
        watched,
        changed(1, job_pb2.JOB_STATE_UNSPECIFIED, a_job(job_pb2.JOB_STATE_QUEUED), "submitted"),
        changed(2, job_pb2.JOB_STATE_QUEUED, a_job(job_pb2.JOB_STATE_STARTING), "its turn"),
    )
    assert lines == ["j1 (first)  queued  (submitted)", "j1 (first)  queued → starting  (its turn)"]
    assert not watched.is_over


def test_the_end_is_told_with_what_came_of_it() -> None:
    watched = Watched(a_job())
    ended = a_job(job_pb2.JOB_STATE_SUCCEEDED)
    ended.end_time.CopyFrom(at(125))
    ended.latest_metrics["test/accuracy"] = 0.8167
    (line,) = texts(watched, changed(125, job_pb2.JOB_STATE_RUNNING, ended))
    assert line == "j1 (first)  running → succeeded  after 2m 05s  test/accuracy 81.67 %"
    assert watched.is_over


def test_a_checkpoint_is_told_with_its_step_and_size() -> None:
    made = checkpoint_pb2.Checkpoint(id="j1@352", step=352, size_bytes=18_846_648, best=True)
    event = event_pb2.Event(time=at(1), checkpoint_created=event_pb2.CheckpointCreated(checkpoint=made))
    assert texts(Watched(a_job()), event) == ["checkpoint j1@352  step 352  18.8 MB  best"]


def test_a_pause_is_no_part_of_the_pace() -> None:
    watched = Watched(a_job())
    watched.take(told(measured(0, 1), measured(10, 11)))
    assert watched.throughput.steps_per_s == pytest.approx(1.0)
    watched.take(told(changed(11, job_pb2.JOB_STATE_RUNNING, a_job(job_pb2.JOB_STATE_PAUSED))))
    assert watched.throughput.steps_per_s is None


def test_a_phase_is_told_when_it_begins() -> None:
    watched = Watched(a_job())
    phases = [("read data", 0), ("read data", 500), ("train", 0), ("validate", 0)]
    events = [
        event_pb2.Event(
            time=at(1),
            progress_changed=event_pb2.ProgressChanged(
                progress=job_pb2.Progress(phase=phase, phase_done=done, phase_total=1000)
            ),
        )
        for phase, done in phases
    ]
    assert texts(watched, *events) == ["read data 0/1000 ...", "validate 0/1000 ..."]


def test_what_was_lost_is_said() -> None:
    watched = Watched(a_job())
    (line,) = watched.take(event_pb2.WatchResponse(lost=event_pb2.LostRange(first_revision=10, last_revision=19)))
    assert line.text == "this reader was too slow: metrics of revisions 10-19 were dropped"
    assert watched.lost_revisions == 10


def test_an_event_of_a_newer_daemon_is_passed_over() -> None:
    assert Watched(a_job()).take(told(event_pb2.Event(time=at(1)))) == []


def test_what_the_machine_cannot_tell_is_unavailable_and_never_zero() -> None:
    words = stats_words(system_pb2.SystemStats())
    assert (
        words == "cpu unavailable  memory unavailable  training: no process  thermal unavailable  battery unavailable"
    )


def test_what_the_machine_tells_is_shown() -> None:
    stats = system_pb2.SystemStats(
        cpu_fraction=0.5,
        core_fractions=[1.0, 0.0],
        memory_total_bytes=8_000_000_000,
        memory_available_bytes=3_000_000_000,
        swap_used_bytes=1_000_000,
        thermal_pressure="nominal",
        on_battery=True,
        battery_fraction=0.8,
        training=system_pb2.TrainingProcessStats(cpu_cores=1.5, memory_bytes=700_000_000, threads=4),
    )
    assert stats_words(stats) == (
        "cpu 50 % of 2 cores  memory 5.0 GB of 8.0 GB, swap 1.0 MB  training 1.5 cores, 700 MB, 4 threads"
        "  thermal nominal  battery on battery 80 %"
    )


@pytest.mark.parametrize(
    ("state", "code", "sentence"),
    [
        (job_pb2.JOB_STATE_SUCCEEDED, ExitCode.OK, ""),
        (job_pb2.JOB_STATE_FAILED, ExitCode.JOB_FAILED, "m1ctl: job j1 (first) failed: it broke: mend it\n"),
        (
            job_pb2.JOB_STATE_CANCELLED,
            ExitCode.ERROR,
            "m1ctl: job j1 (first) was cancelled: m1ctl retry j1 continues from its newest checkpoint\n",
        ),
    ],
)
def test_the_end_of_a_job_is_an_exit_code_and_a_sentence(
    state: job_pb2.JobState, code: ExitCode, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = a_job(state)
    if state == job_pb2.JOB_STATE_FAILED:
        job.error.code, job.error.message, job.error.hint = "BAD_DATA", "it broke", "mend it"
    assert end_of(job) == code
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", sentence)


@pytest.mark.parametrize("kind", [job_pb2.JOB_KIND_MEASUREMENT, job_pb2.JOB_KIND_TUNING])
def test_what_measures_is_started_over(kind: job_pb2.JobKind, capsys: pytest.CaptureFixture[str]) -> None:
    job = a_job(job_pb2.JOB_STATE_CANCELLED)
    job.kind, job.spec.data = kind, "digits"
    end_of(job)
    assert capsys.readouterr().err.endswith("m1ctl retry j1 starts it over\n")


def test_a_view_is_chosen_by_the_job_s_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    from m1ctl.output import Format
    from m1ctl.views.follow import PlainLines, choose_view
    from m1ctl.views.measurement import MeasuringView

    job = a_job()
    assert isinstance(choose_view(Format.text, job), PlainLines)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(choose_view(Format.text, job), Monitor)
    job.kind = job_pb2.JOB_KIND_TUNING
    assert isinstance(choose_view(Format.text, job), MeasuringView)


def picture(watched: Watched, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False, color_system=None)
    console.print(draw(watched, NOON + 10.0))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_monitor_draws_before_anything_is_known() -> None:
    assert "waiting for the first step" in picture(Watched(job_pb2.Job(id="j1", name="first")))


def test_the_monitor_draws_what_is_known() -> None:
    watched = Watched(a_job())
    watched.take(told(*(measured(step, step, {"train/loss": 3.0 - step / 10}) for step in range(1, 11))))
    watched.take(told(*(measured(10, 10, {"val/accuracy": 0.1 * part}) for part in range(1, 4))))
    watched.take(event_pb2.WatchResponse(stats=system_pb2.SystemStats(cpu_fraction=0.5)))
    watched.take(event_pb2.WatchResponse(lost=event_pb2.LostRange(first_revision=1, last_revision=5)))
    shown = picture(watched)
    for words in (
        "j1 (first)  running",
        "step 10/200",
        "1.0 steps/s",
        "ETA 3m 10s",
        "accuracy 30.00 %",
        "cpu 50 %",
        "thermal unavailable",
        "5 metric events",
    ):
        assert words in shown, words
    assert re.search("train/loss +█[▂▃▄▅▆▇]{8}▁", shown)
    assert re.search("val/accuracy +▁[▄▅]█", shown)


def test_the_monitor_draws_the_curve_of_the_headline_whatever_it_is() -> None:
    job = job_pb2.Job(id="j1", name="first", state=job_pb2.JOB_STATE_RUNNING)
    job.metrics.add(key="f1", unit="fraction", better=job_pb2.BETTER_MORE)
    watched = Watched(job)
    watched.remember([], [0.1, 0.2])
    watched.take(told(measured(1, 1, {"val/f1": 0.3, "val/loss": 1.0})))
    assert re.search("val/f1 +▁[▄▅]█", picture(watched))
    assert re.search("val +f1 30.00 %  loss 1", picture(watched))


def test_the_monitor_draws_a_job_that_declares_nothing() -> None:
    watched = Watched(job_pb2.Job(id="j1", name="first", state=job_pb2.JOB_STATE_RUNNING))
    watched.take(told(measured(1, 1), measured(1, 1, {"val/loss": 1.0}), measured(2, 2, {"val/loss": 0.5})))
    assert re.search("val/loss +█▁", picture(watched))


def test_the_monitor_never_wraps_a_row() -> None:
    watched = Watched(a_job())
    watched.take(told(*(measured(step, step) for step in range(1, 11))))
    watched.take(event_pb2.WatchResponse(stats=system_pb2.SystemStats(cpu_fraction=0.5)))
    rows = len(picture(watched).splitlines())
    for width in (110, 80, 40, 20):
        shown = picture(watched, width)
        assert len(shown.splitlines()) == rows, shown
        assert ("ETA 3m 10s" in shown) == (width >= 80), shown


def test_the_monitor_shows_a_phase_only_while_the_job_is_on_the_machine() -> None:
    job = a_job()
    job.progress.phase = "test"
    assert "running  test" in picture(Watched(job))
    job.state = job_pb2.JOB_STATE_SUCCEEDED
    assert "succeeded  test" not in picture(Watched(job))


def test_the_monitor_obeys_no_escape_sequence_in_a_name() -> None:
    job = a_job()
    job.name, job.progress.phase = "a\x1b[31m", "re\x1b[2Jad"
    assert "\x1b" not in picture(Watched(job))


def test_the_monitor_keeps_events_above_and_steps_in_the_picture() -> None:
    console = Console(file=io.StringIO(), width=140, force_terminal=True, color_system=None)
    watched = Watched(a_job())
    with Monitor(console, clock=lambda: NOON + 10.0, monotonic=lambda: 0.0) as monitor:
        monitor.begin(watched)
        made = checkpoint_pb2.Checkpoint(id="j1@1", step=1, size_bytes=1000)
        event = event_pb2.Event(time=at(1), checkpoint_created=event_pb2.CheckpointCreated(checkpoint=made))
        response = told(measured(1, 1), event)
        monitor.show(watched, response, watched.take(response))
    file = console.file
    assert isinstance(file, io.StringIO)
    assert "checkpoint j1@1  step 1  1.0 kB" in file.getvalue()
    assert "epoch 1/2  step 1/200" not in file.getvalue()


def test_json_lines_are_one_object_each(capsys: pytest.CaptureFixture[str]) -> None:
    from m1ctl.views.follow import JsonLines

    watched = Watched(a_job())
    response = told(measured(1, 1), measured(2, 2))
    JsonLines().show(watched, response, watched.take(response))
    for silent in (event_pb2.WatchResponse(cursor=7), event_pb2.WatchResponse(store_id="x")):
        JsonLines().show(watched, silent, watched.take(silent))
    (line,) = capsys.readouterr().out.splitlines()
    parsed = json.loads(line)
    assert [event["metrics_recorded"]["step"] for event in parsed["events"]] == [1, 2]
    assert parsed["store_id"] == ""  # fields with their default value are there
