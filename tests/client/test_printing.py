"""Tables, JSON, and what must not reach a terminal."""

import json

import pytest
from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp
from m1.errors import ExitCode, M1Error
from m1.v1 import dataset_pb2, job_pb2, metric_pb2, recipe_pb2, result_pb2
from m1ctl.output import one_line, put, put_json, table, to_json, visible
from m1ctl.sdk.states import SUCCEEDED, state_from_word, state_word
from m1ctl.views.metrics import Metrics
from m1ctl.views.pages import (
    dataset_page,
    dataset_table,
    findings_page,
    job_page,
    job_table,
    plain_value,
    recipe_page,
    series_table,
)


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


def test_a_name_or_a_message_with_an_escape_sequence_colours_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    job = job_pb2.Job(id="j1", name="first\x1b[31m", reason="be\x1b[2Jcause", latest_metrics={"val/a\x1b[31m": 1.0})
    job.error.message = "it\x9b1m broke\r"
    assert "\x1b" not in job_page(job, now=0.0)
    put("a\x1b[31m\nb\x9b1m\r")
    assert capsys.readouterr().out == "a [31m\nb 1m \n"


def test_text_for_a_terminal_shows_what_it_would_obey() -> None:
    assert visible("a\tb\x1b[31m\r\nc\rd\x9b\u202e\n") == "a\tb\\x1b[31m\nc\nd\\x9b\\u202e\n"


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
    job.latest_metrics["val/loss"] = float("nan")
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
    assert header.split() == ["ID", "NAME", "RUNS", "STATE", "PROGRESS", "METRIC", "AGE"]
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
        "hint      mend it",
        "for 1m 00s",
        "1m 10s after submission",
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


def test_a_series_has_a_line_a_bucket() -> None:
    bucket = metric_pb2.MetricBucket(first_step=1, last_step=9, count=9, min=1.0, max=3.0, mean=2.0, last=1.5)
    series = metric_pb2.GetMetricSeriesResponse(name="train/loss", buckets=[bucket])
    assert series_table(series, Metrics()).splitlines()[1].split() == ["1-9", "9", "1", "2", "3", "1.5"]


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


def test_a_recipe_s_page_has_what_it_needs_measures_and_can_be_used_for() -> None:
    recipe = recipe_pb2.Recipe(name="photos", summary="Learns.", sample_unit="images")
    size = recipe.settings.add(name="size", kind="int", minimum=8, summary="How large.")
    size.default.number_value = 160
    recipe.needs.add(kind="image", options={"size": "$size", "fit": "crop"})
    recipe.needs.add(kind="label")
    recipe.metrics.add(key="accuracy", unit="fraction", better=job_pb2.BETTER_MORE, summary="Right.")
    predict = recipe.uses.add(name="predict", summary="Tell what it is.", inputs="files")
    predict.options.add(name="top", kind="int")
    page = recipe_page(recipe)
    assert "data          images of 160 px (crop) and a label for each" in page
    for row in (["accuracy", "fraction", "more", "Right."], ["predict", "files", "top", "Tell", "what", "it", "is."]):
        assert row in [line.split() for line in page.splitlines()]


def test_a_recipe_that_reads_its_data_itself_says_so() -> None:
    assert "reads itself" in recipe_page(recipe_pb2.Recipe(name="mine", reads_data=True))


def a_dataset() -> dataset_pb2.Dataset:
    dataset = dataset_pb2.Dataset(name="flowers", source="/flowers", cached=True, rows={"test": 100, "train": 400})
    dataset.columns.add(name="image", kind="image", shape=(160, 160, 3), options={"size": "160", "fit": "crop"})
    dataset.columns.add(name="label", kind="label", classes=["a", "b"], class_count=5)
    dataset.notes.append("2 files are no images, and were left out")
    return dataset


def test_a_dataset_is_told_with_its_columns_rows_and_notes() -> None:
    assert dataset_page(a_dataset()).splitlines() == [
        "flowers: images 160 px crop, 5 classes; train 400, test 100",
        "2 files are no images, and were left out",
    ]
    lines = dataset_table([a_dataset(), dataset_pb2.Dataset(name="cifar10", source="the web")]).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "NAME CACHED COLUMNS ROWS SIZE SOURCE",
        "flowers yes images 160 px crop, 5 classes train 400, test 100 0 B /flowers",
        "cifar10 no - - - the web",
        "flowers: 2 files are no images, and were left out",
    ]


