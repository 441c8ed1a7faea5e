"""The journal: what the training process has to say, kept until the daemon has taken it in.

One file an attempt, `journal-<attempt>`, in the job's directory, written only by that attempt's processes and only by
appending: by the training process, or by a program and the keeper that looks after it. A record is

    length  4 bytes, little-endian, of the payload
    crc32   4 bytes, little-endian, of the payload
    payload JSON of one of the record classes below, with its `kind`; in the first one also whose journal it is

and is written by one call, under a lock (flock) on the file, so that a killed writer leaves at most one incomplete
record, at the end; whoever writes next takes that back first. The daemon reads
on from the byte that it stored in the same transaction as the records before it, which is what makes the taking-in
exactly once. Reading stops without an error at an incomplete record (the rest may follow) and with one at a record
that is whole but wrong (nothing after it can be trusted), in a journal of another job or attempt, and in one that has
become shorter than what was read of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from m1.durable import open_regular, sync
from m1.errors import shortened
from m1.failpoints import armed, reach
from m1.limits import RECORD_BYTES
from m1.profile import Profile
from m1.typed import parsed, record

_HEADER = struct.Struct("<II")
# No record is longer: a length above it is damage, not a record to wait for. What is written now is bounded by
# RECORD_BYTES; 0.1.0 wrote reports of up to this.
MAX_PAYLOAD_BYTES = 16 * 2**20
# The contract's times end with the year 9999.
_LATEST_S = 253_402_300_799.0
# A test wants to stop between two halves of a record, which are one write otherwise.
_SPLIT = armed("within.journal")


@dataclass(frozen=True)
class Started:
    """The first record of an attempt."""

    kind: ClassVar = "started"
    pid: int
    resumed_from_step: int | None
    """The step of the checkpoint that it goes on from; None when it begins at the beginning."""


@dataclass(frozen=True)
class Approximate:
    """It goes on from a checkpoint under another fingerprint: no longer bit for bit.

    `differing` is all that has differed in the job so far, in words. It is said again by every attempt that begins with
    such a checkpoint: whoever takes it in adds what is new to it.
    """

    kind: ClassVar = "approximate"
    differing: list[str]


@dataclass(frozen=True)
class Phase:
    """What it does now, and how far it is: `done` and `total` in the phase's own unit (images, bytes), or 0 of 0."""

    kind: ClassVar = "phase"
    name: str
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class Plan:
    """How long the training will be, and where it stands: the moment from which the job is RUNNING."""

    kind: ClassVar = "plan"
    step: int
    epoch: int
    total_steps: int
    total_epochs: int


@dataclass(frozen=True)
class Metrics:
    """Values that belong to a step (the number of optimizer steps done) and an epoch (the number completed)."""

    kind: ClassVar = "metrics"
    step: int
    epoch: int
    values: Mapping[str, float]
    of_step: bool | None = None
    """Measured in a step of the training, and good for its moment only; None: 0.1.0 wrote it, and did not say."""


@dataclass(frozen=True)
class CheckpointWritten:
    """A checkpoint is durable. `request` is the number of the newest request that it serves, 0 if none."""

    kind: ClassVar = "checkpoint"
    step: int
    epoch: int
    size_bytes: int
    weights_sha256: str
    metrics: Mapping[str, float]
    best: bool
    request: int
    time: float
    approximate: bool = False
    """The training had gone on under another fingerprint, in this attempt or an earlier one."""


@dataclass(frozen=True)
class CheckpointRemoved:
    """The training process removed a checkpoint, by the rule of what is kept."""

    kind: ClassVar = "checkpoint_removed"
    step: int


@dataclass(frozen=True)
class Held:
    """It stands between two steps, and waits."""

    kind: ClassVar = "held"
    step: int


@dataclass(frozen=True)
class Continued:
    """It trains again after a hold."""

    kind: ClassVar = "continued"
    step: int


@dataclass(frozen=True)
class Joined:
    """A program takes part: it looks at what is wanted, and leaves at a checkpoint when it is asked to."""

    kind: ClassVar = "joined"


