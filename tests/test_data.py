"""What `load` does for every source, the sources that need no files, and the cache."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from jaxgen import data, memory
from jaxgen.data import cache, faces, report
from jaxgen.data.images import Images, Target, fit, fit_all
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_digits_are_scikit_learns_own():
    from sklearn.datasets import load_digits

    images, labels, white, classes = data.load("digits")
    assert isinstance(images, np.ndarray)
    assert isinstance(labels, np.ndarray)
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((1797, 8, 8, 1), "uint8", (1797,), "int32")
    assert white == 16 == images.max()
    assert classes == tuple(load_digits().target_names.astype(str))
    np.testing.assert_array_equal(images[..., 0], load_digits().images)
    np.testing.assert_array_equal(labels, load_digits().target)


def test_digits_serve_as_their_own_test_split():
    np.testing.assert_array_equal(data.load("digits", "test").images, data.load("digits").images)


@pytest.mark.parametrize("options", [{}, {"size": (9, 7)}, {"channels": 3}])
@pytest.mark.parametrize("name", ["digits", "faces"])
def test_images_are_contiguous_and_writable(name, options):
    for _ in range(2):  # made, then read from the cache
        images, labels, *_ = data.load(name, "test", **options)
        assert images.flags.c_contiguous
        assert images.flags.writeable
        assert labels.flags.writeable


def test_resized_digits_have_all_shades():
    small, large = data.load("digits"), data.load("digits", size=(28, 20))
    assert large.images.shape == (1797, 28, 20, 1)
    assert large.white == 255 == large.images.max()
    scaled = Image.fromarray((small.images[0, ..., 0] * (255 / 16)).round().astype(np.uint8))
    np.testing.assert_array_equal(large.images[0, ..., 0], scaled.resize((20, 28), Image.Resampling.BILINEAR))


def test_gray_becomes_rgb_by_repetition():
    digits = data.load("digits", channels=3)
    assert digits.white == 16
    np.testing.assert_array_equal(digits.images, np.repeat(data.load("digits").images, 3, axis=3))


def random_picture(height, width, seed=0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def test_resize_precedes_gray():
    picture = random_picture(20, 30)
    expected = picture.resize((11, 7), Image.Resampling.BILINEAR).convert("L")
    gray_first = picture.convert("L").resize((11, 7), Image.Resampling.BILINEAR)
    fitted = fit(picture, Target((7, 11), 1))
    np.testing.assert_array_equal(fitted[..., 0], expected)
    assert not np.array_equal(fitted[..., 0], gray_first)


def resize_and_center_crop(picture: Image.Image, size: int) -> Image.Image:
    """torchvision's Resize(size) and CenterCrop(size), which are these operations of Pillow."""
    width, height = picture.size
    short, long = min(width, height), max(width, height)
    new_long = int(size * long / short)
    new_width, new_height = (size, new_long) if width <= height else (new_long, size)
    resized = picture.resize((new_width, new_height), Image.Resampling.BILINEAR)
    top, left = int(round((new_height - size) / 2.0)), int(round((new_width - size) / 2.0))  # noqa: RUF046
    return resized.crop((left, top, left + size, top + size))


@pytest.mark.parametrize("size", [8, 13])
@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (21, 50), (33, 20), (15, 15), (5, 9), (7, 100)])
def test_crop_to_a_square_equals_torchvision(shape, size):
    picture = random_picture(*shape)
    expected = resize_and_center_crop(picture, size)
    np.testing.assert_array_equal(fit(picture, Target((size, size), crop=True)), expected)
    np.testing.assert_array_equal(fit(picture, Target((size, size), 1, crop=True))[..., 0], expected.convert("L"))


@pytest.mark.parametrize(
    ("shape", "size", "covering"),
    [  # heights and widths: of the picture, wanted, and of the resized picture that is cropped
        ((40, 60), (10, 20), (13, 20)),
        ((40, 60), (10, 12), (10, 15)),
        ((60, 40), (20, 10), (20, 13)),
        ((40, 60), (20, 30), (20, 30)),
    ],
)
def test_crop_covers_other_shapes_at_the_smallest_scale(shape, size, covering):
    picture = random_picture(*shape)
    resized = np.asarray(picture.resize(covering[::-1], Image.Resampling.BILINEAR))
    top, left = round((covering[0] - size[0]) / 2), round((covering[1] - size[1]) / 2)
    expected = resized[top : top + size[0], left : left + size[1]]
    np.testing.assert_array_equal(fit(picture, Target(size, crop=True)), expected)


