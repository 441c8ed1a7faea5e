"""The daemon itself, and the machine that it runs on."""

from __future__ import annotations

from m1.v1 import system_pb2

from m1ctl.sdk.client.calls import Calls


class Daemon(Calls):
    """SystemService."""

    def system_info(self, timeout_s: float | None = None) -> system_pb2.GetSystemInfoResponse:
        """Return which daemon this is."""
        return self._ask(system_pb2.GetSystemInfoResponse, timeout_s)

    def topology(self) -> system_pb2.GetTopologyResponse:
        """Return what the machine is."""
        return self._ask(system_pb2.GetTopologyResponse)

    def system_stats(self) -> system_pb2.SystemStats:
        """Return how busy the machine is now."""
        return self._ask(system_pb2.GetSystemStatsResponse).stats

    def shutdown(self, *, yield_job: bool = False, timeout_s: float | None = None) -> None:
        """End the daemon; the training goes on, or with yield_job is checkpointed and taken from the machine first."""
        wish = {"yield": yield_job}  # a keyword
        self._ask(system_pb2.ShutdownResponse, timeout_s, bounded=not yield_job, **wish)
