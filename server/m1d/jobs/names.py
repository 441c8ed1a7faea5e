"""What a job, and a dataset, may be called."""

from __future__ import annotations

import re
from pathlib import PurePath

from m1.errors import M1Error, Reason, shortened
from m1.limits import NAME
from m1.spec import Program

# Longer ones than there are, too: what looks like an id is none's name.
_LIKE_AN_ID = re.compile(r"j\d+")


def check_name(name: str) -> None:
    """Refuse a name that could be taken for an id or a path; an empty one is fine.

    Raises:
        M1Error: INVALID_NAME.
    """
    if name and (not NAME.fullmatch(name) or _LIKE_AN_ID.fullmatch(name)):
        shown = shortened(name, 80)
        raise M1Error(
            Reason.INVALID_NAME,
            f'name "{shown}" is not allowed',
            'a name has 1 to 63 letters, digits, ".", "_" and "-", begins with a letter or a digit,'
            ' and does not look like an id ("j12")',
            field="name",
            value=shown,
        )


def program_word(program: Program) -> str:
    """What a program is called in short: "train" of `python -u train.py`, "nanogpt" of `python -m nanogpt`."""
    words = [PurePath(word).name for word in program.command]
    if words[0].startswith("python"):
        rest = [word for word in words[1:] if not word.startswith("-")]
        words = rest or words
    return PurePath(words[0]).stem
