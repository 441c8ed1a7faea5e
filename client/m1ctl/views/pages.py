"""Messages as plain text pages and tables. Pure functions: the time is passed in."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence

from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from m1.errors import shortened
from m1.units import format_bytes, format_duration
from m1.v1 import checkpoint_pb2, dataset_pb2, job_pb2, metric_pb2, recipe_pb2, system_pb2

from m1ctl.output import one_line, pairs, table
from m1ctl.sdk.requests import SAID_BY_THE_DAEMON
from m1ctl.sdk.states import FINAL, job_title, state_word
from m1ctl.views.columns import columns_words, needs_words
from m1ctl.views.formatting import (
    ABSENT,
    date_time,
    format_age,
    phase_words,
    profile_value,
    progress_words,
    seconds,
)
from m1ctl.views.metrics import LOSS_OF_A_STEP, Metrics, metrics_of

_BETTER: Mapping[int, str] = {job_pb2.BETTER_MORE: "more", job_pb2.BETTER_LESS: "less"}
# Of a command in a table.
_LONGEST_RUNS = 32
_SAID = frozenset(SAID_BY_THE_DAEMON)
# The life of a job, in the order of its first run.
_LIFE = (
    ("create_time", "submitted"),
    ("queue_time", "queued"),
    ("start_time", "started"),
    ("run_time", "running"),
    ("hold_time", "held"),
    ("yield_time", "yielding"),
    ("pause_time", "paused"),
    ("end_time", "ended"),
)


def job_table(jobs: Sequence[job_pb2.Job], now: float) -> str:
    """Return a table of jobs."""
    header = ("ID", "NAME", "RUNS", "STATE", "PROGRESS", "METRIC", "AGE")
    rows = [
        (
            job.id,
            job.name,
            shortened(runs_words(job.spec), _LONGEST_RUNS),
            state_word(job.state),
            progress_words(job.progress),
            _headline(job),
            format_age(job.create_time, now),
        )
        for job in jobs
    ]
    return table(header, rows)


def job_page(job: job_pb2.Job, now: float) -> str:
    """Return a page with everything about a job."""
    from google.protobuf.json_format import MessageToDict

    spec = job.spec
    progress = job.progress
    steps = f"step {progress.step}/{progress.total_steps}  {progress_words(progress)}" if progress.total_steps else ""
    settings = MessageToDict(spec.settings)
    sections = [
        pairs(
            [
                ("job", job_title(job)),
                ("state", state_word(job.state)),
                ("reason", job.reason),
                ("error", f"{job.error.code}: {job.error.message}" if job.HasField("error") else ""),
                ("hint", job.error.hint),
                ("recipe", _recipe_words(spec)),
                ("program", shlex.join(spec.program.command)),
                ("directory", spec.program.directory),
                ("environment", ", ".join(sorted(spec.program.environment))),
                ("can pause", _pause_words(job)),
                ("data", spec.data),
                ("started from", spec.from_checkpoint),
                ("priority", str(spec.priority)),
                ("progress", steps),
                ("phase", phase_words(progress) if job.state not in FINAL else ""),
                ("attempt", str(job.attempt) if job.attempt else ""),
                ("failures", f"{job.failures} in a row" if job.failures else ""),
                ("approximate", "; ".join(job.approximate)),
                ("process", f"pid {job.pid}" if job.pid else ""),
            ]
        ),
        _section("times", _life(job, now)),
        _section("settings", [(name, plain_value(value)) for name, value in sorted(settings.items())]),
        _section("profile", _profile_rows(spec)),
        _section("metrics", _metric_rows(job)),
        f"findings\n{_indent(findings_page(job.findings))}" if job.findings else "",
    ]
    return "\n\n".join(section for section in sections if section)


def runs_words(spec: job_pb2.JobSpec) -> str:
    """Return what a job runs: its recipe's name, or its program as it was typed."""
    return spec.recipe or shlex.join(spec.program.command)


def _pause_words(job: job_pb2.Job) -> str:
    if job.kind != job_pb2.JOB_KIND_PROGRAM:
        return ""
    if job.can_yield:
        return "yes, at a checkpoint of the program's own making; exactness is its own affair"
    return "no, only hold: the program takes no part (see docs/programs.md)"


def _recipe_words(spec: job_pb2.JobSpec) -> str:
    file = spec.recipe_file
    return f"{spec.recipe} of {file.name} (SHA-256 {file.sha256[:12]})" if file.name else spec.recipe


def _life(job: job_pb2.Job, now: float) -> list[tuple[str, str]]:
    """When it last entered each state, and how long it stood there until the next (or until now)."""
    entered: list[tuple[Timestamp, str]] = [(getattr(job, field), word) for field, word in _LIFE if job.HasField(field)]
    entered.sort(key=lambda entry: seconds(entry[0]))
    rows = []
    for index, (time, word) in enumerate(entered):
        last = index + 1 == len(entered)
        if last and job.state in FINAL:
            since = seconds(time) - seconds(job.create_time)
            rows.append((word, f"{date_time(time)}  {format_duration(max(0.0, since))} after submission"))
            continue
        if word == "submitted" and not last:
            rows.append((word, date_time(time)))
            continue
        until = now if last else seconds(entered[index + 1][0])
        lasted = format_duration(max(0.0, until - seconds(time)))
        rows.append((word, f"{date_time(time)}  " + (f"for {lasted} so far" if last else f"for {lasted}")))
    return rows