def test_the_list_has_each_job_s_own_headline() -> None:
    job = job_pb2.Job(id="j1", name="first", latest_metrics={"val/accuracy": 0.9583, "val/loss": 0.2})
    job.metrics.add(key="accuracy", unit="fraction", better=job_pb2.BETTER_MORE)
    other = job_pb2.Job(id="j2", name="second", latest_metrics={"val/loss": 0.2})
    none = job_pb2.Job(id="j3", name="third", latest_metrics={"stress/gflops": 5.0})
    lines = job_table([job, other, none], now=0.0).splitlines()
    for line, words in zip(lines[1:], ("accuracy 95.83 %", "loss 0.2", "-"), strict=True):
        assert f"  {words}  " in line


def test_a_profile_says_where_it_comes_from_and_why_it_is_out_of_date() -> None:
    job = job_pb2.Job(id="j1")
    job.spec.profile.threads, job.spec.profile.origin = 2, "m1ctl tune on 2026-11-22 (j12)"
    job.spec.profile.source = job_pb2.PROFILE_SOURCE_TUNED
    job.spec.profile.stale.append("torch was 2.13.0, is 2.14.1")
    (profile,) = [section for section in job_page(job, now=0.0).split("\n\n") if section.startswith("profile")]
    assert [line.split(maxsplit=1) for line in profile.splitlines()[1:]] == [
        ["threads", "2"],
        ["origin", "m1ctl tune on 2026-11-22 (j12)"],
        ["out", "of date  torch was 2.13.0, is 2.14.1"],
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(3.0, "3"), (0.001, "0.001"), (True, "true"), ("a", "a"), (2.0**53, "9007199254740992"), (1e300, "1e+300")],
)
def test_a_setting_is_shown_as_it_would_be_typed(value: object, text: str) -> None:
    assert plain_value(value) == text


def test_a_program_is_listed_by_its_command_and_its_loss_and_says_whether_it_can_pause() -> None:
    program = job_pb2.Program(command=["python", "train.py", "--name", "a b", "--lr", "0.1"], directory="/w")
    program.environment["TOKEN"] = ""
    job = job_pb2.Job(
        id="j1",
        name="train-1",
        state=job_pb2.JOB_STATE_RUNNING,
        kind=job_pb2.JOB_KIND_PROGRAM,
        spec=job_pb2.JobSpec(program=program),
        progress=job_pb2.Progress(step=30, total_steps=120),
        latest_metrics={"train/loss": 0.5},
    )
    line = job_table([job], now=0.0).splitlines()[1]
    assert line.split("  ")[:4] == ["j1", "train-1", "python train.py --name 'a b' ...", "running"]
    assert line.split()[-5:-2] == ["%", "loss", "0.5"]
    page = job_page(job, now=0.0)
    assert "environment  TOKEN" in page
    assert "no, only hold" in page
    job.can_yield = True
    assert "its own affair" in job_page(job, now=0.0)


def test_a_whole_setting_is_a_whole_number_in_json_wherever_it_stands() -> None:
    job = job_pb2.Job(latest_metrics={"val/accuracy": 1.0})
    job.spec.settings.update({"epochs": 3, "lr": 0.001, "seed": 2**53, "init": "5.0", "flag": True})
    document = json.loads(to_json(job_pb2.ListJobsResponse(jobs=[job]), indent=None))["jobs"][0]
    settings = document["spec"]["settings"]
    assert {name: type(value) for name, value in settings.items()} == {
        "epochs": int, "lr": float, "seed": float, "init": str, "flag": bool
    }  # fmt: skip
    assert type(document["latest_metrics"]["val/accuracy"]) is float
    recipe = recipe_pb2.Recipe(settings=[recipe_pb2.Setting(default={"number_value": 64})])
    assert '"default": 64,' in to_json(recipe, indent=2)
    row = result_pb2.UseModelResponse()
    row.row.update({"top": [{"n": 7}, 0.5]})
    assert json.loads(to_json(row, indent=None))["row"] == {"top": [{"n": 7}, 0.5]}
    assert '"n": 7}' in to_json(row, indent=None)


def test_a_state_prints_as_its_word_and_is_still_the_contract_s_number() -> None:
    from m1ctl import JobState

    state = JobState(job_pb2.Job(state=job_pb2.JOB_STATE_SUCCEEDED).state)
    assert (str(state), f"{state:>10}", int(state)) == ("succeeded", " succeeded", SUCCEEDED)
    known = [name.removeprefix("JOB_STATE_").lower() for name, _ in job_pb2.JobState.items()]
    assert ["unspecified", *map(str, JobState)] == known
