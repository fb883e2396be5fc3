"""The reader of pickles: what it admits equals what pickle makes of it, and it calls and allocates nothing else."""

import os
import pickle
import struct
import tracemalloc
from collections import OrderedDict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxgen.data import pickles

PROTOCOLS = range(6)

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.binary(max_size=300)
    | st.text(max_size=300),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(st.text(max_size=5) | st.binary(max_size=5) | st.integers(), inner, max_size=5)
    ),
    max_leaves=15,
)


@settings(deadline=None)
@given(PLAIN, st.sampled_from(PROTOCOLS[2:]))
def test_plain_values_equal_pickles(value, protocol):
    assert pickles.loads(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.asfortranarray(np.arange(12, dtype=np.uint8).reshape(3, 4)),
        np.arange(3, dtype=">i4"),
        np.linspace(0, 1, 5),
        np.array([True, False]),
        np.zeros((0, 3), np.float32),
        np.array(7),
    ],
)
def test_arrays_equal_pickles(array, protocol):
    content = pickle.dumps({b"data": array, "again": [array, array.dtype.type(1)]}, protocol)
    value = pickles.loads(content)
    for read in (value[b"data"], value["again"][0]):
        np.testing.assert_array_equal(read, array)
        assert read.dtype == array.dtype
    assert value["again"][1] == 1


def test_strings_of_python_2_are_bytes():
    content = b"\x80\x02}q\x00(U\x04dataq\x01T\x03\x00\x00\x00abcU\x06labelsq\x02]q\x03(K\x06K\x09eu."
    assert pickles.loads(content) == pickle.loads(content, encoding="bytes") == {b"data": b"abc", b"labels": [6, 9]}


def test_arrays_of_python_2():
    """As in the published batches of CIFAR-10."""
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x01cnumpy\nndarray\nq\x02K\x00\x85q\x03U\x01bq\x04\x87q\x05Rq\x06"
        b"(K\x01K\x02K\x03\x86q\x07cnumpy\ndtype\nq\x08U\x02u1q\tK\x00K\x01\x87q\nRq\x0b"
        b"(K\x03U\x01|q\x0cNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\rb\x89U\x06abcdefq\x0etq\x0fb."
    )
    array = pickles.loads(content)
    assert (array.dtype, array.tolist()) == (np.uint8, [[97, 98, 99], [100, 101, 102]])


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_called(tmp_path, protocol):
    evil = Evil()
    Evil.path = tmp_path / "made"
    with pytest.raises(ValueError, match="not allowed"):
        pickles.loads(pickle.dumps([evil], protocol))
    assert not Evil.path.exists()


@pytest.mark.parametrize(
    "value", [Fraction(1, 2), OrderedDict(a=1), {1, 2}, 1j, np.array(["a"]), np.array([{}]), np.zeros(1, "i4,i4"), len]
)
@pytest.mark.parametrize("protocol", [2, 5])
def test_other_types_are_refused(value, protocol):
    with pytest.raises(ValueError, match="damaged, or no plain pickle"):
        pickles.loads(pickle.dumps(value, protocol))


def global_(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


LARGE = 2**40
ARRAY_OF = b"(" + global_("numpy ndarray") + b"\x8a\x06" + LARGE.to_bytes(6, "little") + b"\x85C\x01bt"
CLAIMS = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", LARGE) + b"abc.",
    "bytearray": b"\x80\x05\x96" + struct.pack("<Q", LARGE) + b"abc.",
    "text": b"\x80\x04\x8d" + struct.pack("<Q", LARGE) + b"abc.",
    "string": b"T" + struct.pack("<i", 2**31 - 1) + b"abc.",
    "long": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"abc.",
    "memo": b"Nr" + struct.pack("<I", 2**32 - 1) + b"0K\x01K\x02.",
    "array": b"\x80\x03" + global_("numpy.core.multiarray _reconstruct") + ARRAY_OF + b"R.",
    "type": global_("numpy dtype") + b"(U\x0bV1000000000I0\nI1\ntR.",
    "class": global_("numpy ndarray") + b"(\x8a\x06" + LARGE.to_bytes(6, "little") + b"tR.",
}


@pytest.mark.parametrize("name", CLAIMS)
def test_memory_is_not_taken_for_what_a_pickle_claims(name):
    tracemalloc.start()
    try:
        value = pickles.loads(CLAIMS[name])
    except ValueError as error:
        value = error
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert isinstance(value, ValueError) or value in (2, None)
    assert peak < 2**20


def test_an_array_has_the_bytes_that_follow():
    content = pickle.dumps(np.zeros(100, np.uint8), 2)
    assert content.count(b"Kd") == 1
    with pytest.raises(ValueError, match="cannot reshape"):
        pickles.loads(content.replace(b"Kd", b"Ke"))


def test_deep_keys_are_refused():
    """Hashing a deep tuple would overflow the interpreter's stack."""
    with pytest.raises(ValueError, match="a key of type tuple"):
        pickles.loads(b"\x80\x02}N" + b"\x85" * 10**5 + b"Ns.")


GENUINE = pickle.dumps({b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2, 3]}, 2)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_bytes_are_read_or_refused(drawn):
    content = bytearray(GENUINE)
    for _ in range(drawn.draw(st.integers(1, 4))):
        content[drawn.draw(st.integers(0, len(content) - 1))] = drawn.draw(st.integers(0, 255))
    try:
        message = None
        pickle.dumps(pickles.loads(bytes(content)))
    except ValueError as error:
        message = str(error)
    assert message is None or "damaged, or no plain pickle" in message
