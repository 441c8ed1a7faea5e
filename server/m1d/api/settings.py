"""Settings as a request carries them, in Python's own types."""

from __future__ import annotations

from google.protobuf import struct_pb2


def plain(settings: struct_pb2.Struct) -> dict[str, object]:
    """The values as they are, NaN and null too: whether one is allowed is for its declaration to say."""
    return {name: _value(value) for name, value in settings.fields.items()}


def _value(value: struct_pb2.Value) -> object:
    match value.WhichOneof("kind"):
        case "number_value":
            return value.number_value
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return []  # no setting takes one, whatever is in it
        case "struct_value":
            return {}
        case _:
            return None
