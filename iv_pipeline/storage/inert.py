"""Reads a pickle without running it.

A pickle is a program for a small stack machine, and unpickling runs it: whatever callable it names is called.
`read_inert` runs the same program with nothing in it that acts. Callables stay names, calls stay records
(`Call`), and bytes stay places in the file (`Span`), so that a matrix of gigabytes costs no more to read than
its header. What the records mean is for `iv_pipeline.storage.pickles` to say.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from numpy.typing import NDArray

_SAVE_AGAIN = "save it again with pickle.dump(array, file, protocol=4), the array of shape (rows, features)"
_COPY_AGAIN = "copy it again from where it was made"
_PROTOCOLS = tuple(bytes([0x80, protocol]) for protocol in range(2, 6))
_OLD_CALL = re.compile(rb"c[\w.]+\n\w+\n")  # begins a pickle of protocol 0 that calls: say what it calls
_FLOAT = ord("G")
_FLOATS = np.dtype([("opcode", "u1"), ("value", ">f8")])
_FLOATS_AT_ONCE = 1000  # the most that a pickler puts between a mark and the end of a list


class Refused(Exception):  # noqa: N818 - a verdict on the file, told to people as a `DeliveryError`
    """A pickle that is not read: what is wrong with it, and what to do."""

    def __init__(self, reason: str, remedy: str = _SAVE_AGAIN) -> None:
        super().__init__(f"{reason}: {remedy}")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` to before `stop` of the file, not read yet."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Name:
    """A callable that the pickle names: its package and its own name, whatever modules lie between."""

    name: str


@dataclass(slots=True)
class Call:
    """A call that was not made: the callable's name, its arguments, and the state its result was given."""

    name: str
    args: Any
    state: Any = None


def read_inert(data: NDArray[np.uint8], admitted: Collection[str]) -> Any:
    """What a pickle of protocol 2 to 5 holds, as plain values and records.

    Parameters
    ----------
    data
        All bytes of the file, shape ``(n_bytes,)``; may be a memory map.
    admitted
        Callables that may be named, as ``package.name``.

    Returns
    -------
    Any
        Numbers, text, lists, tuples and dictionaries (keyed by text) as they are; `Name`, `Call` and `Span`
        for callables, calls and bytes. Floats that follow one another in a list or a tuple are one float64
        array, of at most 1,000.

    Raises
    ------
    Refused
        If the file is no such pickle, ends early, goes on after its end, is damaged, or names a callable
        that is not admitted.
    """
    if len(data) == 0:
        raise Refused("is empty", _COPY_AGAIN)
    head = data[:200].tobytes()
    if head[:2] not in _PROTOCOLS and not _OLD_CALL.match(head):
        raise Refused("is no pickle of protocol 2 to 5")
    machine = _Machine(data.data, admitted)
    try:
        return machine.run()
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Refused(f"is damaged near byte {machine.position:,}", _COPY_AGAIN) from error


