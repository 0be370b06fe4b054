"""The stack machine that runs a pickle with nothing in it that acts, and the records that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from iv_pipeline.storage.foreign_objects import ForeignObject, foreign_object
from iv_pipeline.storage.matrix import COPY_AGAIN, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

STOP = ord(".")
LINE_BYTES = 4096
"""Bytes that are looked at together for a line feed, and the most of a text of Python 2."""
_FLOAT = ord("G")
_FLOATS = np.dtype([("opcode", "u1"), ("value", ">f8")])
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
_PATHS = frozenset(
    f"pathlib.{name}" for name in ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path")
)
_FLOATS_AT_ONCE = 1000  # the most that a pickler puts between a mark and the end of a list


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes from `start` to before `stop` of the file, not read yet."""

    start: int
    stop: int


class ByteText(str):
    """Text that Python 2 wrote, which may be bytes: `raw` has them."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        """Text in UTF-8, or else in Latin-1."""
        try:
            text = super().__new__(cls, raw.decode())
        except UnicodeDecodeError:
            text = super().__new__(cls, raw.decode("latin1"))
        text.raw = raw
        return text


@dataclass(frozen=True, slots=True)
class Name:
    """A callable that the pickle names: its package and its own name, whatever modules lie between."""

    name: str
    foreign: ForeignObject | None = None


@dataclass(slots=True)
class Call:
    """A call that was not made: the callable's name, its arguments, and the state its result was given."""

    name: str
    args: Any
    state: Any = None
    foreign: ForeignObject | None = None


def holds(kind: ForeignObject) -> FormatError:
    """The error of a file that holds an object of another library."""
    return FormatError(f"holds {kind.what}, not an array", kind.fix)


