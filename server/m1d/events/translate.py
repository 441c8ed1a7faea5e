"""The daemon's data in the contract's words, and the kinds of events."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from google.protobuf import struct_pb2, timestamp_pb2
from m1.journal import Finding, Result
from m1.metrics import Metric
from m1.profile import DECLARED
from m1.spec import JobKind, JobSpec, Program, RecipeFile
from m1.v1 import checkpoint_pb2, event_pb2, job_pb2, result_pb2, system_pb2

from m1d.jobs.job import Checkpoint, Job, Progress
from m1d.jobs.recipe_file import RecipeUpload
from m1d.jobs.states import JobState
from m1d.machine.stats import Stats

# Kinds that no reader may lose; the others may be thinned for a slow one.
LOSSLESS_KINDS = (
    event_pb2.EVENT_KIND_STATE,
    event_pb2.EVENT_KIND_CHECKPOINT,
    event_pb2.EVENT_KIND_NOTICE,
    event_pb2.EVENT_KIND_RESULT,
)
STORED_KINDS = (*LOSSLESS_KINDS, event_pb2.EVENT_KIND_PROGRESS, event_pb2.EVENT_KIND_METRICS)

KIND_OF_PAYLOAD: dict[str, event_pb2.EventKind] = {
    "state_changed": event_pb2.EVENT_KIND_STATE,
    "job_deleted": event_pb2.EVENT_KIND_STATE,
    "progress_changed": event_pb2.EVENT_KIND_PROGRESS,
    "metrics_recorded": event_pb2.EVENT_KIND_METRICS,
    "checkpoint_created": event_pb2.EVENT_KIND_CHECKPOINT,
    "checkpoint_deleted": event_pb2.EVENT_KIND_CHECKPOINT,
    "notice_raised": event_pb2.EVENT_KIND_NOTICE,
    "result_stored": event_pb2.EVENT_KIND_RESULT,
}

_BETTER = {
    "more": job_pb2.BETTER_MORE,
    "less": job_pb2.BETTER_LESS,
    "": job_pb2.BETTER_UNSPECIFIED,
}
_SOURCES = {
    "default": job_pb2.PROFILE_SOURCE_DEFAULT,
    "tuned": job_pb2.PROFILE_SOURCE_TUNED,
    "parent": job_pb2.PROFILE_SOURCE_PARENT,
    "": job_pb2.PROFILE_SOURCE_UNSPECIFIED,
}
_STATES = {state: getattr(job_pb2, f"JOB_STATE_{state.value}") for state in JobState}
_TIME_FIELDS = {
    JobState.QUEUED: "queue_time",
    JobState.STARTING: "start_time",
    JobState.RUNNING: "run_time",
    JobState.HELD: "hold_time",
    JobState.YIELDING: "yield_time",
    JobState.PAUSED: "pause_time",
    JobState.SUCCEEDED: "end_time",
    JobState.FAILED: "end_time",
    JobState.CANCELLED: "end_time",
}


def timestamp(seconds: float) -> timestamp_pb2.Timestamp:
    """Seconds since the epoch, to the microsecond."""
    stamp = timestamp_pb2.Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def state_to_proto(state: JobState) -> job_pb2.JobState:
    """RUNNING is JOB_STATE_RUNNING."""
    value: job_pb2.JobState = _STATES[state]
    return value


def state_from_proto(state: job_pb2.JobState) -> JobState | None:
    """JOB_STATE_RUNNING is RUNNING; None for UNSPECIFIED and what this version does not know."""
    try:
        return JobState(job_pb2.JobState.Name(state).removeprefix("JOB_STATE_"))
    except ValueError:
        return None


def kind_to_proto(kind: JobKind) -> job_pb2.JobKind:
    """A "tuning" is JOB_KIND_TUNING."""
    value: job_pb2.JobKind = getattr(job_pb2, f"JOB_KIND_{kind.upper()}")
    return value


def metric_to_proto(metric: Metric) -> job_pb2.MetricInfo:
    """A metric's declaration."""
    return job_pb2.MetricInfo(key=metric.key, unit=metric.unit, better=_BETTER[metric.better], summary=metric.summary)


def profile_to_proto(spec: JobSpec) -> job_pb2.Profile:
    """A job's profile, with where it comes from."""
    fields: dict[str, Any] = {name: getattr(spec.profile, name) for name in DECLARED}
    return job_pb2.Profile(
        **fields, origin=spec.profile.origin, source=_SOURCES[spec.profile_source], stale=spec.profile_stale
    )


def asked_profile(profile: job_pb2.Profile) -> dict[str, object]:
    """The fields that were set; where a profile comes from is the daemon's to say."""
    return {field.name: value for field, value in profile.ListFields() if field.name in DECLARED}


def result_to_proto(result: Result) -> result_pb2.Result:
    """A result, without its content."""
    return result_pb2.Result(
        name=result.name,
        kind=getattr(result_pb2, f"RESULT_KIND_{result.form.upper()}"),
        title=result.title,
        step=result.step,
        size_bytes=result.size_bytes,
        create_time=timestamp(result.time),
        truncated=result.truncated,
    )


