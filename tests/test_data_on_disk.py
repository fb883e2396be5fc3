"""Data that stay on disk: folders and array files, prepared once by `jaxgen data prepare` or by `load`."""

import os
import re
import sys

import numpy as np
import pytest
from PIL import Image

from jaxgen import __main__ as main
from jaxgen import data, metrics
from jaxgen.data import folder
from jaxgen.errors import InputError
from jaxgen.ondisk import DiskArray
from jaxgen.runs.record import digest
from tests.support.signals import handlers_restored


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(tmp_path):
    """A folder of twenty pictures in two classes."""
    random = np.random.default_rng(0)
    for number in range(20):
        path = tmp_path / "mine" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (6, 5), np.uint8)).save(path)
    return tmp_path / "mine"


def jaxgen(monkeypatch, capsys, *words) -> tuple[int, str, str]:
    """The exit status of a command, and what it prints."""
    monkeypatch.setattr(sys, "argv", ["jaxgen", *map(str, words)])
    with handlers_restored(), pytest.raises(SystemExit) as stop:
        main.main()
    return stop.value.code, *capsys.readouterr()


def assert_same(one: data.Images, other: data.Images) -> None:
    np.testing.assert_array_equal(np.asarray(one.images), np.asarray(other.images))
    np.testing.assert_array_equal(one.labels, other.labels)
    assert one[2:] == other[2:]
    assert digest((one.images, one.labels)) == digest((other.images, other.labels))


def test_prepared_pictures_are_used_at_once(root, cache_folder, monkeypatch, capsys):
    options = {"size": (4, 4), "channels": 1}
    decoded = data.load(f"folder:{root}", **options, on_disk=False)
    (in_memory,) = (cache_folder / "prepared").iterdir()
    os.rename(cache_folder, root.parent / "other")
    words = ["data", "prepare", f"folder:{root}", "--size", "4", "--channels", "1"]
    status, out, err = jaxgen(monkeypatch, capsys, *words)
    assert (status, err) == (0, "")
    assert out.splitlines()[1].startswith("train     18 images of 4×4×1, 288 bytes: ")
    assert out.splitlines()[3].startswith("test      2 images of 4×4×1, 32 bytes: ")
    monkeypatch.setattr(folder, "open_picture", lambda _: pytest.fail("decoded again"))
    for on_disk, kind in [(True, DiskArray), (False, np.ndarray), (None, np.ndarray)]:
        read = data.load(f"folder:{root}", **options, on_disk=on_disk)
        assert isinstance(read.images, kind)
        assert_same(read, decoded)
    (path,) = cache_folder.glob(f"prepared/{in_memory.name}/images.npy")
    monkeypatch.undo()
    monkeypatch.setenv("JAXGEN_DATA", str(cache_folder))
    before = path.stat()
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    status, _, err = jaxgen(monkeypatch, capsys, *words)
    assert (status, err) == (0, f"{path}: was damaged, and is made again\n")
    assert_same(data.load(f"folder:{root}", **options, on_disk=True), decoded)
    Image.new("L", (5, 6)).save(root / "a" / "another.png")
    assert len(data.load(f"folder:{root}", **options, on_disk=True).images) == 19


