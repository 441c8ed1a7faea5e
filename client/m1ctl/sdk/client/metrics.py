"""What a job has measured, over its steps."""

from __future__ import annotations

from m1.v1 import metric_pb2

from m1ctl.sdk.client.calls import Calls


class Metrics(Calls):
    """MetricService."""

    def metric_names(self, job: str = "") -> list[str]:
        """Return the keys that the job has measured, sorted."""
        return list(self._ask(metric_pb2.ListMetricNamesResponse, job=job).names)

    def metric_series(
        self,
        name: str,
        job: str = "",
        *,
        max_points: int = 0,
        first_step: int | None = None,
        last_step: int | None = None,
    ) -> metric_pb2.GetMetricSeriesResponse:
        """Return one metric over the steps, in at most max_points buckets (0: the daemon's default)."""
        return self._ask(
            metric_pb2.GetMetricSeriesResponse,
            job=job,
            name=name,
            max_points=max_points,
            first_step=first_step,
            last_step=last_step,
        )
