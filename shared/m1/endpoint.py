"""How the client and the daemon find each other, and what they agree on about the channel."""

from __future__ import annotations

from m1.paths import Home

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
    """The gRPC target of the home's socket."""
    return f"unix:{home.socket}"
