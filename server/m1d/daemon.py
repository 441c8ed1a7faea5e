"""The daemon: its parts, put together, and its life from start to drain."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import time

from grpc import aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from m1.endpoint import SERVER_OPTIONS, socket_address
from m1.errors import M1Error, Reason
from m1.paths import Home
from m1.v1 import (
    checkpoint_pb2,
    checkpoint_pb2_grpc,
    dataset_pb2,
    dataset_pb2_grpc,
    event_pb2,
    event_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
    metric_pb2,
    metric_pb2_grpc,
    recipe_pb2,
    recipe_pb2_grpc,
    result_pb2,
    result_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
)

from m1d.api.checkpoints import CheckpointService
from m1d.api.datasets import DatasetService
from m1d.api.errors import ErrorInterceptor
from m1d.api.events import EventService
from m1d.api.jobs import JobService
from m1d.api.metrics import MetricService
from m1d.api.recipes import RecipeService
from m1d.api.results import ResultService
from m1d.api.system import SystemService
from m1d.catalogue.plans import Planners
from m1d.catalogue.profiles import Profiles, current_conditions
from m1d.catalogue.recipes import Recipes
from m1d.events.hub import Hub
from m1d.home.config import read_config
from m1d.home.home import open_home, socket_mark
from m1d.home.notify import notify, watchdog_interval_s
from m1d.machine.live import LiveStats
from m1d.machine.topology import read_topology
from m1d.processes.environment import environment, variables
from m1d.running.supervisor import Supervisor
from m1d.store import Store, retention
from m1d.store.damage import look_for_damage
from m1d.verbs.delete import tidy
from m1d.verbs.parts import Parts
from m1d.verbs.pause import check_can_yield, yield_machine

_log = logging.getLogger(__name__)

_SERVICES = [
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (job_pb2, "JobService"),
        (checkpoint_pb2, "CheckpointService"),
        (event_pb2, "EventService"),
        (metric_pb2, "MetricService"),
        (recipe_pb2, "RecipeService"),
        (result_pb2, "ResultService"),
        (dataset_pb2, "DatasetService"),
        (system_pb2, "SystemService"),
    )
]
# For calls under way when the daemon stops; the watchers have ended by themselves before.
_GRACE_S = 2.0
# For all of the end; who waits for it in m1ctl waits longer.
_LAST_MOMENT_S = 20.0


class Daemon:
    """One daemon on one home. Made, run and gone within one event loop."""

    def __init__(self, home: Home) -> None:
        """Take the home and open the store.

        Raises:
            M1Error: the home or the store is not usable.
        """
        self._home = home
        self._lock_fd = open_home(home)
        self._socket: tuple[int, int] | None = None
        self._config = read_config(home.config)
        self._store = Store(home.database)
        self._hub = Hub(self._store.revision)
        self._store.on_commit = self._hub.publish
        self._topology = read_topology()
        self._profiles = Profiles(home.profiles, self._topology, current_conditions)
        passed = environment(os.environ, self._config.environment)
        self._supervisor = Supervisor(home, self._store, self._profiles, passed, time.time, time.monotonic)
        self._recipes = Recipes(home.cache, passed)
        self._parts = Parts(
            home,
            self._store,
            self._hub,
            self._supervisor,
            self._recipes,
            self._profiles,
            Planners(home.cache, passed),
            time.time,
            passed,
        )
        self._live = LiveStats(home.root, self._supervisor.active)
        self._stop = asyncio.Event()

    async def serve(self) -> None:
        """Serve until SIGTERM, SIGINT or a Shutdown call; then drain. The training goes on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Not by the loop's own handler, which is as stuck as the loop.
            signal.signal(number, lambda *_: self._end(loop))
        tidy(self._parts)
        server, healthy = await self._start_server()
        supervising = asyncio.create_task(self._supervisor.run())
        supervising.add_done_callback(lambda _task: self._stop.set())
        keeping = [
            asyncio.create_task(_beat()),
            asyncio.create_task(retention.run(self._store, self._config, time.time)),
        ]
        if self._store.ended_badly:
            keeping.append(asyncio.create_task(look_for_damage(self._store)))
        _log.info("serving %s, revision %d, process %d", self._home.socket, self._store.revision, os.getpid())
        notify("READY=1")
        await self._stop.wait()
        self._end_in_any_case()
        _log.info("stopping")
        notify("STOPPING=1")
        for task in keeping:
            task.cancel()
        await healthy.enter_graceful_shutdown()
        self._supervisor.stop()
        try:
            await supervising
        finally:
            self._hub.close()
            await server.stop(_GRACE_S)
            self._store.close()
            if self._socket == socket_mark(self._home):  # another one would be somebody else's
                self._home.socket.unlink(missing_ok=True)
            os.close(self._lock_fd)
        _log.info("stopped")

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        """End, as a signal asks: in good order, or at once where that takes too long."""
        self._end_in_any_case()
        loop.call_soon_threadsafe(self._stop.set)

    def _end_in_any_case(self) -> None:
        """Have the process end soon, whatever is stuck by then: what was answered is stored, the training goes on."""
        log = os.open(self._home.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        faulthandler.dump_traceback_later(_LAST_MOMENT_S, exit=True, file=log)

    async def _start_server(self) -> tuple[aio.Server, health.aio.HealthServicer]:
        server = aio.server(interceptors=[ErrorInterceptor(self._home.database)], options=SERVER_OPTIONS)
        home, store, parts = self._home, self._store, self._parts
        job_pb2_grpc.add_JobServiceServicer_to_server(JobService(parts), server)
        checkpoint_pb2_grpc.add_CheckpointServiceServicer_to_server(CheckpointService(parts), server)
        event_pb2_grpc.add_EventServiceServicer_to_server(EventService(parts, self._live), server)
        metric_pb2_grpc.add_MetricServiceServicer_to_server(MetricService(parts), server)
        recipe_pb2_grpc.add_RecipeServiceServicer_to_server(RecipeService(self._recipes), server)
        result_pb2_grpc.add_ResultServiceServicer_to_server(ResultService(parts), server)
        dataset_pb2_grpc.add_DatasetServiceServicer_to_server(DatasetService(home, store, parts.environment), server)
        named = variables(os.environ, self._config.environment)
        profile = self._profiles.untuned()
        system = SystemService(
            home, store, self._topology, profile, named, self._live, lambda: self._supervisor.fault, self._shutdown
        )
        system_pb2_grpc.add_SystemServiceServicer_to_server(system, server)
        healthy = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
        for name in ("", *_SERVICES):
            await healthy.set(name, health_pb2.HealthCheckResponse.SERVING)
        reflection.enable_server_reflection([*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
        server.add_insecure_port(socket_address(home))
        await server.start()
        os.chmod(home.socket, 0o600)
        self._socket = socket_mark(home)
        return server, healthy

    async def _shutdown(self, yield_first: bool) -> None:
        """Stop soon; with `yield_first` when the running job has been parked.

        Raises:
            M1Error: SHUTTING_DOWN, when somebody else stops the daemon meanwhile.
        """
        job = self._supervisor.active()
        if yield_first and job:
            check_can_yield(job, "pause")
            number = yield_machine(self._parts, job, "the daemon stops", park=True).number
            self._supervisor.start_nothing()
            while (now := self._store.job(number)) and now.active:
                if self._hub.closed:
                    raise M1Error(Reason.SHUTTING_DOWN, "the daemon stops already", "see m1ctl daemon status")
                await self._hub.wait()
        # The answer goes out within the grace of the server's stop.
        self._stop.set()


async def _beat() -> None:
    """Tell systemd's watchdog that the event loop turns."""
    interval_s = watchdog_interval_s()
    while interval_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
