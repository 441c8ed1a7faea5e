"""What becomes of whatever ended an attempt: the code, the sentence and the way out that the journal keeps of it."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path

from m1.durable import out_of_space
from m1.errors import M1Error, Reason, last_line
from m1.jobdir import Profile, Spec, recipe_path
from m1.journal import Exited

from m1train.task.own_file import OwnFile

log = logging.getLogger(__name__)

# Where a recipe's model computes, and torch with it.
_WITH_THE_MODEL = {"m1train.engine.memory", "m1train.engine.training"}


def failed(error: BaseException, directory: Path, spec: Spec) -> Exited:
    """Say how an attempt failed."""
    own = OwnFile(recipe_path(directory), spec.recipe_file.name) if spec.recipe_file else None
    if isinstance(error, M1Error) and not (own and own.line(error)):
        return Exited("failed", error.reason.value, error.message, error.hint)
    log.error("%s", "".join(traceback.format_exception(error)))
    if out_of_space(error):
        return Exited("failed", Reason.DISK_FULL, f"the disk is full ({error})", "free some space and retry the job")
    said = last_line(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate" in said:
        hint = "take a smaller batch_size, or close something large"
        return Exited("failed", Reason.OUT_OF_MEMORY, f"the memory did not suffice ({said})", hint)
    hint = "the job's log has the whole traceback"
    if own and (own.line(error) or _refused_by_torch(error, spec.profile) or type(error).__name__ == "UnfitError"):
        bad = own.bad(said, hint, own.line(error))
        return Exited("failed", bad.reason.value, bad.message, hint)
    where = traceback.extract_tb(error.__traceback__)[-1]
    return Exited("failed", Reason.INTERNAL, f"{said} ({Path(where.filename).name}:{where.lineno})", hint)


def _refused_by_torch(error: BaseException, profile: Profile) -> bool:
    """Return True if torch refused in a step or an evaluation what the recipe's model, loss or optimizer gave it.

    A RuntimeError may also be an accelerator's or the compiler's, which another attempt may get over.
    """
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not modules[-1].startswith("torch.") or not _WITH_THE_MODEL.intersection(modules) or isinstance(error, OSError):
        return False
    return not isinstance(error, RuntimeError) or (profile.device == "cpu" and not profile.compile)