def findings_page(findings: Sequence[job_pb2.Finding]) -> str:
    """Return a table of findings without its empty columns."""
    header = ("MEASURED", "VALUE", "95 % INTERVAL", "N", "CLAIMED", "CHOSEN", "NOTE")
    rows = [
        (
            finding.title or finding.key,
            f"{_measured(finding.value)} {finding.unit}" if finding.HasField("value") else ABSENT,
            f"{_measured(finding.low)} to {_measured(finding.high)}"
            if finding.HasField("low") and finding.HasField("high")
            else "",
            str(finding.n) if finding.n and finding.HasField("value") else "",
            finding.claimed,
            "chosen" if finding.chosen else "",
            finding.note,
        )
        for finding in findings
    ]
    kept = [column for column in range(len(header)) if any(row[column] for row in rows)]
    right = [kept.index(column) for column in (1, 2, 3) if column in kept]
    return table([header[column] for column in kept], [[row[column] for column in kept] for row in rows], right)


def _measured(value: float) -> str:
    """Three digits that count, and never an exponent where a person would write none: "1.02", "38.1", "1024"."""
    if not math.isfinite(value) or value == 0 or not 1e-4 <= abs(value) < 1e15:
        return f"{value:.3g}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def checkpoint_table(checkpoints: Sequence[checkpoint_pb2.Checkpoint], metrics: Metrics, now: float) -> str:
    """Return a table of checkpoints."""
    header = ("ID", "STEP", "EPOCH", "SIZE", "AGE", "BEST", "METRICS", "WEIGHTS SHA-256")
    rows = [
        (
            checkpoint.id,
            str(checkpoint.step),
            str(checkpoint.epoch),
            format_bytes(checkpoint.size_bytes),
            format_age(checkpoint.create_time, now),
            "best" if checkpoint.best else "",
            metrics.words(checkpoint.metrics) or ABSENT,
            checkpoint.weights_sha256[:16],
        )
        for checkpoint in checkpoints
    ]
    return table(header, rows, right=(1, 2, 3))


def metric_table(job: job_pb2.Job) -> str:
    """Return a table of the latest metrics."""
    return table(("METRIC", "LAST VALUE"), _metric_rows(job), right=(1,))


def series_table(series: metric_pb2.GetMetricSeriesResponse, metrics: Metrics) -> str:
    """Return a table of a metric's buckets."""
    header = ("STEPS", "POINTS", "MIN", "MEAN", "MAX", "LAST")
    rows = [
        (
            str(bucket.first_step)
            if bucket.first_step == bucket.last_step
            else f"{bucket.first_step}-{bucket.last_step}",
            str(bucket.count),
            *(metrics.value(series.name, value) for value in (bucket.min, bucket.mean, bucket.max, bucket.last)),
        )
        for bucket in series.buckets
    ]
    return table(header, rows, right=range(1, 6))


def recipe_table(recipes: Iterable[recipe_pb2.Recipe]) -> str:
    """Return a table of recipes."""
    rows = [
        (recipe.name, recipe.default_data or ABSENT, recipe.package or ABSENT, recipe.summary) for recipe in recipes
    ]
    return table(("NAME", "DEFAULT DATA", "PACKAGE", "SUMMARY"), rows)


def recipe_page(recipe: recipe_pb2.Recipe) -> str:
    """Return a page about a recipe: its data, settings, metrics and uses."""
    about = pairs(
        [
            ("data", needs_words(recipe) if recipe.needs or recipe.reads_data else ""),
            ("default data", recipe.default_data or ABSENT),
            ("samples", recipe.sample_unit),
        ]
    )
    metrics = [
        (metric.key, metric.unit or ABSENT, _BETTER.get(metric.better, ABSENT), metric.summary)
        for metric in recipe.metrics
    ]
    uses = [
        (use.name, use.inputs or ABSENT, ", ".join(option.name for option in use.options) or ABSENT, use.summary)
        for use in recipe.uses
    ]
    sections = [
        f"{one_line(recipe.name)}: {one_line(recipe.summary)}\n{about}",
        table(("SETTING", "DEFAULT", "BOUNDS", "UNIT", "SUMMARY"), [_setting_row(one) for one in recipe.settings]),
        table(("METRIC", "UNIT", "BETTER", "SUMMARY"), metrics) if metrics else "",
        table(("USE", "TAKES", "OPTIONS", "SUMMARY"), uses) if uses else "",
    ]
    return "\n\n".join(section for section in sections if section)


def _setting_row(setting: recipe_pb2.Setting) -> tuple[str, ...]:
    default = plain_value(_value(setting.default))
    return setting.name, default, _bounds(setting), setting.unit or ABSENT, setting.summary