@dataclass(frozen=True)
class Leaving:
    """A program ends its loop because it was asked to: when its exit status is 0, it has yielded."""

    kind: ClassVar = "leaving"
    step: int


@dataclass(frozen=True)
class Notice:
    """A sentence for the person who watches."""

    kind: ClassVar = "notice"
    severity: Literal["info", "warning", "error"]
    message: str


@dataclass(frozen=True)
class Result:
    """A file of the job's `results/` is there, or there anew: see m1.v1.Result."""

    kind: ClassVar = "result"
    name: str
    form: Literal["table", "text", "image"]
    title: str
    step: int
    size_bytes: int
    time: float
    truncated: str = ""


@dataclass(frozen=True)
class Report:
    """What 0.1.0 said of a test: C names, C fractions (NaN: none), C x C counts. Only read: now there are Results."""

    kind: ClassVar = "report"
    classes: list[str]
    class_accuracy: list[float]
    confusion: list[list[int]]


@dataclass(frozen=True)
class Finding:
    """One thing that was measured; see Finding in proto/m1/v1/job.proto."""

    key: str
    title: str
    value: float | None
    unit: str
    low: float | None = None
    high: float | None = None
    n: int = 1
    claimed: str = ""
    note: str = ""
    chosen: bool = False


@dataclass(frozen=True)
class Findings:
    """What a job that measures has found so far: all of it, in place of what it said before.

    `profile` is the one that a tuning chose, and `conditions` are what it was chosen under and may change: torch, the
    machine, its power.
    """

    kind: ClassVar = "findings"
    findings: list[Finding]
    profile: Profile | None = None
    conditions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Exited:
    """The last record of an attempt; one that was killed has none."""

    kind: ClassVar = "exited"
    outcome: Literal["succeeded", "yielded", "stopped", "failed"]
    code: str = ""
    message: str = ""
    hint: str = ""
    step: int = 0
    """The optimizer steps done."""


Record = (
    Started
    | Approximate
    | Phase
    | Plan
    | Metrics
    | CheckpointWritten
    | CheckpointRemoved
    | Held
    | Continued
    | Joined
    | Leaving
    | Notice
    | Result
    | Report
    | Findings
    | Exited
)
_CLASSES: dict[str, type[Any]] = {cls.kind: cls for cls in get_args(Record)}


@dataclass(frozen=True)
class Entry:
    """A record as it was read: when it was written, and the byte after it."""

    record: Record
    time: float
    """Seconds since the epoch, by the writer's clock."""
    next_offset: int


class JournalDamagedError(Exception):
    """A record that is whole but wrong; what came before it was good."""

    def __init__(self, path: Path, offset: int, problem: str) -> None:
        super().__init__(f'the journal "{path}" is damaged at byte {offset}: {problem}')
        self.path = path
        self.offset = offset


class RecordTooLargeError(Exception):
    """A record that nobody would read, and so is not written."""

    def __init__(self, kind: str, size_bytes: int) -> None:
        super().__init__(
            f"a record ({kind}) of {size_bytes:,} bytes is too large for the journal ({RECORD_BYTES:,} fit)"
        )


def journal_path(job_directory: Path, attempt: int) -> Path:
    """The journal of an attempt, counted from 1."""
    return job_directory / f"journal-{attempt}"


