"""The SDK's client: one method for each thing that the daemon does, over the public API and nothing else.

    with connect() as m1:
        job = m1.submit("cifar", data="digits", settings={"epochs": 3})
        job = m1.wait(job.id)

Methods take ids or names, return the messages of m1.v1, and raise m1.errors.M1Error. An empty job is the one that
holds the machine now. A file a service; `calls` has what they are made of.
"""

from __future__ import annotations

import os

from m1.paths import home_from_environment

from m1ctl.sdk.client.checkpoints import Checkpoints
from m1ctl.sdk.client.daemon import Daemon
from m1ctl.sdk.client.events import Events
from m1ctl.sdk.client.jobs import Jobs
from m1ctl.sdk.client.metrics import Metrics
from m1ctl.sdk.client.results import ResultFile, Results
from m1ctl.sdk.connection import GIVE_UP_S, Connection
from m1ctl.sdk.requests import recipe_file

__all__ = ["DEFAULT_TIMEOUT_S", "GIVE_UP_S", "Client", "ResultFile", "connect", "recipe_file"]

DEFAULT_TIMEOUT_S = 10.0


class Client(Jobs, Events, Checkpoints, Metrics, Results, Daemon):
    """A connection with the daemon's verbs as methods. Close it, or use it in a `with`."""


def connect(home: str | os.PathLike[str] | None = None, timeout_s: float = DEFAULT_TIMEOUT_S) -> Client:
    """Return a client of the daemon of a home. It connects with the first call.

    Args:
        home: The home; None: $M1D_HOME, else ~/.m1d.
        timeout_s: The deadline of every call that is not a stream and takes no time of its own.

    Raises:
        M1Error: SOCKET_PATH_TOO_LONG.
    """
    return Client(Connection(home_from_environment(os.fspath(home) if home is not None else None), timeout_s))
