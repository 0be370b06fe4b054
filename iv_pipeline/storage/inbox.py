"""The inbox: folders in the layout of a delivery, and which of them lie there complete.

A folder is complete once a marker file says so, or once nothing in it has changed for a while. What it holds is
known by a fingerprint of its content, so that the same batch copied again is the same batch, whatever its times
and whatever file managers have left in it.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from iv_pipeline.errors import InputError
from iv_pipeline.storage.junk import UNFINISHED, is_junk
from iv_pipeline.storage.tables import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from upath import UPath

State = Literal["complete", "waiting", "unusable"]

_NAME = re.compile(r"\w[\w.+ -]*")
_UNFINISHED = (*UNFINISHED, ".tmp", ".temp", "~")
"""How copying programs name a file until it is whole; a leading dot is another way, while it is young."""
_LONGEST_NAME = 150
"""Bytes of a name that leave room for what is added to it in names of files."""
BLOCK = 1 << 28
"""Bytes of a file that are read at once; between them a look may end."""
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Batch:
    """A folder of the inbox as it was found.

    Attributes
    ----------
    name
        Of the folder.
    state
        ``complete``; ``waiting``, while it is or may be still copied; ``unusable``, if it never can be a batch.
    fingerprint
        Of its content; empty unless it is complete.
    why
        In words, what is waited for or wrong; empty if it is complete.
    """

    name: str
    state: State
    fingerprint: str = ""
    why: str = ""


@dataclass
class Watch:
    """What was seen of the inbox before: sizes and times of files, since when, and what their content was.

    Attributes
    ----------
    seen
        For each batch ``{"files": {path: [size, modified]}, "since": seconds}``.
    digests
        For each batch those of the blocks of each file at a size and time: ``{path: [size, modified, digests]}``.
    """

    seen: dict[str, dict[str, Any]] = field(default_factory=dict)
    digests: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: UPath) -> Watch:
        """What was stored at `path`; nothing if there is none, or it is damaged: then all is looked at anew.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            return cls(stored["seen"], stored["digests"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return cls()

    def save(self, path: UPath) -> None:
        """Store it for the next look."""
        with replacing(path) as sink:
            sink.write(json.dumps({"seen": self.seen, "digests": self.digests}).encode("utf-8"))


@dataclass(frozen=True)
class Rules:
    """When a folder of the inbox counts as complete.

    Attributes
    ----------
    marker
        Name of the file that says so.
    settle_seconds
        For how long nothing may have changed in a folder without a marker, as `look` saw it: files may keep the
        times that they had where they came from.
    needed
        Files without any of which a folder without a marker is not complete.
    """

    marker: str
    settle_seconds: float
    needed: frozenset[str]


class _WaitError(Exception):
    """Why a folder is not complete yet."""


def look(
    inbox: UPath, watch: Watch, rules: Rules, *, budget_seconds: float = 20, now: float | None = None
) -> list[Batch]:
    """Every folder of the inbox, by name.

    Parameters
    ----------
    inbox
        The folder of folders; hidden ones, and those that file managers make, are passed over.
    watch
        What was seen before; brought up to date.
    rules
        When a folder is complete.
    budget_seconds
        After so long no further file is read; what is left is read at the next look. Each folder has its share,
        so that one that never rests does not keep others from being read.
    now
        Seconds since the epoch.

    Raises
    ------
    InputError
        If the inbox cannot be read; one that is empty gives no batches.
    """
    now = time.time() if now is None else now
    until = time.monotonic() + budget_seconds
    try:
        folders = sorted(path for path in inbox.iterdir() if path.is_dir() and _is_content(path.name))
    except OSError as error:
        raise InputError(
            f"the inbox cannot be read ({error.strerror or error})", where=inbox, fix="make it readable"
        ) from error
    for known in (watch.seen, watch.digests):
        for name in set(known) - {folder.name for folder in folders}:
            del known[name]
    found = []
    for left, folder in zip(range(len(folders), 0, -1), folders, strict=True):
        share = (until - time.monotonic()) / left
        found.append(_look_at(folder, watch, rules, now, time.monotonic() + share))
    return found


def _look_at(folder: UPath, watch: Watch, rules: Rules, now: float, until: float) -> Batch:
    name = folder.name
    if not _NAME.fullmatch(name) or ".." in name:
        why = "its name may have letters, digits, '.', '_', '+', '-' and blanks alone; rename it"
        return Batch(name, "unusable", why=why)
    if len(name.encode()) > _LONGEST_NAME:
        return Batch(name, "unusable", why=f"its name has more than {_LONGEST_NAME} bytes; rename it")
    try:
        files = files_of(folder)
        _require_rest(name, files, watch, rules, now)
        digests = _digests(folder, files, watch.digests.setdefault(name, {}), until)
        unchanged = files_of(folder) == files
    except OSError as error:  # gone or moved while it was looked at, or not to be read
        return Batch(name, "waiting", why=f"it cannot be read ({error.strerror or error})")
    except _WaitError as wait:
        return Batch(name, "waiting", why=str(wait))
    if not unchanged:
        return Batch(name, "waiting", why="it changed while it was read")
    return Batch(name, "complete", _combined(digests, rules.marker))


def _require_rest(name: str, files: dict[str, list[float]], watch: Watch, rules: Rules, now: float) -> None:
    """Take note of the files of a folder; they may be read if nobody seems to write them."""
    seen = watch.seen.get(name)
    if seen is None or seen["files"] != files:
        seen = watch.seen[name] = {"files": files, "since": now}
    rest = seen["since"] + rules.settle_seconds - now
    unfinished = next((f for f in files if f != rules.marker and _is_unfinished(f, rest)), None)
    if unfinished is not None:
        raise _WaitError(f"{unfinished} is still being copied")
    if rules.marker in files:
        return
    if rest > 0:
        raise _WaitError(f"complete if nothing changes for another {rest:.0f} s")
    if not rules.needed & files.keys():
        raise _WaitError(f"there is no {' or '.join(sorted(rules.needed))} yet")


def fingerprint_of(folder: UPath, marker: str) -> str:
    """Of the content of a batch: paths of its files and what they hold, the marker aside.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        files = files_of(folder)
        digests = {file: _digest(folder / file) for file in files if _is_content(file)}
    except OSError as error:
        raise InputError(
            f"cannot be read ({error.strerror or error})",
            where=error.filename or folder,
            fix="make it readable",
        ) from error
    return _combined(digests, marker)


def files_of(folder: UPath) -> dict[str, list[float]]:
    """Size and time of modification of every file below `folder`, hidden ones included, by relative path.

    Files that file managers leave behind are left out.

    Raises
    ------
    OSError
        If one of them cannot be looked at.
    """
    found = {}
    for file, path in _walk(folder):
        stat = path.stat()
        found[file] = [int(stat.st_size), float(stat.st_mtime)]
    return dict(sorted(found.items()))


def _walk(folder: UPath, prefix: str = "") -> Iterator[tuple[str, UPath]]:
    for path in folder.iterdir():
        name = f"{prefix}{path.name}"
        if is_junk(name):
            continue
        if path.is_dir():
            yield from _walk(path, f"{name}/")
        else:
            yield name, path


def _is_content(file: str) -> bool:
    """Whether a file or folder is part of a batch: hidden ones are of the programs that copy or show it."""
    return not is_junk(file) and not any(part.startswith(".") for part in file.split("/"))


def _is_unfinished(file: str, rest: float) -> bool:
    """Whether a file is a copy that is not whole; a hidden one only while the folder has yet to `rest`."""
    is_hidden = file.startswith(".") or "/." in file
    return file.lower().endswith(_UNFINISHED) or (is_hidden and rest > 0)


def _digests(
    folder: UPath, files: Mapping[str, list[float]], known: dict[str, list[Any]], until: float
) -> dict[str, str]:
    """Digest of every file, from what is known where size and time are the same."""
    files = {file: version for file, version in files.items() if _is_content(file)}
    for file in set(known) - set(files):
        del known[file]
    for file, version in files.items():
        if known.get(file, [])[:2] != version:
            known[file] = [*version, []]
        blocks: list[str] = known[file][2]
        while len(blocks) < _n_blocks(version[0]):
            if time.monotonic() > until:
                raise _WaitError("it is large: the rest is read at the next look")
            blocks.append(_digest_block(folder / file, len(blocks)))
    return {file: _of_blocks(blocks) for file, (_, _, blocks) in known.items()}


def _digest(path: UPath) -> str:
    n_blocks = _n_blocks(path.stat().st_size)
    return _of_blocks([_digest_block(path, i) for i in range(n_blocks)])


def _n_blocks(size: float) -> int:
    return -(-int(size) // BLOCK)


def _digest_block(path: UPath, block: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as source:
        source.seek(block * BLOCK)
        for _ in range(BLOCK // _CHUNK):
            digest.update(source.read(_CHUNK))
    return digest.hexdigest()


def _of_blocks(blocks: Sequence[str]) -> str:
    return hashlib.sha256("".join(blocks).encode()).hexdigest()


def _combined(digests: Mapping[str, str], marker: str) -> str:
    whole = hashlib.sha256()
    for file in sorted(digests):
        if file != marker:
            # names of files may be in no encoding at all
            whole.update(f"{file}\0{digests[file]}\n".encode(errors="surrogateescape"))
    return whole.hexdigest()[:16]