def test_whole_arrays_are_converted_like_pictures():
    images = np.stack([np.asarray(random_picture(20, 30, seed)) for seed in range(3)])
    for target in (Target((9, 9)), Target((9, 9), 1), Target((9, 9), crop=True), Target(channels=1)):
        expected = [fit(Image.fromarray(image), target) for image in images]
        np.testing.assert_array_equal(fit_all(images, target), expected)


def test_preview_of_sorted_classes_takes_turns():
    images = np.arange(7, dtype=np.uint8).reshape(7, 1, 1, 1)
    sorted_images = Images(images, np.array([0, 0, 0, 2, 2, 3, 3], np.int32), classes=("a", "b", "c", "d"))
    preview = sorted_images.preview(5)
    assert preview.images.ravel().tolist() == [0, 3, 5, 1, 4]
    assert preview.labels.tolist() == [0, 2, 3, 0, 2]
    assert preview.classes == sorted_images.classes
    assert sorted_images.preview(100).images.ravel().tolist() == [0, 3, 5, 1, 4, 6, 2]


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [1, 0, 2, 0], [0, 1, 2, 0]])
def test_preview_of_other_data_is_its_beginning(labels):
    images = Images(np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1), np.array(labels, np.int32))
    assert images.preview(3).images.ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize("white", [16, 255])
def test_images_as_floats_are_from_0_to_1(white):
    values = Images(np.arange(white + 1, dtype=np.uint8).reshape(-1, 1, 1, 1), np.zeros(white + 1, np.int32), white)
    floats = values.as_floats()
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(floats.ravel(), np.arange(white + 1, dtype=np.float32) / np.float32(white))


def test_faces_are_deterministic():
    first, again, test = data.load("faces"), data.load("faces"), data.load("faces", "test")
    assert first.images.shape == (504, 56, 56, 1)
    assert test.images.shape == (10, 56, 56, 1)
    assert first.white == 255
    np.testing.assert_array_equal(first.images, again.images)
    assert len({image.tobytes() for image in first.images}) == 504
    assert set(np.unique(first.labels)) == {0}
    assert first.classes == ()


def test_faces_in_colour_and_other_sizes():
    images = data.load("faces", "test", size=(28, 32), channels=3).images.astype(int)
    assert images.shape == (10, 28, 32, 3)
    assert np.ptp(images, axis=3).max() > 50


def test_test_faces_have_looks_that_no_training_face_has():
    looks = {
        split: {(face.style, face.skin, face.hair) for face, _ in faces._people(split)} for split in ("train", "test")
    }
    assert len(looks["test"]) == 10
    assert len(looks["train"]) == 190
    assert not looks["train"] & looks["test"]


def test_lower_half_of_a_face_is_partly_predictable_from_the_upper():
    def halves(split):
        images = data.load("faces", split).images.reshape(-1, 2, 28 * 56) / 255
        return images[:, 0], images[:, 1]

    upper, lower = halves("train")
    upper_mean, lower_mean = upper.mean(axis=0), lower.mean(axis=0)
    upper = upper - upper_mean
    weights = np.linalg.solve(upper @ upper.T + 30 * np.eye(len(upper)), lower - lower_mean)  # ridge regression
    new_upper, new_lower = halves("test")
    guess = lower_mean + (new_upper - upper_mean) @ upper.T @ weights
    assert np.mean((guess - new_lower) ** 2) < 0.5 * np.mean((lower_mean - new_lower) ** 2)