class PickleMachine:
    """The stack machine: `position` in the file, a stack that marks divide into frames, and a memo."""

    def __init__(self, data: memoryview, admitted: Collection[str]) -> None:
        self.position = 0
        self._data = data
        self._admitted = admitted
        self._stack: list[Any] = []
        self._frames: list[list[Any]] = []
        self._memo: dict[int, Any] = {}
        self.foreign: ForeignObject | None = None  # the first that is named

    def run(self, operations: Mapping[int, Callable[[PickleMachine], None]]) -> Any:
        """Run to the end of the program, which must be the end of the file; returns its one value."""
        while (opcode := self._opcode()) != STOP:
            operation = operations.get(opcode)
            if operation is None:
                raise FormatError(f"uses the pickle instruction {bytes([opcode])!r}, which no array needs")
            operation(self)
        if self.position != len(self._data):
            raise FormatError("goes on after its first pickle ends, and would be read in part")
        if self._frames:
            raise ValueError("a mark is left open")
        (value,) = self._stack
        return value

    def _opcode(self) -> int:
        if self.position == len(self._data):
            raise FormatError("ends in the middle of its data", COPY_AGAIN)
        self.position += 1
        return self._data[self.position - 1]

    def take(self, n: int) -> memoryview:
        """The next `n` bytes."""
        if n < 0:
            raise ValueError("a length is negative")
        start, self.position = self.position, self.position + n
        if self.position > len(self._data):
            raise FormatError("ends in the middle of its data", COPY_AGAIN)
        return self._data[start : self.position]

    def skip(self, n: int) -> Span:
        """Where the next `n` bytes lie."""
        self.take(n)
        return Span(self.position - n, self.position)

    def push(self, value: Any) -> None:
        """Put a value onto the stack."""
        self._stack.append(value)

    def pop(self) -> Any:
        """Take the uppermost value off the stack."""
        return self._stack.pop()

    def mark(self) -> None:
        """Begin a frame of the stack."""
        self._frames.append(self._stack)
        self._stack = []

    def pop_to_mark(self) -> list[Any]:
        """Values above the last mark, which are taken off with it."""
        items, self._stack = self._stack, self._frames.pop()
        return items

    def floats(self) -> None:
        """Push a float, or a run of floats that a list or a tuple takes as one array.

        As Python objects a list of vectors would take four times the memory and a hundred times as long.
        """
        start = self.position - 1
        room = (len(self._data) - start) // _FLOATS.itemsize
        if room == 0:
            raise FormatError("ends in the middle of its data", COPY_AGAIN)
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
        """Append a value to the list below it."""
        item = self.pop()
        self._list().append(item)

    def appends(self) -> None:
        """Append the values above the mark to the list below it."""
        items = self.pop_to_mark()
        self._list().extend(items)

    def _list(self) -> list[Any]:
        target = self._stack[-1]
        if isinstance(target, Call) and target.foreign is not None:
            return []  # what it holds is not asked for
        if not isinstance(target, list):
            raise TypeError("only a list is appended to")
        return target

    def set_item(self) -> None:
        """Set an item of the dictionary below it."""
        value, key = self.pop(), self.pop()
        self.fill([key], [value])

    def set_items(self) -> None:
        """Set the items above the mark in the dictionary below it."""
        items = self.pop_to_mark()
        self.fill(items[::2], items[1::2])

    def fill(self, keys: list[Any], values: list[Any]) -> None:
        """Set items of the uppermost dictionary."""
        target = self._stack[-1]
        if isinstance(target, Call) and target.foreign is not None:
            return
        keys = [self._key(key) for key in keys]
        if not isinstance(target, dict):
            raise TypeError("only a dictionary has items")
        target.update(zip(keys, values, strict=True))

    def _key(self, key: Any) -> str | int:
        """A key of a dictionary; text of NumPy is text, and floats that were gathered are none."""
        match key:
            case str():
                return str(key)
            case int():
                return key
            case Call("numpy.scalar", (Call("numpy.dtype", (str(code), *_)), content)) if code[:1] == "U":
                return self._text_of(content).rstrip("\0")
        raise FormatError("holds a dictionary whose keys are no text", "key its vectors by image path")

    def _text_of(self, content: Any) -> str:
        """The text of a scalar of NumPy, UTF-32 in bytes, which protocol 2 writes as Latin-1."""
        match content:
            case Span(start, stop):
                return self._data[start:stop].tobytes().decode("utf-32-le")
            case Call("_codecs.encode", (str(text), "latin1")):
                return text.encode("latin1").decode("utf-32-le")
        raise TypeError("a text of NumPy has no bytes")

    def take_tuple(self, n: int) -> None:
        """Replace the uppermost `n` values by their tuple."""
        if len(self._stack) < n:
            raise IndexError("the stack is too short")
        items = tuple(self._stack[-n:])
        del self._stack[-n:]
        self.push(items)

    def memoize(self, key: int) -> None:
        """Remember the uppermost value."""
        self._memo[key] = self._stack[-1]

    def memoize_next(self) -> None:
        """Remember the uppermost value under the next number."""
        self.memoize(len(self._memo))

    def recall(self, key: int) -> None:
        """Push a value that was remembered."""
        self.push(self._memo[key])

    def line(self) -> bytes:
        """The bytes up to the next line feed."""
        stop = self.position
        while stop < len(self._data):
            chunk = self._data[stop : stop + LINE_BYTES].tobytes()
            if b"\n" in chunk:
                return self.take(stop + chunk.index(b"\n") + 1 - self.position).tobytes()[:-1]
            stop += len(chunk)
        raise FormatError("ends in the middle of its data", COPY_AGAIN)

    def name(self, module: str, name: str) -> None:
        """Push the name of a callable; only an admitted or a harmless one may be mentioned at all."""
        package = _PYTHON_2.get(module.partition(".")[0], module.partition(".")[0])
        short = f"{package}.{name}"
        foreign = None if short in self._admitted else foreign_object(f"{module}.{name}")
        if short not in self._admitted and foreign is None:
            raise FormatError(
                f"wants to run {module}.{name}, which no array needs",
                "nothing was run: do not unpickle it, and ask for a plain NumPy array",
            )
        self.foreign = self.foreign or foreign
        self.push(Name(short, foreign))

    def global_name(self) -> None:
        """Push the name of a callable that is on two lines."""
        module = self.line().decode()
        self.name(module, self.line().decode())

    def stack_name(self) -> None:
        """Push the name of a callable that is on the stack."""
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name is text")
        self.name(module, name)

    def call(self) -> None:
        """Push the record of a call, or what it makes if that is plain."""
        args, callee = self.pop(), self.pop()
        if not isinstance(callee, Name) or not isinstance(args, tuple):
            raise TypeError("only a name is called")
        self.push(self._called(callee, args))

    def _called(self, callee: Name, args: tuple[Any, ...]) -> Any:
        if callee.name in {"collections.OrderedDict", "collections.defaultdict"} and len(args) <= 1:
            return {}
        if callee.name in _PATHS and all(isinstance(part, str) for part in args):
            return "/".join(args).replace("//", "/")
        if callee.name == "copyreg._reconstructor" and args and isinstance(args[0], Name):
            callee = args[0]
        if callee.name == "pandas.__pyx_unpickle_NDArrayBacked" and args and isinstance(args[0], Name):
            return Call(callee.name, args, foreign=args[0].foreign)
        return Call(callee.name, args, foreign=callee.foreign)

    def call_with_keywords(self) -> None:
        """Push the record of a call with keywords, which no array needs."""
        keywords = self.pop()
        self.call()
        if keywords and not (isinstance(self._stack[-1], Call) and self._stack[-1].foreign):
            raise TypeError("no array needs keywords")

    def instance(self) -> None:
        """Push an object of the old kind, whose class is on two lines and whose arguments are above the mark."""
        args = tuple(self.pop_to_mark())
        self.global_name()
        self.push(args)
        self.call()

    def build(self) -> None:
        """Give the result of a call its state."""
        state, built = self.pop(), self._stack[-1]
        if isinstance(built, Call) and built.foreign is not None:
            return
        if not isinstance(built, Call) or built.state is not None:
            raise TypeError("only the result of a call is given a state, once")
        built.state = state
        if built.name == "joblib.NumpyArrayWrapper":
            self._read_joblib(built)

    def _read_joblib(self, wrapper: Call) -> None:
        """Make a record of joblib that of an array, whose bytes joblib writes into the pickle behind it."""
        state = wrapper.state
        match state:
            case {"subclass": Name() as subclass, "shape": tuple() as shape, "order": order, "dtype": dtype}:
                pass
            case _:
                raise TypeError("an array of joblib is not described")
        match dtype:
            case Call("numpy.dtype", (str(code), *_)) if code[1:].isdigit() and code[0] in "fiu":
                n_bytes = int(code[1:])
            case _:
                raise FormatError(
                    "holds objects that joblib wrote", "load it with joblib.load, and save numbers"
                )
        if state.get("numpy_array_alignment_bytes") is not None:
            self.take(self.take(1)[0])
        for length in shape:
            n_bytes *= length
        content = self.skip(n_bytes)
        wrapper.name, wrapper.args = "numpy._reconstruct", (subclass,)
        wrapper.state = (1, shape, dtype, order == "F", content)
