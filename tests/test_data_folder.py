"""The user's own images: layouts, splits, every kind of file, bad files, and the second run that decodes nothing."""

import io
import os
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxgen import data
from jaxgen.data import folder
from jaxgen.errors import InputError


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))


@pytest.fixture
def root(tmp_path):
    (tmp_path / "mine").mkdir()
    return tmp_path / "mine"


def photo(seed=0, height=12, width=10) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def save(path, picture, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, **options)
    return path


def two_splits(root, test="val"):
    """Two classes; each picture of its own shade, so that one sees which is where."""
    shade = iter(range(0, 250, 25))
    for split in ("train", test):
        for name in ("cat", "dog"):
            for number in range(2):
                save(root / split / name / f"{number}.png", Image.new("L", (4, 4), next(shade)))


def shades(images) -> list[int]:
    return np.asarray(images.images)[:, 0, 0, 0].tolist()


def load(root, split="train", **options):
    return data.load(f"folder:{root}", split, **options)


# Layouts and splits


@pytest.mark.parametrize("test", ["val", "test"])
def test_image_folder_layout(root, test):
    two_splits(root, test)
    train, held_out = load(root), load(root, "test")
    assert (train.images.shape, train.images.dtype, train.labels.dtype) == ((4, 4, 4, 1), "uint8", "int32")
    assert train.white == 255
    assert (shades(train), train.labels.tolist()) == ([0, 25, 50, 75], [0, 0, 1, 1])
    assert (shades(held_out), held_out.labels.tolist()) == ([100, 125, 150, 175], [0, 0, 1, 1])


def test_a_class_may_have_sub_folders(root):
    two_splits(root)
    save(root / "train/cat/kittens/young/1.png", Image.new("L", (4, 4), 222))
    train = load(root)
    assert (shades(train), train.labels.tolist()) == ([0, 25, 222, 50, 75], [0, 0, 0, 1, 1])


def test_test_is_preferred_to_val(root):
    two_splits(root, "val")
    save(root / "test/cat/only.png", Image.new("L", (4, 4), 255))
    assert shades(load(root, "test")) == [255]


def test_a_class_has_the_same_number_in_both_splits(root):
    two_splits(root)
    for path in (root / "val" / "cat").iterdir():
        path.unlink()
    assert load(root, "test").labels.tolist() == [1, 1]


@pytest.mark.parametrize("present", ["train", "val"])
def test_half_a_layout_is_refused(root, present):
    save(root / present / "cat/1.png", photo())
    with pytest.raises(InputError, match=f"{present}/ only"):
        load(root, "test")


def test_a_flat_folder_is_split_by_a_seeded_fraction(root):
    for shade in range(20):
        save(root / f"{shade:02}.png", Image.new("L", (4, 4), shade))
    train, test = load(root), load(root, "test")
    assert len(test.labels) == 2
    assert sorted(shades(train) + shades(test)) == list(range(20))
    assert shades(load(root, "test")) == shades(test)
    assert set(train.labels.tolist()) == {0}
    assert len(load(root, "test", test_fraction=0.5).labels) == 10
    assert {tuple(shades(load(root, "test", split_seed=seed))) for seed in range(5)} != {tuple(shades(test))}


def test_a_split_does_not_hang_on_where_the_folder_lies(root, tmp_path):
    for shade in range(20):
        save(root / f"{shade:02}.png", Image.new("L", (4, 4), shade))
    before = shades(load(root, "test"))
    root.rename(tmp_path / "elsewhere")
    assert shades(load(tmp_path / "elsewhere", "test")) == before


def test_sub_folders_of_an_unsplit_folder_are_classes(root):
    for name in ("cat", "dog"):
        for number in range(5):
            save(root / name / f"{number}.png", Image.new("L", (4, 4), 10 * number + (name == "dog")))
    train, test = load(root, test_fraction=0.4), load(root, "test", test_fraction=0.4)
    assert len(test.labels) == 4
    for images in (train, test):
        assert [shade % 10 for shade in shades(images)] == images.labels.tolist()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ((), "holds no images"),
        (("a.txt",), "holds no images"),
        ((".hidden.png",), "holds no images"),
        (("one.png",), "single image"),
        (("a.png", "sub/b.png"), "sub-folders"),
    ],
)
def test_folders_that_make_no_data_set_are_refused(root, files, message):
    for name in files:
        save(root / name, photo(), format="PNG")
    with pytest.raises(InputError, match=rf"mine\b.*{message}"):
        load(root)


