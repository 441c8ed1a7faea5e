"""The errors that reach a person or a script: one class, one table, one mapping to the wire and back.

An error is one sentence that names the field, the value and the way out. Its `Reason` is the stable word for
programs; the table gives each reason its gRPC status and its exit code, and nothing else in the project knows either.
On the wire it is a google.rpc.Status with an ErrorInfo (reason, field, value, hint) and, where a field is named, a
BadRequest. grpc is imported where it is needed, so the training process never loads it.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import grpc
    from google.rpc import status_pb2

DOMAIN = "m1d"

# How much a sentence may list and quote. A status travels in HTTP/2 headers, of which gRPC accepts 8 KiB for sure.
_MOST_WORDS = 16
_LONGEST_WORD = 128
_LONGEST_MESSAGE_BYTES = 700
_LONGEST_HINT_BYTES = 400
_LONGEST_VALUE_BYTES = 120


class ExitCode(enum.IntEnum):
    """What a command ends with; scripts rely on it."""

    OK = 0
    ERROR = 1
    USAGE = 2
    NOT_FOUND = 3
    NOT_ALLOWED = 4
    WRONG_STATE = 5
    UNREACHABLE = 6
    TIMED_OUT = 7
    JOB_FAILED = 8
    INTERRUPTED = 130


class Reason(enum.StrEnum):
    """Why something was refused or failed. Words stay; new ones may be added."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    INVALID_SETTING = "INVALID_SETTING"
    INVALID_NAME = "INVALID_NAME"
    NAME_TAKEN = "NAME_TAKEN"
    BAD_DATA = "BAD_DATA"
    BAD_RECIPE = "BAD_RECIPE"
    TOO_LARGE = "TOO_LARGE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    SOCKET_PATH_TOO_LONG = "SOCKET_PATH_TOO_LONG"
    JOB_NOT_FOUND = "JOB_NOT_FOUND"
    RECIPE_NOT_FOUND = "RECIPE_NOT_FOUND"
    DATASET_NOT_FOUND = "DATASET_NOT_FOUND"
    CHECKPOINT_NOT_FOUND = "CHECKPOINT_NOT_FOUND"
    RESULT_NOT_FOUND = "RESULT_NOT_FOUND"
    METRIC_NOT_FOUND = "METRIC_NOT_FOUND"
    FILE_NOT_FOUND = "FILE_NOT_FOUND"
    NOT_ALLOWED = "NOT_ALLOWED"
    HOME_NOT_SAFE = "HOME_NOT_SAFE"
    WRONG_STATE = "WRONG_STATE"
    HOME_IN_USE = "HOME_IN_USE"
    SOCKET_IN_USE = "SOCKET_IN_USE"
    UNREACHABLE = "UNREACHABLE"
    SHUTTING_DOWN = "SHUTTING_DOWN"
    TIMED_OUT = "TIMED_OUT"
    CURSOR_OUT_OF_RANGE = "CURSOR_OUT_OF_RANGE"
    STORE_TOO_NEW = "STORE_TOO_NEW"
    STORE_BUSY = "STORE_BUSY"
    STORE_DAMAGED = "STORE_DAMAGED"
    STORE_REPLACED = "STORE_REPLACED"
    TORCH_MISSING = "TORCH_MISSING"
    DOWNLOAD_FAILED = "DOWNLOAD_FAILED"
    DISK_FULL = "DISK_FULL"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"
    NOT_FINITE = "NOT_FINITE"
    BAD_CHECKPOINT = "BAD_CHECKPOINT"
    PROCESS_DIED = "PROCESS_DIED"
    PROCESS_NOT_STARTED = "PROCESS_NOT_STARTED"
    PROGRAM_FAILED = "PROGRAM_FAILED"
    PROGRAM_NOT_FOUND = "PROGRAM_NOT_FOUND"
    JOB_FAILED = "JOB_FAILED"
    JOB_CANCELLED = "JOB_CANCELLED"
    UNSUPPORTED = "UNSUPPORTED"
    INTERNAL = "INTERNAL"


