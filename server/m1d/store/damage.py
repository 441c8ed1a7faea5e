"""A look over the whole database for damage, beside a daemon that serves: in a thread, by a connection that only reads.

Done after an unclean end alone, because it takes seconds where much is stored.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from pathlib import Path

from m1d.store.store import Store

_log = logging.getLogger(__name__)


async def look_for_damage(store: Store) -> None:
    """Read every page; what is wrong becomes the store's `damage`, and the log says it."""
    connection = sqlite3.connect(f"{store.path.as_uri()}?mode=ro", uri=True, check_same_thread=False)
    looking = asyncio.create_task(asyncio.to_thread(_damage, connection))
    try:
        store.damage = await asyncio.shield(looking)
    finally:
        connection.interrupt()  # where the daemon stops meanwhile
        await asyncio.wait([looking])
        connection.close()
    if store.damage:
        _log.error('the database "%s" is damaged (%s): %s', store.path, store.damage, way_out(store.path))


def way_out(path: Path) -> str:
    """What a person can do with a damaged database."""
    return (
        "nothing in it is changed any more: stop the daemon, keep the file, and put a copy in its place or begin with"
        f' an empty one; the checkpoints are in "{path.with_name("jobs")}"'
    )


def _damage(connection: sqlite3.Connection) -> str:
    try:
        (first,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        return str(error)
    return "" if first == "ok" else " ".join(str(first).split())
