"""The SDK: one method for each thing that the daemon does, over the public API and nothing else.

    with connect() as m1:
        job = m1.submit("cifar", data="digits", settings={"epochs": 3})
        job = m1.wait(job.id)

Methods take ids or names, return the messages of m1.v1, and raise m1.errors.M1Error. An empty job is the one that
holds the machine now.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from m1.errors import M1Error, Reason
from m1.paths import home_from_environment
from m1.v1 import checkpoint_pb2, dataset_pb2, event_pb2, job_pb2, metric_pb2, recipe_pb2, system_pb2

from m1ctl.sdk.connection import Connection, go_on, is_gone
from m1ctl.sdk.requests import build, build_settings, recipe_file
from m1ctl.sdk.states import FINAL, state_word

__all__ = ["DEFAULT_TIMEOUT_S", "GIVE_UP_S", "Client", "connect", "recipe_file"]

DEFAULT_TIMEOUT_S = 10.0
FILE_CHECK_S = 60.0
"""How long the daemon may take to check a recipe of the user's own."""
GIVE_UP_S = 30.0
"""How long a watch waits for a daemon that went away."""
_PAGE_SIZE = 1000


def connect(home: str | os.PathLike[str] | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> Client:
    """A client of the daemon of a home. It connects with the first call.

    Args:
        home: The home; None: $M1D_HOME, else ~/.m1d.
        timeout_s: The deadline of every call that is not a stream and takes no time of its own.

    Raises:
        M1Error: SOCKET_PATH_TOO_LONG.
    """
    return Client(Connection(home_from_environment(os.fspath(home) if home is not None else None), timeout_s))


class Client:
    """A connection with the daemon's verbs as methods. Close it, or use it in a `with`."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and every call on it."""
        self.connection.close()

    # One stub a service, made when it is first wanted: a one-shot command imports one of them.

    @cached_property
    def _jobs(self) -> Any:
        from m1.v1.job_pb2_grpc import JobServiceStub

        return JobServiceStub(self.connection.channel)

    @cached_property
    def _checkpoints(self) -> Any:
        from m1.v1.checkpoint_pb2_grpc import CheckpointServiceStub

        return CheckpointServiceStub(self.connection.channel)

    @cached_property
    def _events(self) -> Any:
        from m1.v1.event_pb2_grpc import EventServiceStub

        return EventServiceStub(self.connection.channel)

    @cached_property
    def _metrics(self) -> Any:
        from m1.v1.metric_pb2_grpc import MetricServiceStub

        return MetricServiceStub(self.connection.channel)

    @cached_property
    def _recipes(self) -> Any:
        from m1.v1.recipe_pb2_grpc import RecipeServiceStub

        return RecipeServiceStub(self.connection.channel)

    @cached_property
    def _datasets(self) -> Any:
        from m1.v1.dataset_pb2_grpc import DatasetServiceStub

        return DatasetServiceStub(self.connection.channel)

    @cached_property
    def _system(self) -> Any:
        from m1.v1.system_pb2_grpc import SystemServiceStub

        return SystemServiceStub(self.connection.channel)

    # Jobs

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
    ) -> job_pb2.Job:
        """Queue a job, or with validate_only check it and store nothing.

        Without a request_id it makes one, so the call is repeated safely when the daemon goes away in the middle.

        Args:
            recipe: The recipe's name, or a file of one's own: `recipe_file("mine.py")`. The daemon checks a file by its
                first step, which takes seconds; the deadline is later by what it allows that.
            data: A data set's name or an absolute path on the daemon's machine; empty: the recipe's default.
            settings: Any subset of the recipe's settings, numbers as numbers or as text.
            name: Unique; empty: made from the recipe's name.
            priority: Higher runs first, from -1000 to 1000.
            profile: What differs from the machine's default.
            retries: How many attempts in a row may fail without progress; None: the daemon's default.
            from_checkpoint: An id, or the absolute path of a checkpoint's directory on the daemon's machine. What is
                left out above is then as it was there.
            purpose: PURPOSE_TUNE has the fastest profile found, in which what the profile names stays as it is.
            request_id: The same one twice is the same job.
            validate_only: The answer holds the job as it would be, without an id.
        """
        spec = build(
            job_pb2.JobSpec,
            "spec.",
            **_name_or_file(recipe),
            data=data,
            settings=build_settings(settings or {}),
            priority=priority,
            profile=profile,
            retries=retries,
            from_checkpoint=from_checkpoint,
            purpose=purpose,
        )
        if not request_id and not validate_only:
            request_id = os.urandom(16).hex()
        request = build(
            job_pb2.SubmitJobRequest, spec=spec, name=name, request_id=request_id, validate_only=validate_only
        )
        timeout_s = self._timeout_s(recipe)
        try:
            response: job_pb2.SubmitJobResponse = self.connection.unary(self._jobs.SubmitJob, request, timeout_s)
        except M1Error as error:
            if not is_gone(error) or not self.connection.was_answered:
                raise
            response = self.connection.unary(self._jobs.SubmitJob, request, timeout_s, wait_for_ready=True)
        return response.job

    def get(self, job: str = "") -> job_pb2.Job:
        """The job as it is now."""
        request = build(job_pb2.GetJobRequest, job=job)
        response: job_pb2.GetJobResponse = self.connection.unary(self._jobs.GetJob, request)
        return response.job

    def list_jobs(self, states: Collection[job_pb2.JobState] = ()) -> Iterator[job_pb2.Job]:
        """Every job in one of the states (none: any), newest first, page by page."""
        token = ""
        while True:
            request = build(job_pb2.ListJobsRequest, states=states, page_size=_PAGE_SIZE, page_token=token)
            response: job_pb2.ListJobsResponse = self.connection.unary(self._jobs.ListJobs, request)
            yield from response.jobs
            token = response.next_page_token
            if not token:
                return

    def newest_jobs(self, states: Collection[job_pb2.JobState] = ()) -> job_pb2.ListJobsResponse:
        """The newest hundred jobs, newest first; a page token in the answer says that there are older ones."""
        response: job_pb2.ListJobsResponse = self.connection.unary(
            self._jobs.ListJobs, build(job_pb2.ListJobsRequest, states=states)
        )
        return response

    def pause(self, job: str = "", *, hold: bool = False) -> job_pb2.Job:
        """Ask a job to yield, or with hold to stop where it stands. Answers at once; `wait` tells when it has."""
        request = build(job_pb2.PauseJobRequest, job=job, hold=hold)
        response: job_pb2.PauseJobResponse = self.connection.unary(self._jobs.PauseJob, request)
        return response.job

    def resume(self, job: str = "") -> job_pb2.Job:
        """Put a paused job back at the head of its priority, or let a held one go on."""
        request = build(job_pb2.ResumeJobRequest, job=job)
        response: job_pb2.ResumeJobResponse = self.connection.unary(self._jobs.ResumeJob, request)
        return response.job

    def cancel(self, job: str = "") -> job_pb2.Job:
        """Ask a job to end for good; its checkpoints stay. Answers at once; `wait` tells when it has."""
        request = build(job_pb2.CancelJobRequest, job=job)
        response: job_pb2.CancelJobResponse = self.connection.unary(self._jobs.CancelJob, request)
        return response.job

    def retry(self, job: str) -> job_pb2.Job:
        """Queue a failed or cancelled job again, from its newest checkpoint."""
        request = build(job_pb2.RetryJobRequest, job=job)
        response: job_pb2.RetryJobResponse = self.connection.unary(self._jobs.RetryJob, request)
        return response.job

    def delete(self, job: str) -> None:
        """Remove a job in a final state with its checkpoints, metrics and log."""
        self.connection.unary(self._jobs.DeleteJob, build(job_pb2.DeleteJobRequest, job=job))

    def read_log(
        self,
        job: str = "",
        *,
        follow: bool = False,
        offset: int = 0,
        give_up_s: float = GIVE_UP_S,
        tell: Callable[[str], None] | None = None,
    ) -> Iterator[job_pb2.ReadJobLogResponse]:
        """What the training process printed, from a byte on; with follow until the job ends, across daemons."""

        def open_stream(timeout_s: float | None) -> Iterator[job_pb2.ReadJobLogResponse]:
            nonlocal offset
            request = build(job_pb2.ReadJobLogRequest, job=job, follow=follow, offset=offset)
            for response in self.connection.stream(self._jobs.ReadJobLog, request, timeout_s):
                offset = response.next_offset
                yield response

        return go_on(self.connection, open_stream, give_up_s=give_up_s, tell=tell)

    # Events

    def watch(
        self,
        job: str = "",
        *,
        from_revision: int | None = None,
        store_id: str = "",
        kinds: Collection[event_pb2.EventKind] = (),
        stats_interval_s: float = 0.0,
        timeout_s: float | None = None,
        give_up_s: float = GIVE_UP_S,
        tell: Callable[[str], None] | None = None,
    ) -> Iterator[event_pb2.WatchResponse]:
        """Events from a revision on, without end. A daemon that goes and comes back loses none of them.

        Args:
            job: Only this job, by id or name; empty: all of them, unlike elsewhere.
            from_revision: The first one wanted: a job's `revision` + 1 misses nothing. None: only what is to come.
            store_id: The store that from_revision belongs to, if it is from an earlier response.
            kinds: Only these; none: all.
            stats_interval_s: Between two system stats; 0: the daemon's default.
            timeout_s: End with TIMED_OUT after this time; None: never.
            give_up_s: How long to wait for a daemon that went away.
            tell: Is told of a daemon that goes and comes back, a sentence at a time.
        """
        if from_revision is None:
            now = self.system_info()
            from_revision, store_id = now.revision + 1, now.store_id

        def open_stream(left_s: float | None) -> Iterator[event_pb2.WatchResponse]:
            nonlocal from_revision, store_id
            request = build(
                event_pb2.WatchRequest,
                from_revision=from_revision,
                store_id=store_id,
                job=job,
                kinds=kinds,
                stats_interval_s=stats_interval_s,
            )
            for response in self.connection.stream(self._events.Watch, request, left_s):
                from_revision, store_id = response.cursor + 1, response.store_id
                yield response

        yield from go_on(self.connection, open_stream, give_up_s=give_up_s, timeout_s=timeout_s, tell=tell)

    def wait(
        self,
        job: str | job_pb2.Job = "",
        until: Collection[job_pb2.JobState] = FINAL,
        *,
        timeout_s: float | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> job_pb2.Job:
        """The job when it reaches one of the states, or a final one: the caller looks at `state`.

        Given a Job, it starts where that message stands, so no change after it is missed.

        Raises:
            M1Error: TIMED_OUT, and as `get` and `watch`.
        """
        seen = self.get(job) if isinstance(job, str) else job
        wanted = FINAL | set(until)
        if seen.state in wanted:
            return seen
        kinds = (event_pb2.EVENT_KIND_STATE,)
        from_revision = seen.revision + 1
        started = time.monotonic()
        try:
            for response in self.watch(
                seen.id, from_revision=from_revision, kinds=kinds, timeout_s=timeout_s, tell=tell
            ):
                for event in response.events:
                    if event.WhichOneof("payload") == "state_changed" and event.state_changed.to in wanted:
                        return event.state_changed.job
        except M1Error as error:
            if error.reason is not Reason.TIMED_OUT:
                raise
            passed_s = time.monotonic() - started
            words = " or ".join(sorted(state_word(state) for state in until))
            raise M1Error(
                Reason.TIMED_OUT,
                f'job "{seen.id}" was not {words} after {passed_s:.0f} s',
                "it goes on; allow it more time",
                field="job",
                value=seen.id,
            ) from error
        raise M1Error(Reason.INTERNAL, f'the daemon ended the watch of job "{seen.id}" without an error')

    # Checkpoints

    def create_checkpoint(self, job: str = "", timeout_s: float | None = None) -> checkpoint_pb2.Checkpoint:
        """Make one now; returns when it is durable, however long that takes unless timeout_s is given."""
        request = build(checkpoint_pb2.CreateCheckpointRequest, job=job)
        response: checkpoint_pb2.CreateCheckpointResponse = self.connection.unary(
            self._checkpoints.CreateCheckpoint, request, timeout_s, bounded=False
        )
        return response.checkpoint

    def list_checkpoints(self, job: str = "") -> Iterator[checkpoint_pb2.Checkpoint]:
        """The checkpoints of a job, newest first, page by page."""
        token = ""
        while True:
            request = build(checkpoint_pb2.ListCheckpointsRequest, job=job, page_size=_PAGE_SIZE, page_token=token)
            response: checkpoint_pb2.ListCheckpointsResponse = self.connection.unary(
                self._checkpoints.ListCheckpoints, request
            )
            yield from response.checkpoints
            token = response.next_page_token
            if not token:
                return

    def get_checkpoint(self, checkpoint: str) -> checkpoint_pb2.Checkpoint:
        """A checkpoint by its id, "j12@352"."""
        request = build(checkpoint_pb2.GetCheckpointRequest, checkpoint=checkpoint)
        response: checkpoint_pb2.GetCheckpointResponse = self.connection.unary(self._checkpoints.GetCheckpoint, request)
        return response.checkpoint

    def download_checkpoint(
        self,
        checkpoint: str,
        directory: str | os.PathLike[str],
        on_progress: Callable[[int, int], None] | None = None,
    ) -> checkpoint_pb2.Checkpoint:
        """Copy a checkpoint's files into a new directory, which appears whole and verified or not at all.

        Args:
            checkpoint: Its id.
            directory: Where its files will be; must not exist yet, its parent must.
            on_progress: Called with the bytes done and those of the whole checkpoint.

        Raises:
            M1Error: INVALID_ARGUMENT for the directory, BAD_CHECKPOINT when the hash is wrong, and the daemon's own.
        """
        from m1ctl.sdk.download import receive

        wanted = self.get_checkpoint(checkpoint)
        request = build(checkpoint_pb2.DownloadCheckpointRequest, checkpoint=wanted.id)
        chunks = self.connection.stream(self._checkpoints.DownloadCheckpoint, request)
        receive(wanted, chunks, Path(directory), on_progress)
        return wanted

    def delete_checkpoint(self, checkpoint: str) -> None:
        """Remove one checkpoint."""
        request = build(checkpoint_pb2.DeleteCheckpointRequest, checkpoint=checkpoint)
        self.connection.unary(self._checkpoints.DeleteCheckpoint, request)

    # Metrics

    def metric_names(self, job: str = "") -> list[str]:
        """The keys that the job has measured, sorted."""
        request = build(metric_pb2.ListMetricNamesRequest, job=job)
        response: metric_pb2.ListMetricNamesResponse = self.connection.unary(self._metrics.ListMetricNames, request)
        return list(response.names)

    def metric_series(
        self,
        name: str,
        job: str = "",
        *,
        max_points: int = 0,
        first_step: int | None = None,
        last_step: int | None = None,
    ) -> metric_pb2.GetMetricSeriesResponse:
        """One metric over the steps, in at most max_points buckets (0: the daemon's default)."""
        request = build(
            metric_pb2.GetMetricSeriesRequest,
            job=job,
            name=name,
            max_points=max_points,
            first_step=first_step,
            last_step=last_step,
        )
        response: metric_pb2.GetMetricSeriesResponse = self.connection.unary(self._metrics.GetMetricSeries, request)
        return response

    # Recipes and data

    def recipes(self) -> list[recipe_pb2.Recipe]:
        """What can be trained."""
        request = recipe_pb2.ListRecipesRequest()
        response: recipe_pb2.ListRecipesResponse = self.connection.unary(self._recipes.ListRecipes, request)
        return list(response.recipes)

    def recipe(self, recipe: str | job_pb2.RecipeFile) -> recipe_pb2.Recipe:
        """One recipe with its settings; a file of one's own is checked as for a submit."""
        request = build(recipe_pb2.GetRecipeRequest, **_name_or_file(recipe))
        timeout_s = self._timeout_s(recipe)
        response: recipe_pb2.GetRecipeResponse = self.connection.unary(self._recipes.GetRecipe, request, timeout_s)
        return response.recipe

    def _timeout_s(self, recipe: str | job_pb2.RecipeFile) -> float:
        """The deadline of a call that may have to check a file first."""
        return self.connection.timeout_s + (FILE_CHECK_S if isinstance(recipe, job_pb2.RecipeFile) else 0)

    def datasets(self) -> list[dataset_pb2.Dataset]:
        """The built-in data sets and those in the cache."""
        request = dataset_pb2.ListDatasetsRequest()
        response: dataset_pb2.ListDatasetsResponse = self.connection.unary(self._datasets.ListDatasets, request)
        return list(response.datasets)

    def prepare_dataset(
        self, source: str, name: str = "", on_progress: Callable[[dataset_pb2.PrepareProgress], None] | None = None
    ) -> dataset_pb2.Dataset:
        """Read a data set into the daemon's cache, at once if it is there.

        Args:
            source: A name or an absolute path on the daemon's machine.
            name: What jobs call it by from now on; empty: the source itself.
            on_progress: Called as it goes on.
        """
        request = build(dataset_pb2.PrepareDatasetRequest, source=source, name=name)
        for response in self.connection.stream(self._datasets.PrepareDataset, request):
            if response.WhichOneof("result") == "dataset":
                prepared: dataset_pb2.Dataset = response.dataset
                return prepared
            if on_progress:
                on_progress(response.progress)
        raise M1Error(Reason.INTERNAL, f'the daemon ended the reading of data "{source}" without a data set')

    def delete_dataset(self, name: str) -> int:
        """Remove a data set from the daemon's cache, all its versions; the bytes that this freed."""
        request = build(dataset_pb2.DeleteDatasetRequest, name=name)
        response: dataset_pb2.DeleteDatasetResponse = self.connection.unary(self._datasets.DeleteDataset, request)
        return response.freed_bytes

    # The daemon

    def system_info(self, timeout_s: float | None = None) -> system_pb2.GetSystemInfoResponse:
        """Which daemon this is."""
        request = system_pb2.GetSystemInfoRequest()
        response: system_pb2.GetSystemInfoResponse = self.connection.unary(
            self._system.GetSystemInfo, request, timeout_s
        )
        return response

    def topology(self) -> system_pb2.GetTopologyResponse:
        """What the machine is."""
        request = system_pb2.GetTopologyRequest()
        response: system_pb2.GetTopologyResponse = self.connection.unary(self._system.GetTopology, request)
        return response

    def system_stats(self) -> system_pb2.SystemStats:
        """What the machine does now."""
        request = system_pb2.GetSystemStatsRequest()
        response: system_pb2.GetSystemStatsResponse = self.connection.unary(self._system.GetSystemStats, request)
        return response.stats

    def shutdown(self, *, yield_job: bool = False, timeout_s: float | None = None) -> None:
        """End the daemon; the training goes on, or with yield_job is checkpointed and taken from the machine first."""
        request = build(system_pb2.ShutdownRequest, **{"yield": yield_job})  # `yield` is a keyword
        self.connection.unary(self._system.Shutdown, request, timeout_s, bounded=not yield_job)


def _name_or_file(recipe: str | job_pb2.RecipeFile) -> dict[str, Any]:
    """The field of a message that takes it."""
    return {"recipe_file" if isinstance(recipe, job_pb2.RecipeFile) else "recipe": recipe}
