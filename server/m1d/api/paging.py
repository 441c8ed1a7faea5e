"""Pages, bounded in number and in bytes, and their tokens.

A token says at which number to go on, and which list it belongs to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from google.protobuf.message import Message
from m1.errors import M1Error, Reason
from m1.limits import MOST_PAGE, PAGE, PAGE_BYTES


def page_size(asked: int) -> int:
    """How many there may be on a page.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    if asked > MOST_PAGE:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f"page_size={asked} is out of bounds",
            f"at most {MOST_PAGE} are allowed",
            field="page_size",
            value=str(asked),
        )
    return asked or PAGE


M = TypeVar("M", bound=Message)


def fitting(messages: Iterable[M], size: int, most_bytes: int = PAGE_BYTES) -> list[M]:
    """The first messages, at most `size` and about `most_bytes` of them; one at least, if there is any."""
    page: list[M] = []
    left_bytes = most_bytes
    for message in messages:
        left_bytes -= message.ByteSize()
        if len(page) == size or (page and left_bytes < 0):
            break
        page.append(message)
    return page


def make_token(kind: str, below: int) -> str:
    """The token of the page that begins below a number."""
    return f"{kind}:{below}"


def read_token(kind: str, token: str) -> int | None:
    """The number that the page begins below; None for the first page.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    if not token:
        return None
    owner, _, below = token.partition(":")
    if owner != kind or not (below.isascii() and below.isdecimal()) or len(below) > 18:
        raise M1Error(
            Reason.INVALID_ARGUMENT,
            f'page_token "{token[:80]}" is not one of this list',
            "take next_page_token from the page before",
            field="page_token",
            value=token[:80],
        )
    return int(below)
