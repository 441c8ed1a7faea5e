"""Tables, JSON, and what must not reach a terminal."""

import json

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from m1.errors import ExitCode, M1Error
from m1.v1 import job_pb2, metric_pb2, recipe_pb2
from m1ctl.output import one_line, put, put_json, table, to_json
from m1ctl.sdk.states import state_from_word, state_word
from m1ctl.views.pages import findings_page, job_page, job_table, plain_value, recipe_page, report_page, series_table


def test_a_table_is_aligned_and_never_cut() -> None:
    long = "x" * 300
    assert table(("A", "NUMBER"), [("a", "1"), (long, "22")], right=(1,)).splitlines() == [
        "A".ljust(300) + "  NUMBER",
        "a".ljust(300) + "       1",
        long + "      22",
    ]


def test_an_escape_sequence_does_not_reach_the_terminal() -> None:
    assert one_line("a\x1b[31mb\r\nc\x9b1m") == "a [31mb  c 1m"
    assert one_line("run\u202eyp.\u2066a\u2028b") == "run yp. a b"
    assert "\x1b" not in table(("A\x1b[31m",), [("\x1b]0;title\x07",)])


def test_a_class_with_an_escape_sequence_in_its_name_colours_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    report = job_pb2.ClassificationReport(classes=["a\x1b[31m", "b"], class_accuracy=[1.0, 1.0])
    report.confusion.add(counts=[1, 0])
    report.confusion.add(counts=[0, 1])
    job = job_pb2.Job(id="j1", name="first", reason="be\x1b[2Jcause", report=report)
    job.error.message = "it\x9b1m broke\r"
    for page in (report_page(report), job_page(job, now=0.0)):
        assert "\x1b" not in page
    put("a\x1b[31m\nb\x9b1m\r")
    assert capsys.readouterr().out == "a [31m\nb 1m \n"


def test_findings_are_a_table_without_its_empty_columns() -> None:
    found = [
        job_pb2.Finding(
            key="dtype/bfloat16", title="bfloat16", value=1.8, unit="x", low=1.75, high=1.85, n=12, chosen=True
        ),
        job_pb2.Finding(key="compile/on", title="compiled", n=1, note="there is no C++ compiler"),
        job_pb2.Finding(key="images_per_s/tuned", title="tuned", value=38.12, unit="images/s", n=6),
    ]
    assert findings_page(found).splitlines() == [
        "MEASURED          VALUE  95 % INTERVAL   N  CHOSEN  NOTE",
        "bfloat16         1.80 x   1.75 to 1.85  12  chosen",
        "compiled              -                             there is no C++ compiler",
        "tuned     38.1 images/s                  6",
    ]
    assert "95 %" not in findings_page(found[1:])
    assert "1.75 to 1.85" in job_page(job_pb2.Job(id="j1", findings=found), now=0.0)


def test_json_has_the_contract_s_names_and_every_field() -> None:
    parsed = json.loads(to_json(job_pb2.ListJobsResponse(jobs=[job_pb2.Job(id="j1")]), indent=None))
    assert parsed["next_page_token"] == ""
    assert parsed["jobs"][0]["latest_metrics"] == {}
    assert parsed["jobs"][0]["state"] == "JOB_STATE_UNSPECIFIED"
    assert "error" not in parsed["jobs"][0]


def test_json_is_read_back_as_the_same_message(capsys: pytest.CaptureFixture[str]) -> None:
    job = job_pb2.Job(id="j1", revision=2**60, latest_metrics={"train/loss": 1.5})
    job.report.class_accuracy.append(float("nan"))
    response = job_pb2.GetJobResponse(job=job)
    put_json(response)
    assert str(json_format.Parse(capsys.readouterr().out, job_pb2.GetJobResponse())) == str(response)


def test_a_state_is_called_by_its_word_in_any_case() -> None:
    assert state_word(job_pb2.JOB_STATE_HELD) == "held"
    for word in ("held", "HELD", "JOB_STATE_HELD"):
        assert state_from_word(word) == job_pb2.JOB_STATE_HELD


