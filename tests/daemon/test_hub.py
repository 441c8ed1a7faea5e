"""Following without a daemon: the ring, the store behind it, and the one who is too slow."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from m1.v1 import event_pb2, job_pb2
from m1d.events.follow import Batch, follow
from m1d.events.hub import Hub
from m1d.events.translate import STORED_KINDS
from m1d.store import Store

KINDS = frozenset(STORED_KINDS)
STATE, METRICS = event_pb2.EVENT_KIND_STATE, event_pb2.EVENT_KIND_METRICS


class Scene:
    """A store and a small hub, and a way to make things happen."""

    def __init__(self, path: Path, capacity: int) -> None:
        self.store = Store(path)
        self.hub = Hub(self.store.revision, capacity)
        self.store.on_commit = self.hub.publish

    def happen(self, kind: int, count: int = 1) -> None:
        """That many events, each in a transaction of its own."""
        for _ in range(count):
            event = event_pb2.Event(job_id="j1")
            if kind == STATE:
                event.state_changed.to = job_pb2.JOB_STATE_RUNNING
            else:
                event.metrics_recorded.step = 1
            with self.store.transaction() as tx:
                tx.emit(event, kind, 1)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path / "db", capacity=8)
    yield made
    made.store.close()


async def until(scene: Scene, following: object, revision: int) -> list[Batch]:
    batches: list[Batch] = []
    async for batch in following:  # type: ignore[attr-defined]
        batches.append(batch)
        if batch.cursor >= revision:
            return batches
    return batches


def test_a_late_watcher_is_told_everything_from_the_store_then_from_the_ring(scene: Scene) -> None:
    scene.happen(METRICS, 100)
    following = follow(scene.store, scene.hub, 0, job=None, kinds=KINDS, timeout_s=0.01)
    batches = asyncio.run(until(scene, following, 100))
    assert [event.revision for batch in batches for event in batch.events] == list(range(1, 101))
    assert not any(batch.lost for batch in batches)


def test_a_watcher_that_is_far_behind_is_told_the_range_and_every_state_change(scene: Scene) -> None:
    async def play() -> list[Batch]:
        following = follow(scene.store, scene.hub, 0, job=None, kinds=KINDS, timeout_s=0.01, slow_events=10)
        scene.happen(STATE)
        batches = [await anext(following)]
        batches.append(await anext(following))  # caught up
        scene.happen(METRICS, 10)
        scene.happen(STATE)
        scene.happen(METRICS, 10)
        return batches + await until(scene, following, 22)

    batches = asyncio.run(play())
    lost = [batch.lost for batch in batches if batch.lost]
    assert lost == [(2, 14)]
    told = [event for batch in batches for event in batch.events]
    assert [e.revision for e in told if e.HasField("state_changed")] == [1, 12]
    revisions = [e.revision for e in told]
    assert revisions == sorted(set(revisions))
    assert revisions[-8:] == list(range(15, 23))


def test_a_burst_larger_than_the_ring_is_told_whole(scene: Scene) -> None:
    async def play() -> list[Batch]:
        following = follow(scene.store, scene.hub, 0, job=None, kinds=KINDS, timeout_s=0.01)
        scene.happen(STATE)
        batches = [await anext(following), await anext(following)]  # caught up
        scene.happen(METRICS, 40)
        return batches + await until(scene, following, 41)

    batches = asyncio.run(play())
    assert [event.revision for batch in batches for event in batch.events] == list(range(1, 42))
    assert not any(batch.lost for batch in batches)


def test_a_watcher_that_does_not_read_keeps_nobody_else_waiting(scene: Scene) -> None:
    async def play() -> list[Batch]:
        stuck = follow(scene.store, scene.hub, 0, job=None, kinds=KINDS, timeout_s=None)
        scene.happen(STATE)
        await anext(stuck)  # and never again
        scene.happen(METRICS, 50)
        reading = follow(scene.store, scene.hub, 0, job=None, kinds=KINDS, timeout_s=0.01)
        return await until(scene, reading, 51)

    batches = asyncio.run(play())
    assert [event.revision for batch in batches for event in batch.events] == list(range(1, 52))


def test_a_closed_hub_ends_its_followers_after_the_last_event(scene: Scene) -> None:
    async def play() -> list[Batch]:
        following = follow(scene.store, scene.hub, 0, job=None, kinds=KINDS, timeout_s=None)
        scene.happen(STATE, 3)
        scene.hub.close()
        return [batch async for batch in following]

    assert [event.revision for batch in asyncio.run(play()) for event in batch.events] == [1, 2, 3]
