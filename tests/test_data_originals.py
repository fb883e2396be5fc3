"""MNIST, its relatives and CIFAR-10: their formats, where their files may be, and how they are fetched.

The files here are small ones that the tests make, with their own checksums in place of the published ones.
"""

import gzip
import hashlib
import http.server
import io
import pickle
import socket
import string
import tarfile
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jaxgen import data
from jaxgen.data import fetch, files, originals
from jaxgen.errors import InputError

RNG = np.random.default_rng(3)
TRAIN, TEST = RNG.integers(0, 256, (12, 28, 28), np.uint8), RNG.integers(0, 256, (5, 28, 28), np.uint8)
TRAIN_LABELS, TEST_LABELS = RNG.integers(0, 10, 12, np.uint8), RNG.integers(0, 10, 5, np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(length.to_bytes(4, "big") for length in array.shape)
    return header + array.tobytes()


def batch(images: np.ndarray, labels: np.ndarray) -> bytes:
    rows = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(len(images), -1)], axis=1)
    return rows.astype(np.uint8).tobytes()


MNIST = {
    "train-images-idx3-ubyte": idx(TRAIN),
    "train-labels-idx1-ubyte": idx(TRAIN_LABELS),
    "t10k-images-idx3-ubyte": idx(TEST),
    "t10k-labels-idx1-ubyte": idx(TEST_LABELS),
}
SPLITS = (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS)
FASHION = {name: idx(9 - array if array.ndim == 1 else 255 - array) for name, array in zip(MNIST, SPLITS, strict=True)}
COLOUR = RNG.integers(0, 256, (6, 2, 32, 32, 3), np.uint8)  # [batch, image, height, width, channel]
COLOUR_LABELS = RNG.integers(0, 10, (6, 2), np.uint8)
CIFAR = {f"{name}.bin": batch(COLOUR[i], COLOUR_LABELS[i]) for i, name in enumerate(originals._BATCHES)}
CIFAR_ARCHIVE = "cifar-10-binary.tar.gz"


def cifar_pickle(images: np.ndarray, labels: np.ndarray, protocol: int = 2) -> bytes:
    """A batch as torchvision's users have it, with the other entries of the real ones."""
    rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    names = [b"cat_s_%d.png" % number for number in range(len(images))]
    content = {b"batch_label": b"batch 1", b"labels": labels.tolist(), b"data": rows, b"filenames": names}
    return pickle.dumps(content, protocol)


CIFAR_PICKLES = {name: cifar_pickle(COLOUR[i], COLOUR_LABELS[i]) for i, name in enumerate(originals._BATCHES)}
PYTHON_ARCHIVE = "cifar-10-python.tar.gz"


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """An empty cache folder, small collections, and a network in which no name is found."""

    def small(collection, contents, method):
        files_by_split = {
            split: tuple(f._replace(digest=method(contents[f.name]).hexdigest()) for f in fs)
            for split, fs in collection.files.items()
        }
        return collection._replace(files=files_by_split)

    for name, contents, method in (
        ("mnist", MNIST, hashlib.sha256),
        ("fashion_mnist", FASHION, hashlib.sha256),
        ("cifar10", CIFAR, hashlib.md5),
    ):
        collection = small(originals.COLLECTIONS[name], contents, method)
        if collection.alternative:
            collection = collection._replace(alternative=small(collection.alternative, CIFAR_PICKLES, hashlib.md5))
        monkeypatch.setitem(originals.COLLECTIONS, name, collection)

    def unknown(host, *_, **__):
        raise socket.gaierror(f"no such host: {host}")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    return tmp_path / "cache"


