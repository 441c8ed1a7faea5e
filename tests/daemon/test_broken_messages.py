"""Mutated messages to every method of every service: each gets a status, none a traceback, and the log stays short."""

from __future__ import annotations

import logging
import random
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from harness import PATIENCE_S, RunningDaemon
from m1.v1 import checkpoint_pb2, dataset_pb2, event_pb2, job_pb2, metric_pb2, recipe_pb2, result_pb2, system_pb2
from m1d.home.logs import MOST_A_MINUTE, Thinning

JOB = "m1.v1.Job"
ASKED = [
    health_pb2.HealthCheckRequest(service="m1.v1.JobService"),
    reflection_pb2.ServerReflectionRequest(host="x", file_containing_symbol="m1.v1.JobService"),
    reflection_pb2.ServerReflectionRequest(file_by_filename="m1/v1/job.proto"),
    reflection_pb2.ServerReflectionRequest(all_extension_numbers_of_type=JOB),
    reflection_pb2.ServerReflectionRequest(
        file_containing_extension=reflection_pb2.ExtensionRequest(containing_type=JOB, extension_number=3)
    ),
    job_pb2.ListJobsRequest(states=["JOB_STATE_RUNNING"], page_size=7, page_token="jobs:12"),
    job_pb2.ReadJobLogRequest(job="j1", offset=300, tail_lines=7),
    metric_pb2.GetMetricSeriesRequest(job="j1", name="train/loss", max_points=300),
    event_pb2.WatchRequest(
        from_revision=300, job="j1", kinds=["EVENT_KIND_STATE", "EVENT_KIND_PROGRESS"], stats_interval_s=1.0
    ),
]
# These change something, or start a process.
LEFT_OUT = {"Shutdown", "SubmitJob", "PrepareDataset", "DeleteDataset", "UseModel", "GetRecipe"}


def methods() -> list[tuple[str, bool, bool]]:
    """Every method: its path, and whether it takes and gives streams."""
    files = [m.DESCRIPTOR for m in (job_pb2, checkpoint_pb2, event_pb2, metric_pb2, recipe_pb2, result_pb2)]
    files += [m.DESCRIPTOR for m in (dataset_pb2, system_pb2, health_pb2, reflection_pb2)]
    return [
        (f"/{service.full_name}/{method.name}", method.client_streaming, method.server_streaming)
        for file in files
        for service in file.services_by_name.values()
        for method in service.methods
        if method.name not in LEFT_OUT
    ]


def mutated(chance: random.Random, message: bytes) -> bytes:
    changed = bytearray(message)
    for _ in range(chance.randint(1, 4)):
        match chance.randrange(4):
            case 0 if changed:
                changed[chance.randrange(len(changed))] = chance.randrange(256)
            case 1:
                changed.insert(chance.randint(0, len(changed)), chance.randrange(256))
            case 2 if changed:
                del changed[chance.randrange(len(changed)) :]
            case _:
                changed += chance.randbytes(chance.randint(1, 20))
    return bytes(changed)


def call(channel: grpc.Channel, path: str, takes_stream: bool, gives_stream: bool, raw: bytes) -> str:
    try:
        if takes_stream:
            list(channel.stream_stream(path)(iter([raw, raw]), timeout=PATIENCE_S))  # type: ignore[arg-type]
        elif gives_stream:
            answers: Any = channel.unary_stream(path)(raw, timeout=PATIENCE_S)  # type: ignore[arg-type]
            next(answers, None)
            answers.cancel()
        else:
            channel.unary_unary(path)(raw, timeout=PATIENCE_S)  # type: ignore[arg-type]
    except grpc.RpcError as error:
        return str(error.code().name)
    return "OK"


def test_mutated_messages_get_a_status_and_leave_no_traceback(daemon: RunningDaemon) -> None:
    chance = random.Random(7)
    seeds = [message.SerializeToString() for message in ASKED]
    lines = len(daemon.log().splitlines())
    codes: Counter[str] = Counter()
    for path, takes_stream, gives_stream in methods():
        for _ in range(20):
            code = call(
                daemon.client.connection.channel,
                path,
                takes_stream,
                gives_stream,
                mutated(chance, chance.choice(seeds)),
            )
            codes[code] += 1
    assert set(codes) <= {
        "OK",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "OUT_OF_RANGE",
        "FAILED_PRECONDITION",
        "UNIMPLEMENTED",
    }, codes
    assert codes["INVALID_ARGUMENT"] > 200, codes
    assert len(daemon.log().splitlines()) == lines, daemon.log()[-2000:]
    assert daemon.client.system_info().version


# The log


def record(message: str, *values: object) -> logging.LogRecord:
    return logging.LogRecord("grpc", logging.ERROR, __file__, 1, message, values, None)


def test_one_kind_of_record_cannot_flood_the_log_and_what_was_left_out_is_counted() -> None:
    times = iter([0.0] * (MOST_A_MINUTE + 70) + [1.0] + [61.0] * 2)
    thinning = Thinning(lambda: next(times))
    written = [thinning.filter(record("broken: %s", k)) for k in range(MOST_A_MINUTE + 70)]
    assert written == [True] * MOST_A_MINUTE + [False] * 70
    assert thinning.filter(record("another"))
    later = record("broken: %s", 7)
    assert thinning.filter(later)
    assert later.getMessage() == "broken: 7 (70 more like it were left out)"
    again = record("broken: %s", 8)
    assert thinning.filter(again)
    assert again.getMessage() == "broken: 8"


def test_the_mutations_are_of_every_service() -> None:
    assert {Path(path).parent.name for path, _, _ in methods()} >= {
        "m1.v1.JobService",
        "m1.v1.SystemService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


@pytest.mark.parametrize("method", sorted(LEFT_OUT))
def test_what_is_left_out_is_there(method: str) -> None:
    modules = (job_pb2, recipe_pb2, result_pb2, dataset_pb2, system_pb2)
    assert any(m.name == method for f in modules for s in f.DESCRIPTOR.services_by_name.values() for m in s.methods)
