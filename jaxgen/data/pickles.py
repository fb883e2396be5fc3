"""A reader of pickles that hold arrays, bytes, text, numbers, lists and dicts, such as CIFAR-10's batches.

Unpickling calls whatever a file names, with whatever arguments, and allocates what it claims. This reader follows the
instructions itself, as `pickletools` lists them, and calls nothing: NumPy's constructors are mere names here, and an
array is made from bytes that the file really holds.
"""

import pickletools
import re
import warnings
from collections.abc import Iterator
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

_CORES = ("numpy.core", "numpy._core")  # the name before and since NumPy 2
_ARRAY = {f"{core}.multiarray _reconstruct" for core in _CORES}
_BUFFER = {f"{core}.numeric _frombuffer" for core in _CORES}
_SCALAR = {f"{core}.multiarray scalar" for core in _CORES}
_DTYPE = {"numpy dtype"}
_ENCODE = {"_codecs encode"}
_EMPTY_BYTES = {"__builtin__ bytes", "builtins bytes"}  # how Python 3 writes b"" for Python 2
_NAMES = {"numpy ndarray"} | _ARRAY | _BUFFER | _SCALAR | _DTYPE | _ENCODE | _EMPTY_BYTES
_DTYPE_CODE = re.compile(r"[<>|=]?[biufc]\d{1,2}")  # of booleans and numbers

_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_TEXTS = {"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_VALUES = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"} | _TEXTS
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_OLD_BYTES = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # Python 2's str


class _Name(str):
    """A class or function that a pickle names."""


class _Pending:
    """A NumPy object whose state follows."""

    def __init__(self, dtype: np.dtype[Any] | None = None) -> None:
        self.value: Any = dtype


def loads(content: bytes) -> Any:
    """Read a pickle. Python 2's `str` becomes bytes, as in `pickle.loads(content, encoding="bytes")`.

    Raises:
        ValueError: it is damaged, or holds something else than arrays, bytes, text, numbers, lists and dicts.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escape sequences in text that is damaged
            return _run(content)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"it is damaged, or no plain pickle: {error}") from None


def _run(content: bytes) -> Any:
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any  # of the type that belongs to the instruction; pickletools checks that
    for opcode, argument, _ in pickletools.genops(content):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _BYTES:
            stack.append(bytes(argument))
        elif name in _OLD_BYTES:
            stack.append(argument.encode("latin-1"))
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return _finished(stack.pop())
        elif name not in ("PROTO", "FRAME"):
            _combine(name, argument, stack)
    raise ValueError("it has no end")


def _combine(name: str, argument: Any, stack: list[Any]) -> None:
    """Follow an instruction that takes values from the stack."""
    if name == "MARK":
        stack.append(_MARK)
    elif name == "POP":
        stack.pop()
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "TUPLE":
        values = _since_mark(stack)
        stack.append(tuple(values))
    elif name == "LIST":
        values = _since_mark(stack)
        stack.append([_finished(value) for value in values])
    elif name == "DICT":
        values = _since_mark(stack)
        stack.append(dict(_items(values)))
    elif name in ("APPEND", "APPENDS"):
        values = [stack.pop()] if name == "APPEND" else _since_mark(stack)
        _of_type(stack[-1], list).extend(map(_finished, values))
    elif name in ("SETITEM", "SETITEMS"):
        values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else _since_mark(stack)
        _of_type(stack[-1], dict).update(_items(values))
    elif name == "GLOBAL":
        stack.append(_named(argument))
    elif name == "STACK_GLOBAL":
        attribute, module = stack.pop(), stack.pop()
        stack.append(_named(f"{module} {attribute}"))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(_call(_of_type(function, _Name), _of_type(arguments, tuple)))
    elif name == "BUILD":
        state = stack.pop()
        _build(_of_type(stack[-1], _Pending), _of_type(state, tuple))
    else:
        raise ValueError(f"the instruction {name} is not allowed")


def _since_mark(stack: list[Any]) -> list[Any]:
    """Take the values above the topmost mark, and the mark, from the stack."""
    values = []
    while (value := stack.pop()) is not _MARK:
        values.append(value)
    return values[::-1]


def _items(values: list[Any]) -> Iterator[tuple[Any, Any]]:
    for key, value in zip(values[::2], values[1::2], strict=True):
        if not isinstance(key, bytes | str | int):
            raise ValueError(f"a key of type {type(key).__name__} is not allowed")
        yield key, _finished(value)


def _of_type(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _finished(value: Any) -> Any:
    return value.value if isinstance(value, _Pending) else value


def _named(name: str) -> _Name:
    if name not in _NAMES:
        raise ValueError(f"{name.replace(' ', '.')} is not allowed")
    return _Name(name)


def _call(function: _Name, arguments: tuple[Any, ...]) -> Any:
    if function in _ARRAY:
        return _Pending()
    if function in _DTYPE:
        return _Pending(_dtype(arguments[0]))
    if function in _BUFFER:
        content, dtype, shape, order = arguments
        return _array(shape, dtype, order == "F", content)
    if function in _SCALAR:
        dtype, content = arguments
        return _array((), dtype, False, content)[()]
    if function in _ENCODE:
        text, encoding = arguments
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"the encoding {encoding!r} is not allowed")
        return _of_type(text, str).encode("latin-1")
    if function in _EMPTY_BYTES and not arguments:
        return b""
    raise ValueError(f"{function.replace(' ', '.')} cannot be called")


def _build(pending: _Pending, state: tuple[Any, ...]) -> None:
    if isinstance(pending.value, np.dtype):
        pending.value = pending.value.newbyteorder(cast(Any, _text(state[1])))
    else:
        _, shape, dtype, fortran_order, content = state
        pending.value = _array(shape, dtype, fortran_order, content)


def _dtype(code: Any) -> np.dtype[Any]:
    if not _DTYPE_CODE.fullmatch(text := _text(code)):
        raise ValueError(f"arrays of type {text} are not allowed")
    return np.dtype(text)


def _text(value: Any) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else str(_of_type(value, str))


def _array(shape: tuple[int, ...], dtype: Any, fortran_order: bool, content: bytes) -> NDArray[Any]:
    values = np.frombuffer(_of_type(content, bytes), _finished(dtype))
    return values.reshape(shape, order="F" if fortran_order else "C")