def put(place, contents, suffix="", pack=bytes, rename=str):
    for name, content in contents.items():
        path = place / (rename(name) + suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(pack(content))


def assert_mnist():
    for split, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        loaded = data.load("mnist", split)
        assert (loaded.images.dtype, loaded.labels.dtype, loaded.white) == ("uint8", "int32", 255)
        np.testing.assert_array_equal(loaded.images, images[..., None])
        np.testing.assert_array_equal(loaded.labels, labels)
        assert loaded.classes == tuple(string.digits)


def assert_cifar():
    for split, part in (("train", slice(0, 5)), ("test", slice(5, 6))):
        loaded = data.load("cifar10", split)
        np.testing.assert_array_equal(loaded.images, COLOUR[part].reshape(-1, 32, 32, 3))
        np.testing.assert_array_equal(loaded.labels, COLOUR_LABELS[part].reshape(-1))
        assert loaded.images.flags.c_contiguous
        assert loaded.classes[3] == "cat"


# Put there by hand


@pytest.mark.parametrize("place", ["mnist", "mnist/raw", "MNIST", "MNIST/raw", ".", "raw"])
@pytest.mark.parametrize(
    ("suffix", "pack", "rename"),
    [
        ("", bytes, str),
        (".gz", gzip.compress, str),
        (".gz", bytes, str),  # unpacked by a browser that kept the name
        ("", bytes, lambda name: name.replace("-idx", ".idx")),
        ("", bytes, lambda name: f"{name}/{name}"),  # Kaggle's, unpacked
        ("", bytes, lambda name: f"{name.replace('-idx', '.idx')}/{name.replace('-idx', '.idx')}"),
        ("", bytes, lambda name: f"{name}.gz/{name}"),
    ],
)
def test_mnist_is_used_where_it_is(cache_folder, place, suffix, pack, rename):
    put(cache_folder / place, MNIST, suffix, pack, rename)
    assert_mnist()


@pytest.mark.parametrize("place", ["cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin", "."])
def test_cifar_is_used_where_it_is(cache_folder, place):
    put(cache_folder / place, CIFAR)
    assert_cifar()


@pytest.mark.parametrize(
    "place",
    ["cifar10", "cifar10/cifar-10-batches-py", "cifar-10-batches-py", "CIFAR10/cifar-10-batches-py", "."],
)
def test_cifar_is_used_as_torchvision_leaves_it(cache_folder, place):
    put(cache_folder / place, CIFAR_PICKLES)
    assert "cifar10" in originals.at_hand()
    assert_cifar()


def test_cifar_is_used_from_torchvisions_archive(cache_folder):
    contents = {f"cifar-10-batches-py/{name}": content for name, content in CIFAR_PICKLES.items()}
    put(cache_folder, {PYTHON_ARCHIVE: archive(contents)})
    assert "cifar10" in originals.at_hand()
    assert_cifar()
    assert sorted(path.name for path in (cache_folder / "cifar10").iterdir()) == sorted(CIFAR_PICKLES)


def test_an_archive_in_a_folder_that_cannot_be_written_is_used(cache_folder):
    put(cache_folder, {PYTHON_ARCHIVE: archive(CIFAR_PICKLES)})
    (cache_folder / "cifar10").write_text("a file where the folder should be")
    assert_cifar()
    assert sorted(path.name for path in cache_folder.iterdir()) == [PYTHON_ARCHIVE, "cifar10"]


def test_a_changed_cifar_pickle_is_refused_by_name(cache_folder):
    put(cache_folder / "cifar10", CIFAR_PICKLES | {"data_batch_2": CIFAR_PICKLES["data_batch_1"]})
    with pytest.raises(InputError, match=r"data_batch_2 is damaged or another file"):
        data.load("cifar10")


@pytest.mark.parametrize("content", [b"", idx(TRAIN)[:-1], idx(TRAIN // 2), gzip.compress(idx(TRAIN))[:-9]])
def test_a_file_that_is_not_the_published_one_is_refused_by_name(cache_folder, content):
    put(cache_folder / "mnist", MNIST)
    path = cache_folder / "mnist" / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{path} .*(replace it|remove it)"):
        data.load("mnist")
    assert path.read_bytes() == content


def test_a_download_that_broke_off_is_refused_with_the_remedy(cache_folder):
    put(cache_folder / "mnist", MNIST, ".gz", lambda content: gzip.compress(content)[:-20])
    with pytest.raises(
        InputError, match=r"train-images-idx3-ubyte\.gz .*not downloaded completely: replace it, or remove it"
    ):
        data.load("mnist")


def test_the_other_mnist_in_its_folder_is_refused_and_kept(cache_folder):
    put(cache_folder / "mnist", FASHION, ".gz", gzip.compress)
    with pytest.raises(InputError, match=r"mnist/train-images-idx3-ubyte\.gz is damaged or another file"):
        data.load("mnist")
    assert files.contents(cache_folder / "mnist" / "train-images-idx3-ubyte.gz") == FASHION["train-images-idx3-ubyte"]


def test_the_other_mnist_in_a_shared_place_is_ignored(cache_folder):
    put(cache_folder, FASHION)
    np.testing.assert_array_equal(data.load("fashion_mnist", "test").images, 255 - TEST[..., None])
    with pytest.raises(InputError, match="cannot be reached"):
        data.load("mnist")
    put(cache_folder / "mnist", MNIST)
    assert_mnist()


EMNIST_NAMES = ("train-images-idx3", "train-labels-idx1", "test-images-idx3", "test-labels-idx1")
LETTERS = RNG.permutation(np.arange(1, 27, dtype=np.uint8))[:12], np.array([1, 26, 3, 1, 2], np.uint8)


def emnist(part: str, train_labels: np.ndarray, test_labels: np.ndarray) -> dict[str, bytes]:
    """Files of EMNIST, whose images are transposed."""
    arrays = (TRAIN.transpose(0, 2, 1), train_labels, TEST.transpose(0, 2, 1), test_labels)
    return {f"emnist-{part}-{name}-ubyte": idx(array) for name, array in zip(EMNIST_NAMES, arrays, strict=True)}


@pytest.mark.parametrize("place", ["emnist", "EMNIST/raw", "gzip", ".", "raw"])
def test_emnist_letters_are_upright_and_start_from_0(cache_folder, place):
    put(cache_folder / place, emnist("letters", *LETTERS), ".gz", gzip.compress)
    assert originals.at_hand() == ["emnist_letters"]
    for split, images, labels in (("train", TRAIN, LETTERS[0]), ("test", TEST, LETTERS[1])):
        loaded = data.load("emnist_letters", split)
        np.testing.assert_array_equal(loaded.images[..., 0], images)
        assert loaded.images.flags.c_contiguous
        np.testing.assert_array_equal(loaded.labels, labels.astype(int) - 1)
        assert (loaded.labels.dtype, loaded.classes) == ("int32", tuple(string.ascii_lowercase))


# As in the mapping files of EMNIST, which torchvision's classes follow too.
EMNIST_CLASSES = {
    "digits": "0123456789",
    "mnist": "0123456789",
    "balanced": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt",
    "bymerge": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt",
    "byclass": "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
}


@pytest.mark.parametrize("part", EMNIST_CLASSES)
def test_emnists_other_parts(cache_folder, part):
    put(cache_folder / "emnist", emnist(part, TRAIN_LABELS, TEST_LABELS))
    loaded = data.load(f"emnist_{part}")
    np.testing.assert_array_equal(loaded.labels, TRAIN_LABELS)
    assert "".join(loaded.classes) == EMNIST_CLASSES[part]


def test_resized_emnist_is_resized_upright(cache_folder):
    put(cache_folder / "emnist", emnist("digits", TRAIN_LABELS, TEST_LABELS))
    expected = [np.asarray(Image.fromarray(image).resize((20, 32), Image.Resampling.BILINEAR)) for image in TEST]
    np.testing.assert_array_equal(data.load("emnist_digits", "test", size=(32, 20)).images[..., 0], expected)


def test_labels_out_of_range_are_refused(cache_folder):
    put(cache_folder / "emnist", emnist("letters", TRAIN_LABELS * 0, LETTERS[1]))
    with pytest.raises(InputError, match=r"emnist_letters: its labels are -1 to"):
        data.load("emnist_letters")


def test_kmnist_has_folders_of_its_own(cache_folder):
    put(cache_folder / "KMNIST/raw", {name: idx(array ^ 1) for name, array in zip(MNIST, SPLITS, strict=True)})
    loaded = data.load("kmnist")
    np.testing.assert_array_equal(loaded.images[..., 0], TRAIN ^ 1)
    assert loaded.classes == ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")


def test_mnist_in_kmnists_folder_is_refused(cache_folder):
    put(cache_folder / "kmnist", MNIST)
    with pytest.raises(InputError, match=r"kmnist/train-images-idx3-ubyte is another data set's file"):
        data.load("kmnist")


def qmnist_labels(labels: np.ndarray) -> bytes:
    rows = np.zeros((len(labels), 8), ">i4")
    rows[:, 0], rows[:, 1:] = labels, 77
    return bytes([0, 0, 12, 2]) + b"".join(length.to_bytes(4, "big") for length in rows.shape) + rows.tobytes()


def test_qmnists_labels_are_its_digits(cache_folder):
    contents = {
        "qmnist-train-images-idx3-ubyte": idx(TRAIN),
        "qmnist-train-labels-idx2-int": qmnist_labels(TRAIN_LABELS),
        "qmnist-test-images-idx3-ubyte": idx(TEST),
        "qmnist-test-labels-idx2-int": qmnist_labels(TEST_LABELS),
    }
    put(cache_folder / "QMNIST/raw", contents, ".gz", gzip.compress)
    for split, images, labels in (("train", TRAIN, TRAIN_LABELS), ("test", TEST, TEST_LABELS)):
        loaded = data.load("qmnist", split)
        np.testing.assert_array_equal(loaded.images[..., 0], images)
        np.testing.assert_array_equal(loaded.labels, labels)


@pytest.mark.parametrize("name", ["emnist_letters", "kmnist", "qmnist"])
def test_what_is_not_fetched_says_where_to_put_it(name, cache_folder, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", "~no-such-user/tfds")
    with pytest.raises(InputError, match=rf"{name}: .* is not in {cache_folder}.*\. Put .*by hand;") as refused:
        data.load(name)
    assert "reached" not in str(refused.value)
    assert ("tfds:" in str(refused.value)) == (name != "qmnist")


def test_resized_images_are_pillows_and_are_made_once(cache_folder):
    put(cache_folder / "mnist", MNIST)
    expected = [np.asarray(Image.fromarray(image).resize((30, 32), Image.Resampling.BILINEAR)) for image in TRAIN]
    first = data.load("mnist", size=(32, 30))
    np.testing.assert_array_equal(first.images[..., 0], expected)
    (cache_folder / "mnist" / "train-images-idx3-ubyte").unlink()
    again = data.load("mnist", size=(32, 30))
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.labels, TRAIN_LABELS)
    assert again.classes == first.classes == tuple(string.digits)


def test_cropped_and_squeezed_images_are_cached_apart(cache_folder):
    put(cache_folder / "mnist", MNIST)
    covering = [Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR) for image in TRAIN]
    squeezed = [Image.fromarray(image).resize((20, 32), Image.Resampling.BILINEAR) for image in TRAIN]
    for _ in range(2):
        cropped = data.load("mnist", size=(32, 20), crop=True)
        np.testing.assert_array_equal(cropped.images[..., 0], [np.asarray(image)[:, 6:26] for image in covering])
        np.testing.assert_array_equal(data.load("mnist", size=(32, 20)).images[..., 0], np.stack(squeezed))


def test_cifar_becomes_gray_after_resizing(cache_folder):
    put(cache_folder / "cifar10", CIFAR)
    expected = [Image.fromarray(image).resize((28, 28), Image.Resampling.BILINEAR).convert("L") for image in COLOUR[5]]
    loaded = data.load("cifar10", "test", size=(28, 28), channels=1)
    np.testing.assert_array_equal(loaded.images[..., 0], [np.asarray(image) for image in expected])


# Fetched


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server on this machine with what the test puts into its folder; all collections are fetched from it."""
    site = tmp_path / "site"
    site.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(site))

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as listening:
        threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
        address = f"http://127.0.0.1:{listening.server_port}/"
        known = {"127.0.0.1": [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", listening.server_port))]}
        elsewhere = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: known.get(host) or elsewhere(host))
        for name, collection in list(originals.COLLECTIONS.items()):
            sources = (address + "nowhere/", address)
            monkeypatch.setitem(originals.COLLECTIONS, name, collection._replace(sources=sources))
        yield site
        listening.shutdown()


def test_mnist_is_fetched_once_and_quietly(server, cache_folder, capfd):
    put(server, MNIST, ".gz", gzip.compress)
    told = []
    np.testing.assert_array_equal(data.load("mnist", log=told.append).images, TRAIN[..., None])
    assert [line.split()[1].split("/")[-1] for line in told] == [
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
    ]
    data.load("mnist", "test", log=told.append)
    for path in server.iterdir():
        path.unlink()
    assert_mnist()
    assert sorted(path.name for path in (cache_folder / "mnist").iterdir()) == sorted(f"{name}.gz" for name in MNIST)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("sent", [b"<html>Sign in to this network</html>", gzip.compress(idx(TRAIN // 2))])
def test_what_comes_is_checked_before_it_is_kept(server, cache_folder, sent):
    put(server, {**MNIST, "train-images-idx3-ubyte": sent}, ".gz")
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1.*does not hold the published train-images-idx3-ubyte"):
        data.load("mnist")
    assert list((cache_folder / "mnist").iterdir()) == []


def test_a_download_that_breaks_off_is_an_error_and_leaves_nothing(server, cache_folder, monkeypatch):
    put(server, MNIST, ".gz", gzip.compress)
    monkeypatch.setattr(fetch, "first_to_answer", lambda urls: urls[0])  # which is not there
    with pytest.raises(InputError, match=r"http://127\.0\.0\.1.*nowhere.*broke off after 0 bytes"):
        data.load("mnist")
    assert list((cache_folder / "mnist").iterdir()) == []


def test_a_cache_folder_that_cannot_be_written_is_named(server, cache_folder):
    put(server, MNIST, ".gz", gzip.compress)
    cache_folder.mkdir()
    (cache_folder / "mnist").write_text("a file where the folder should be")
    with pytest.raises(InputError, match=rf"{cache_folder / 'mnist'} cannot be written to.*JAXGEN_DATA"):
        data.load("mnist")


def test_without_data_and_network_the_message_offers_three_remedies(cache_folder):
    put(cache_folder / "cifar10", CIFAR)
    with pytest.raises(InputError) as refused:
        data.load("mnist")
    message = str(refused.value)
    assert "train-images-idx3-ubyte" in message
    assert "https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz" in message
    assert f"not in {cache_folder / 'mnist'}" in message
    assert "by hand" in message
    assert "digits, faces, cifar10;" in message
    assert "folder:PATH" in message
    assert "\n" not in message


def test_a_name_look_up_that_hangs_is_abandoned(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait())
    monkeypatch.setattr(fetch, "_PATIENCE", 0.05)
    try:
        with pytest.raises(InputError, match="cannot be reached"):  # a wait would end in the test's own time limit
            data.load("mnist")
    finally:
        over.set()


def test_the_wait_for_a_server_is_less_than_five_seconds():
    assert fetch._PATIENCE < 5


# CIFAR-10's archive


def archive(contents: dict[str, bytes], *others: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in others:
            tar.addfile(info)
    return packed.getvalue()


def in_folder(contents):
    return {f"cifar-10-batches-bin/{name}": content for name, content in contents.items()}


def test_cifar_comes_out_of_its_archive(server, cache_folder):
    put(server, {CIFAR_ARCHIVE: archive({**in_folder(CIFAR), "cifar-10-batches-bin/readme.html": b"hello"})})
    assert_cifar()
    (server / CIFAR_ARCHIVE).unlink()
    assert_cifar()
    assert sorted(path.name for path in (cache_folder / "cifar10").iterdir()) == sorted(CIFAR)


def test_an_archive_put_there_by_hand_is_used(cache_folder):
    put(cache_folder / "cifar10", {CIFAR_ARCHIVE: archive(in_folder(CIFAR))})
    assert "cifar10" in originals.at_hand()
    assert_cifar()


def link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    return info


@pytest.mark.parametrize(
    "content",
    [
        b"no archive",
        archive(in_folder(CIFAR))[:9000],
        archive({**in_folder(CIFAR), "../outside": b"evil"}),
        archive({**in_folder(CIFAR), "../../data_batch_1.bin": b"evil"}),
        archive(in_folder(CIFAR), link("cifar-10-batches-bin/data_batch_1.bin", "/etc/passwd")),
        archive(in_folder(dict(list(CIFAR.items())[:5]))),
        archive(in_folder({**CIFAR, "data_batch_3.bin": b"\0" * len(CIFAR["data_batch_3.bin"])})),
    ],
    ids=["no archive", "truncated", "outside", "batch outside", "link outside", "one missing", "one changed"],
)
def test_a_bad_archive_is_refused_and_leaves_nothing(cache_folder, tmp_path, content):
    put(cache_folder / "cifar10", {CIFAR_ARCHIVE: content})
    with pytest.raises(InputError, match=CIFAR_ARCHIVE):
        data.load("cifar10")
    everything = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert everything == [f"cache/cifar10/{CIFAR_ARCHIVE}"]


def test_a_link_in_an_archive_is_not_followed(cache_folder):
    """It points into the archive from where it lies there, and out of it from where it would be unpacked to."""
    put(cache_folder, {"elsewhere": CIFAR["data_batch_1.bin"]})
    others = {name: content for name, content in CIFAR.items() if name != "data_batch_1.bin"}
    packed = archive(others, link("deep/down/data_batch_1.bin", "../../elsewhere"))
    put(cache_folder / "cifar10", {CIFAR_ARCHIVE: packed})
    with pytest.raises(InputError, match=f"{CIFAR_ARCHIVE} does not hold the published data_batch_1.bin"):
        data.load("cifar10")


# The formats


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"\0\0\x08",
        idx(TRAIN)[:15],
        idx(TRAIN)[:-1],
        idx(TRAIN) + b"\0",
        idx(TRAIN_LABELS),
        b"\0\0\x0d" + idx(TRAIN)[3:],
        b"\1" + idx(TRAIN)[1:],
        idx(TRAIN[:0]),
        idx(TRAIN[:, :, :0]),
        bytes([0, 0, 8, 3]) + b"\xff" * 12,
    ],
)
def test_malformed_idx_is_refused_by_name(tmp_path, blob):
    with pytest.raises(InputError, match="some-file"):
        files.idx_images(blob, tmp_path / "some-file")


@settings(deadline=None)
@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_make_idx_arrays_or_an_input_error(tmp_path_factory, tail, genuine):
    blob = (idx(TRAIN[:1, :3, :3]) if genuine else bytes([0, 0, 8, 3])) + tail
    try:
        images = files.idx_images(blob, tmp_path_factory.getbasetemp() / "f")
    except InputError:
        return
    assert images.size == len(blob) - 16


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_gzip_makes_bytes_or_an_input_error(tmp_path_factory, tail):
    path = tmp_path_factory.getbasetemp() / "any.gz"
    packed = gzip.compress(idx(TRAIN_LABELS))
    for content in (tail, packed[:10] + tail, packed + tail, packed[: len(tail)]):
        path.write_bytes(content)
        try:
            result = files.contents(path)
        except InputError as error:
            result = str(error)
        assert isinstance(result, bytes) or str(path) in result


def test_a_gzip_that_swells_beyond_all_measure_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LARGEST", 2**20)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(b"\0" * (2**20 + 1)))
    with pytest.raises(InputError, match=r"bomb\.gz holds more than 1 MiB"):
        files.contents(path)
    path.write_bytes(gzip.compress(b"\0" * 2**20))
    assert len(files.contents(path)) == 2**20


def test_cifar_planes_become_channels(tmp_path):
    blob = bytes([7]) + bytes([1]) * 1024 + bytes([2]) * 1024 + bytes(range(256)) * 4
    images, labels = files.cifar_batch(blob, tmp_path)
    assert (images.shape, images.dtype, labels.tolist()) == ((1, 32, 32, 3), np.uint8, [7])
    assert images[0, 0, 5].tolist() == [1, 2, 5]
    assert images[0, 1, 0].tolist() == [1, 2, 32]


@pytest.mark.parametrize("blob", [b"", b"\0" * 3072, b"\0" * 3074, b"\x0a" + b"\0" * 3072])
def test_malformed_cifar_is_refused_by_name(tmp_path, blob):
    with pytest.raises(InputError, match="some-file"):
        files.cifar_batch(blob, tmp_path / "some-file")


@pytest.mark.parametrize("protocol", range(6))
def test_cifar_pickles_of_every_protocol(tmp_path, protocol):
    images, labels = files.cifar_pickle(cifar_pickle(COLOUR[0], COLOUR_LABELS[0], protocol), tmp_path)
    np.testing.assert_array_equal(images, COLOUR[0])
    np.testing.assert_array_equal(labels, COLOUR_LABELS[0])
    assert (images.dtype, labels.dtype, images.flags.c_contiguous) == ("uint8", "int32", True)


ROWS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        {b"labels": [0, 1]},
        {b"data": ROWS},
        {b"data": ROWS[:, :-1], b"labels": [0, 1]},
        {b"data": ROWS.astype(float), b"labels": [0, 1]},
        {b"data": ROWS, b"labels": [0]},
        {b"data": ROWS, b"labels": [0, 10]},
        {b"data": ROWS, b"labels": [0, -1]},
        {b"data": ROWS, b"labels": [0, 2**70]},
        {b"data": ROWS, b"labels": [0, "1"]},
        {b"data": ROWS, b"labels": [0, True]},
        {b"data": ROWS[:0], b"labels": []},
    ],
)
def test_other_pickles_are_refused_by_name(tmp_path, content):
    with pytest.raises(InputError, match="some-file"):
        files.cifar_pickle(pickle.dumps(content, 2), tmp_path / "some-file")


def test_a_qmnist_file_with_other_columns_is_refused(tmp_path):
    blob = bytes([0, 0, 12, 2, 0, 0, 0, 1, 0, 0, 0, 2]) + bytes(8)
    with pytest.raises(InputError, match="some-file has 2 columns instead of 8"):
        files.idx_qmnist_labels(blob, tmp_path / "some-file")