# reason: (name of the gRPC status, exit code)
_TABLE: dict[Reason, tuple[str, ExitCode]] = {
    Reason.INVALID_ARGUMENT: ("INVALID_ARGUMENT", ExitCode.USAGE),
    Reason.INVALID_SETTING: ("INVALID_ARGUMENT", ExitCode.USAGE),
    Reason.INVALID_NAME: ("INVALID_ARGUMENT", ExitCode.USAGE),
    Reason.NAME_TAKEN: ("ALREADY_EXISTS", ExitCode.USAGE),
    Reason.BAD_DATA: ("INVALID_ARGUMENT", ExitCode.USAGE),
    Reason.BAD_RECIPE: ("INVALID_ARGUMENT", ExitCode.USAGE),
    Reason.TOO_LARGE: ("RESOURCE_EXHAUSTED", ExitCode.USAGE),
    Reason.MESSAGE_TOO_LARGE: ("RESOURCE_EXHAUSTED", ExitCode.ERROR),
    Reason.SOCKET_PATH_TOO_LONG: ("INVALID_ARGUMENT", ExitCode.USAGE),
    Reason.JOB_NOT_FOUND: ("NOT_FOUND", ExitCode.NOT_FOUND),
    Reason.RECIPE_NOT_FOUND: ("NOT_FOUND", ExitCode.NOT_FOUND),
    Reason.DATASET_NOT_FOUND: ("NOT_FOUND", ExitCode.NOT_FOUND),
    Reason.CHECKPOINT_NOT_FOUND: ("NOT_FOUND", ExitCode.NOT_FOUND),
    Reason.RESULT_NOT_FOUND: ("NOT_FOUND", ExitCode.NOT_FOUND),
    Reason.METRIC_NOT_FOUND: ("NOT_FOUND", ExitCode.NOT_FOUND),
    Reason.FILE_NOT_FOUND: ("NOT_FOUND", ExitCode.NOT_FOUND),
    Reason.NOT_ALLOWED: ("PERMISSION_DENIED", ExitCode.NOT_ALLOWED),
    Reason.HOME_NOT_SAFE: ("PERMISSION_DENIED", ExitCode.NOT_ALLOWED),
    Reason.WRONG_STATE: ("FAILED_PRECONDITION", ExitCode.WRONG_STATE),
    Reason.HOME_IN_USE: ("FAILED_PRECONDITION", ExitCode.WRONG_STATE),
    # Another code: no daemon of the home is about to answer.
    Reason.SOCKET_IN_USE: ("FAILED_PRECONDITION", ExitCode.ERROR),
    Reason.UNREACHABLE: ("UNAVAILABLE", ExitCode.UNREACHABLE),
    Reason.SHUTTING_DOWN: ("UNAVAILABLE", ExitCode.UNREACHABLE),
    Reason.TIMED_OUT: ("DEADLINE_EXCEEDED", ExitCode.TIMED_OUT),
    Reason.CURSOR_OUT_OF_RANGE: ("OUT_OF_RANGE", ExitCode.ERROR),
    Reason.STORE_TOO_NEW: ("FAILED_PRECONDITION", ExitCode.ERROR),
    Reason.STORE_BUSY: ("UNAVAILABLE", ExitCode.UNREACHABLE),
    Reason.STORE_DAMAGED: ("DATA_LOSS", ExitCode.ERROR),
    Reason.STORE_REPLACED: ("DATA_LOSS", ExitCode.ERROR),
    Reason.TORCH_MISSING: ("FAILED_PRECONDITION", ExitCode.ERROR),
    Reason.DOWNLOAD_FAILED: ("FAILED_PRECONDITION", ExitCode.ERROR),
    Reason.DISK_FULL: ("RESOURCE_EXHAUSTED", ExitCode.ERROR),
    Reason.OUT_OF_MEMORY: ("RESOURCE_EXHAUSTED", ExitCode.ERROR),
    Reason.NOT_FINITE: ("FAILED_PRECONDITION", ExitCode.JOB_FAILED),
    Reason.BAD_CHECKPOINT: ("DATA_LOSS", ExitCode.ERROR),
    Reason.PROGRAM_FAILED: ("FAILED_PRECONDITION", ExitCode.JOB_FAILED),
    Reason.PROGRAM_NOT_FOUND: ("NOT_FOUND", ExitCode.NOT_FOUND),
    Reason.PROCESS_DIED: ("ABORTED", ExitCode.ERROR),
    Reason.PROCESS_NOT_STARTED: ("FAILED_PRECONDITION", ExitCode.ERROR),
    Reason.JOB_FAILED: ("FAILED_PRECONDITION", ExitCode.JOB_FAILED),
    Reason.JOB_CANCELLED: ("CANCELLED", ExitCode.ERROR),
    Reason.UNSUPPORTED: ("UNIMPLEMENTED", ExitCode.ERROR),
    Reason.INTERNAL: ("INTERNAL", ExitCode.ERROR),
}

# What a status says that carries no ErrorInfo of ours: gRPC itself sent it.
_PLAIN_STATUS: dict[str, Reason] = {
    "INVALID_ARGUMENT": Reason.INVALID_ARGUMENT,
    "NOT_FOUND": Reason.JOB_NOT_FOUND,
    "PERMISSION_DENIED": Reason.NOT_ALLOWED,
    "UNAUTHENTICATED": Reason.NOT_ALLOWED,
    "FAILED_PRECONDITION": Reason.WRONG_STATE,
    "UNAVAILABLE": Reason.UNREACHABLE,
    "DEADLINE_EXCEEDED": Reason.TIMED_OUT,
    "RESOURCE_EXHAUSTED": Reason.MESSAGE_TOO_LARGE,
    "OUT_OF_RANGE": Reason.CURSOR_OUT_OF_RANGE,
    "UNIMPLEMENTED": Reason.UNSUPPORTED,
}


