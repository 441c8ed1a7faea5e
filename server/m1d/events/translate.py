"""The daemon's data in the contract's words, and the kinds of events."""

from __future__ import annotations

from dataclasses import asdict

from google.protobuf import struct_pb2, timestamp_pb2
from m1.jobdir import Profile, RecipeFile
from m1.journal import Finding
from m1.v1 import checkpoint_pb2, event_pb2, job_pb2, system_pb2

from m1d.jobs.job import Checkpoint, Job, Progress
from m1d.jobs.recipe_file import GivenFile
from m1d.jobs.states import JobState
from m1d.machine.stats import Stats

# Kinds that no reader may lose; the others may be thinned for a slow one.
LOSSLESS_KINDS = (
    event_pb2.EVENT_KIND_STATE,
    event_pb2.EVENT_KIND_CHECKPOINT,
    event_pb2.EVENT_KIND_NOTICE,
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


def profile_to_proto(profile: Profile) -> job_pb2.Profile:
    """Field by field."""
    return job_pb2.Profile(
        device=profile.device,
        threads=profile.threads,
        interop_threads=profile.interop_threads,
        dtype=profile.dtype,
        memory_format=profile.memory_format,
        compile=profile.compile,
        nnpack=profile.nnpack,
        fused=profile.fused,
        prefetch=profile.prefetch,
        origin=profile.origin,
    )


def finding_to_proto(finding: Finding) -> job_pb2.Finding:
    """Field by field; what is None stays absent."""
    return job_pb2.Finding(**asdict(finding))


def recipe_file_to_proto(file: RecipeFile) -> job_pb2.RecipeFile:
    """Without its content."""
    return job_pb2.RecipeFile(name=file.name, class_name=file.class_name, sha256=file.sha256)


def given_file(file: job_pb2.RecipeFile) -> GivenFile:
    """As it was sent; the hash is ours to say."""
    return GivenFile(file.name, file.class_name, file.content)


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


def job_to_proto(job: Job, revision: int) -> job_pb2.Job:
    """A job as of a revision; without an id when it is not stored yet (number 0)."""
    settings = struct_pb2.Struct()
    settings.update(dict(job.settings))
    message = job_pb2.Job(
        id=job.id if job.number else "",
        name=job.name,
        state=state_to_proto(job.state),
        reason=job.reason,
        spec=job_pb2.JobSpec(
            recipe=job.recipe,
            data=job.data,
            settings=settings,
            priority=job.priority,
            profile=profile_to_proto(job.profile),
            retries=job.retries,
            from_checkpoint=job.from_checkpoint,
            recipe_file=recipe_file_to_proto(job.recipe_file) if job.recipe_file else None,
            purpose=job_pb2.PURPOSE_TUNE if job.purpose == "tune" else job_pb2.PURPOSE_UNSPECIFIED,
        ),
        progress=progress_to_proto(job.progress),
        latest_metrics=job.latest,
        attempt=job.attempt,
        revision=revision,
        pid=job.process.pid if job.process else 0,
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
