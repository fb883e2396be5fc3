"""Folders of pictures: layouts, splits, formats, metadata, unreadable files, what is reported, and the cache."""

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
from jaxgen.data import decode, folder
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
    return images.images[:, 0, 0, 0].tolist()


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


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("TRAIN", "VAL"),
        ("training", "testing"),
        ("Training", "Validation"),
        ("train", "valid"),
        ("train", "eval"),
        ("train", "dev"),
        ("train", "Test"),
    ],
)
def test_splits_by_other_names(root, train, test):
    two_splits(root, test)
    (root / "train").rename(root / train)
    images, held_out = load(root), load(root, "test")
    assert (shades(images), shades(held_out)) == ([0, 25, 50, 75], [100, 125, 150, 175])
    assert images.classes == held_out.classes == ("cat", "dog")


@pytest.mark.parametrize(
    "names",
    [
        ("trainA", "trainB", "testA", "testB"),
        ("train2017", "val2017"),
        ("train_images", "test_images"),
        ("images-train", "images-val"),
        ("Train A", "Eval A"),
    ],
)
def test_folders_that_look_like_splits_are_not_classes(root, names):
    for name in names:
        save(root / name / "1.png", photo())
    with pytest.raises(InputError, match=rf"look like splits, .*{sorted(names)[0]}.*name them train/ and test/"):
        load(root)


def test_classes_may_resemble_one_kind_of_split(root):
    for name in ("test-tube", "beaker"):
        for number in range(2):
            save(root / name / f"{number}.png", photo())
    assert load(root).classes == ("beaker", "test-tube")


@pytest.mark.parametrize("inner", [("train", "test"), ("Training", "val"), ("trainA", "testA")])
def test_splits_one_level_down_are_not_taken_for_a_class(root, inner):
    for name in inner:
        save(root / "pets" / name / "cat/1.png", photo())
    with pytest.raises(InputError, match=rf"splits one level down, in pets/: name that folder, folder:{root}/pets"):
        load(root)


def test_two_folders_for_one_split_are_refused(root):
    two_splits(root)
    save(root / "Train/cat/1.png", photo())
    with pytest.raises(InputError, match="has Train/ and train/"):
        load(root)


def test_a_split_with_classes_and_one_without_are_refused(root):
    save(root / "train/cat/1.png", photo())
    save(root / "test/1.png", photo())
    for split in ("train", "test"):
        with pytest.raises(InputError, match=r"train has a sub-folder for each class and .*test has none"):
            load(root, split)


def test_test_is_preferred_to_val(root):
    two_splits(root, "val")
    save(root / "test/cat/only.png", Image.new("L", (4, 4), 255))
    assert shades(load(root, "test")) == [255]


def test_a_class_has_the_same_label_in_both_splits(root):
    two_splits(root)
    for path in (root / "val" / "cat").iterdir():
        path.unlink()
    (root / "val" / "cat").rmdir()
    train, test = load(root), load(root, "test")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 0, 1, 1], [1, 1])
    assert train.classes == test.classes == ("cat", "dog")


def test_a_class_without_readable_pictures_keeps_its_label(root):
    two_splits(root)
    save(root / "train/bird/1.png", photo()).rename(root / "train/bird/1.heic")
    told = []
    train, test = load(root, log=told.append), load(root, "test", log=told.append)
    assert train.classes == test.classes == ("bird", "cat", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 1, 2, 2], [1, 1, 2, 2])
    assert all("no images of bird" in line for line in told)


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
    assert train.classes == ()
    assert len(load(root, "test", test_fraction=0.5).labels) == 10
    assert {tuple(shades(load(root, "test", split_seed=seed))) for seed in range(5)} != {tuple(shades(test))}


def test_a_split_does_not_depend_on_where_the_folder_is(root, tmp_path):
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
        (("a.txt",), r"holds no images .*only 1 \.txt"),
        (("cat/1.heic", "cat/2.HEIC", "dog/3.heic"), r"holds no images .*only 3 \.heic"),
        ((".hidden.png",), "holds no images"),
        (("one.png",), "single image"),
        (("a.png", "sub/b.png"), "sub-folders"),
    ],
)
def test_unusable_folders_are_refused(root, files, message):
    for name in files:
        save(root / name, photo(), format="PNG")
    with pytest.raises(InputError, match=rf"mine\b.*{message}"):
        load(root)