@dataclass
class M1Error(Exception):
    """An error with a reason for programs and a sentence for people."""

    reason: Reason
    message: str
    """One sentence without the way out: what was wrong, with the field and the value in it."""
    hint: str = ""
    """The way out, as the second half of the sentence."""
    field: str = ""
    """The request's field that was wrong: "settings.lr"."""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a command that ends with this error."""
        return _TABLE[self.reason][1]

    @property
    def status_name(self) -> str:
        """The name of the gRPC status: "NOT_FOUND"."""
        return _TABLE[self.reason][0]


def nearest(word: str, known: Iterable[str]) -> str:
    """Half a sentence that offers the nearest of the known words, or what there is: 'did you mean "lr"?'."""
    known = sorted(known)
    close = difflib.get_close_matches(word[:_LONGEST_WORD], known, n=1, cutoff=0.5)
    if close:
        return f'did you mean "{close[0]}"?'
    if not known:
        return "there is none yet"
    some = ", ".join(known[:_MOST_WORDS])
    return f"there is {some}" if len(known) <= _MOST_WORDS else f"there is {some} and {len(known) - _MOST_WORDS} more"


def shortened(text: str, longest: int = 120) -> str:
    """The text, with its end left out where it is longer: for values of other people in our sentences."""
    return text if len(text) <= longest else text[: longest - 3] + "..."


def sendable(text: str) -> str:
    """The text; half a surrogate pair, for which UTF-8 has no bytes, is written out as in a Python literal."""
    return text.encode(errors="backslashreplace").decode()


def _fitting(text: str, longest_bytes: int) -> str:
    encoded = text.encode(errors="backslashreplace")
    if len(encoded) > longest_bytes:
        encoded = encoded[: longest_bytes - 3].decode(errors="ignore").encode() + b"..."
    return encoded.decode()


def to_status(error: M1Error) -> status_pb2.Status:
    """The wire form: a google.rpc.Status with ErrorInfo and, where a field is named, BadRequest."""
    import grpc
    from google.protobuf import any_pb2
    from google.rpc import error_details_pb2, status_pb2

    error = M1Error(
        error.reason,
        _fitting(error.message, _LONGEST_MESSAGE_BYTES),
        _fitting(error.hint, _LONGEST_HINT_BYTES),
        _fitting(error.field, _LONGEST_VALUE_BYTES),
        _fitting(error.value, _LONGEST_VALUE_BYTES),
    )
    metadata = {"message": error.message, "hint": error.hint, "field": error.field, "value": error.value}
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value, domain=DOMAIN, metadata={k: v for k, v in metadata.items() if v}
    )
    status = status_pb2.Status(code=grpc.StatusCode[error.status_name].value[0], message=str(error))
    packed = any_pb2.Any()
    packed.Pack(info)
    status.details.append(packed)
    if error.field:
        violation = error_details_pb2.BadRequest.FieldViolation(field=error.field, description=str(error))
        packed = any_pb2.Any()
        packed.Pack(error_details_pb2.BadRequest(field_violations=[violation]))
        status.details.append(packed)
    return status


def from_rpc_error(error: grpc.RpcError) -> M1Error:
    """The error that the daemon raised, or what gRPC itself reports in its place."""
    from google.rpc import error_details_pb2
    from grpc_status import rpc_status

    assert hasattr(error, "code")
    assert hasattr(error, "details")
    try:
        status = rpc_status.from_call(cast("grpc.Call", error))
    except ValueError:  # its details contradict its code: not written by us
        status = None
    for packed in status.details if status else ():
        info = error_details_pb2.ErrorInfo()
        if packed.Unpack(info) and info.domain == DOMAIN and info.reason in Reason.__members__:
            said = info.metadata
            return M1Error(
                Reason(info.reason),
                said.get("message", str(error.details())),
                said.get("hint", ""),
                said.get("field", ""),
                said.get("value", ""),
            )
    name = error.code().name
    return M1Error(_PLAIN_STATUS.get(name, Reason.INTERNAL), error.details() or f"the call ended with {name}")


_LONGEST_LAST_LINE = 300


def last_line(error: BaseException) -> str:
    """What a traceback ends with: "ValueError: a sentence"; of a long message the first line, or its beginning."""
    try:
        said = _said(error)
    except BaseException:  # noqa: BLE001 - foreign code makes the message, too
        said = "its message cannot be read"
    line = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return shortened(sendable(line), _LONGEST_LAST_LINE)


def _said(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return str(error.msg or "")
    if isinstance(error, SystemExit):
        return f"it ends the process with {error.code!r}"
    return str(error).strip().split("\n", 1)[0]