class _Machine:
    """The stack machine: `position` in the file, a stack that marks divide into frames, and a memo."""

    def __init__(self, data: memoryview, admitted: Collection[str]) -> None:
        self.position = 0
        self._data = data
        self._admitted = admitted
        self._stack: list[Any] = []
        self._frames: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Run to the end of the program, which must be the end of the file; returns its one value."""
        while (opcode := self._opcode()) != _STOP:
            operation = _OPERATIONS.get(opcode)
            if operation is None:
                raise Refused(f"uses the pickle instruction {bytes([opcode])!r}, which no array needs")
            operation(self)
        if self.position != len(self._data):
            raise Refused("goes on after its first pickle ends, and would be read in part")
        if self._frames:
            raise ValueError("a mark is left open")
        (value,) = self._stack
        return value

    def _opcode(self) -> int:
        if self.position == len(self._data):
            raise Refused("ends in the middle of its data", _COPY_AGAIN)
        self.position += 1
        return self._data[self.position - 1]

    def take(self, n: int) -> memoryview:
        """The next `n` bytes."""
        start, self.position = self.position, self.position + n
        if self.position > len(self._data):
            raise Refused("ends in the middle of its data", _COPY_AGAIN)
        return self._data[start : self.position]

    def skip(self, n: int) -> Span:
        """Where the next `n` bytes lie."""
        self.take(n)
        return Span(self.position - n, self.position)

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        return self._stack.pop()

    def mark(self) -> None:
        self._frames.append(self._stack)
        self._stack = []

    def pop_to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._frames.pop()
        return items

    def floats(self) -> None:
        """Push a float, or a run of floats that a list or a tuple takes as one array.

        As Python objects a list of vectors would take four times the memory and a hundred times as long.
        """
        start = self.position - 1
        room = (len(self._data) - start) // _FLOATS.itemsize
        if room == 0:
            raise Refused("ends in the middle of its data", _COPY_AGAIN)
        records = np.frombuffer(self._data, _FLOATS, count=min(room, _FLOATS_AT_ONCE), offset=start)
        others = np.flatnonzero(records["opcode"] != _FLOAT)
        n = int(others[0]) if len(others) else len(records)
        values = records["value"][:n].astype(np.float64)
        self.position = start + n * _FLOATS.itemsize
        closes = self._data[self.position : self.position + 1].tobytes() in (b"e", b"t")
        if closes or n == _FLOATS_AT_ONCE:
            self.push(values)
        else:
            self._stack.extend(values.tolist())

    def append(self) -> None:
        item = self.pop()
        self._list().append(item)

    def appends(self) -> None:
        items = self.pop_to_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        target = self._stack[-1]
        if not isinstance(target, list):
            raise TypeError("only a list is appended to")
        return target

    def set_item(self) -> None:
        value, key = self.pop(), self.pop()
        self._fill([key], [value])

    def set_items(self) -> None:
        items = self.pop_to_mark()
        self._fill(items[::2], items[1::2])

    def _fill(self, keys: list[Any], values: list[Any]) -> None:
        target = self._stack[-1]
        if not isinstance(target, dict):
            raise TypeError("only a dictionary has items")
        if not all(isinstance(key, str) for key in keys):
            raise Refused("holds a dictionary whose keys are no text", "key its vectors by image path")
        target.update(zip(keys, values, strict=True))

    def take_tuple(self, n: int) -> None:
        if len(self._stack) < n:
            raise IndexError("the stack is too short")
        items = tuple(self._stack[-n:])
        del self._stack[-n:]
        self.push(items)

    def memoize(self, key: int) -> None:
        self._memo[key] = self._stack[-1]

    def memoize_next(self) -> None:
        self.memoize(len(self._memo))

    def recall(self, key: int) -> None:
        self.push(self._memo[key])

    def line(self) -> str:
        """The text up to the next line feed."""
        ahead = self._data[self.position : self.position + 1000].tobytes()
        if b"\n" not in ahead:
            raise Refused("ends in the middle of a name", _COPY_AGAIN)
        return self.take(ahead.index(b"\n") + 1).tobytes().decode().rstrip("\n")

    def name(self, module: str, name: str) -> None:
        """Push the name of a callable; only an admitted one may be mentioned at all."""
        package = module.partition(".")[0].replace("__builtin__", "builtins")
        short = f"{package}.{name}"
        if short not in self._admitted:
            raise Refused(
                f"wants to run {module}.{name}, which no array needs",
                "nothing was run; do not unpickle it, and ask for a plain NumPy array",
            )
        self.push(Name(short))

    def global_name(self) -> None:
        module = self.line()
        self.name(module, self.line())

    def stack_name(self) -> None:
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name is text")
        self.name(module, name)

    def call(self) -> None:
        args, callee = self.pop(), self.pop()
        if not isinstance(callee, Name) or not isinstance(args, tuple):
            raise TypeError("only a name is called")
        ordered_dict = callee.name == "collections.OrderedDict" and not args
        self.push({} if ordered_dict else Call(callee.name, args))

    def build(self) -> None:
        state, built = self.pop(), self._stack[-1]
        if not isinstance(built, Call) or built.state is not None:
            raise TypeError("only the result of a call is given a state, once")
        built.state = state


if TYPE_CHECKING:
    Operation = Callable[[_Machine], None]


def _number(layout: str, then: Callable[[_Machine, Any], None] = _Machine.push) -> Operation:
    """An operation that reads a number and does something with it, by default pushes it."""
    layout_ = struct.Struct(layout)

    def operation(machine: _Machine) -> None:
        then(machine, layout_.unpack(machine.take(layout_.size))[0])

    return operation


def _sized(layout: str, then: Callable[[_Machine, int], Any]) -> Operation:
    """An operation that reads a number of bytes and pushes what `then` makes of as many bytes."""
    return _number(layout, lambda machine, n: machine.push(then(machine, n)))


def _pushed(make: Callable[[], Any]) -> Operation:
    return lambda machine: machine.push(make())


def _text(machine: _Machine, n: int) -> str:
    return str(machine.take(n), "utf-8", "surrogatepass")


def _integer(machine: _Machine, n: int) -> int:
    return int.from_bytes(machine.take(n), "little", signed=True)


def _nothing(machine: _Machine, value: Any) -> None:
    """What it is about, the protocol's number and the size of a frame, shows in the file anyway."""


_STOP = ord(".")
_OPERATIONS: dict[int, Operation] = {
    0x80: _number("<B", _nothing),  # PROTO
    0x95: _number("<Q", _nothing),  # FRAME
    ord("N"): _pushed(lambda: None),
    0x88: _pushed(lambda: True),
    0x89: _pushed(lambda: False),
    ord("K"): _number("<B"),
    ord("M"): _number("<H"),
    ord("J"): _number("<i"),
    ord("G"): _Machine.floats,
    0x8A: _sized("<B", _integer),  # LONG1
    ord("X"): _sized("<I", _text),
    0x8C: _sized("<B", _text),  # SHORT_BINUNICODE
    0x8D: _sized("<Q", _text),  # BINUNICODE8
    ord("C"): _sized("<B", _Machine.skip),
    ord("B"): _sized("<I", _Machine.skip),
    0x8E: _sized("<Q", _Machine.skip),  # BINBYTES8
    0x96: _sized("<Q", _Machine.skip),  # BYTEARRAY8
    ord("("): _Machine.mark,
    ord(")"): _pushed(tuple),
    0x85: lambda machine: machine.take_tuple(1),
    0x86: lambda machine: machine.take_tuple(2),
    0x87: lambda machine: machine.take_tuple(3),
    ord("t"): lambda machine: machine.push(tuple(machine.pop_to_mark())),
    ord("]"): _pushed(list),
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord("}"): _pushed(dict),
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("q"): _number("<B", _Machine.memoize),
    ord("r"): _number("<I", _Machine.memoize),
    0x94: _Machine.memoize_next,
    ord("h"): _number("<B", _Machine.recall),
    ord("j"): _number("<I", _Machine.recall),
    ord("c"): _Machine.global_name,
    0x93: _Machine.stack_name,
    ord("R"): _Machine.call,
    0x81: _Machine.call,  # NEWOBJ
    ord("b"): _Machine.build,
}
