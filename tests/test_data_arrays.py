"""One's own arrays in a file: the rule, the splits, and files that claim more than they have."""

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxgen import data
from jaxgen.errors import InputError

RNG = np.random.default_rng(5)
IMAGES = RNG.integers(0, 256, (20, 6, 5, 3), np.uint8)
LABELS = np.arange(20) % 4


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "mine.npz"


def load(path, split="train", **options):
    return data.load(f"arrays:{path}", split, **options)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("images", [IMAGES, IMAGES[..., 0], IMAGES[..., :1]])
def test_arrays_are_divided_into_two_splits(path, save, order, images):
    save(path, images=np.asarray(images, order=order), labels=LABELS)
    train, test = load(path), load(path, "test")
    assert (len(train.labels), len(test.labels)) == (18, 2)
    assert (train.images.dtype, train.labels.dtype, train.white) == ("uint8", "int32", 255)
    assert train.images.flags.c_contiguous
    assert train.classes == test.classes == ("0", "1", "2", "3")
    expected = {image.tobytes(): label for image, label in zip(images, LABELS.tolist(), strict=True)}
    for split in (train, test):
        assert split.images.shape[1:] == (6, 5, images.shape[3] if images.ndim == 4 else 1)
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            assert expected.pop(image.tobytes()) == label
    assert not expected


def test_the_division_depends_on_its_options_only(path):
    np.savez(path, images=IMAGES)
    tests = [load(path, "test", split_seed=seed).images.tobytes() for seed in (0, 0, 1, 2)]
    assert tests[0] == tests[1]
    assert len(set(tests)) > 1
    assert len(load(path, "test", test_fraction=0.5).images) == 10


def test_arrays_without_labels_have_no_classes(path):
    np.savez(path, images=IMAGES)
    images = load(path)
    assert (set(images.labels.tolist()), images.classes) == ({0}, ())


def test_size_channels_and_crop(path):
    np.savez(path, images=IMAGES)
    plain = load(path).images
    resized = [Image.fromarray(image).resize((4, 4), Image.Resampling.BILINEAR) for image in plain]
    for _ in range(2):  # made, then cached
        told = []
        np.testing.assert_array_equal(load(path, size=(4, 4), log=told.append).images, np.stack(resized))
        gray = load(path, size=(4, 4), channels=1).images
        np.testing.assert_array_equal(gray[..., 0], np.stack([image.convert("L") for image in resized]))
        assert told == [
            f"arrays:{path}: 18 training images of 4×4 pixels, 2 held out for testing; "
            "resized, which squeezed or stretched 18 of 18 (crop keeps their proportions)"
        ]
    covering = [Image.fromarray(image).resize((5, 6), Image.Resampling.BILINEAR) for image in plain]
    cropped = np.stack([image.crop((0, 0, 5, 5)) for image in covering])
    np.testing.assert_array_equal(load(path, size=(5, 5), crop=True).images, cropped)


def test_a_changed_file_is_noticed(path):
    np.savez(path, images=IMAGES)
    first = load(path, size=(4, 4)).images
    np.savez(path, images=255 - IMAGES)
    assert not np.array_equal(load(path, size=(4, 4)).images, first)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": IMAGES}, "no array 'images', only x"),
        ({}, "no array 'images', only nothing"),
        ({"images": IMAGES / 255}, r"are float64; .*\(images \* 255\)"),
        ({"images": IMAGES.astype(np.int64)}, "are int64"),
        ({"images": IMAGES > 100}, "are bool"),
        ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"channels first, .*transpose\(0, 2, 3, 1\)"),
        ({"images": IMAGES[0, :, :, 0]}, r"shape \(6, 5\)"),
        ({"images": IMAGES[:0]}, r"shape \(0, 6, 5, 3\)"),
        ({"images": np.zeros((4, 5, 5, 4), np.uint8)}, r"shape \(4, 5, 5, 4\)"),
        ({"images": IMAGES[:1]}, "single image"),
        ({"images": np.array([{}])}, "Python objects"),
        ({"images": IMAGES, "labels": LABELS[:-1]}, "save 20 integers"),
        ({"images": IMAGES, "labels": LABELS.astype(float)}, "save 20 integers"),
        ({"images": IMAGES, "labels": LABELS[:, None]}, "save 20 integers"),
        ({"images": IMAGES, "labels": LABELS - 1}, "number the classes from 0"),
        ({"images": IMAGES, "labels": LABELS + 10**9}, "number the classes from 0"),
    ],
)
def test_other_arrays_are_refused_with_the_remedy(path, arrays, message):
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=rf"^arrays:{path}.*{message}") as refused:
        load(path)
    assert "\n" not in str(refused.value)


def test_a_file_that_does_not_exist_is_named(path):
    with pytest.raises(InputError, match=r"mine\.npz: there is no such file; if it was moved, name its new place"):
        load(path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"\x93NUMPY\1\0"])
def test_another_kind_of_file_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"not a file of np\.savez"):
        load(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load(tmp_path)


# Files that claim more than they have


def member(shape: tuple[int, ...], content: bytes, dtype: str = "|u1") -> bytes:
    text = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + content


def write(path, content: bytes, method=zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images.npy", content)


def claiming(content: bytes, size: int) -> bytes:
    """The archive with another decompressed size in its directory."""
    at = content.index(b"PK\1\2") + 24
    return content[:at] + struct.pack("<I", size) + content[at + 4 :]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ((2**40, 28, 28), None),
        ((2**62, 2**62, 3), None),
        ((2**20, 28, 28), 2**32 - 2),
        ((600, 28, 28), 600 * 784 + 100),
        ((1, 28, 28), None),
        ((-1, 28, 28), None),
    ],
)
def test_memory_is_not_taken_for_what_a_file_claims(path, method, shape, size):
    write(path, member(shape, bytes(2 * 28 * 28)), method)
    if size:
        path.write_bytes(claiming(path.read_bytes(), size))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=rf"^arrays:{path} (is damaged|cannot be read)") as refused:
            load(path)
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()
    assert "\n" not in str(refused.value)


def test_a_header_that_claims_to_be_long_is_refused(path):
    write(path, b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{}")
    with pytest.raises(InputError, match=r"version \(2, 0\) of the format"):
        load(path)


def test_a_header_with_an_open_brace_is_refused(path):
    """NumPy lets Python's tokenizer fail on it."""
    text = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 2, 2), {  \n"
    write(path, b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text)
    with pytest.raises(InputError, match=r"mine\.npz cannot be read: its header is damaged"):
        load(path)


SAVED = io.BytesIO()
np.savez_compressed(SAVED, images=IMAGES, labels=LABELS)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_read_or_refused_by_name(tmp_path_factory, drawn):
    content = bytearray(SAVED.getvalue())
    for _ in range(drawn.draw(st.integers(1, 4))):
        content[drawn.draw(st.integers(0, len(content) - 1))] = drawn.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.npz"
    path.write_bytes(content)
    try:
        told = [str(load(path).images.dtype)]
    except InputError as error:
        told = [str(error)]
    assert told == ["uint8"] or str(path) in told[0]