def finding_to_proto(finding: Finding) -> job_pb2.Finding:
    """Field by field; what is None stays absent."""
    return job_pb2.Finding(**asdict(finding))


def recipe_file_to_proto(file: RecipeFile) -> job_pb2.RecipeFile:
    """Without its content."""
    return job_pb2.RecipeFile(name=file.name, class_name=file.class_name, sha256=file.sha256)


def program_to_proto(program: Program) -> job_pb2.Program:
    """Without the values of its environment, which may be secrets."""
    return job_pb2.Program(
        command=program.command, directory=program.directory, environment=dict.fromkeys(program.environment, "")
    )


def program_from_proto(program: job_pb2.Program) -> Program:
    """As it was sent."""
    return Program(list(program.command), program.directory, dict(program.environment))


def recipe_upload(file: job_pb2.RecipeFile) -> RecipeUpload:
    """As it was sent; the hash is ours to say."""
    return RecipeUpload(file.name, file.class_name, file.content)


def progress_to_proto(progress: Progress) -> job_pb2.Progress:
    """Field by field."""
    return job_pb2.Progress(
        step=progress.step,
        total_steps=progress.total_steps,
        epoch=progress.epoch,
        total_epochs=progress.total_epochs,
        phase=progress.phase,
        phase_done=progress.phase_done,
        phase_total=progress.phase_total,
    )


def spec_to_proto(spec: JobSpec) -> job_pb2.JobSpec:
    """A job's specification."""
    settings = struct_pb2.Struct()
    settings.update(dict(spec.settings))
    return job_pb2.JobSpec(
        recipe=spec.recipe,
        data=spec.data,
        settings=settings,
        priority=spec.priority,
        profile=profile_to_proto(spec),
        retries=spec.retries,
        from_checkpoint=spec.from_checkpoint,
        recipe_file=recipe_file_to_proto(spec.recipe_file) if spec.recipe_file else None,
        program=program_to_proto(spec.program) if spec.program else None,
        purpose=job_pb2.PURPOSE_TUNE if spec.kind == "tuning" else job_pb2.PURPOSE_UNSPECIFIED,
    )


def job_to_proto(job: Job, revision: int) -> job_pb2.Job:
    """A job as of a revision; without an id when it is not stored yet (number 0)."""
    process = job.attempt.process
    message = job_pb2.Job(
        id=job.id if job.number else "",
        name=job.name,
        state=state_to_proto(job.state),
        reason=job.reason,
        spec=spec_to_proto(job.spec),
        kind=kind_to_proto(job.kind),
        metrics=map(metric_to_proto, job.spec.metrics),
        sample_unit=job.spec.sample_unit,
        can_yield=job.can_yield,
        progress=progress_to_proto(job.progress),
        latest_metrics=job.latest,
        attempt=job.attempt.number,
        revision=revision,
        pid=process.pid if process else 0,
        failures=job.failures,
        approximate=job.approximate,
        findings=map(finding_to_proto, job.findings),
        create_time=timestamp(job.create_time),
    )
    if job.error:
        message.error.code, message.error.message, message.error.hint = (
            job.error.code,
            job.error.message,
            job.error.hint,
        )
    for state, name in _TIME_FIELDS.items():
        over = name == "end_time"
        if state.value in job.times and (not over or state == job.state):
            getattr(message, name).CopyFrom(timestamp(job.times[state.value]))
    return message


def checkpoint_to_proto(checkpoint: Checkpoint) -> checkpoint_pb2.Checkpoint:
    """Field by field."""
    return checkpoint_pb2.Checkpoint(
        id=checkpoint.id,
        job_id=checkpoint.id.partition("@")[0],
        step=checkpoint.step,
        epoch=checkpoint.epoch,
        size_bytes=checkpoint.size_bytes,
        create_time=timestamp(checkpoint.create_time),
        weights_sha256=checkpoint.weights_sha256,
        best=checkpoint.best,
        metrics=checkpoint.metrics,
        approximate=checkpoint.approximate,
    )


def stats_to_proto(stats: Stats) -> system_pb2.SystemStats:
    """Field by field; what is None stays absent."""
    message = system_pb2.SystemStats(
        time=timestamp(stats.time),
        cpu_fraction=stats.cpu_fraction,
        core_fractions=stats.core_fractions,
        memory_total_bytes=stats.memory_total_bytes,
        memory_available_bytes=stats.memory_available_bytes,
        swap_used_bytes=stats.swap_used_bytes,
        load_1min=stats.load_1min,
        disk_free_bytes=stats.disk_free_bytes,
        thermal_pressure=stats.thermal_pressure,
        battery_fraction=stats.battery_fraction,
    )
    if stats.on_battery is not None:
        message.on_battery = stats.on_battery
    if stats.training:
        message.training.CopyFrom(
            system_pb2.TrainingProcessStats(
                job_id=stats.training.job_id,
                pid=stats.training.pid,
                cpu_cores=stats.training.cpu_cores,
                memory_bytes=stats.training.memory_bytes,
                threads=stats.training.threads,
            )
        )
    return message
