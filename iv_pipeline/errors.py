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


class PictureError(DeliveryError):
    """A picture that cannot be read.

    `what` is one of a few fixed phrases, so that equal input gives equal reasons; what to do about it follows from
    the phrase.

    Parameters
    ----------
    what
        The phrase; a detail, such as the name of a format, may follow in parentheses.
    where
        Archive and entry, or file; empty for bytes that have no name.
    """

    def __init__(self, what: str, *, where: object = "", fix: str = "") -> None:
        super().__init__(what, where=where, fix=fix or fix_of(what))


NOT_THERE = "not in the archive"
EMPTY_FILE = "empty file"
NOT_A_PICTURE = "not a picture"
OTHER_FORMAT = "a format that is not read"
DAMAGED_PICTURE = "damaged picture"
TRUNCATED = "cut off before its end"
TOO_LARGE = "too large to be read"
ENCRYPTED = "encrypted"
OTHER_METHOD = "packed by a method that is not read"
DAMAGED_ENTRY = "damaged in the archive"
NO_ACCESS = "the file cannot be opened"

_FIXES = {
    NOT_THERE: "add them to the archive, or drop them from the paths",
    EMPTY_FILE: "copy the pictures again from where they come from",
    NOT_A_PICTURE: "put the pictures in their place, or drop them from the paths",
    OTHER_FORMAT: "convert them to JPEG or PNG",
    DAMAGED_PICTURE: "copy the pictures again from where they come from",
    TRUNCATED: "copy the pictures again from where they come from",
    TOO_LARGE: "scale them down",
    ENCRYPTED: "pack the archive again without a password",
    OTHER_METHOD: "unpack the archive, and put the folder in its place or pack it again with Deflate",
    DAMAGED_ENTRY: "copy the archive again",
    NO_ACCESS: "give this user the right to read the files, and look after their disk",
}


def fix_of(what: str) -> str:
    """What to do about pictures that cannot be read, by the phrase that says why; empty for other words."""
    return _FIXES.get(what.partition(" (")[0], "")