def dataset_table(datasets: Sequence[dataset_pb2.Dataset]) -> str:
    """Return a table of datasets; below it, what was left out or changed when they were read."""
    header = ("NAME", "CACHED", "COLUMNS", "ROWS", "SIZE", "SOURCE")
    rows = [
        (
            dataset.name,
            "yes" if dataset.cached else "no",
            columns_words(dataset.columns) or ABSENT,
            rows_words(dataset) or ABSENT,
            format_bytes(dataset.size_bytes) if dataset.cached else ABSENT,
            dataset.source,
        )
        for dataset in datasets
    ]
    notes = [one_line(f"{dataset.name}: {note}") for dataset in datasets for note in dataset.notes]
    return "\n".join([table(header, rows, right=(4,)), *notes])


def dataset_page(dataset: dataset_pb2.Dataset) -> str:
    """Return what was read: columns, rows of each split, and what was left out or changed."""
    first = f"{dataset.name}: {columns_words(dataset.columns)}; {rows_words(dataset)}"
    return "\n".join(one_line(line) for line in (first, *dataset.notes))


def rows_words(dataset: dataset_pb2.Dataset) -> str:
    """Return the rows of each split, "train" first: "train 400, test 100"."""
    splits = sorted(dataset.rows, key=lambda split: (split != "train", split))
    return ", ".join(f"{split} {dataset.rows[split]}" for split in splits)


def daemon_page(info: system_pb2.GetSystemInfoResponse, busy: Sequence[job_pb2.Job]) -> str:
    """Return a page about the daemon and what it is doing."""
    job = "; ".join(f"{job_title(job)} {state_word(job.state)} {progress_words(job.progress)}" for job in busy)
    return pairs(
        [
            ("pid", str(info.pid)),
            ("uptime", format_duration(info.uptime.seconds + info.uptime.nanos * 1e-9)),
            ("version", info.version),
            ("home", info.home),
            ("job", job or "none"),
            *([("fault", info.fault)] if info.fault else []),
            ("platform", info.platform),
            ("python", info.python_version),
            ("torch", info.torch_version or "not installed"),
            ("default", f"{info.default_device}, {info.default_threads} threads"),
            *_environment_rows(info.environment),
        ]
    )


def _environment_rows(environment: system_pb2.Environment) -> list[tuple[str, str]]:
    passed = ", ".join(environment.passed) or "none"
    fixed = f"; set in config.toml: {', '.join(environment.set)}" if environment.set else ""
    withheld = f"{len(environment.withheld)} variables" if environment.withheld else "none"
    if environment.withheld_deciding:
        withheld += f", of which {', '.join(environment.withheld_deciding)} could change results"
    return [("variables", passed + fixed), ("withheld", withheld)]


def plain_value(value: object) -> str:
    """Return a setting's value as a person would type it: a JSON number that is whole has no point."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) <= 2**53 else f"{value:g}"
    return str(value)


def _value(value: Value) -> bool | float | str:
    kind = value.WhichOneof("kind")
    if kind == "bool_value":
        return value.bool_value
    return value.number_value if kind == "number_value" else value.string_value


def _bounds(setting: recipe_pb2.Setting) -> str:
    from m1.settings import Setting

    return Setting(
        name=setting.name,
        kind=setting.kind,  # type: ignore[arg-type]  # a kind of a newer daemon has bounds all the same
        default=_value(setting.default),
        summary=setting.summary,
        minimum=setting.minimum if setting.HasField("minimum") else None,
        maximum=setting.maximum if setting.HasField("maximum") else None,
        choices=tuple(setting.choices),
    ).bounds


def _headline(job: job_pb2.Job) -> str:
    """Return the headline metric of the last validation: "accuracy 95.83 %"; of a program that has none, the loss."""
    metrics = metrics_of(job)
    keys = [metrics.validated] if job.metrics else [metrics.validated, LOSS_OF_A_STEP]
    return metrics.words(job.latest_metrics, [key for key in keys if key in job.latest_metrics][:1]) or ABSENT


def _metric_rows(job: job_pb2.Job) -> list[tuple[str, str]]:
    metrics = metrics_of(job)
    return [(key, metrics.value(key, job.latest_metrics[key])) for key in sorted(job.latest_metrics)]


def _profile_rows(spec: job_pb2.JobSpec) -> list[tuple[str, str]]:
    """As it is typed, then where it comes from; of a program's it has only the threads."""
    profile = spec.profile
    if spec.HasField("program"):
        return [("threads", str(profile.threads)), ("origin", profile.origin)]
    typed = [(field.name, profile_value(value)) for field, value in profile.ListFields() if field.name not in _SAID]
    return [*typed, ("origin", profile.origin), ("out of date", "; ".join(profile.stale))]


def _section(title: str, rows: Sequence[tuple[str, str]]) -> str:
    body = pairs(rows)
    return f"{title}\n{_indent(body)}" if body else ""


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