def test_an_unknown_state_is_refused_with_the_nearest() -> None:
    with pytest.raises(M1Error, match='there is no state "runing": did you mean "running"') as caught:
        state_from_word("runing")
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_job_without_a_plan_has_its_line() -> None:
    job = job_pb2.Job(id="j1", name="first", state=job_pb2.JOB_STATE_QUEUED, create_time=Timestamp(seconds=100))
    job.spec.recipe = "cifar"
    header, line = job_table([job], now=165.0).splitlines()
    assert header.split() == ["ID", "NAME", "RECIPE", "STATE", "PROGRESS", "VAL", "ACCURACY", "AGE"]
    assert line.split() == ["j1", "first", "cifar", "queued", "-", "-", "1m", "05s"]


def test_a_failed_job_s_page_has_the_error_and_the_way_out() -> None:
    job = job_pb2.Job(id="j1", name="first", state=job_pb2.JOB_STATE_FAILED)
    job.create_time.seconds, job.start_time.seconds, job.end_time.seconds = 100, 110, 170
    job.error.code, job.error.message, job.error.hint = "BAD_DATA", "it broke", "mend it"
    job.spec.settings.update({"epochs": 3.0, "lr": 0.001, "fast": True})
    page = job_page(job, now=1000.0)
    for words in (
        "state     failed",
        "error     BAD_DATA: it broke",
        "way out   mend it",
        "for 1m 00s",
        "1m 10s after it was submitted",
        "epochs  3\n",
        "fast    true",
        "lr      0.001",
    ):
        assert words in page, words


def test_a_profile_is_shown_as_it_is_typed() -> None:
    job = job_pb2.Job(id="j1")
    job.spec.profile.compile, job.spec.profile.fused, job.spec.profile.threads = False, True, 2
    (profile,) = [section for section in job_page(job, now=0.0).split("\n\n") if section.startswith("profile")]
    assert [line.split() for line in profile.splitlines()[1:]] == [
        ["threads", "2"],
        ["compile", "off"],
        ["fused", "on"],
    ]


def test_a_report_shows_each_class_and_where_it_was_mistaken() -> None:
    report = job_pb2.ClassificationReport(classes=["cat", "dog"], class_accuracy=[0.75, float("nan")])
    report.confusion.add(counts=[3, 1])
    report.confusion.add(counts=[0, 0])
    lines = [line.split() for line in report_page(report).splitlines()[1:]]
    assert lines == [
        ["TRUE", "CLASS", "ACCURACY", "cat", "dog"],
        ["cat", "75.00", "%", "3", "1"],
        ["dog", "-", "0", "0"],
    ]


def test_a_series_has_a_line_a_bucket() -> None:
    bucket = metric_pb2.MetricBucket(first_step=1, last_step=9, count=9, min=1.0, max=3.0, mean=2.0, last=1.5)
    series = metric_pb2.GetMetricSeriesResponse(name="train/loss", buckets=[bucket])
    assert series_table(series).splitlines()[1].split() == ["1-9", "9", "1", "2", "3", "1.5"]


def test_a_recipe_s_page_has_default_bounds_unit_and_sentence() -> None:
    recipe = recipe_pb2.Recipe(name="cifar", summary="Learns.", default_data="cifar10")
    setting = recipe.settings.add(
        name="epochs", kind="int", minimum=1, maximum=100, unit="epochs", summary="How often."
    )
    setting.default.number_value = 15
    choice = recipe.settings.add(name="how", kind="str", choices=["a", "b"], summary="Which.")
    choice.default.string_value = "a"
    lines = [line.split() for line in recipe_page(recipe).splitlines()]
    assert lines[4] == ["epochs", "15", "from", "1", "to", "100", "epochs", "How", "often."]
    assert lines[5] == ["how", "a", "one", "of", "a,", "b", "-", "Which."]


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.001, "0.001"), (True, "true"), ("a", "a"), (2.0**53, "9007199254740992"), (1e300, "1e+300")],
)
def test_a_setting_is_shown_as_it_would_be_typed(value: object, text: str) -> None:
    assert plain_value(value) == text
