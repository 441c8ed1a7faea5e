"""`m1train prepare`: read a dataset into the cache, with progress as JSON lines. Imports no torch."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from m1.columns import needs_from_json
from m1.errors import ExitCode, M1Error, Reason


def prepare_data(data_root: str, source: str, name: str, needs: str = "") -> int:
    """Read a dataset into the cache; JSON lines of progress on stdout, the last one the manifest or the error.

    `needs` is what it is read for, as JSON; empty: as 0.1.0 read every dataset.
    """

    def say(line: Mapping[str, object]) -> None:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()

    def progress(phase: str, done: int, total: int) -> None:
        say({"progress": {"phase": phase, "done": done, "total": total}})

    def fail(error: M1Error) -> int:
        say({"error": {**asdict(error), "reason": error.reason.value}})
        return ExitCode.ERROR

    try:
        from m1train.data.cache import read_manifest
        from m1train.data.prepare import prepare
        from m1train.data.progress import throttled

        asked = (Path(data_root), source, throttled(progress), name)
        read = prepare(*asked, needs_from_json(json.loads(needs))) if needs else prepare(*asked)
        manifest = read_manifest(read)
        assert manifest is not None
    except M1Error as error:
        return fail(error)
    except ImportError as error:
        return fail(M1Error(Reason.TORCH_MISSING, f"a library is missing ({error})", "pip install 'm1d[daemon]'"))
    except Exception as error:  # noqa: BLE001 - the daemon knows of it what is said here, and nothing else
        traceback.print_exception(error)
        if isinstance(error, MemoryError):
            message = f'the memory did not suffice to read "{source}"'
            return fail(M1Error(Reason.OUT_OF_MEMORY, message, "close something large and try again"))
        message = f'reading "{source}" failed ({type(error).__name__}: {error})'
        return fail(M1Error(Reason.INTERNAL, message, "this is a defect: please report it"))
    say({"dataset": manifest.to_json()})
    return ExitCode.OK
