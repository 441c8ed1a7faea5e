"""The event stream: nothing missed, nothing told twice, and a reader that does not read costs nobody anything."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice

import grpc
import psutil
import pytest
from harness import LONG, PATIENCE_S, RunningDaemon, StandIn
from m1.errors import M1Error, Reason, from_rpc_error
from m1.journal import Notice
from m1.v1 import event_pb2, job_pb2
from m1.v1.event_pb2_grpc import EventServiceStub
from m1ctl.sdk.client import Client, connect
from m1d.events.hub import CAPACITY_EVENTS

STATE = event_pb2.EVENT_KIND_STATE


def stream(daemon: RunningDaemon, **request: object) -> grpc._CallIterator[event_pb2.WatchResponse]:
    """A raw watch: no reconnecting."""
    stub = EventServiceStub(daemon.client.connection.channel)
    request_ = event_pb2.WatchRequest(**request)  # type: ignore[arg-type]
    responses: grpc._CallIterator[event_pb2.WatchResponse] = stub.Watch(request_, timeout=PATIENCE_S)
    return responses


def submit(daemon: RunningDaemon, name: str) -> job_pb2.Job:
    return daemon.client.submit("cifar", data="few", settings=LONG, name=name)


def test_a_watcher_that_comes_back_with_its_cursor_misses_nothing_and_hears_nothing_twice(
    held_daemon: RunningDaemon,
) -> None:
    first = stream(held_daemon, from_revision=1, kinds=[STATE])
    seen: list[int] = []
    cursor = 0
    for response in first:
        seen += [event.revision for event in response.events]
        cursor = response.cursor
        if seen:
            break
    first.cancel()
    for k in range(10):
        submit(held_daemon, f"more-{k}")
    held_daemon.kill()
    held_daemon.start()
    upto = held_daemon.client.system_info().revision
    for response in stream(held_daemon, from_revision=cursor + 1, kinds=[STATE]):
        seen += [event.revision for event in response.events]
        if response.cursor >= upto:
            break
    stored: list[int] = []
    for response in stream(held_daemon, from_revision=1, kinds=[STATE]):
        stored += [event.revision for event in response.events]
        if response.cursor >= upto:
            break
    assert seen == stored


def test_a_watch_without_a_revision_tells_only_what_is_to_come(held_daemon: RunningDaemon) -> None:
    watching = stream(held_daemon, kinds=[STATE])
    assert not next(watching).events  # heard, and where the stream begins
    job = submit(held_daemon, "new")
    response = next(watching)
    assert [(e.job_id, e.state_changed.to) for e in response.events] == [(job.id, job_pb2.JOB_STATE_QUEUED)]
    assert response.events[0].state_changed.job.name == "new"


def test_a_watch_of_one_job_and_one_kind_tells_nothing_else(held_daemon: RunningDaemon) -> None:
    job = submit(held_daemon, "mine")
    submit(held_daemon, "other")
    upto = held_daemon.client.system_info().revision
    for response in stream(held_daemon, from_revision=1, job="mine", kinds=[STATE]):
        assert {event.job_id for event in response.events} <= {job.id}
        assert all(event.HasField("state_changed") for event in response.events)
        assert not response.HasField("stats")
        if response.cursor >= upto:
            break


def test_system_stats_come_with_the_training_process_in_them(held_daemon: RunningDaemon) -> None:
    holder = held_daemon.client.get("holder")
    watching = stream(held_daemon, kinds=[event_pb2.EVENT_KIND_STATS], stats_interval_s=0.1)
    samples = [response.stats for response in (next(watching) for _ in range(5)) if response.HasField("stats")]
    assert len(samples) >= 3
    assert samples[-1].training.pid == holder.pid
    assert samples[-1].training.memory_bytes > 50e6
    assert 0 <= samples[-1].cpu_fraction <= 1
    assert not samples[-1].HasField("thermal_pressure") or samples[-1].thermal_pressure


@pytest.mark.parametrize("request_", [{"from_revision": 10**9}, {"from_revision": 1, "store_id": "another"}])
def test_a_cursor_of_another_store_or_from_the_future_is_out_of_range(
    daemon: RunningDaemon, request_: dict[str, object]
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(stream(daemon, **request_))
    assert from_rpc_error(caught.value).reason is Reason.CURSOR_OUT_OF_RANGE


def test_a_stats_interval_out_of_bounds_is_refused(daemon: RunningDaemon) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        next(stream(daemon, stats_interval_s=0.001))
    assert from_rpc_error(caught.value).field == "stats_interval_s"


def test_a_watcher_that_never_reads_does_not_cost_the_daemon_memory_nor_the_fifteen_others_an_event(
    held_daemon: RunningDaemon,
) -> None:
    process = StandIn(held_daemon, held_daemon.client.get("holder"))
    held_daemon.start()
    # More than the ring holds; what a queue of the one that never reads would take is four times the bound below.
    burst, message, bound_bytes = 2 * CAPACITY_EVENTS, 8192 * "x", CAPACITY_EVENTS * 8192 / 2
    resident: list[int] = []
    daemon = psutil.Process(held_daemon.process.pid)  # type: ignore[union-attr]
    begin = held_daemon.client.system_info().revision + 1
    stuck = stream(held_daemon, from_revision=begin)  # never read

    def read(reader: Client) -> Iterator[int]:
        """The revisions that it is told."""
        for response in reader.watch("holder", from_revision=begin, kinds=[event_pb2.EVENT_KIND_NOTICE]):
            assert not response.HasField("lost")
            yield from (event.revision for event in response.events)

    with ExitStack() as stack, ThreadPoolExecutor(15) as pool:
        readers = [read(stack.enter_context(connect(held_daemon.home))) for _ in range(15)]
        for _ in range(2):
            for _ in range(burst):
                process.journal.append(Notice("info", message))
            told = list(pool.map(lambda reader: list(islice(reader, burst)), readers))
            assert all(revisions == told[0] for revisions in told)
            assert len(told[0]) == burst
            resident.append(daemon.memory_info().rss)
        assert resident[1] - resident[0] < bound_bytes
    stuck.cancel()
    process.leave()


def test_a_stopping_daemon_ends_its_watchers_at_once_with_the_reason(held_daemon: RunningDaemon) -> None:
    watching = stream(held_daemon, kinds=[STATE])
    next(watching)
    assert held_daemon.stop() == 0
    with pytest.raises(grpc.RpcError) as caught:
        for _ in watching:
            pass
    assert from_rpc_error(caught.value).reason in {Reason.SHUTTING_DOWN, Reason.UNREACHABLE}


def test_an_error_crosses_the_wire_whole(daemon: RunningDaemon) -> None:
    with pytest.raises(M1Error) as caught:
        daemon.client.submit("cifar", data="few", settings={"lr": "banana"})
    error = caught.value
    assert (error.reason, error.field, error.value) == (Reason.INVALID_SETTING, "settings.lr", "banana")
    assert error.message
    assert error.hint
    assert str(error) == f"{error.message}: {error.hint}"
