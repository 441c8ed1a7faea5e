"""What follows when a training process has ended: every case of the decision, without a process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from m1.errors import M1Error, Reason
from m1.jobdir import Want
from m1.journal import Exited
from m1.spec import JobSpec
from m1d.jobs.job import Attempt, Job, JobError, Wish
from m1d.jobs.states import JobState, check_transition
from m1d.processes.tool import ToolResult
from m1d.running.settle import Ending, Transition, settle
from m1d.verbs.use import _check_end

KILLED = Ending("killed by SIGKILL", watched=True, oom=False)
QUIET = Ending("exit status 1", watched=True, oom=False)


def job(
    state: JobState = JobState.RUNNING,
    *,
    exited: Exited | None = None,
    want: Want = Want.RUN,
    retries: int = 2,
    begun_at_step: int = 0,
    **changes: object,
) -> Job:
    made = Job(
        number=1, name="a", spec=JobSpec(recipe="cifar", data="few", retries=retries), position=5, create_time=0.0,
        state=state, attempt=Attempt(1, exited=exited, begun_at_step=begun_at_step), wish=Wish(want),
    )  # fmt: skip
    return replace(made, **changes)  # type: ignore[arg-type]


def outcome(job: Job, ending: Ending = KILLED, newest_step: int = 0) -> Sequence[Transition]:
    moves = settle(job, ending, newest_step=newest_step, head=-3)
    before = job.state
    for move in moves:
        check_transition(before, move.state)
        before = move.state
    return moves


def error_of(transition: Transition) -> JobError:
    assert transition.error is not None
    return transition.error


def failed(code: str, step: int = 0) -> Exited:
    return Exited("failed", code, "it went wrong", "mend it", step)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.YIELDING])
def test_a_job_that_was_trained_to_the_end_has_succeeded_whatever_was_wished(state: JobState) -> None:
    assert [m.state for m in outcome(job(state, want=Want.YIELD, exited=Exited("succeeded")))] == [JobState.SUCCEEDED]


def test_a_crash_without_progress_is_counted_until_there_are_too_many() -> None:
    running = job()
    for failures in (1, 2):
        (move,) = outcome(running)
        assert (move.state, move.failures, move.position) == (JobState.QUEUED, failures, -3)
        running = replace(running, failures=failures)
    (move,) = outcome(running)
    assert move.state == JobState.FAILED
    assert error_of(move).code == "PROCESS_DIED"


def test_a_crash_after_progress_is_not_counted() -> None:
    (move,) = outcome(job(failures=2, begun_at_step=100), newest_step=101)
    assert (move.state, move.failures) == (JobState.QUEUED, 0)


@pytest.mark.parametrize("code", ["BAD_DATA", "TORCH_MISSING", "BAD_CHECKPOINT", "INVALID_SETTING"])
def test_what_would_fail_again_is_not_tried_again(code: str) -> None:
    (move,) = outcome(job(exited=failed(code)), QUIET)
    assert (move.state, error_of(move).hint) == (JobState.FAILED, "mend it")


def test_a_number_that_is_not_finite_twice_at_the_same_step_is_not_tried_a_third_time() -> None:
    (first,) = outcome(job(exited=failed("NOT_FINITE", 7)), QUIET)
    assert (first.state, first.not_finite_step) == (JobState.QUEUED, 7)
    (elsewhere,) = outcome(job(exited=failed("NOT_FINITE", 9), not_finite_step=7), QUIET)
    assert elsewhere.state == JobState.QUEUED
    (again,) = outcome(job(exited=failed("NOT_FINITE", 7), not_finite_step=7), QUIET)
    assert again.state == JobState.FAILED


def test_what_fails_twice_at_a_step_in_the_same_words_is_not_tried_a_third_time() -> None:
    (first,) = outcome(job(exited=failed("INTERNAL", 7)), QUIET, newest_step=5)
    assert (first.state, first.failures) == (JobState.QUEUED, 0)
    later = first.applied(job(exited=failed("INTERNAL", 9), begun_at_step=5))
    assert outcome(later, QUIET, newest_step=5)[0].state == JobState.QUEUED, "at another step"
    again = first.applied(job(exited=failed("INTERNAL", 7), begun_at_step=5))
    assert outcome(again, QUIET, newest_step=5)[0].state == JobState.FAILED


def test_a_process_that_ends_itself_twice_in_one_place_is_not_tried_a_third_time_and_a_killed_one_is() -> None:
    (first,) = outcome(job(), Ending("exit status 7", watched=True, oom=False))
    again = first.applied(job())
    assert outcome(again, Ending("exit status 7", watched=True, oom=False))[0].state == JobState.FAILED
    assert outcome(again, Ending("exit status 8", watched=True, oom=False))[0].state == JobState.QUEUED
    (killed,) = outcome(job())
    assert outcome(killed.applied(job()))[0].state == JobState.QUEUED


def test_a_kill_for_want_of_memory_is_told_from_another_kill() -> None:
    (move,) = outcome(job(retries=0), replace(KILLED, oom=True))
    assert error_of(move).code == "OUT_OF_MEMORY"
    (move,) = outcome(job(retries=0), replace(QUIET, oom=True))
    assert error_of(move).code == "PROCESS_DIED"


def test_a_hint_speaks_only_of_a_checkpoint_that_there_is() -> None:
    last = job(retries=0)
    (without,) = outcome(last)
    (with_one,) = outcome(job(retries=0, begun_at_step=9), newest_step=9)
    assert "m1ctl retry a begins again" in error_of(without).hint
    assert "goes on from its newest checkpoint" in error_of(with_one).hint
    yielding = job(JobState.YIELDING, want=Want.YIELD)
    assert "it has no checkpoint" in outcome(yielding)[0].reason
    assert "newest checkpoint" in outcome(yielding, newest_step=9)[0].reason


@pytest.mark.parametrize("oom", [False, True])
def test_an_answer_that_was_cut_off_for_want_of_memory_says_so(oom: bool) -> None:
    with pytest.raises(M1Error) as caught:
        _check_end("predict", ToolResult(-9, "", oom))
    assert (caught.value.reason is Reason.OUT_OF_MEMORY) == oom


def test_a_process_that_died_unseen_with_its_daemon_is_nobody_s_failure() -> None:
    (move,) = outcome(job(retries=0), Ending("", watched=False, oom=False))
    assert move.state == JobState.QUEUED
    assert move.failures is None


def test_a_yield_pauses_and_a_sigterm_from_elsewhere_comes_back_by_itself() -> None:
    assert [m.state for m in outcome(job(JobState.YIELDING, exited=Exited("yielded")))] == [JobState.PAUSED]
    moves = outcome(job(JobState.RUNNING, exited=Exited("yielded")))
    assert [m.state for m in moves] == [JobState.YIELDING, JobState.PAUSED, JobState.QUEUED]


def test_a_job_that_was_killed_while_it_yielded_is_paused_all_the_same() -> None:
    assert [m.state for m in outcome(job(JobState.YIELDING))] == [JobState.PAUSED]


def test_a_job_whose_checkpoint_failed_while_it_yielded_is_paused_with_the_reason() -> None:
    (move,) = outcome(job(JobState.YIELDING, exited=failed("DISK_FULL")), QUIET)
    assert move.state == JobState.PAUSED
    assert "DISK_FULL" in move.reason


@pytest.mark.parametrize("state", [JobState.STARTING, JobState.RUNNING, JobState.HELD, JobState.YIELDING])
@pytest.mark.parametrize("said", [None, Exited("stopped"), Exited("yielded"), failed("BAD_DATA")])
def test_a_job_that_was_to_stop_is_cancelled_however_it_ended(state: JobState, said: Exited | None) -> None:
    assert [m.state for m in outcome(job(state, want=Want.STOP, exited=said))] == [JobState.CANCELLED]


@pytest.mark.parametrize("exited", [None, Exited("yielded"), failed("INTERNAL")])
def test_a_job_that_is_held_does_not_train_by_itself_when_its_process_is_gone(exited: Exited | None) -> None:
    last = outcome(job(JobState.HELD, want=Want.HOLD, exited=exited))[-1]
    assert (last.state, last.want) == (JobState.QUEUED, Want.HOLD)
