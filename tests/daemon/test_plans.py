"""A budget of time: the daemon has this machine measured at the submit, and the job keeps the plan that was chosen."""

from __future__ import annotations

import json

import pytest
from harness import PATIENCE_S, RunningDaemon
from m1.errors import M1Error, Reason
from m1.paths import Home
from m1.v1 import event_pb2, job_pb2

# What a few images are trained with in seconds; an hour is more than any plan takes of them.
FEW: dict[str, bool | float | str] = {"budget": "1h", "batch_size": 12, "views": 1}
PLAN = ("sizes", "widths", "epochs", "lr", "promised_s")


def plan_of(job: job_pb2.Job) -> dict[str, object]:
    return {name: job.spec.settings[name] for name in PLAN}


def test_a_budget_is_measured_at_the_submit_and_its_plan_is_the_job_s(held_daemon: RunningDaemon) -> None:
    client = held_daemon.client
    job = client.submit("cifar-fast", data="few", settings=FEW, request_id="once")
    plan = plan_of(job)
    assert all(plan.values()), plan
    assert isinstance(plan["promised_s"], float)
    assert 0 < plan["promised_s"] <= 3600
    assert job.spec.settings["budget"] == "1h"

    again = client.submit("cifar-fast", data="few", settings=FEW, request_id="once")
    assert (again.id, plan_of(again)) == (job.id, plan), "the same request is the same job, and not measured again"

    answers = client.watch(job.id, from_revision=1, timeout_s=PATIENCE_S)
    events = (event for answer in answers for event in answer.events)
    said = next(event.notice_raised for event in events if event.HasField("notice_raised"))
    assert said.severity == event_pb2.SEVERITY_INFO
    assert "for 120 images" in said.message
    assert said.message.endswith("; measured beside j1 (holder), which held the machine")


def test_what_was_promised_and_taken_is_a_result_and_a_checkpoint_carries_its_plan(daemon: RunningDaemon) -> None:
    client = daemon.client
    settings = {**FEW, "sizes": "17", "widths": "8,8,8", "epochs": 2, "lr": 0.2, "promised_s": 30.0}
    job = client.submit("cifar-fast", data="few", settings=settings)
    ended = client.wait(job, timeout_s=PATIENCE_S)
    assert ended.state == job_pb2.JOB_STATE_SUCCEEDED, ended.error
    assert plan_of(ended) == plan_of(job), "a plan that is given is nobody's to choose"
    result = json.loads((Home(daemon.home).job(job.id) / "results" / "budget.json").read_text())
    assert [column["name"] for column in result["columns"]] == ["promised", "took", "ratio"]
    assert result["rows"][0][0] == 30.0

    *_, first = client.list_checkpoints(job.id)
    child = client.submit("cifar-fast", from_checkpoint=first.id, settings={"views": 2})
    assert plan_of(child) == plan_of(job)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"budget": "banana"}, "is no length of time"),
        ({"budget": "0s"}, "is out of bounds"),
        ({"sizes": "17;25"}, "sizes takes up to 100 whole numbers"),
        ({**FEW, "budget": "0.001s"}, "is too short here: the least plan, 1 epoch at 17 px, takes about"),
    ],
)
def test_a_budget_that_cannot_be_is_refused_and_nothing_is_stored(
    daemon: RunningDaemon, settings: dict[str, bool | float | str], words: str
) -> None:
    before = daemon.client.system_info().revision
    with pytest.raises(M1Error) as refused:
        daemon.client.submit("cifar-fast", data="few", settings=settings)
    assert (refused.value.reason, daemon.client.system_info().revision) == (Reason.INVALID_SETTING, before)
    assert words in str(refused.value)
    assert "beside" not in str(refused.value)
