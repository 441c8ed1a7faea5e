"""EventService."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

from m1.errors import M1Error, Reason
from m1.v1 import event_pb2, event_pb2_grpc

from m1d.events.follow import first_cursor, follow
from m1d.events.translate import STORED_KINDS, job_to_proto, stats_to_proto
from m1d.machine.live import LiveStats
from m1d.verbs.find import find_job
from m1d.verbs.parts import Parts

_DEFAULT_STATS_INTERVAL_S = 1.0
_STATS_INTERVAL_BOUNDS_S = (0.1, 3600.0)
# A quiet stream tells its cursor this often, so that a reader that was filtered out of much can come back near.
_QUIET_S = 30.0


class EventService(event_pb2_grpc.EventServiceServicer):
    """See proto/m1/v1/event.proto."""

    def __init__(self, parts: Parts, live: LiveStats) -> None:
        self._parts = parts
        self._store = parts.store
        self._hub = parts.hub
        self._live = live

    async def Watch(self, request: event_pb2.WatchRequest, context: Any) -> AsyncIterator[event_pb2.WatchResponse]:
        unknown = set(request.kinds) - {*STORED_KINDS, event_pb2.EVENT_KIND_STATS}
        if unknown:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f"kinds has {min(unknown)}, which is no kind of event",
                "leave kinds empty for all of them",
                field="kinds",
                value=str(min(unknown)),
            )
        asked = frozenset(request.kinds) or frozenset((*STORED_KINDS, event_pb2.EVENT_KIND_STATS))
        interval_s = _stats_interval_s(request) if event_pb2.EVENT_KIND_STATS in asked else None
        from_revision = request.from_revision if request.HasField("from_revision") else None
        cursor = first_cursor(self._store, from_revision, request.store_id)
        watched = find_job(self._parts, request.job) if request.job else None
        job = watched.number if watched else None
        stored = asked & frozenset(STORED_KINDS)
        # At once: the caller learns that it is heard, and where the stream begins.
        stands = job_to_proto(watched, self._store.revision) if watched else None
        yield event_pb2.WatchResponse(cursor=cursor, store_id=self._store.store_id, job=stands)
        due = time.monotonic()
        accepted = time.monotonic()
        async for batch in follow(
            self._store, self._hub, cursor, job=job, kinds=stored, timeout_s=interval_s or _QUIET_S
        ):
            response = event_pb2.WatchResponse(events=batch.events, cursor=batch.cursor, store_id=self._store.store_id)
            if batch.lost:
                response.lost.first_revision, response.lost.last_revision = batch.lost
            now = time.monotonic()
            if interval_s is not None and now >= due:
                response.stats.CopyFrom(stats_to_proto(self._live.sample(interval_s)))
                due = now + interval_s
            if batch.events or batch.lost or response.HasField("stats") or now >= accepted + _QUIET_S:
                yield response
                accepted = time.monotonic()
        raise M1Error(Reason.SHUTTING_DOWN, "the daemon stops", "watch again from the last cursor when it is back")


def _stats_interval_s(request: event_pb2.WatchRequest) -> float:
    interval_s = request.stats_interval_s or _DEFAULT_STATS_INTERVAL_S
    low, high = _STATS_INTERVAL_BOUNDS_S
    if not low <= interval_s <= high:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"stats_interval_s={interval_s:g} is out of bounds",
            f"it takes a number from {low:g} to {high:g}",
            field="stats_interval_s",
            value=f"{interval_s:g}",
        )
    return interval_s