def test_a_folder_that_is_not_there_is_named(root):
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        load(root / "nowhere")


def test_links_that_lead_back_are_not_followed_for_ever(root):
    two_splits(root)
    (root / "train" / "cat" / "up").symlink_to(root / "train")
    assert shades(load(root)) == [0, 25, 50, 75]


def test_a_class_may_be_a_link(root, tmp_path):
    save(tmp_path / "kept" / "1.png", Image.new("L", (4, 4), 99))
    two_splits(root)
    (root / "train" / "emu").symlink_to(tmp_path / "kept")
    assert (shades(load(root))[-1], load(root).labels.tolist()[-1]) == (99, 2)


def test_home_is_understood(root, monkeypatch):
    two_splits(root)
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(data.load("folder:~/mine").labels) == 4


# Kinds of files


def only(root, **options) -> np.ndarray:
    """The pixels of the single image in train/."""
    save(root / "val/c/other.png", photo())
    images = np.asarray(load(root, **options).images)
    assert len(images) == 1
    return images[0]


def png(bit_depth: int, colour_type: int, rows: bytes, width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG that Pillow itself cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bit_depth, colour_type, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def put(root, name, content):
    path = root / "train/c" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.png", {}), ("a.PNG", {}), ("a.bmp", {}), ("a.webp", {"lossless": True}), ("a.jpg", {}), ("a.JPEG", {})],
)
def test_formats(root, name, options):
    path = save(root / "train/c" / name, photo(5), **options)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(only(root), expected)
    if not name.lower().startswith("a.jp"):
        np.testing.assert_array_equal(expected, photo(5))


