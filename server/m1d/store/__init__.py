"""What the daemon remembers: jobs, events, checkpoints and metrics, in one SQLite database."""

from m1d.store.codec import StoreDamagedError
from m1d.store.identity import StoreReplacedError
from m1d.store.store import Store, Transaction

__all__ = ["Store", "StoreDamagedError", "StoreReplacedError", "Transaction"]
