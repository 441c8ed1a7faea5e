"""Jobs: submitted, listed, paused, resumed, ended; and what they print."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from google.protobuf import timestamp_pb2
from m1.limits import PAGE
from m1.v1 import job_pb2

from m1ctl.sdk.client.data import Data, OnProgress
from m1ctl.sdk.connection import GIVE_UP_S, go_on
from m1ctl.sdk.requests import asked_profile, build, build_program, build_settings, name_or_file

SPEED_CHECK_S = 180.0
"""How long the daemon may measure this machine for settings that are chosen by its speed."""


class Jobs(Data):
    """JobService."""

    def submit(
        self,
        recipe: str | job_pb2.RecipeFile,
        *,
        data: str = "",
        settings: Mapping[str, bool | float | str] | None = None,
        name: str = "",
        priority: int = 0,
        profile: job_pb2.Profile | None = None,
        retries: int | None = None,
        from_checkpoint: str = "",
        purpose: job_pb2.Purpose = job_pb2.PURPOSE_UNSPECIFIED,
        request_id: str = "",
        validate_only: bool = False,
        on_progress: OnProgress | None = None,
    ) -> job_pb2.Job:
        """Check a job, have its data read if they are not in the cache, and queue it; or only check it.

        What is wrong with the job is known before anything is read, and what is wrong with the data before anything is
        queued. Without a request_id it makes one, so the call is repeated safely when the daemon goes away in the
        middle.

        Args:
            recipe: The recipe's name, or a file of one's own: `recipe_file("mine.py")`. The daemon checks a file by its
                first step, which takes seconds; the deadline is later by what it allows that.
            data: A dataset's name or an absolute path on the daemon's machine; empty: the recipe's default.
            settings: Any subset of the recipe's settings, numbers as numbers or as text. Where the recipe leaves some
                to the machine's speed (a budget of time), the daemon measures that before it answers.
            name: Unique; empty: made from the recipe's name.
            priority: Higher runs first, from -1000 to 1000.
            profile: What differs from the machine's default.
            retries: How many attempts in a row may fail without progress; None: the daemon's default.
            from_checkpoint: An id, or the absolute path of a checkpoint's directory on the daemon's machine. What is
                left out above is then as it was there.
            purpose: PURPOSE_TUNE has the fastest profile found, in which what the profile names stays as it is.
            request_id: The same one twice is the same job.
            validate_only: The answer holds the job as it would be, without an id.
            on_progress: Called while data are read.
        """
        spec = build(
            job_pb2.JobSpec,
            "spec.",
            **name_or_file(recipe),
            data=data,
            settings=build_settings(settings or {}),
            priority=priority,
            profile=asked_profile(profile),
            retries=retries,
            from_checkpoint=from_checkpoint,
            purpose=purpose,
        )
        if not request_id and not validate_only:
            request_id = os.urandom(16).hex()
        timeout_s = self._check_timeout_s(recipe)

        def send(*, only_check: bool) -> job_pb2.Job:
            measuring_s = SPEED_CHECK_S if settings and not only_check else 0
            return self._ask(
                job_pb2.SubmitJobResponse,
                timeout_s + measuring_s,
                persistent=True,
                spec=spec,
                name=name,
                request_id=request_id,
                validate_only=only_check,
            ).job

        checked = send(only_check=True)
        if validate_only or checked.id:  # with an id it is stored already, by the same request
            return checked
        if checked.spec.data:
            self._have_read(recipe, checked.spec, on_progress)
        return send(only_check=False)

    def run(
        self,
        command: Sequence[str | os.PathLike[str]],
        *,
        directory: str | os.PathLike[str] = "",
        environment: Mapping[str, str] | None = None,
        name: str = "",
        priority: int = 0,
        retries: int | None = None,
        request_id: str = "",
        validate_only: bool = False,
    ) -> job_pb2.Job:
        """Queue a program as it is: its output is the job's log, its exit status the job's end.

        Args:
            command: The program and its arguments. Without a "/" it is looked for in the PATH of its environment.
            directory: Where it starts, on the daemon's machine; empty: this process's.
            environment: What is set beside what the daemon passes on.
            name: Unique; empty: made from the program's.
            priority: Higher runs first, from -1000 to 1000.
            retries: How many attempts in a row may fail without a new checkpoint; None: 0.
            request_id: The same one twice is the same job; empty: a new one.
            validate_only: The answer holds the job as it would be, without an id.
        """
        program = build_program(command, directory or os.getcwd(), environment or {})
        return self._ask(
            job_pb2.SubmitJobResponse,
            persistent=True,
            spec=build(job_pb2.JobSpec, "spec.", program=program, priority=priority, retries=retries),
            name=name,
            request_id=request_id or os.urandom(16).hex(),
            validate_only=validate_only,
        ).job

    def get(self, job: str = "") -> job_pb2.Job:
        """Return the job as it is now."""
        return self._ask(job_pb2.GetJobResponse, job=job).job

    def list_jobs(self, states: Collection[job_pb2.JobState] = ()) -> Iterator[job_pb2.Job]:
        """Yield every job in one of the states (none: any), newest first, page by page."""
        for page in self._pages(job_pb2.ListJobsResponse, states=states):
            yield from page.jobs

    def newest_jobs(self, states: Collection[job_pb2.JobState] = ()) -> job_pb2.ListJobsResponse:
        """Return the newest hundred jobs, newest first; a page token in the answer says that there are older ones."""
        newest = job_pb2.ListJobsResponse()
        while True:  # one answer has fewer where they are large
            left = PAGE - len(newest.jobs)
            token = newest.next_page_token
            page = self._ask(job_pb2.ListJobsResponse, states=states, page_size=left, page_token=token)
            newest.jobs.extend(page.jobs)
            newest.next_page_token = page.next_page_token
            if len(newest.jobs) >= PAGE or not page.next_page_token:
                return newest

    def pause(self, job: str = "", *, hold: bool = False) -> job_pb2.Job:
        """Ask a job to yield, or with hold to stop where it stands. Answers at once; `wait` tells when it has."""
        return self._ask(job_pb2.PauseJobResponse, job=job, hold=hold).job

    def resume(self, job: str = "") -> job_pb2.Job:
        """Put a paused job back at the head of its priority, or let a held one go on."""
        return self._ask(job_pb2.ResumeJobResponse, job=job).job

    def cancel(self, job: str = "") -> job_pb2.Job:
        """Ask a job to end for good; its checkpoints stay. Answers at once; `wait` tells when it has."""
        return self._ask(job_pb2.CancelJobResponse, job=job).job

    def retry(self, job: str) -> job_pb2.Job:
        """Queue a failed or cancelled job again, from its newest checkpoint."""
        return self._ask(job_pb2.RetryJobResponse, job=job).job

    def delete(self, job: str) -> None:
        """Remove a job in a final state with its checkpoints, metrics and log."""
        self._ask(job_pb2.DeleteJobResponse, job=job)

    def read_log(
        self,
        job: str = "",
        *,
        follow: bool = False,
        offset: int = 0,
        tail: int | None = None,
        since: datetime | None = None,
        give_up_s: float = GIVE_UP_S,
        tell: Callable[[str], None] | None = None,
    ) -> Iterator[job_pb2.ReadJobLogResponse]:
        """Read what the training process printed.

        Args:
            job: Its id or name.
            follow: Go on until the job ends, across daemons.
            offset: From this byte on; where it is kept no longer, `dropped_bytes` of an answer says how many are not.
            tail: Only the last so many lines.
            since: Only what was printed since (a time with its zone); perhaps with some lines from just before.
            give_up_s: How long to wait for a daemon that went away.
            tell: Is told of a daemon that goes and comes back, a sentence at a time.
        """
        begin = timestamp_pb2.Timestamp() if since else None
        if begin and since:
            begin.FromDatetime(since.astimezone(UTC))

        def open_stream(timeout_s: float | None) -> Iterator[job_pb2.ReadJobLogResponse]:
            nonlocal offset, tail, begin
            start = {"offset": offset, "tail_lines": tail, "since": begin}
            for response in self._stream(job_pb2.ReadJobLogResponse, timeout_s, job=job, follow=follow, **start):
                offset, tail, begin = response.next_offset, None, None
                yield response

        return go_on(self.connection, open_stream, give_up_s=give_up_s, tell=tell)