def test_the_files_can_go_to_another_folder(root, cache_folder, monkeypatch, capsys):
    status, out, _ = jaxgen(monkeypatch, capsys, "data", "prepare", f"folder:{root}", "--out", root.parent / "fast")
    assert status == 0
    assert str(root.parent / "fast" / "prepared") in out
    assert not cache_folder.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "folder:x"], "ACTION|prepare"),
        (["prepare"], "name|NAME"),
        (
            ["prepare", "digits"],
            "digits: these data are kept in memory; what can stay on disk is folder:PATH, arrays:FILE.npz and tfds",
        ),
        (["prepare", "folder:nowhere"], "folder:nowhere: there is no such folder"),
        (["prepare", "nothing"], "there is no data set 'nothing'"),
        (["prepare", "folder:mine", "--size", "0"], "--size"),
        (["prepare", "folder:mine", "--out", "file"], "--out file: is not a folder"),
        (["prepare", "folder:mine", "--out", "file/below"], "the images cannot be prepared in .*: Not a directory"),
    ],
)
def test_bad_input_is_one_line(root, monkeypatch, capsys, words, said):
    monkeypatch.chdir(root.parent)
    (root.parent / "file").touch()
    status, out, err = jaxgen(monkeypatch, capsys, "data", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert re.search(said, err)


def test_pictures_on_disk_must_be_of_one_kind(root):
    Image.new("RGB", (5, 6)).save(root / "b" / "colour.png")
    with pytest.raises(InputError, match="some of the images are gray and some are colour: give channels=1"):
        data.load(f"folder:{root}", on_disk=True)
    assert data.load(f"folder:{root}", channels=3, on_disk=True).images.shape[1:] == (6, 5, 3)
    assert data.load(f"folder:{root}", on_disk=False).images.shape[1:] == (6, 5, 3)


@pytest.mark.parametrize("axes", [3, 4])
def test_an_array_file_is_read_in_place(tmp_path, axes):
    images = np.random.default_rng(0).integers(0, 256, (20, 4, 3, 1), np.uint8)
    images, labels = images.reshape(images.shape[:axes]), np.arange(20) % 3
    np.savez(tmp_path / "a.npz", labels=labels, images=images)
    np.savez_compressed(tmp_path / "compressed.npz", images=images)
    np.savez(tmp_path / "fortran.npz", images=np.asfortranarray(images))
    for split in ("train", "test"):
        stored = data.load(f"arrays:{tmp_path / 'a.npz'}", split, on_disk=True)
        assert isinstance(stored.images, DiskArray)
        assert_same(stored, data.load(f"arrays:{tmp_path / 'a.npz'}", split))
    resized = [data.load(f"arrays:{tmp_path / 'a.npz'}", size=(2, 2), on_disk=on_disk) for on_disk in (True, False)]
    assert_same(*resized)
    for name, said in [("compressed", "are compressed, and take 3"), ("fortran", "are in Fortran's order, and take")]:
        with pytest.raises(InputError, match=f"{said}.*np.savez"):
            data.load(f"arrays:{tmp_path / name}.npz", on_disk=True)


def test_what_is_held_out_of_data_on_disk_is_a_sample_in_memory(root, monkeypatch):
    monkeypatch.setattr(data, "_MOST_HELD_OUT", 3)
    name = f"folder:{root}"
    whole, everything = data.load_splits(name, test_fraction=0.4), data.load(name, "test", test_fraction=0.4)
    assert len(whole[1].images) == len(everything.images) == 8
    train, test = data.load_splits(name, test_fraction=0.4, on_disk=True)
    assert isinstance(train.images, DiskArray)
    assert isinstance(test.images, np.ndarray)
    assert len(test.images) == 3
    assert {image.tobytes() for image in test.images} < {image.tobytes() for image in everything.images}
    in_memory = data.hold_out(whole[0], 0.5)
    remaining, validation = data.hold_out(train, 0.5)
    assert isinstance(remaining.images, DiskArray)
    assert_same(remaining, in_memory[0])
    assert len(validation.images) == 3
    assert_same(data.hold_out(train, 0.0)[0], whole[0])
    given, given_test = data.load_splits(train)  # as in main(config, data=train)
    assert isinstance(given.images, DiskArray)
    assert isinstance(given_test.images, np.ndarray)
    assert_same(given, data.load(whole[0]))


def test_figures_are_of_a_sample_of_the_images_on_disk(root, monkeypatch):
    monkeypatch.setattr("jaxgen.metrics.scaling._MOST_FROM_DISK", 9)
    stored = data.load(f"folder:{root}", on_disk=True)
    images = np.asarray(stored.images)
    sample = np.sort(np.random.default_rng(0).permutation(len(images))[:9])
    np.testing.assert_array_equal(metrics.of_samples(stored.images, labels=stored.labels)._real, images[sample])
    for one, other in zip(
        metrics.principal_components(stored.images, 4), metrics.principal_components(images[sample], 4), strict=True
    ):
        np.testing.assert_array_equal(one, other)
