"""The profile: how a machine runs a job. Each field is declared once, with its bounds, its choices and a sentence.

What follows from the declarations: the client's help and its first check, the daemon's refusal, the mapping to the
contract, and what a tuning may choose from. Which fields decide the bits is for the training process to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_type_hints

from m1.errors import M1Error, Reason, nearest, shortened
from m1.settings import Kind, Setting, Value, convert, inside, takes

DEVICES = ("cpu", "mps", "cuda")
MOST_THREADS = 1024
MOST_PREFETCH = 64

_DECLARED = "declared"
_KINDS: Mapping[type, Kind] = {int: "int", bool: "bool", str: "str"}


def _declared(
    default: Value,
    summary: str,
    *,
    minimum: int | None = None,
    maximum: int | None = None,
    choices: tuple[str, ...] = (),
    unit: str = "",
) -> Any:
    declaration = {"summary": summary, "minimum": minimum, "maximum": maximum, "choices": choices, "unit": unit}
    return field(default=default, metadata={_DECLARED: declaration})


@dataclass(frozen=True)
class Profile:
    """How the machine runs the job; the default is what works everywhere."""

    device: str = _declared("cpu", "Where it computes.", choices=DEVICES)
    threads: int = _declared(1, "Threads inside one operator.", minimum=1, maximum=MOST_THREADS, unit="threads")
    interop_threads: int = _declared(1, "Operators at a time.", minimum=1, maximum=MOST_THREADS, unit="threads")
    dtype: str = _declared(
        "float32", "The number format of the forward pass, by autocast.", choices=("float32", "bfloat16", "float16")
    )
    memory_format: str = _declared(
        "channels_last", "How images lie in memory.", choices=("contiguous", "channels_last")
    )
    compile: bool = _declared(False, "Have the network compiled (torch.compile).")
    nnpack: bool = _declared(True, "Let torch use NNPACK for convolutions, where it is built with it.")
    fused: bool = _declared(True, "One kernel for a whole optimizer step, where the optimizer has it.")
    prefetch: int = _declared(
        0, "Batches prepared ahead, in a thread; does not decide the bits.", minimum=0, maximum=MOST_PREFETCH
    )
    optimizer_dtype: str = _declared(
        "bfloat16",
        "The number format of an optimizer's matrix products (Muon); float32 where the processor has no bfloat16.",
        choices=("bfloat16", "float32"),
    )
    origin: str = ""
    """Where it comes from, in words; decides nothing."""

    def beside(self) -> Profile:
        """Return the profile of something small beside a training: one thread of the CPU, nothing compiled."""
        return replace(self, device="cpu", threads=1, interop_threads=1, dtype="float32", compile=False, prefetch=0)


def _declarations() -> tuple[Setting, ...]:
    hints = get_type_hints(Profile)
    return tuple(
        Setting(name=f.name, kind=_KINDS[hints[f.name]], default=getattr(Profile, f.name), **f.metadata[_DECLARED])
        for f in fields(Profile)
        if _DECLARED in f.metadata
    )


DECLARED: Mapping[str, Setting] = {setting.name: setting for setting in _declarations()}
"""The fields that can be asked for, by name, in order."""

Source = Literal["", "default", "tuned", "parent"]


@dataclass(frozen=True)
class Chosen:
    """A profile, and where it comes from."""

    profile: Profile
    source: Source = ""
    """The machine's cores, a tuning, or the checkpoint that the job begins with; empty: 0.1.0 did not say."""
    stale: Sequence[str] = ()
    """Why the recipe should be tuned again: "torch was 2.13.0, is 2.14.1"."""


def check_field(name: str, given: object, where: str = "profile.") -> Value:
    """Check one field that was asked for, and give its value in its kind.

    Args:
        name: the field.
        given: the value; text is read as a person would write it.
        where: what an error puts before the field's name.

    Raises:
        M1Error: INVALID_ARGUMENT.
    """
    declared = DECLARED.get(name)
    if declared is None:
        message = f'a profile has no "{shortened(name)}"'
        raise M1Error(
            Reason.INVALID_ARGUMENT, message, nearest(name, DECLARED), field=f"{where}{name}", value=_shown(given)
        )
    value = convert(declared.kind, given)
    if value is None or not inside(declared, value):
        raise impossible(name, given, f"{name} takes {takes(declared)}", where)
    return value


def impossible(name: str, given: object, way_out: str, where: str = "profile.") -> M1Error:
    """Make the error for a field's value that is not possible."""
    shown = _shown(given)
    message = f'the profile\'s {name}="{shown}" is not possible'
    return M1Error(Reason.INVALID_ARGUMENT, message, way_out, field=f"{where}{name}", value=shown)


def unsound(profile: Profile) -> tuple[str, str] | None:
    """Find what is known to be wrong in a profile, wherever it runs: the field, and the way out; None if nothing is."""
    if profile.dtype == "float16" and profile.device == "cpu":
        return "dtype", "it is not sound on a CPU: use float32 or bfloat16"
    if profile.device == "mps" and profile.memory_format == "channels_last":
        # pytorch#175189
        return "memory_format", "BatchNorm's gradients are wrong there on mps: use contiguous"
    return None


def with_fields(profile: Profile, values: Mapping[str, Value]) -> Profile:
    """Give the profile with other values in some of its declared fields, which were checked before."""
    assert values.keys() <= DECLARED.keys()
    changes: dict[str, Any] = dict(values)
    return replace(profile, **changes)


def _shown(given: object) -> str:
    return shortened(str(given), 60)