class JournalWriter:
    """Appends records; from any thread. Survives this process's death from the return of `append` on."""

    def __init__(self, path: Path) -> None:
        """Open the file of a new attempt.

        Raises:
            FileExistsError: another process has had this attempt.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()
        self._owner = _owner(path)
        self._end_bytes = 0
        """Up to here the records are whole."""

    def append(self, record: Record) -> None:
        """Write one record, in one call.

        Raises:
            RecordTooLargeError: it has more than RECORD_BYTES. Nothing was written.
            OSError: it could not be written (a full disk). Nothing of it remains; a later one may be tried.
        """
        data = {"kind": record.kind, "time": time.time(), "record": asdict(record)}
        with self._lock, _locked(self._fd):
            self._find_end()
            payload = json.dumps(data if self._end_bytes else {**data, "of": self._owner}).encode()
            if len(payload) > RECORD_BYTES:
                raise RecordTooLargeError(record.kind, len(payload))
            frame = _HEADER.pack(len(payload), zlib.crc32(payload)) + payload
            reach("before.journal")
            try:
                self._write(frame)
            except OSError:
                with contextlib.suppress(OSError):  # then before the next record
                    os.ftruncate(self._fd, self._end_bytes)
                raise
            self._end_bytes += len(frame)
            reach("after.journal")

    def _find_end(self) -> None:
        """Go over what others have appended, and cut off an incomplete record: what comes would be read as its rest."""
        size = os.fstat(self._fd).st_size
        while self._end_bytes < size:
            header = os.pread(self._fd, _HEADER.size, self._end_bytes)
            length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else 0
            if length > MAX_PAYLOAD_BYTES:
                self._end_bytes = size  # damage, of which the reader will say where it is
            elif length and self._end_bytes + _HEADER.size + length <= size:
                self._end_bytes += _HEADER.size + length
            else:
                os.ftruncate(self._fd, self._end_bytes)
                return

    def _write(self, frame: bytes) -> None:
        written = os.write(self._fd, frame[: len(frame) // 2] if _SPLIT else frame)
        reach("within.journal")
        while written < len(frame):
            written += os.write(self._fd, frame[written:])

    def sync(self) -> None:
        """Return when everything appended survives a power cut, too."""
        sync(self._fd)

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._fd)


@contextlib.contextmanager
def _locked(fd: int) -> Iterator[None]:
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def read_journal(path: Path, offset: int, limit_bytes: int = 2**18) -> Iterator[Entry]:
    """The whole records from a byte on, about `limit_bytes` of them at most. A missing file has none.

    Raises:
        JournalDamagedError: after the good records, at the first wrong one; or the file ends before the byte.
    """
    try:
        with open(path, "rb", opener=open_regular) as file:
            if (size := file.seek(0, os.SEEK_END)) < offset:
                raise JournalDamagedError(path, size, f"it ends there, and {offset} bytes of it had been read")
            file.seek(offset)
            data = file.read(limit_bytes)
            if len(data) >= _HEADER.size:  # a record longer than the limit is still read whole
                length = _HEADER.unpack_from(data)[0]
                if len(data) == limit_bytes and limit_bytes < _HEADER.size + length <= _HEADER.size + MAX_PAYLOAD_BYTES:
                    data += file.read(_HEADER.size + length - limit_bytes)
    except FileNotFoundError:
        return
    at = 0
    while len(data) - at >= _HEADER.size:
        length, crc = _HEADER.unpack_from(data, at)
        if not 0 < length <= MAX_PAYLOAD_BYTES:
            raise JournalDamagedError(path, offset + at, f"a record of {length} bytes")
        end = at + _HEADER.size + length
        if end > len(data):
            return
        payload = data[at + _HEADER.size : end]
        if zlib.crc32(payload) != crc:
            raise JournalDamagedError(path, offset + at, "its checksum does not match")
        yield _decode(path, offset + at, payload, offset + end)
        at = end


def _owner(path: Path) -> str:
    """Whose journal a file is, by its place: "j7/journal-1"."""
    return f"{path.parent.name}/{path.name}"


def _decode(path: Path, offset: int, payload: bytes, next_offset: int) -> Entry:
    try:
        data = parsed(payload)
        if data.get("of", _owner(path)) != _owner(path):
            raise ValueError(f"it is the journal {shortened(str(data['of']))}")
        entry = Entry(record(_CLASSES[data["kind"]], data["record"]), float(data["time"]), next_offset)
        for seconds in (entry.time, getattr(entry.record, "time", 0.0)):
            if not 0 <= seconds <= _LATEST_S:
                raise ValueError(f"{seconds} is no time")
        return entry
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise JournalDamagedError(path, offset, f"{type(error).__name__}: {error}") from error
