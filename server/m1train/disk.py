"""What a full disk looks like to a program."""

from __future__ import annotations

import errno


def out_of_space(error: BaseException | None) -> bool:
    """Whether an error says that the disk, or the user's share of it, is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
