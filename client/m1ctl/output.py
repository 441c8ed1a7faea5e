"""What a command prints: data on stdout, everything else on stderr; text for people, proto3 JSON for programs."""

from __future__ import annotations

import codecs
import enum
import errno
import itertools
import os
import re
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from m1.errors import M1Error, Reason

if TYPE_CHECKING:
    from google.protobuf.message import Message

# C0, DEL and C1: what could move the cursor or recolour the terminal when a name or a message holds it. And what
# ends a line or turns its direction in Unicode, so that a name could be read as another one.
_TURNING = r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"
_CONTROL = re.compile(rf"[\x00-\x1f\x7f-\x9f{_TURNING}]")
_CONTROL_IN_TEXT = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_TURNING}]")
_CONTROL_IN_A_LINE = re.compile(rf"[\x00-\x09\x0b-\x1f\x7f-\x9f{_TURNING}]")

# Beyond it a float is not one whole number.
_LARGEST_WHOLE = 2.0**53


class Format(enum.StrEnum):
    """The value of -o."""

    text = "text"
    json = "json"


def tell(sentence: str) -> None:
    """Say something that is not data, on a line of its own."""
    print(one_line(sentence), file=sys.stderr, flush=True)  # noqa: T201


def tell_error(error: M1Error | str, output: Format = Format.text) -> None:
    """Say why a command failed: in one sentence, or for programs as one JSON object with the reason."""
    if output is Format.json:
        import json

        failure = error if isinstance(error, M1Error) else M1Error(Reason.INTERNAL, error)
        print(json.dumps({"error": asdict(failure)}), file=sys.stderr, flush=True)  # noqa: T201
    else:
        tell(f"m1ctl: {error}")


def output_of(arguments: Sequence[str]) -> Format:
    """Return the value of -o among a command's arguments, whatever else is wrong with them."""
    typed = itertools.takewhile(lambda word: word != "--", arguments)
    is_json = any(
        word in {"-ojson", "--output=json"} or (word in {"-o", "--output"} and value == "json")
        for word, value in itertools.pairwise([*typed, ""])
    )
    return Format.json if is_json else Format.text


def put(text: str) -> None:
    """Print lines of data now: whoever follows reads them as they happen. What a terminal would obey is taken out.

    Raises:
        M1Error: DISK_FULL or INTERNAL, when the output cannot be written.
        BrokenPipeError: whoever read it has seen enough.
    """
    with _output_errors():
        print(_CONTROL_IN_A_LINE.sub(" ", text), flush=True)  # noqa: T201


def put_text(text: str) -> None:
    """Print a piece of text now, as it is; on a terminal, what it would obey is shown as in a Python literal.

    Raises:
        M1Error, BrokenPipeError: as `put`.
    """
    with _output_errors():
        sys.stdout.write(visible(text) if sys.stdout.isatty() else text)
        sys.stdout.flush()


def visible(text: str) -> str:
    r"""Return text for a terminal: an escape sequence is shown as "\x1b[31m"; a carriage return ends the line."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return _CONTROL_IN_TEXT.sub(lambda found: found[0].encode("unicode_escape").decode(), lines)


class ByteStream:
    """Printing bytes in pieces: as they are into a file or a pipe, as `put_text` shows them on a terminal."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace") if sys.stdout.isatty() else None

    def put(self, chunk: bytes) -> None:
        """Print a piece now.

        Raises:
            M1Error, BrokenPipeError: as `put`.
        """
        if self._decoder:
            put_text(self._decoder.decode(chunk))
            return
        with _output_errors():
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()


def check_reader() -> None:
    """Notice that whoever read stdout has gone, while there is nothing to write.

    Raises:
        BrokenPipeError: they have seen enough.
    """
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError):  # it is no file
        return
    if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def give_up_output() -> None:
    """Drop what is still buffered for stdout, so that it does not fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        give_up_output()
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        raise M1Error(
            Reason.DISK_FULL if full else Reason.INTERNAL, f"the output cannot be written: {error.strerror}"
        ) from error


def put_json(message: Message) -> None:
    """Print a response as one JSON document."""
    put(to_json(message, indent=2))


def put_json_line(message: Message) -> None:
    """Print a response of a stream as one JSON object on one line."""
    put(to_json(message, indent=None))


def to_json(message: Message, indent: int | None) -> str:
    """Proto3 JSON with the original field names, and with the fields that have their default value.

    A setting that is a whole number is written as one, 64 and not 64.0: JSON knows one kind of number, as the contract
    does for settings.
    """
    import json

    from google.protobuf.json_format import MessageToDict

    document = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    _write_whole_numbers(message, document)
    return json.dumps(document, indent=indent)


_FREE_FORM = {"google.protobuf.Struct", "google.protobuf.Value", "google.protobuf.ListValue"}


def _write_whole_numbers(message: Message, document: dict[str, Any]) -> None:
    """Make what is free-form in a message's JSON (its Structs) as it was meant."""
    for field, value in message.ListFields():
        kind = field.message_type
        if kind is None:
            continue
        if kind.full_name in _FREE_FORM:
            document[field.name] = _whole(document[field.name])
        elif kind.GetOptions().map_entry or kind.full_name.startswith("google."):
            continue
        elif isinstance(document[field.name], list):
            for part, its_document in zip(value, document[field.name], strict=True):
                _write_whole_numbers(part, its_document)
        else:
            _write_whole_numbers(value, document[field.name])


def _whole(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer() and abs(value) < _LARGEST_WHOLE:
        return int(value)
    if isinstance(value, dict):
        return {name: _whole(inner) for name, inner in value.items()}
    return [_whole(inner) for inner in value] if isinstance(value, list) else value


def one_line(text: str) -> str:
    """Return text without line breaks or anything else that a terminal would obey."""
    return _CONTROL.sub(" ", text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Aligned columns, two spaces apart, nothing cut or wrapped; the columns in `right` are aligned to the right."""
    lines = [[one_line(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def render(line: Sequence[str]) -> str:
        cells = (
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return "\n".join(render(line) for line in lines)


def pairs(rows: Sequence[tuple[str, str]]) -> str:
    """Return names and values in two columns; rows without a value are left out."""
    shown = [(one_line(name), one_line(value)) for name, value in rows if value]
    width = max((len(name) for name, _ in shown), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in shown)