def test_a_folder_that_does_not_exist_is_named(root):
    with pytest.raises(InputError, match=r"nowhere: there is no such folder; if it was moved, name its new place"):
        load(root / "nowhere")


def test_other_paths_that_cannot_be_used_are_named(root):
    (root / "file").write_bytes(b"")
    for path, message in (
        (root / "file", "is not a folder"),
        ("a\0b", "cannot be read"),
        ("x" * 300, "cannot be read"),
    ):
        with pytest.raises(InputError, match=message):
            load(path)


@pytest.mark.parametrize(
    "name", ["@eaDir", "#recycle", "$RECYCLE.BIN", "__MACOSX", "lost+found", ".thumbnails", ".ipynb_checkpoints"]
)
def test_folders_of_file_servers_are_not_classes(root, name):
    two_splits(root)
    save(root / "train" / name / "1.png", photo())
    save(root / "train/cat" / name / "1.png", photo())
    save(root / name / "1.png", photo())
    (root / "train/cat/Thumbs.db").write_bytes(b"")
    told = []
    train = load(root, log=told.append)
    assert (shades(train), train.classes) == ([0, 25, 50, 75], ("cat", "dog"))
    assert name not in told[0]
    assert "left out" not in told[0]


def test_link_cycles_are_not_followed(root):
    two_splits(root)
    (root / "train" / "cat" / "up").symlink_to(root / "train")
    assert shades(load(root)) == [0, 25, 50, 75]


def test_a_class_may_be_a_link(root, tmp_path):
    save(tmp_path / "kept" / "1.png", Image.new("L", (4, 4), 99))
    two_splits(root)
    (root / "train" / "emu").symlink_to(tmp_path / "kept")
    assert (shades(load(root))[-1], load(root).labels.tolist()[-1]) == (99, 2)


def test_home_is_expanded(root, monkeypatch):
    two_splits(root)
    monkeypatch.setenv("HOME", str(root.parent))
    assert len(data.load("folder:~/mine").labels) == 4


# What is reported


def test_one_line_sums_up_what_was_found(root):
    two_splits(root)
    for name in ("a.heic", "b.HEIC", "notes.txt", "README"):
        (root / "train/cat" / name).write_bytes(b"")
    save(root / "val/emu/1.png", Image.new("L", (4, 4), 9))
    save(root / "extra/1.png", photo())
    save(root / "1.png", photo())
    told = []
    load(root, log=told.append)
    assert told == [
        f"folder:{root}: 4 training images of 4×4 pixels in 3 classes, 5 held out for testing; no images of emu; "
        "not used: extra/, 1 image beside the splits; "
        "left out, as Pillow does not read them: 2 .heic, 1 without an ending, 1 .txt"
    ]
    told.clear()
    load(root, "test", log=told.append)
    assert told == [
        f"folder:{root}: 5 test images of 4×4 pixels in 3 classes; not used: extra/, 1 image beside the splits"
    ]


def test_a_folder_without_splits_says_how_many_are_held_out(root):
    for number in range(20):
        save(root / f"{number}.png", photo())
    told = []
    load(root, log=told.append)
    assert told == [f"folder:{root}: 18 training images of 12×10 pixels, 2 held out for testing"]


def test_the_line_says_what_became_of_shapes(root):
    two_splits(root)
    save(root / "train/cat/wide.png", photo(0, 20, 60))
    for _ in range(2):  # decoded, then cached
        told = []
        load(root, size=(8, 8), log=told.append)
        load(root, size=(8, 8), crop=True, log=told.append)
        load(root, "test", size=(8, 8), log=told.append)
        assert "; resized, which squeezed or stretched 1 of 5 (crop keeps their proportions)" in told[0]
        assert told[1].endswith("; resized and cropped at the centre")
        assert told[2].endswith("; resized")


def test_by_default_only_what_was_left_out_is_a_warning(root, caplog):
    caplog.set_level("INFO", "jaxgen.data")
    two_splits(root)
    load(root)
    (root / "train/cat/a.heic").write_bytes(b"")
    load(root)
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("jaxgen.data", "INFO"),
        ("jaxgen.data", "WARNING"),
    ]


def test_decoding_reports_its_progress(root, monkeypatch):
    from jaxgen.data import report

    two_splits(root)
    monkeypatch.setattr(report, "_FIRST", 0.0)
    told = []
    load(root, log=told.append)
    assert told[0] == f"folder:{root}: decoding: 0 of 4"


# Formats and pixels


