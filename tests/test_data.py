"""Data by name: what `load` promises of every source, and the sources that need no files."""

import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from jaxgen import data
from jaxgen.data import cache, faces, pixels
from jaxgen.errors import InputError


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_digits_are_scikit_learns_own():
    from sklearn.datasets import load_digits

    images, labels, white = data.load("digits")
    assert isinstance(images, jax.Array)
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((1797, 8, 8, 1), "uint8", (1797,), "int32")
    assert white == 16 == images.max()
    np.testing.assert_array_equal(images[..., 0], load_digits().images)
    np.testing.assert_array_equal(labels, load_digits().target)


def test_digits_without_a_test_split_of_their_own_stand_in_for_it():
    np.testing.assert_array_equal(data.load("digits", "test").images, data.load("digits").images)


def test_resized_digits_have_all_shades():
    small, large = data.load("digits"), data.load("digits", size=(28, 20))
    assert large.images.shape == (1797, 28, 20, 1)
    assert large.white == 255 == large.images.max()
    scaled = Image.fromarray((np.asarray(small.images[0, ..., 0]) * (255 / 16)).round().astype(np.uint8))
    np.testing.assert_array_equal(large.images[0, ..., 0], scaled.resize((20, 28), Image.Resampling.BILINEAR))


def test_gray_becomes_rgb_by_repetition():
    digits = data.load("digits", channels=3)
    assert digits.white == 16
    np.testing.assert_array_equal(digits.images, np.repeat(data.load("digits").images, 3, axis=3))


def test_resize_comes_before_gray():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    expected = picture.resize((11, 7), Image.Resampling.BILINEAR).convert("L")
    gray_first = picture.convert("L").resize((11, 7), Image.Resampling.BILINEAR)
    fitted = pixels.fit(picture, (7, 11), 1)
    np.testing.assert_array_equal(fitted[..., 0], expected)
    assert not np.array_equal(fitted[..., 0], gray_first)


def test_faces_are_drawn_alike_every_time():
    first, again, test = data.load("faces"), data.load("faces"), data.load("faces", "test")
    assert first.images.shape == (504, 56, 56, 1)
    assert test.images.shape == (10, 56, 56, 1)
    assert first.white == 255
    np.testing.assert_array_equal(first.images, again.images)
    assert len({image.tobytes() for image in np.asarray(first.images)}) == 504
    assert set(np.unique(first.labels)) == {0}


def test_faces_come_in_colour_and_in_other_sizes():
    images = np.asarray(data.load("faces", "test", size=(28, 32), channels=3).images).astype(int)
    assert images.shape == (10, 28, 32, 3)
    assert np.ptp(images, axis=3).max() > 50


def test_test_faces_have_looks_that_no_training_face_has():
    looks = {
        split: {(face.style, face.skin, face.hair) for face, _ in faces._people(split)} for split in ("train", "test")
    }
    assert len(looks["test"]) == 10
    assert len(looks["train"]) == 190
    assert not looks["train"] & looks["test"]


def test_lower_half_of_a_face_can_be_told_in_part_from_the_upper():
    def halves(split):
        images = np.asarray(data.load("faces", split).images).reshape(-1, 2, 28 * 56) / 255
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
        ("digits", {"channels": 4}, "3 .RGB."),
        ("digits", {"test_fraction": 1.0}, "between 0 and 1"),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(name, options, remedy):
    with pytest.raises(InputError, match=remedy):
        data.load(name, **options)


def test_naming_data_imports_nothing_heavy():
    code = "import sys, jaxgen.data; print({'sklearn', 'pooch', 'requests', 'tensorflow_datasets'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"


# The cache


def prepared(value: int = 7) -> cache.Prepared:
    images = np.full((3, 4, 5, 1), value, np.uint8)
    return cache.Prepared(pixels.Pixels(images, np.array([2, 0, 1], np.int32)), ("a.png: why",))


def fail() -> cache.Prepared:
    pytest.fail("made again")


def assert_same(one: cache.Prepared, other: cache.Prepared) -> None:
    np.testing.assert_array_equal(one.pixels.images, other.pixels.images)
    np.testing.assert_array_equal(one.pixels.labels, other.pixels.labels)
    assert (one.pixels.white, one.skipped) == (other.pixels.white, other.skipped)


def test_what_was_prepared_is_remembered(cache_folder):
    assert_same(cache.remembered("entry", "origin", prepared), prepared())
    assert_same(cache.remembered("entry", "origin", fail), prepared())
    assert [path.name for path in (cache_folder / "prepared").iterdir()] == ["entry"]


def test_a_title_keeps_the_last_origin_only():
    cache.remembered("entry", "one", prepared)
    assert_same(cache.remembered("entry", "two", lambda: prepared(9)), prepared(9))
    assert_same(cache.remembered("entry", "two", fail), prepared(9))
    assert_same(cache.remembered("entry", "one", prepared), prepared())


def test_a_damaged_entry_is_made_again(cache_folder):
    cache.remembered("entry", "origin", prepared)
    path = cache_folder / "prepared" / "entry"
    whole = path.read_bytes()
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        for content in (bytes(damaged), whole[:at]):
            path.write_bytes(content)
            assert_same(cache.remembered("entry", "origin", lambda: prepared(9)), prepared(9))


def test_an_entry_that_cannot_be_written_whole_is_not_there_at_all(cache_folder, monkeypatch):
    def full_disk(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(cache.os, "replace", full_disk)
    assert_same(cache.remembered("entry", "origin", prepared), prepared())
    assert list((cache_folder / "prepared").iterdir()) == []


def test_data_loads_where_nothing_can_be_kept(cache_folder):
    cache_folder.write_text("a file where the folder should be")
    assert_same(cache.remembered("entry", "origin", prepared), prepared())


def test_the_cache_is_the_users_unless_told_otherwise(monkeypatch):
    import pooch

    monkeypatch.setenv("JAXGEN_DATA", "~/elsewhere")
    assert cache.folder().name == "elsewhere"
    assert cache.folder().is_absolute()
    monkeypatch.delenv("JAXGEN_DATA")
    assert cache.folder() == pooch.os_cache("jaxgen")