@pytest.mark.parametrize(
    ("name", "options", "remedy"),
    [
        ("numbers", {}, "digits, faces, mnist"),
        ("folder:", {}, "folder:PATH"),
        ("tfds:", {}, "tfds:NAME"),
        ("digits", {"split": "val"}, "train or test"),
        ("digits", {"size": (0, 8)}, "height and a width"),
        ("digits", {"size": (8,)}, "height and a width"),
        ("digits", {"size": 8}, "height and a width"),
        ("digits", {"size": (8.0, 8)}, "height and a width"),
        ("digits", {"channels": 4}, "3 .RGB."),
        ("digits", {"test_fraction": 1.0}, "between 0 and 1"),
        ("digits", {"crop": True}, "crop needs a size"),
        ("arrays:", {}, "arrays:FILE.npz"),
        ("minst", {}, "did you mean mnist"),
        ("MNIST", {}, "did you mean mnist"),
        ("cifar-10", {}, "did you mean cifar10"),
        ("FashionMNIST", {}, "did you mean fashion_mnist"),
        ("emnist-letter", {}, "did you mean emnist_letters"),
        ("images/mine.npz", {}, "arrays:images/mine.npz"),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(name, options, remedy):
    with pytest.raises(InputError, match=remedy):
        data.load(name, **options)


def test_a_folder_without_its_prefix_is_recognised(tmp_path):
    with pytest.raises(InputError, match=f"folder:{tmp_path} for a folder"):
        data.load(str(tmp_path))


def test_absolute_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert data.absolute("folder:pictures/mine") == f"folder:{tmp_path}/pictures/mine"
    assert data.absolute("arrays:mine.npz") == f"arrays:{tmp_path}/mine.npz"
    assert data.absolute("folder:~/mine") == "folder:/home/me/mine"
    assert data.absolute("folder:/a/b") == "folder:/a/b"
    assert [data.absolute(name) for name in ("digits", "tfds:mnist", "folder:")] == ["digits", "tfds:mnist", "folder:"]


@pytest.mark.parametrize("name", ["folder:~no-such-user/x", "arrays:~no-such-user/x.npz"])
def test_an_unknown_home_folder_is_one_line(name):
    for use in (data.load, data.absolute):
        with pytest.raises(InputError, match=r"^(folder|arrays):~no-such-user/x\S*: there is no home folder.*in full$"):
            use(name)


@pytest.fixture
def no_home(monkeypatch):
    """A container whose user has neither a home folder nor an entry in the list of users."""
    import pwd

    def unknown(_):
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "JAXGEN_DATA"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_home")
def test_data_load_without_a_home_folder():
    assert len(data.load("digits").labels) == 1797
    with pytest.raises(InputError, match=r"^folder:~/x: there is no home folder ~; give the path in full$"):
        data.load("folder:~/x")
    with pytest.raises(InputError, match="no home folder to keep data in: set JAXGEN_DATA"):
        data.load("mnist")


def test_import_of_data_imports_no_slow_package():
    slow = {"sklearn", "pooch", "requests", "tensorflow_datasets", "tqdm"}
    code = f"import sys, jaxgen.data; print({slow} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


def test_no_source_uses_jax():
    sources = list(Path(data.__file__).parent.glob("*.py"))
    assert sources
    assert [
        path.name for path in sources if "import jax\n" in path.read_text() or "from jax " in path.read_text()
    ] == []


# Messages


def test_lines_go_to_the_log_that_is_given():
    told = []
    reporting = report.Report(told.append)
    reporting.inform("one")
    reporting.warn("two")
    assert told == ["one", "two"]


def test_a_log_that_cannot_be_written_is_ignored():
    def closed(_):
        raise BrokenPipeError

    reporting = report.Report(closed)
    reporting.inform("one")
    reporting.warn("two")
    assert list(reporting.progress([1, 2], "task")) == [1, 2]


def test_progress_is_told_at_intervals(monkeypatch):
    now = iter([0.0, 1.0, 2.5, 2.5, 3.0, 12.6, 12.6])
    monkeypatch.setattr(report.time, "monotonic", lambda: next(now))
    told = []
    assert list(report.Report(told.append).progress(range(4), "decoding")) == [0, 1, 2, 3]
    assert told == ["decoding: 1 of 4", "decoding: 3 of 4"]


# The cache


LABELS = np.array([2, 0, 1], np.int32)


def make(value: int = 7):
    """What fills an entry with three images."""

    def fill(collector: cache.Collector) -> cache.About:
        images = np.full((3, 4, 5, 1), value, np.uint8)
        about = collector.add_all(Images(images, LABELS, 16, ("a", "b", "caf\udce9")), images)
        return about._replace(skipped=("a.png: why",), distorted=2)

    return fill


def fail(collector: cache.Collector) -> cache.About:
    pytest.fail("made again")


def value_of(prepared: cache.Prepared) -> int:
    """The value of all pixels of an entry that is otherwise as it was made."""
    (value,) = np.unique(prepared.images.images)
    assert prepared.images.images.shape == (3, 4, 5, 1)
    np.testing.assert_array_equal(prepared.images.labels, LABELS)
    assert prepared.images[2:] == (16, ("a", "b", "caf\udce9"))
    assert prepared[1:] == (("a.png: why",), 2)
    return int(value)


@pytest.mark.parametrize("on_disk", [False, True])
def test_prepared_images_are_cached(cache_folder, on_disk):
    for fill in (make(), fail):
        prepared = cache.cached("entry", "origin", fill, on_disk=on_disk)
        assert value_of(prepared) == 7
        assert isinstance(prepared.images.images, DiskArray if on_disk else np.ndarray)
    (entry,) = (cache_folder / "prepared").iterdir()
    np.testing.assert_array_equal(np.load(entry / "images.npy"), prepared.images.images)
    np.testing.assert_array_equal(np.load(entry / "labels.npy"), LABELS)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_title_keeps_only_the_last_origin(cache_folder, on_disk):
    before = cache.cached("entry", "one", make(), on_disk=on_disk)
    assert value_of(cache.cached("entry", "two", make(9), on_disk=on_disk)) == 9
    assert value_of(cache.cached("entry", "two", fail, on_disk=on_disk)) == 9
    assert len(list((cache_folder / "prepared").iterdir())) == 1
    assert value_of(before) == 7  # which is still open
    assert value_of(cache.cached("entry", "one", make(), on_disk=on_disk)) == 7


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_damaged_entry_is_made_again(cache_folder, on_disk):
    """Damage to what is not used, the headers of NumPy's format, may also stay."""
    cache.cached("entry", "origin", make(), on_disk=on_disk)
    (entry,) = (cache_folder / "prepared").iterdir()
    whole = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in entry.iterdir()}
    for path, (content, _) in whole.items():
        for at in [*range(0, len(content), 31), len(content) - 1]:
            damaged = bytearray(content)
            damaged[at] ^= 1 << at % 8
            for wrong in (bytes(damaged), content[:at]):
                for other, (intact, changed) in whole.items():
                    other.write_bytes(intact)
                    os.utime(other, ns=(changed, changed))
                path.write_bytes(wrong)
                value = value_of(cache.cached("entry", "origin", make(9), on_disk=on_disk))
                is_header = path.suffix == ".npy" and at < 128 and len(wrong) == len(content)
                assert value == 9 or (value == 7 and is_header)


@pytest.mark.parametrize("on_disk", [False, True])
def test_an_entry_is_written_completely_or_not_at_all(cache_folder, monkeypatch, on_disk):
    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache, "sync", full_disk)
    if on_disk:
        with pytest.raises(InputError, match=r"cannot be prepared in .*: No space left on device; JAXGEN_DATA names"):
            cache.cached("entry", "origin", make(), on_disk=True)
    else:
        assert value_of(cache.cached("entry", "origin", make())) == 7
    assert list((cache_folder / "prepared").iterdir()) == []