def only(root, **options) -> np.ndarray:
    """The pixels of the single image in train/."""
    save(root / "val/c/other.png", photo())
    images = load(root, **options).images
    assert len(images) == 1
    return images[0]


def png(bit_depth: int, colour_type: int, rows: bytes, width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG that Pillow itself cannot write."""
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
    [
        *(
            (f"a.{suffix}", {})
            for suffix in ("png", "PNG", "bmp", "dib", "ppm", "tif", "TIFF", "tga", "pcx", "sgi", "jp2")
        ),
        *((f"a.{suffix}", {}) for suffix in ("jpg", "JPEG", "jpe", "jfif", "gif", "avif", "qoi")),
        ("a.webp", {"lossless": True}),
        ("a.tif", {"compression": "tiff_lzw"}),
    ],
)
def test_formats(root, name, options):
    path = save(root / "train/c" / name, photo(5, 16, 16), **options)
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(only(root), expected)
    if Image.registered_extensions()[path.suffix.lower()] not in ("JPEG", "GIF", "AVIF"):
        np.testing.assert_array_equal(expected, photo(5, 16, 16))


@pytest.mark.parametrize(
    ("name", "options"), [("a.gif", {}), ("a.webp", {"lossless": True}), ("a.png", {}), ("a.tiff", {})]
)
def test_the_first_frame_of_an_animation_is_read(root, name, options):
    frames = [Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))]
    path = save(root / "train/c" / name, frames[0], save_all=True, append_images=frames[1:], **options)
    with Image.open(path) as stored:
        assert stored.n_frames == 2
    assert only(root)[0, 0].tolist() == [255, 0, 0]


def test_a_stereo_photo_is_its_first_picture(root):
    path = save(root / "train/c/a.mpo", photo(5), format="MPO", save_all=True, append_images=[photo(6)])
    with Image.open(path) as stored:
        expected = np.asarray(stored.convert("RGB"))
    np.testing.assert_array_equal(only(root), expected)


def test_the_content_decides_and_not_the_ending(root):
    save(root / "train/c/a.png", photo(5), format="BMP")
    np.testing.assert_array_equal(only(root), photo(5))


def test_formats_that_pillow_does_not_decode_itself_are_left_out():
    assert not decode.suffixes() & {".eps", ".ps", ".pdf", ".mpg", ".h5", ".wmf"}


def test_wide_photos_keep_their_proportions_when_cropped(root):
    picture = photo(5, 20, 60)
    save(root / "train/c/a.png", picture)
    resized = picture.resize((24, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(only(root, size=(8, 8), crop=True), resized.crop((8, 0, 16, 8)))
    squeezed = picture.resize((8, 8), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(only(root, size=(8, 8)), squeezed)


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


def test_pixels_without_a_known_white_are_refused(root):
    two_splits(root)
    for name, pixels in (("float.tif", np.zeros((4, 4), np.float32)), ("deep.tif", np.full((4, 4), 70_000, np.int32))):
        path = save(root / "train/cat" / name, Image.fromarray(pixels))
        with pytest.raises(InputError, match=rf"{name} cannot be read: .*convert it to 8 or 16 bits"):
            load(root)
        path.unlink()


def test_sixteen_bit_colour(root):
    put(root, "a.png", png(16, 2, b"\0" + struct.pack(">HHH", 0, 257 * 100, 65535), 1, 1))
    assert only(root)[0, 0].tolist() == [0, 100, 255]


def test_cmyk(root):
    path = save(root / "train/c/a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    np.testing.assert_allclose(only(root).astype(int), np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=2)


def turned_by_a_camera(upright: Image.Image, orientation: int) -> Image.Image:
    turn = Image.Transpose
    held = (turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE)
    held += (turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270)
    return upright if orientation == 1 else upright.transpose(held[orientation - 2])


def exif_with(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff"])
def test_exif_orientation(root, orientation, name):
    upright = photo(5, 4, 6)
    stored = turned_by_a_camera(upright, orientation)
    options = {"lossless": True} if name.endswith("webp") else {}
    save(root / "train/c" / name, stored, exif=exif_with(orientation), **options)
    np.testing.assert_array_equal(only(root), upright)


# Metadata


def encoded(picture, kind, **options) -> bytes:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return content.getvalue()


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)


def after_header(content: bytes, *chunks: bytes) -> bytes:
    return content[:33] + b"".join(chunks) + content[33:]


JPEG_BYTES, PNG_BYTES = encoded(photo(5, 40, 40), "JPEG"), encoded(photo(5, 40, 40), "PNG")
BROKEN_EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\5\1\x12"
UNREADABLE_METADATA = {
    "exif.jpg": JPEG_BYTES[:2] + segment(0xE1, BROKEN_EXIF) + JPEG_BYTES[2:],
    "value.jpg": encoded(photo(5, 40, 40), "JPEG", exif=exif_with(99)),
    "icc.jpg": JPEG_BYTES[:2] + segment(0xE2, b"ICC_PROFILE\0\1") + JPEG_BYTES[2:],
    "photoshop.jpg": JPEG_BYTES[:2] + segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed") + JPEG_BYTES[2:],
    "jfif.jpg": JPEG_BYTES[:2] + segment(0xE0, b"JFIF") + segment(0xFE, b"hello") + JPEG_BYTES[2:],
    "icc.png": after_header(PNG_BYTES, chunk(b"iCCP", b"name\0\1junk")),
    "text.png": after_header(PNG_BYTES, chunk(b"tEXt", b"Title\0x", checksum=1)),
    "bomb.png": after_header(PNG_BYTES, chunk(b"zTXt", b"Title\0\0" + zlib.compress(b" " * 2**21))),
    "exif.png": after_header(PNG_BYTES, chunk(b"eXIf", BROKEN_EXIF[6:])),
    "checksum.png": after_header(PNG_BYTES, chunk(b"eXIf", b"MM", checksum=1)),
    "resolution.png": after_header(PNG_BYTES, chunk(b"pHYs", b"\0")),
    "end.png": PNG_BYTES[:-12],
    "half_an_end.png": PNG_BYTES[:-6],
    "bad_end.png": PNG_BYTES[:-1] + b"\0",
    "text_cut.png": PNG_BYTES[:-12] + chunk(b"tEXt", b"Title\0x")[:-6],
    "trailing.png": PNG_BYTES + b"junk",
}


@pytest.mark.parametrize("name", UNREADABLE_METADATA)
def test_unreadable_metadata_leave_the_picture_as_it_is(root, name):
    put(root, name, UNREADABLE_METADATA[name])
    expected = Image.open(io.BytesIO(JPEG_BYTES if name.endswith("jpg") else PNG_BYTES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(only(root), expected)


@pytest.mark.parametrize("orientation", [3, 6])
def test_the_orientation_is_read_beside_unreadable_metadata(root, orientation):
    upright = photo(5, 8, 16)
    stored = turned_by_a_camera(upright, orientation)
    jpeg = encoded(stored, "JPEG", exif=exif_with(orientation), quality=100)
    put(root, "a.jpg", jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\1") + jpeg[2:])
    lies = Image.open(io.BytesIO(jpeg))
    assert lies.size == stored.size
    expected = {3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_270}[orientation]
    np.testing.assert_array_equal(only(root), lies.transpose(expected))
    (root / "train/c/a.jpg").unlink()
    png_bytes = encoded(stored, "PNG", exif=exif_with(orientation))
    put(root, "a.png", after_header(png_bytes, chunk(b"zTXt", b"Title\0\0" + zlib.compress(b" " * 2**21))))
    np.testing.assert_array_equal(only(root), upright)


def test_cmyk_survives_the_removal_of_metadata(root):
    """Their Adobe segment says how the colours of a JPEG are stored."""
    jpeg = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100)
    put(root, "a.jpg", jpeg[:2] + segment(0xE2, b"ICC_PROFILE\0\1") + jpeg[2:])
    np.testing.assert_allclose(only(root).astype(int), np.broadcast_to([255, 0, 0], (8, 8, 3)), atol=2)


# Mixtures and names


def test_gray_and_coloured_files_together_are_coloured(root):
    save(root / "train/c/a.png", Image.new("L", (2, 2), 7))
    save(root / "train/c/b.png", Image.new("RGB", (2, 2), (1, 2, 3)))
    save(root / "val/c/b.png", photo())
    assert load(root).images[:, 0, 0].tolist() == [[7, 7, 7], [1, 2, 3]]


def test_images_of_different_sizes_need_one_named(root):
    two_splits(root)
    save(root / "train/cat/large.png", photo())
    with pytest.raises(InputError, match=r"different sizes, for example 12×10 and 4×4.*size=\(height, width\)"):
        load(root)
    assert load(root, size=(5, 5)).images.shape == (5, 5, 5, 3)


def test_names_that_are_not_utf_8(root):
    """As names in an old encoding are."""
    two_splits(root)
    name = os.fsdecode(b"caf\xe9.png")
    (root / "train/cat" / name).write_bytes(b"")
    for _ in range(2):
        told = []
        assert len(load(root, skip_bad=True, log=told.append).labels) == 4
        assert name in told[1]


def test_class_names_that_are_not_utf_8(root):
    two_splits(root)
    (root / "train/cat").rename(root / "train" / os.fsdecode(b"caf\xe9"))
    for _ in range(2):
        assert load(root).classes == (os.fsdecode(b"caf\xe9"), "cat", "dog")


def test_the_users_files_are_not_changed(root):
    two_splits(root)
    save(root / "train/cat/palette.png", palette())

    def state():
        return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in root.rglob("*") if path.is_file()}

    before, mode = state(), root.stat().st_mode
    load(root, size=(3, 3), channels=1)
    assert (state(), root.stat().st_mode) == (before, mode)


# Files that cannot be used


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


HUGE = png(8, 0, b"", 30_000, 30_000)  # 900 million pixels by its header, a hundred bytes on disk
BAD = {
    "empty.png": b"",
    "text.png": b"this is no picture",
    "header.png": PNG_BYTES[:33],
    "cut.png": PNG_BYTES[: len(PNG_BYTES) // 2],
    "last_chunk.png": PNG_BYTES[:-20],
    "flip.png": flipped(PNG_BYTES, len(PNG_BYTES) // 2),
    "size.png": flipped(PNG_BYTES, 19),
    "no_pixels.png": PNG_BYTES[:33] + PNG_BYTES[-12:],
    "cut.jpg": JPEG_BYTES[:900],
    "tail.jpg": JPEG_BYTES[:-20],
    "cut.gif": encoded(photo(5, 40, 40), "GIF")[:-200],
    "cut.tif": encoded(photo(5, 40, 40), "TIFF")[:-200],
    "cut.ppm": encoded(photo(5, 40, 40), "PPM")[:-200],
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
    for _ in range(2):  # decoded, then cached
        told = []
        images = load(root, skip_bad=True, log=told.append)
        assert (shades(images), images.labels.tolist()) == ([0, 25, 50, 75], [0, 0, 1, 1])
        summary, *told = told
        assert summary.startswith(f"folder:{root}: 4 training images")
        assert [line.split(":")[0] for line in told] == ["skipped"] * len(BAD)
        assert all(any(str(root / "train/cat" / name) in line for line in told) for name in BAD)


def test_by_default_skipped_files_are_logged(root, caplog):
    two_splits(root)
    (root / "train/cat/bad.png").write_bytes(b"")
    load(root, skip_bad=True)
    assert {(record.name, record.levelname) for record in caplog.records} == {("jaxgen.data", "WARNING")}
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
    assert sorted(line.split("/")[-1].split(" ")[0] for line in told[1:]) == ["dead.png", "pipe.png"]


def test_the_pixel_limit_is_our_own(root, monkeypatch):
    two_splits(root)
    monkeypatch.setattr(decode, "PIXEL_LIMIT", 15)
    with pytest.raises(InputError, match="16 pixels are more than the limit of 15"):
        load(root)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(["PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TGA"]), st.data())
def test_damaged_files_are_read_or_refused_but_never_crash(tmp_path, kind, drawn):
    content = bytearray(encoded(photo(5, 9, 9), kind))
    for _ in range(drawn.draw(st.integers(1, 4))):
        content[drawn.draw(st.integers(0, len(content) - 1))] = drawn.draw(st.integers(0, 255))
    path = tmp_path / f"fuzzed.{kind.lower()}"
    path.write_bytes(content)
    try:
        result = decode.open_picture(path).mode
    except InputError as error:
        result = str(error)
    assert result in ("L", "RGB") or str(path) in result


# The cache


def test_a_second_run_decodes_nothing(root, monkeypatch):
    two_splits(root)
    first = load(root, size=(6, 6), channels=3)
    monkeypatch.setattr(folder, "open_picture", lambda _: pytest.fail("decoded again"))
    again = load(root, size=(6, 6), channels=3)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)


def test_a_relative_and_an_absolute_path_share_their_entry(root, monkeypatch):
    two_splits(root)
    first = load(root)
    monkeypatch.chdir(root.parent)
    monkeypatch.setattr(folder, "open_picture", lambda _: pytest.fail("decoded again"))
    np.testing.assert_array_equal(load("mine").images, first.images)


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
