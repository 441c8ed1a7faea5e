"""Following the events from a revision on: from the hub's ring, or from the store for who does not keep up.

A watcher has a cursor and nothing else, so one that never reads costs no more than one that does. One that comes with
an old revision is told everything since, at its own pace. One that had caught up and then fell far behind the ring is
slow: what may be thinned is left out for it, and it is told the range in which that happened. What may not be lost is
told in any case.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from m1.errors import M1Error, Reason
from m1.limits import PAGE_BYTES
from m1.v1 import event_pb2

from m1d.events.hub import Hub
from m1d.events.translate import KIND_OF_PAYLOAD, LOSSLESS_KINDS
from m1d.store import Store

# A message of this many metrics events has about 100 kB.
BATCH_EVENTS = 500
# A watcher that is further behind is slow; a burst of less (a daemon that takes in what it missed) is told whole.
SLOW_EVENTS = 40_000


@dataclass(frozen=True)
class Batch:
    """What a watcher is told at once."""

    events: Sequence[event_pb2.Event]
    cursor: int
    """Everything up to this revision has been told, or did not pass the filter."""
    lost: tuple[int, int] | None = None
    """First and last revision between which events that may be thinned were left out."""


def first_cursor(store: Store, from_revision: int | None, store_id: str) -> int:
    """The revision before the first one wanted.

    0 and 1 stand for the first one that there is.

    Raises:
        M1Error: CURSOR_OUT_OF_RANGE, when it belongs to another store, is kept no longer or lies in the future.
    """
    if from_revision is None:
        return store.revision
    first = store.first_revision
    foreign = store_id and store_id != store.store_id
    compacted = 1 < from_revision < first
    if foreign or compacted or from_revision > store.revision + 1:
        if foreign:
            whose = "belongs to another store"
        elif compacted:
            whose = "is kept no longer"
        else:
            whose = f"lies beyond the newest one, {store.revision}"
        raise M1Error(
            Reason.CURSOR_OUT_OF_RANGE,
            f"revision {from_revision} {whose}",
            f"read the jobs anew and watch from their revision; the first one that there is is {first}",
            field="from_revision",
            value=str(from_revision),
        )
    return max(from_revision, first) - 1


async def follow(
    store: Store,
    hub: Hub,
    cursor: int,
    *,
    job: int | None,
    kinds: frozenset[int],
    timeout_s: float | None,
    slow_events: int = SLOW_EVENTS,
) -> AsyncIterator[Batch]:
    """What happened after the cursor, then what happens; an empty batch when nothing did for `timeout_s`.

    Ends when the hub closes. `job` is a job's number.
    """
    job_id = None if job is None else f"j{job}"
    caught_up = False
    while True:
        recent = hub.since(cursor)
        if recent is not None:
            head = store.revision
            # Everything that is in the ring is stored, and everything stored since the ring began is in it.
            told = [event for event in recent if _passes(event, job_id, kinds)]
            for part in batches(told):
                cursor = part[-1].revision
                yield Batch(part, cursor)
            cursor = max(cursor, head)
            caught_up = True
            if hub.closed:
                return
            if store.revision == cursor:
                await hub.wait(timeout_s)
                if store.revision == cursor:
                    yield Batch((), cursor)
            continue
        upto = hub.reaches_back_to
        slow = caught_up and upto - cursor > slow_events
        thinned = kinds & frozenset(LOSSLESS_KINDS) if slow else kinds
        lost = (cursor + 1, upto) if thinned != kinds else None
        while cursor < upto:
            events, cursor = store.events(cursor, upto, job=job, kinds=thinned, limit=BATCH_EVENTS)
            *first, last = batches(events) or [[]]
            for part in first:
                yield Batch(part, part[-1].revision, lost)
                lost = None
            if last or lost:
                yield Batch(last, cursor, lost)
                lost = None
        if hub.closed:
            return


def batches(events: Sequence[event_pb2.Event], most_bytes: int = PAGE_BYTES) -> list[list[event_pb2.Event]]:
    """The events in order, in parts of at most BATCH_EVENTS and about `most_bytes`; a larger one is alone."""
    parts: list[list[event_pb2.Event]] = []
    left_bytes = 0
    for event in events:
        size_bytes = event.ByteSize()
        if not parts or size_bytes > left_bytes or len(parts[-1]) == BATCH_EVENTS:
            parts.append([])
            left_bytes = most_bytes
        parts[-1].append(event)
        left_bytes -= size_bytes
    return parts


def _passes(event: event_pb2.Event, job_id: str | None, kinds: frozenset[int]) -> bool:
    payload = event.WhichOneof("payload")
    assert payload is not None
    return (job_id is None or event.job_id == job_id) and KIND_OF_PAYLOAD[payload] in kinds