def test_room_on_disk_is_checked_before_anything_is_written(cache_folder, monkeypatch):
    monkeypatch.setattr(cache.shutil, "disk_usage", lambda path: SimpleNamespace(free=59))
    with pytest.raises(InputError, match="they take 60 bytes, and 59 bytes are free"):
        cache.cached("entry", "origin", make(), on_disk=True)
    assert list((cache_folder / "prepared").iterdir()) == []


def test_images_that_take_more_than_half_of_the_memory_stay_on_disk(monkeypatch):
    for free, kind in [(120, np.ndarray), (119, DiskArray)]:
        monkeypatch.setattr(memory, "available", lambda free=free: free)
        for fill in (make(), fail):
            assert isinstance(cache.cached(str(free), "origin", fill).images.images, kind)


def test_two_processes_may_prepare_the_same(cache_folder):
    def fill(collector):
        assert value_of(cache.cached("entry", "origin", make(9), on_disk=True)) == 9  # another process is faster
        return make()(collector)

    assert value_of(cache.cached("entry", "origin", fill, on_disk=True)) == 9
    assert len(list((cache_folder / "prepared").iterdir())) == 1


def test_what_killed_processes_left_is_removed(cache_folder):
    left = [cache_folder / "prepared" / f".unfinished-{name}" / "entry" / "images.npy" for name in ("old", "new")]
    for path in left:
        path.parent.mkdir(parents=True)
        path.touch()
    for path in [left[0], *left[0].parents[:2]]:
        os.utime(path, (0, 0))
    cache.cached("entry", "origin", make())
    assert [path.exists() for path in left] == [False, True]


def test_data_load_where_nothing_can_be_cached(cache_folder):
    cache_folder.write_text("a file where the folder should be")
    assert value_of(cache.cached("entry", "origin", make())) == 7
    with pytest.raises(InputError, match="cannot be prepared in"):
        cache.cached("entry", "origin", make(), on_disk=True)


def test_the_cache_folder_is_the_users_by_default(monkeypatch):
    import pooch

    monkeypatch.setenv("JAXGEN_DATA", "~/elsewhere")
    assert cache.folder().name == "elsewhere"
    assert cache.folder().is_absolute()
    monkeypatch.delenv("JAXGEN_DATA")
    assert cache.folder() == pooch.os_cache("jaxgen")