def test_size_and_channels_are_pillows(root):
    save(root / "train/c/a.png", photo(5, 30, 40))
    expected = photo(5, 30, 40).resize((9, 7), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(only(root, size=(7, 9)), expected)
    np.testing.assert_array_equal(only(root, size=(7, 9), channels=1)[..., 0], expected.convert("L"))


def test_gray_is_as_if_it_had_been_opened_as_rgb(root):
    gray = photo(5, 30, 40).convert("L")
    save(root / "train/c/a.png", gray)
    as_rgb = gray.convert("RGB").resize((9, 7), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(only(root, size=(7, 9), channels=1)[..., 0], as_rgb.convert("L"))
    np.testing.assert_array_equal(only(root, size=(7, 9), channels=3), as_rgb)
    assert only(root).shape == (30, 40, 1)


def test_one_bit(root):
    save(root / "train/c/a.png", Image.new("1", (3, 2), 1))
    np.testing.assert_array_equal(only(root), np.full((2, 3, 1), 255))


def test_transparent_becomes_white(root):
    rgba = Image.new("RGBA", (3, 1), (0, 100, 200, 0))
    rgba.putpixel((1, 0), (0, 100, 200, 255))
    rgba.putpixel((2, 0), (0, 100, 200, 128))
    save(root / "train/c/a.png", rgba)
    assert only(root)[0].tolist() == [[255, 255, 255], [0, 100, 200], [127, 177, 227]]


def test_transparent_gray_stays_gray(root):
    pixels = Image.new("LA", (2, 1), (10, 0))
    pixels.putpixel((1, 0), (10, 255))
    save(root / "train/c/a.png", pixels)
    assert only(root)[0].tolist() == [[255], [10]]


@pytest.mark.parametrize(("mode", "colour", "opaque"), [("RGB", (9, 8, 7), (1, 2, 3)), ("L", 9, 1)])
def test_a_colour_declared_transparent_becomes_white(root, mode, colour, opaque):
    picture = Image.new(mode, (2, 1), colour)
    picture.putpixel((1, 0), opaque)
    save(root / "train/c/a.png", picture, transparency=colour)
    expected = picture.copy()
    expected.putpixel((0, 0), 255 if mode == "L" else (255, 255, 255))
    np.testing.assert_array_equal(only(root)[0].squeeze(), np.asarray(expected)[0])


def palette() -> Image.Image:
    picture = Image.new("P", (2, 1))
    picture.putpalette([200, 10, 30, 1, 2, 3])
    picture.putpixel((1, 0), 1)
    return picture


def test_palette(root):
    save(root / "train/c/a.png", palette())
    assert only(root)[0].tolist() == [[200, 10, 30], [1, 2, 3]]


@pytest.mark.parametrize("transparency", [0, b"\x00\xff"])
def test_palette_with_transparency(root, transparency):
    save(root / "train/c/a.png", palette(), transparency=transparency)
    assert only(root)[0].tolist() == [[255, 255, 255], [1, 2, 3]]


def test_sixteen_bits_are_scaled_not_clipped(root):
    values = [0, 128, 129, 255, 257, 32768, 65535]
    save(root / "train/c/a.png", Image.fromarray(np.array([values], np.uint16)))
    assert only(root)[0, :, 0].tolist() == [round(value / 257) for value in values] == [0, 0, 1, 1, 1, 128, 255]


def test_sixteen_bits_with_a_transparent_value(root):
    rows = b"\0" + struct.pack(">HH", 1000, 2570)
    put(root, "a.png", png(16, 0, rows, 2, 1, (b"tRNS", struct.pack(">H", 1000))))
    assert only(root)[0, :, 0].tolist() == [255, 10]


def test_sixteen_bit_colour(root):
    put(root, "a.png", png(16, 2, b"\0" + struct.pack(">HHH", 0, 257 * 100, 65535), 1, 1))
    assert only(root)[0, 0].tolist() == [0, 100, 255]


def test_cmyk(root):
    path = save(root / "train/c/a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    np.testing.assert_allclose(only(root).astype(int), np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=2)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.webp"])
def test_exif_orientation(root, orientation, name):
    upright = photo(5, 4, 6)
    turn = Image.Transpose
    held = (turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE)
    held += (turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270)  # what a camera held that way has done to the picture
    stored = upright if orientation == 1 else upright.transpose(held[orientation - 2])
    exif = Image.Exif()
    exif[0x0112] = orientation
    save(root / "train/c" / name, stored, exif=exif, **({"lossless": True} if name.endswith("webp") else {}))
    np.testing.assert_array_equal(only(root), upright)


def test_gray_and_coloured_files_together_are_coloured(root):
    save(root / "train/c/a.png", Image.new("L", (2, 2), 7))
    save(root / "train/c/b.png", Image.new("RGB", (2, 2), (1, 2, 3)))
    save(root / "val/c/b.png", photo())
    assert np.asarray(load(root).images)[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def test_images_of_different_sizes_need_one_named(root):
    two_splits(root)
    save(root / "train/cat/large.png", photo())
    with pytest.raises(InputError, match=r"different sizes, 12×10 and 4×4.*size=\(height, width\)"):
        load(root)
    assert load(root, size=(5, 5)).images.shape == (5, 5, 5, 3)


def test_names_that_are_no_text(root):
    """A name in some old encoding, Latin-1 for instance, is bytes that are no UTF-8."""
    two_splits(root)
    name = os.fsdecode(b"caf\xe9.png")
    (root / "train/cat" / name).write_bytes(b"")
    for _ in range(2):
        told = []
        assert len(load(root, skip_bad=True, log=told.append).labels) == 4
        assert name in told[0]


def test_the_users_files_are_not_touched(root):
    two_splits(root)
    save(root / "train/cat/palette.png", palette())

    def state():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}

    before, mode = state(), root.stat().st_mode
    load(root, size=(3, 3), channels=1)
    assert (state(), root.stat().st_mode) == (before, mode)


# Files that cannot be used


def encoded(picture, kind, **options) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


PNG_BYTES = encoded(photo(5, 40, 40), "PNG")
HUGE = png(8, 0, b"", 30_000, 30_000)  # 900 million pixels by its header, a hundred bytes on disk
BAD = {
    "empty.png": b"",
    "text.png": b"this is no picture",
    "gif.png": encoded(photo().convert("P"), "GIF"),
    "tiff.bmp": encoded(photo(), "TIFF"),
    "cut.png": PNG_BYTES[: len(PNG_BYTES) // 2],
    "end.png": PNG_BYTES[:-12],
    "flip.png": flipped(PNG_BYTES, len(PNG_BYTES) // 2),
    "cut.jpg": encoded(photo(5, 40, 40), "JPEG")[:900],
    "cut.webp": encoded(photo(5, 40, 40), "WEBP")[:200],
    "cut.bmp": encoded(photo(5, 40, 40), "BMP")[:2000],
    "huge.png": HUGE,
    "large.png": png(8, 0, b"", 9_000, 10_000),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_by_name(root, name):
    two_splits(root)
    path = root / "train/cat" / name
    path.write_bytes(BAD[name])
    with pytest.raises(InputError, match=rf"{path}.*--skip-bad"):
        load(root, size=(4, 4))


def test_bad_files_are_skipped_and_listed_when_asked(root):
    two_splits(root)
    for name, content in BAD.items():
        (root / "train/cat" / name).write_bytes(content)
    for _ in range(2):  # decoded, then remembered
        told = []
        images = load(root, skip_bad=True, log=told.append)
        assert (shades(images), images.labels.tolist()) == ([0, 25, 50, 75], [0, 0, 1, 1])
        assert sorted(line.split(":")[0] for line in told) == ["skipped"] * len(BAD)
        assert all(any(str(root / "train/cat" / name) in line for line in told) for name in BAD)


def test_by_default_skipped_files_are_logged(root, caplog):
    two_splits(root)
    (root / "train/cat/bad.png").write_bytes(b"")
    load(root, skip_bad=True)
    assert [(record.name, record.levelname) for record in caplog.records] == [("jaxgen.data", "WARNING")]
    assert "bad.png" in caplog.text


def test_nothing_but_bad_files_is_no_data(root):
    put(root, "bad.png", b"")
    save(root / "val/c/a.png", photo())
    with pytest.raises(InputError, match=r"none of the 1 .*bad\.png"):
        load(root, skip_bad=True)


def test_a_pipe_and_a_dead_link_are_bad_files(root):
    two_splits(root)
    os.mkfifo(root / "train/cat/pipe.png")
    (root / "train/cat/dead.png").symlink_to(root / "nothing")
    told = []
    assert len(load(root, skip_bad=True, log=told.append).labels) == 4
    assert sorted(line.split("/")[-1].split(" ")[0] for line in told) == ["dead.png", "pipe.png"]


def test_the_pixel_limit_is_our_own(root, monkeypatch):
    two_splits(root)
    monkeypatch.setattr(folder, "PIXEL_LIMIT", 15)
    with pytest.raises(InputError, match="16 pixels are more than the limit of 15"):
        load(root)


def test_pillows_remarks_on_readable_files_do_not_come_through(root):
    """A broken EXIF block is worth a warning to Pillow; the picture is there."""
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x05\x01\x12"
    save(root / "train/c/a.png", photo(5), exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(only(root), photo(5))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP"]), st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path, kind, drawn):
    content = bytearray(encoded(photo(5, 9, 9), kind))
    for _ in range(drawn.draw(st.integers(1, 4))):
        content[drawn.draw(st.integers(0, len(content) - 1))] = drawn.draw(st.integers(0, 255))
    path = tmp_path / f"fuzzed.{kind.lower()}"
    path.write_bytes(content)
    try:
        result = folder._open(path).mode
    except InputError as error:
        result = str(error)
    assert result in ("L", "RGB") or str(path) in result


# The second run


def test_a_second_run_decodes_nothing(root, monkeypatch):
    two_splits(root)
    first = load(root, size=(6, 6), channels=3)
    monkeypatch.setattr(folder, "_open", lambda _: pytest.fail("decoded again"))
    again = load(root, size=(6, 6), channels=3)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)


def test_other_options_are_other_data(root):
    two_splits(root)
    assert load(root, size=(6, 6)).images.shape == (4, 6, 6, 1)
    assert load(root, size=(5, 6)).images.shape == (4, 5, 6, 1)
    assert load(root, size=(6, 6), channels=3).images.shape == (4, 6, 6, 3)
    assert shades(load(root, "test", size=(6, 6))) == [100, 125, 150, 175]


def test_a_change_in_the_folder_is_noticed(root):
    two_splits(root)
    load(root)
    path = save(root / "train/cat/new.png", Image.new("L", (4, 4), 201))
    assert shades(load(root)) == [0, 25, 201, 50, 75]
    before = path.stat()
    save(path, Image.new("L", (4, 4), 202))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert shades(load(root)) == [0, 25, 202, 50, 75]
    path.unlink()
    assert shades(load(root)) == [0, 25, 50, 75]
    (root / "train/cat").rename(root / "train/rat")
    assert load(root).labels.tolist() == [1, 1, 2, 2]
