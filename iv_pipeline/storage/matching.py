"""Which entry of an archive, or file of a folder, an image path means.

Lists of paths and archives are made on different systems: the archive may hold the images some folders deeper or
shallower, its names may differ in letter case or in how Unicode composes a letter. An entry that a path names
exactly is always the one; what else is taken for an image, and what could be two things, is said in notices.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

from iv_pipeline.errors import Notice

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

_NEEDLESS = re.compile(r"(?:(?<=/)|^)(?:\./+)+|(?<=/)/+")
_JPEG = (".jpeg", ".jpe", ".jfif")
_SAMPLE = 1000
"""Paths that the rule for all is found by."""
_AFTER_ALL = "\U0010ffff"


def normalized(path: str) -> str:
    """The path with ``/`` between its parts, and without ``./`` and doubled separators."""
    path = path.replace("\\", "/")
    return _NEEDLESS.sub("", path) if "./" in path or "//" in path else path


def fold(path: str) -> str:
    """The path without differences of letter case, of Unicode composition (NFC) and of suffixes for JPEG."""
    if path.isascii():
        folded = path.lower()
    else:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    return folded.rpartition(".")[0] + ".jpg" if folded.endswith(_JPEG) else folded


@dataclass(frozen=True)
class Matching:
    """How image paths lead to entries; small, where one rule holds for all of them.

    Attributes
    ----------
    drop, add
        Number of leading folders of a path that the entries lack, and the folders that they have instead.
    pairs
        Paths that no rule covers, and their entries.
    barred
        Paths that could mean an entry that another path means as well.
    """

    drop: int = 0
    add: str = ""
    pairs: Mapping[str, str] = field(default_factory=dict)
    barred: frozenset[str] = frozenset()


class Entries:
    """Names of an archive's entries, found exactly or else folded.

    Parameters
    ----------
    names
        Normalized, each once.
    """

    def __init__(self, names: Collection[str]) -> None:
        self.names = names

    @cached_property
    def folded(self) -> dict[str, str | None]:
        """Entry by folded name, None where several have the same."""
        found: dict[str, str | None] = {}
        for name in self.names:
            key = fold(name)
            found[key] = None if key in found else name
        return found

    def find(self, path: str, matching: Matching) -> str | None:
        """The entry that a normalized path means; None if there is none, or several."""
        if path in self.names:
            return path
        if path in matching.pairs:
            return matching.pairs[path]
        return None if path in matching.barred else self.moved(path, matching.drop, matching.add)

    def moved(self, path: str, drop: int = 0, add: str = "") -> str | None:
        """The entry at a path that lacks its first `drop` folders and has those of `add` instead."""
        parts = path.split("/", drop)
        name = add + parts[-1]
        if len(parts) <= drop:
            return None
        return name if name in self.names else self.folded.get(fold(name))


def match(image_paths: Sequence[str], entries: Entries) -> tuple[Matching, list[Notice]]:
    """Find out how image paths lead to entries.

    A path that names no entry, however it is spelled, means the one that shares the most last parts with it, if
    that is one alone and no other path means it. If the folders before are the same for most, that is the rule for
    all. Beside images that were found so, others follow only if their folder has none of those, and if they share
    a folder and the name with their entry: a name alone says little.

    Parameters
    ----------
    image_paths
        Normalized, each once.
    entries
        What there is.

    Returns
    -------
    matching
        To find entries by.
    notices
        Which tolerance it took, and which paths fit several entries equally well.
    """
    found = {path: path for path in image_paths if path in entries.names}
    if len(found) == len(image_paths):
        return Matching(), []
    if not found and {_name(fold(path)) for path in image_paths}.isdisjoint(map(_name, entries.folded)):
        return Matching(), []  # other files altogether
    n_exact, drop, add = len(found), 0, ""
    _extend(found, {path: entries.moved(path) for path in image_paths})
    if not found:
        drop, add = _common_rule(_closest(image_paths[:: max(1, len(image_paths) // _SAMPLE)], entries))
        _extend(found, {path: entries.moved(path, drop, add) for path in image_paths})
    rest = [path for path in image_paths if path not in found]
    closest = _closest(rest, entries)
    least = 2 if found else 1
    folders = {_folder(path) for path in found}
    others = {
        path: names[0]
        for path, (shared, names) in closest.items()
        if len(names) == 1 and shared >= least and _folder(path) not in folders
    }
    _extend(found, others)
    ruled = {path: entries.moved(path, drop, add) for path in rest}
    matching = Matching(
        drop,
        add,
        {path: found[path] for path in rest if path in found and found[path] != ruled[path]},
        frozenset(path for path in image_paths if path not in found and entries.moved(path, drop, add)),
    )
    doubtful = {
        path: names for path, (shared, names) in closest.items() if len(names) > 1 and shared >= least
    }
    doubtful |= {path: [name] for path, name in (ruled | others).items() if name}
    doubtful = {path: names for path, names in doubtful.items() if path not in found}
    return matching, _notices(found, doubtful, n_exact, len(image_paths))


def n_shared_parts(path: str, name: str) -> int:
    """Number of last parts that a path and a name share, however they are spelled."""
    return _n_shared(_reversed(path), _reversed(name))


def closest_names(path: str, entries: Entries) -> list[str]:
    """Entries that share most last parts with a path, two at most; none if none shares its name."""
    return _closest([path], entries)[path][1]


def _extend(found: dict[str, str], proposals: Mapping[str, str | None]) -> None:
    """Add the proposed entries of paths that have none, if no other path has or wants them."""
    taken = set(found.values())
    new = {path: name for path, name in proposals.items() if name and path not in found and name not in taken}
    wanted = Counter(new.values())
    found |= {path: name for path, name in new.items() if wanted[name] == 1}


def _closest(paths: Sequence[str], entries: Entries) -> dict[str, tuple[int, list[str]]]:
    """How many last parts each path shares with its closest entries, and these, or two of them.

    An entry belongs to the paths that share most with it.
    """
    wanted = {_name(fold(path)) for path in paths}
    if not wanted:
        return {}
    suffixes = _Suffixes(name for name in entries.names if _name(fold(name)) in wanted)
    closest = {path: suffixes.longest(path) for path in paths}
    most: dict[str, int] = {}  # that an entry shares with any path
    for shared, names in closest.values():
        for name in names:
            most[name] = max(shared, most.get(name, 0))
    return {
        path: (shared, [name for name in names if shared == most[name]])
        for path, (shared, names) in closest.items()
    }


def _common_rule(closest: Mapping[str, tuple[int, list[str]]]) -> tuple[int, str]:
    """Number of leading folders to drop and folders to add, as most paths with one closest entry need it."""
    rules = Counter(
        _rule(path, names[0], shared) for path, (shared, names) in closest.items() if len(names) == 1
    )
    rule, votes = rules.most_common(1)[0] if rules else ((0, ""), 0)
    return rule if 2 * votes > rules.total() else (0, "")


def _rule(path: str, name: str, shared: int) -> tuple[int, str]:
    kept = "/".join(name.split("/")[-shared:])
    return path.count("/") + 1 - shared, name.removesuffix(kept)


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _name(path: str) -> str:
    return path.rpartition("/")[2]


class _Suffixes:
    """Names sorted by their parts from last to first, so that those with a common end lie side by side."""

    def __init__(self, names: Iterable[str]) -> None:
        pairs = sorted((_reversed(name), name) for name in names)
        self._keys = [key for key, _ in pairs]
        self._names = [name for _, name in pairs]

    def longest(self, path: str) -> tuple[int, list[str]]:
        """How many last parts a path shares with the closest names, and two of these; 0 if there is none."""
        key = _reversed(path)
        at = bisect_left(self._keys, key)
        shared = max((_n_shared(key, other) for other in self._keys[max(at - 1, 0) : at + 1]), default=0)
        if not shared:
            return 0, []
        common = "/".join(key.split("/")[:shared]) + "/"
        first = bisect_left(self._keys, common)
        last = bisect_left(self._keys, common + _AFTER_ALL, first)
        return shared, self._names[first : min(last, first + 2)]


def _reversed(name: str) -> str:
    return "/".join(reversed(fold(name).split("/"))) + "/"


def _n_shared(key: str, other: str) -> int:
    """Number of first parts that two keys share."""
    pairs = zip(key[:-1].split("/"), other[:-1].split("/"), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _notices(
    found: Mapping[str, str], doubtful: Mapping[str, list[str]], n_exact: int, n_images: int
) -> list[Notice]:
    notices = []
    if len(found) > n_exact:
        path, name = next((path, name) for path, name in found.items() if path != name)
        respelled = sum(path != name and fold(path) == fold(name) for path, name in found.items())
        ways = [
            f"{respelled:,} in other letter case, Unicode composition or suffix" if respelled else "",
            f"{elsewhere:,} in another folder" if (elsewhere := len(found) - n_exact - respelled) else "",
        ]
        notices.append(
            Notice(
                f"{len(found) - n_exact:,} of {n_images:,} images are found under other names than their paths "
                f"({', '.join(filter(None, ways))}), such as {path} as {name}"
            )
        )
    if doubtful:
        path, names = next(iter(doubtful.items()))
        fits = " and ".join(names) if len(names) > 1 else f"{names[0]}, which another path fits as well"
        notices.append(
            Notice(
                f"{len(doubtful):,} of {n_images:,} images are not looked at, for more than one would fit: "
                f"{path} fits {fits}",
                fix="give every image one path and one file",
            )
        )
    return notices
