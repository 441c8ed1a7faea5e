"""What happens to jobs: followed as it happens, across daemons that go and come back."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator

from m1.errors import M1Error, Reason
from m1.v1 import event_pb2, job_pb2, system_pb2

from m1ctl.sdk.client.calls import Calls
from m1ctl.sdk.connection import GIVE_UP_S, go_on
from m1ctl.sdk.states import FINAL, state_word


class Events(Calls):
    """EventService."""

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
        """Follow events from a revision on, without end; none is lost when a daemon goes and comes back.

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
            now = self._ask(system_pb2.GetSystemInfoResponse)
            from_revision, store_id = now.revision + 1, now.store_id

        def open_stream(left_s: float | None) -> Iterator[event_pb2.WatchResponse]:
            nonlocal from_revision, store_id
            for response in self._stream(
                event_pb2.WatchResponse,
                left_s,
                from_revision=from_revision,
                store_id=store_id,
                job=job,
                kinds=kinds,
                stats_interval_s=stats_interval_s,
            ):
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
        """Wait until a job reaches one of the states, or a final one: the caller looks at `state`.

        Given a Job, it starts where that message stands, so no change after it is missed.

        Raises:
            M1Error: TIMED_OUT, and as `get` and `watch`.
        """
        seen = self._ask(job_pb2.GetJobResponse, job=job).job if isinstance(job, str) else job
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
                "it keeps running; allow more time",
                field="job",
                value=seen.id,
            ) from error
        raise M1Error(Reason.INTERNAL, f'the daemon ended the watch of job "{seen.id}" without an error')
