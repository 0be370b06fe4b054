"""Errors and notices: one sentence saying where, what is wrong, and how to fix it.

Everything that tells people about their input is a `Notice`, or an `InputError` made of the same three parts.
Their one format is `sentence`, so that console, Dagster and the report say the same.
"""

from __future__ import annotations

import errno
import functools
from dataclasses import dataclass
from typing import Any

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
_NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}


def sentence(what: str, where: object = "", fix: str = "") -> str:
    """``where: what; fix``, on one line, without the parts that are empty."""
    place = f"{where}: " if str(where) else ""
    remedy = f"; {fix}" if fix else ""
    return " ".join(f"{place}{what}{remedy}".split())


def reason_of(error: OSError, where: object = "") -> str:
    """One sentence for what the operating system refused: which file, why, and what to do.

    Parameters
    ----------
    error
        What was raised.
    where
        What is named if the error names no file.
    """
    place = error.filename2 or error.filename or where
    if error.errno in _NO_SPACE:
        return sentence(
            "the disk is full", place, "make room, and run it again: what was there before is whole"
        )
    if error.errno in _NOT_ALLOWED:
        return sentence(
            f"not allowed ({error.strerror})", place, "change its permissions, or name another place"
        )
    return sentence(str(error.strerror or error), place, "look at the file and its disk, and run it again")


@dataclass(frozen=True)
class Notice:
    """Something that people should know about their input although the run goes on.

    Attributes
    ----------
    what
        The fact, with its count where it is about many images.
    where
        File, descriptor or column; empty if `what` names it.
    fix
        What to do, in the imperative; empty if nothing needs to be done.
    """

    what: str
    where: str = ""
    fix: str = ""

    def __str__(self) -> str:
        return sentence(self.what, self.where, self.fix)


class InputError(ValueError):
    """Input that cannot be used.

    Parameters
    ----------
    what
        The fact.
    where
        File, descriptor, column or setting; empty if `what` names it.
    fix
        What to do, in the imperative.
    """

    def __init__(self, what: str, *, where: object = "", fix: str = "") -> None:
        super().__init__(sentence(what, where, fix))
        self.what, self.where, self.fix = what, str(where), fix

    def __reduce__(self) -> tuple[Any, ...]:
        again = functools.partial(type(self), where=self.where, fix=self.fix)
        return again, (self.what,)


class ConfigError(InputError):
    """The configuration is wrong."""


class DeliveryError(InputError):
    """A file of the delivery is wrong."""


class ChangedBatchError(DeliveryError):
    """A batch was changed while it was being labelled: it is labelled once it rests again."""


class MissingStageError(InputError, FileNotFoundError):
    """A stage that this one reads has not been made yet."""
