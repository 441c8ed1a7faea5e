"""JobService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from m1 import job_log
from m1.endpoint import CHUNK_BYTES
from m1.errors import M1Error, Reason
from m1.jobdir import log_path
from m1.v1 import job_pb2, job_pb2_grpc

from m1d.api.paging import fitting, make_token, page_size, read_token
from m1d.api.settings import plain
from m1d.events.translate import asked_profile, job_to_proto, program_from_proto, recipe_upload, state_from_proto
from m1d.jobs.job import Job
from m1d.jobs.states import JobState
from m1d.verbs.cancel import cancel, retry
from m1d.verbs.delete import delete
from m1d.verbs.find import find_job
from m1d.verbs.parts import Parts
from m1d.verbs.pause import pause, resume
from m1d.verbs.submit.plan import Request
from m1d.verbs.submit.submit import submit

# How soon a follower sees what a training process printed.
_LOG_POLL_S = 0.2


class JobService(job_pb2_grpc.JobServiceServicer):
    """See proto/m1/v1/job.proto."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._home = parts.home
        self._store = parts.store
        self._hub = parts.hub

    def _told(self, job: Job) -> job_pb2.Job:
        return job_to_proto(job, self._store.revision)

    async def SubmitJob(self, request: job_pb2.SubmitJobRequest, context: Any) -> job_pb2.SubmitJobResponse:
        job = await submit(self._parts, _asked(request), validate_only=request.validate_only)
        return job_pb2.SubmitJobResponse(job=self._told(job))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Any) -> job_pb2.GetJobResponse:
        return job_pb2.GetJobResponse(job=self._told(find_job(self._parts, request.job)))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Any) -> job_pb2.ListJobsResponse:
        size = page_size(request.page_size)
        states = [_wanted_state(state) for state in request.states]
        below = read_token("jobs", request.page_token)
        jobs = self._store.jobs(states, below=below, limit=size + 1)
        page = fitting(map(self._told, jobs), size)
        token = make_token("jobs", jobs[len(page) - 1].number) if len(jobs) > len(page) else ""
        return job_pb2.ListJobsResponse(jobs=page, next_page_token=token)

    async def PauseJob(self, request: job_pb2.PauseJobRequest, context: Any) -> job_pb2.PauseJobResponse:
        job = pause(self._parts, find_job(self._parts, request.job), hold=request.hold)
        return job_pb2.PauseJobResponse(job=self._told(job))

    async def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: Any) -> job_pb2.ResumeJobResponse:
        return job_pb2.ResumeJobResponse(job=self._told(resume(self._parts, find_job(self._parts, request.job))))

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Any) -> job_pb2.CancelJobResponse:
        return job_pb2.CancelJobResponse(job=self._told(cancel(self._parts, find_job(self._parts, request.job))))

    async def RetryJob(self, request: job_pb2.RetryJobRequest, context: Any) -> job_pb2.RetryJobResponse:
        return job_pb2.RetryJobResponse(job=self._told(retry(self._parts, find_job(self._parts, request.job))))

    async def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: Any) -> job_pb2.DeleteJobResponse:
        delete(self._parts, find_job(self._parts, request.job))
        return job_pb2.DeleteJobResponse()

    async def ReadJobLog(
        self, request: job_pb2.ReadJobLogRequest, context: Any
    ) -> AsyncIterator[job_pb2.ReadJobLogResponse]:
        job = find_job(self._parts, request.job)
        path = log_path(self._home.job(job.id))
        offset = min(request.offset, 2**62)  # what no file has, and every seek takes
        if request.HasField("tail_lines") or request.HasField("since"):
            offset = max(offset, await asyncio.to_thread(_start, path, request))
            yield job_pb2.ReadJobLogResponse(next_offset=offset)
        while True:
            known = self._store.job(job.number)
            over = known is None or known.final
            # In this order: what was printed before the end is read after it was seen.
            part = await asyncio.to_thread(job_log.read, path, offset, CHUNK_BYTES)
            if part.content:
                dropped_bytes, offset = part.offset - offset, part.next_offset
                yield job_pb2.ReadJobLogResponse(chunk=part.content, next_offset=offset, dropped_bytes=dropped_bytes)
            elif over or not request.follow:
                return
            elif self._hub.closed:
                raise M1Error(Reason.SHUTTING_DOWN, "the daemon stops", "read on from the last offset when it is back")
            else:
                await self._hub.wait(_LOG_POLL_S)


def _start(path: Path, request: job_pb2.ReadJobLogRequest) -> int:
    starts = [0]
    if request.HasField("tail_lines"):
        starts.append(job_log.tail(path, request.tail_lines))
    if request.HasField("since"):
        starts.append(job_log.since(path, request.since.seconds + request.since.nanos / 1e9))
    return max(starts)


def _asked(request: job_pb2.SubmitJobRequest) -> Request:
    spec = request.spec
    return Request(
        name=request.name,
        request_id=request.request_id,
        recipe=spec.recipe,
        upload=recipe_upload(spec.recipe_file) if spec.HasField("recipe_file") else None,
        program=program_from_proto(spec.program) if spec.HasField("program") else None,
        tuning=spec.purpose == job_pb2.PURPOSE_TUNE,
        data=spec.data,
        settings=plain(spec.settings),
        profile=asked_profile(spec.profile),
        priority=spec.priority,
        retries=spec.retries if spec.HasField("retries") else None,
        from_checkpoint=spec.from_checkpoint,
    )


def _wanted_state(state: job_pb2.JobState) -> JobState:
    known = state_from_proto(state)
    if known is None:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"states has {state}, which is no state of a job",
            "leave states empty for all jobs",
            field="states",
            value=str(state),
        )
    return known
