"""MetricService."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from m1.errors import M1Error, Reason, nearest
from m1.limits import MOST_POINTS, POINTS
from m1.v1 import metric_pb2, metric_pb2_grpc

from m1d.verbs.find import find_job
from m1d.verbs.parts import Parts


class MetricService(metric_pb2_grpc.MetricServiceServicer):
    """See proto/m1/v1/metric.proto."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._store = parts.store

    async def ListMetricNames(
        self, request: metric_pb2.ListMetricNamesRequest, context: Any
    ) -> metric_pb2.ListMetricNamesResponse:
        job = find_job(self._parts, request.job)
        return metric_pb2.ListMetricNamesResponse(names=self._store.metric_names(job.number))

    async def GetMetricSeries(
        self, request: metric_pb2.GetMetricSeriesRequest, context: Any
    ) -> metric_pb2.GetMetricSeriesResponse:
        if request.max_points > MOST_POINTS:
            raise M1Error(
                Reason.INVALID_ARGUMENT,
                f"max_points={request.max_points} is out of bounds",
                f"at most {MOST_POINTS} are allowed",
                field="max_points",
                value=str(request.max_points),
            )
        job = find_job(self._parts, request.job)
        first = request.first_step if request.HasField("first_step") else 0
        last = request.last_step if request.HasField("last_step") else 2**62
        buckets = self._store.series(job.number, request.name, first, last, request.max_points or POINTS)
        if buckets is None:
            raise M1Error(
                Reason.METRIC_NOT_FOUND,
                f'{job.id} has no metric "{request.name}"',
                nearest(request.name, self._store.metric_names(job.number)),
                field="name",
                value=request.name,
            )
        told = [metric_pb2.MetricBucket(**asdict(bucket)) for bucket in buckets]
        return metric_pb2.GetMetricSeriesResponse(name=request.name, buckets=told)
