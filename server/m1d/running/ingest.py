"""What a job's journal means for the job: one function a record.

Everything that was read together is stored in one transaction with the byte up to which it was read, so a record is
taken in once, whatever dies in between. The exit of an attempt is only noted here; what follows from it is the
supervisor's decision, once the process is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from m1 import journal, legacy
from m1.errors import shortened
from m1.failpoints import reach
from m1.limits import (
    METRIC_NAME_BYTES,
    MOST_DIFFERENCES,
    MOST_METRICS,
    MOST_RESULTS,
    RESULT_BYTES,
    RESULT_NAME,
    SENTENCE_CHARACTERS,
)
from m1.v1 import event_pb2

from m1d.events.emit import change_state, emit, notice
from m1d.events.translate import checkpoint_to_proto, progress_to_proto, result_to_proto
from m1d.jobs.job import Checkpoint, Job
from m1d.jobs.states import JobState
from m1d.store import Store, Transaction

# Of a result's sentences.
_LONGEST_WORDS = 300
_SEVERITIES = {
    "info": event_pb2.SEVERITY_INFO,
    "warning": event_pb2.SEVERITY_WARNING,
    "error": event_pb2.SEVERITY_ERROR,
}


def ingest(store: Store, job: Job, entries: Sequence[journal.Entry]) -> Job:
    """Store what the entries say, at the time at which they were written, and the byte after the last of them."""
    if not entries:
        return job
    reach("before.ingest")
    with store.transaction() as tx:
        for entry in entries:
            job = _apply(tx, job, entry.record, entry.time)
        job = replace(job, attempt=replace(job.attempt, journal_offset=entries[-1].next_offset))
        tx.update_job(job)
    reach("after.ingest")
    return job


def _apply(tx: Transaction, job: Job, record: journal.Record, now: float) -> Job:
    match record:
        case journal.Approximate():
            # Said again by every attempt that goes on from such a checkpoint.
            said = [shortened(words, _LONGEST_WORDS) for words in record.differing]
            fresh = [words for words in said if words not in job.approximate]
            fresh = fresh[: MOST_DIFFERENCES - len(job.approximate)]
            if fresh:
                told = f"goes on as approximate, not bit for bit: {'; '.join(fresh)}"
                notice(tx, job, now, event_pb2.SEVERITY_WARNING, told)
            return replace(job, approximate=[*job.approximate, *fresh])
        case journal.Phase():
            return _progress(
                tx, job, now, phase=shortened(record.name), phase_done=record.done, phase_total=record.total
            )
        case journal.Plan():
            return _plan(tx, job, record, now)
        case journal.Metrics():
            return _metrics(tx, job, record, now)
        case journal.CheckpointWritten():
            return _checkpoint(tx, job, record, now)
        case journal.CheckpointRemoved():
            if tx.delete_checkpoint(job.number, record.step):
                deleted = event_pb2.CheckpointDeleted(checkpoint_id=f"{job.id}@{record.step}", reason="retention")
                emit(tx, job, now, checkpoint_deleted=deleted)
            return job
        case journal.Held():
            if job.state == JobState.RUNNING:
                return change_state(tx, job, JobState.HELD, f"held{_at(job, record.step)}", now)
            return job
        case journal.Continued():
            if job.state == JobState.HELD:
                return change_state(tx, job, JobState.RUNNING, f"goes on{_at(job, record.step)}", now)
            return job
        case journal.Joined():
            return replace(job, attempt=replace(job.attempt, joined=True))
        case journal.Leaving():
            return job  # the keeper's to judge, by how the program ends
        case journal.Notice():
            notice(tx, job, now, _SEVERITIES[record.severity], shortened(record.message, SENTENCE_CHARACTERS))
            return job
        case journal.Report():
            return replace(job, from_0_1_0=legacy.remembered(record))
        case journal.Result():
            return _result(tx, job, record, now)
        case journal.Findings():
            return replace(job, findings=record.findings)
        case journal.Exited():
            message, hint = (shortened(text, SENTENCE_CHARACTERS) for text in (record.message, record.hint))
            return replace(job, attempt=replace(job.attempt, exited=replace(record, message=message, hint=hint)))
        case journal.Started():
            return replace(job, attempt=replace(job.attempt, begun_at_step=record.resumed_from_step or 0))


def _at(job: Job, step: int) -> str:
    """Where it is; a program's keeper doesn't know."""
    return "" if job.kind == "program" else f" at step {step}"


def _progress(tx: Transaction, job: Job, now: float, **changes: int | str) -> Job:
    progress = replace(job.progress, **changes)  # type: ignore[arg-type]
    emit(tx, job, now, progress_changed=event_pb2.ProgressChanged(progress=progress_to_proto(progress)))
    return replace(job, progress=progress)


def _plan(tx: Transaction, job: Job, record: journal.Plan, now: float) -> Job:
    job = _progress(
        tx,
        job,
        now,
        step=record.step,
        epoch=record.epoch,
        total_steps=record.total_steps,
        total_epochs=record.total_epochs,
    )
    if job.state != JobState.STARTING:
        return job
    begins = "running" if job.kind == "program" else "training"
    reason = begins if record.step == 0 else f"goes on from step {record.step}"
    return change_state(tx, job, JobState.RUNNING, reason, now)


def _metrics(tx: Transaction, job: Job, record: journal.Metrics, now: float) -> Job:
    values = _bounded_metrics(tx, job, record, now)
    tx.put_points(job.number, record.step, values)
    of_step = legacy.of_step(list(record.values)) if record.of_step is None else record.of_step
    told = event_pb2.MetricsRecorded(step=record.step, epoch=record.epoch, values=values, of_step=of_step)
    emit(tx, job, now, metrics_recorded=told)
    progress = replace(job.progress, step=record.step, epoch=record.epoch)
    return replace(job, progress=progress, latest={**job.latest, **values})


def _bounded_metrics(tx: Transaction, job: Job, record: journal.Metrics, now: float) -> dict[str, float]:
    """The values whose names a job has room for; what is left out of an evaluation, or first, is said."""
    fresh = _fitting([name for name in record.values if name not in job.latest], MOST_METRICS - len(job.latest))
    values = {name: value for name, value in record.values.items() if name in job.latest or name in fresh}
    left_out = len(record.values) - len(values)
    if left_out and (fresh or not job.latest or not record.of_step):
        bound = f"a job has at most {MOST_METRICS}, with names of at most {METRIC_NAME_BYTES} bytes"
        told = f"{left_out} metrics of step {record.step} are not stored: {bound}"
        notice(tx, job, now, event_pb2.SEVERITY_WARNING, told)
    return values


def _fitting(names: Sequence[str], most: int) -> set[str]:
    return set([name for name in names if len(name.encode()) <= METRIC_NAME_BYTES][: max(0, most)])


def _checkpoint(tx: Transaction, job: Job, record: journal.CheckpointWritten, now: float) -> Job:
    known = tx.checkpoint(job.number, record.step)
    if known and known.weights_sha256 != record.weights_sha256:
        known = None
    checkpoint = Checkpoint(
        job_number=job.number,
        step=record.step,
        epoch=record.epoch,
        size_bytes=record.size_bytes,
        create_time=known.create_time if known else record.time,
        weights_sha256=record.weights_sha256,
        best=record.best,
        metrics={name: record.metrics[name] for name in _fitting(list(record.metrics), MOST_METRICS)},
        approximate=record.approximate,
    )
    served = max(job.wish.checkpoint_served, record.request)
    job = replace(job, wish=replace(job.wish, checkpoint_served=served))
    if checkpoint == known:  # said again: by an attempt that begins with it, or to answer a request
        return job
    tx.put_checkpoint(checkpoint)
    created = event_pb2.CheckpointCreated(checkpoint=checkpoint_to_proto(checkpoint))
    emit(tx, job, now, checkpoint_created=created)
    return job


def _result(tx: Transaction, job: Job, record: journal.Result, now: float) -> Job:
    problem = ""
    if not RESULT_NAME.fullmatch(record.name):
        problem = "its name is not possible"
    elif record.size_bytes > RESULT_BYTES:
        problem = f"it has {record.size_bytes} bytes, and {RESULT_BYTES} are allowed"
    if problem:
        told = f'the result "{shortened(record.name, 60)}" is not listed: {problem}'
        notice(tx, job, now, event_pb2.SEVERITY_WARNING, told)
        return job
    bounded = replace(
        record, title=shortened(record.title, _LONGEST_WORDS), truncated=shortened(record.truncated, _LONGEST_WORDS)
    )
    tx.put_result(job.number, bounded, MOST_RESULTS)
    emit(tx, job, now, result_stored=event_pb2.ResultStored(result=result_to_proto(bounded)))
    return job
