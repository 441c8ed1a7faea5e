"""The file that `--out` names: checked before work is done, and replaced in one step afterwards.

A reader sees the old result or the new one, never a part. What is not a regular file (a pipe, a device) is written to.
"""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

from m1.errors import M1Error, Reason

_FULL = {errno.ENOSPC, errno.EDQUOT}


def check_writable(out: str) -> None:
    """Refuse a file that could not be written; one that is there is not touched.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    path = _target(out)
    if os.path.isdir(path):
        raise _unusable(out, "is a directory")
    if not os.path.isdir(path.parent):
        raise _unusable(out, "cannot be written: its directory does not exist")
    try:
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if _is_replaced(path):
            _beside(path, b"").unlink()
    except OSError as error:
        raise _unusable(out, f"cannot be written ({error.strerror})") from error


def write(out: str, content: bytes, way_out: str) -> None:
    """Put the content in the file's place.

    Raises:
        M1Error: DISK_FULL or INTERNAL; what was there is there still.
    """
    path = _target(out)
    try:
        if _is_replaced(path):
            _replace(path, content)
        else:
            path.write_bytes(content)
    except OSError as error:
        raise M1Error(
            Reason.DISK_FULL if error.errno in _FULL else Reason.INTERNAL,
            f'--out "{out}" cannot be written ({error.strerror})',
            way_out,
            field="out",
            value=out,
        ) from error


def _target(out: str) -> Path:
    """Behind its links, so that they stay; /dev/stdout may lead to what has no path."""
    is_special = os.path.exists(out) and not os.path.isfile(out)
    return Path(out).absolute() if is_special else Path(os.path.realpath(out))


def _is_replaced(path: Path) -> bool:
    return path.is_file() or not os.path.exists(path)


def _replace(path: Path, content: bytes) -> None:
    temporary = _beside(path, content)
    try:
        if path.exists():
            shutil.copymode(path, temporary)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _beside(path: Path, content: bytes) -> Path:
    """Write the content to a new file in the same directory."""
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    with open(temporary, "xb") as file:
        try:
            file.write(content)
            file.flush()
        except BaseException:
            temporary.unlink()
            raise
    return temporary


def _unusable(out: str, problem: str) -> M1Error:
    return M1Error(Reason.INVALID_ARGUMENT, f'"{out}" {problem}', "name another file", field="out", value=out)
