"""How the client and the daemon find each other, and what they agree on about the channel."""

from __future__ import annotations

import os
import socket
import struct
import sys
from urllib.parse import quote_from_bytes

from m1.paths import Home

_KNOCK_S = 1.0
MAX_MESSAGE_BYTES = 4 * 2**20
CHUNK_BYTES = 2**20

# Without these, gRPC buffers about 5 MB for a reader that does not read, before a write blocks.
SERVER_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65536),
    ("grpc.so_reuseport", 0),
]
CHANNEL_OPTIONS: list[tuple[str, int | str]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.http2.bdp_probe", 0),
    ("grpc.http2.lookahead_bytes", 65536),
    ("grpc.enable_http_proxy", 0),
    # The HTTP/2 :authority of a Unix socket would otherwise be its percent-encoded path.
    ("grpc.default_authority", "localhost"),
]


def socket_address(home: Home) -> str:
    """The gRPC target of the home's socket, for the daemon and for whoever calls it.

    gRPC reads it as a URI: of a path as it is, "#" and "?" would end it, and "%41" would be an "A".
    """
    return f"unix:{quote_from_bytes(os.fsencode(home.socket))}"


def is_listened_to(home: Home) -> bool:
    """Return True if some process listens at the home's socket, whatever it is."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.setblocking(False)
        try:
            knock.connect(os.fspath(home.socket))
        except BlockingIOError:  # its queue is full: somebody made that queue
            return True
        except OSError:
            return False
    return True


def listener_pid(home: Home) -> int | None:
    """Tell the process that listens at the home's socket, as this machine numbers it; None where it can't be told.

    0 stands for one of another pid namespace. What a forwarded socket's listener forwards to is another process.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
        knock.settimeout(_KNOCK_S)
        try:
            knock.connect(os.fspath(home.socket))
            if sys.platform == "darwin":
                # <sys/un.h>: SOL_LOCAL, LOCAL_PEERPID.
                pid = knock.getsockopt(0, 2)
            else:
                (pid, _, _) = struct.unpack("3i", knock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
            return int(pid)
        except OSError:
            return None
