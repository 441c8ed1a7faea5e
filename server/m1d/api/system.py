"""SystemService."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import time
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf import duration_pb2
from m1.jobdir import Profile
from m1.paths import Home
from m1.v1 import system_pb2, system_pb2_grpc

from m1d.events.translate import stats_to_proto, timestamp
from m1d.machine.live import LiveStats
from m1d.machine.topology import Topology
from m1d.processes.environment import Variables
from m1d.store import Store

# CPU fractions need two looks; a lone call takes them this far apart.
_SAMPLE_S = 0.1


class SystemService(system_pb2_grpc.SystemServiceServicer):
    """See proto/m1/v1/system.proto."""

    def __init__(
        self,
        home: Home,
        store: Store,
        topology: Topology,
        default_profile: Profile,
        variables: Variables,
        live: LiveStats,
        fault: Callable[[], str],
        shutdown: Callable[[bool], Awaitable[None]],
    ) -> None:
        self._home = home
        self._store = store
        self._topology = topology
        self._default_profile = default_profile
        self._variables = variables
        self._live = live
        self._fault = fault
        self._shutdown = shutdown
        # As this daemon was started: what it was installed with may have gone since.
        self._version, self._torch_version = _version("m1d"), _version("torch")
        self._started = time.time()
        self._started_monotonic = time.monotonic()

    async def GetSystemInfo(
        self, request: system_pb2.GetSystemInfoRequest, context: Any
    ) -> system_pb2.GetSystemInfoResponse:
        uptime = duration_pb2.Duration()
        uptime.FromMilliseconds(round(1e3 * (time.monotonic() - self._started_monotonic)))
        return system_pb2.GetSystemInfoResponse(
            version=self._version,
            pid=os.getpid(),
            home=str(self._home.root),
            start_time=timestamp(self._started),
            uptime=uptime,
            python_version=platform.python_version(),
            torch_version=self._torch_version,
            platform=_platform(),
            store_id=self._store.store_id,
            revision=self._store.revision,
            default_device=self._default_profile.device,
            default_threads=self._default_profile.threads,
            environment=system_pb2.Environment(
                passed=self._variables.passed,
                set=self._variables.fixed,
                withheld=self._variables.withheld,
                withheld_deciding=self._variables.deciding,
            ),
            fault=self._fault(),
        )

    async def GetTopology(self, request: system_pb2.GetTopologyRequest, context: Any) -> system_pb2.GetTopologyResponse:
        kinds = [
            system_pb2.CoreKind(name=k.name, physical_cores=k.physical_cores, logical_cores=k.logical_cores)
            for k in self._topology.core_kinds
        ]
        return system_pb2.GetTopologyResponse(
            cpu=self._topology.cpu, core_kinds=kinds, memory_bytes=self._topology.memory_bytes
        )

    async def GetSystemStats(
        self, request: system_pb2.GetSystemStatsRequest, context: Any
    ) -> system_pb2.GetSystemStatsResponse:
        self._live.sample(_SAMPLE_S)
        await asyncio.sleep(_SAMPLE_S)
        return system_pb2.GetSystemStatsResponse(stats=stats_to_proto(self._live.sample(_SAMPLE_S)))

    async def Shutdown(self, request: system_pb2.ShutdownRequest, context: Any) -> system_pb2.ShutdownResponse:
        await self._shutdown(getattr(request, "yield"))
        return system_pb2.ShutdownResponse()


def _version(package: str) -> str:
    """Of an installed package, without importing it; "" if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _platform() -> str:
    mac = platform.mac_ver()[0]
    system = f"macOS {mac}" if mac else f"{platform.system()} {platform.release()}"
    return f"{system} {platform.machine()}"
