"""TensorFlow Datasets: prepared data sets are read without TensorFlow, and nothing waits for a missing network."""

import io
import json
import socket

import numpy as np
import pytest
from PIL import Image

from jaxgen import data
from jaxgen.data import fetch, tfds
from jaxgen.errors import InputError


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path / "cache"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: pytest.fail(f"looked for {host}"))


def installed(monkeypatch, *names):
    monkeypatch.setattr(tfds, "find_spec", lambda name: "there" if name in names else None)


TFDS = ("tensorflow_datasets", "importlib_resources")


@pytest.mark.parametrize("there", [(), TFDS[:1]])
def test_without_tensorflow_datasets_it_says_what_to_install(monkeypatch, there):
    installed(monkeypatch, *there)
    with pytest.raises(InputError, match=r"tfds:mnist.*pip install 'jaxgen\[tfds\]'"):
        data.load("tfds:mnist")


def test_unprepared_and_without_tensorflow_it_says_what_to_install(monkeypatch, tmp_path):
    installed(monkeypatch, *TFDS)
    with pytest.raises(InputError, match=rf"tfds:mnist.*{tmp_path / 'tfds'}.*pip install tensorflow-cpu"):
        data.load("tfds:mnist")


def test_unprepared_and_without_a_network_it_says_so(monkeypatch):
    installed(monkeypatch, *TFDS, "tensorflow")
    monkeypatch.setattr(fetch, "first_to_answer", lambda _: None)
    with pytest.raises(InputError, match=r"tfds:mnist.*no network"):
        data.load("tfds:mnist")


def test_an_unknown_home_folder_is_one_line(monkeypatch):
    installed(monkeypatch, *TFDS)
    monkeypatch.setenv("TFDS_DATA_DIR", "~no-such-user/tfds")
    with pytest.raises(InputError, match=r"^TFDS_DATA_DIR: there is no home folder ~no-such-user"):
        data.load("tfds:mnist")


# With the package: small data sets, prepared here. Pillow encodes their images, so TensorFlow is not needed.


def shades(images) -> list[int]:
    return sorted(images.images[:, 0, 0, 0].tolist())


def png(shade: int, shape: tuple[int, ...]) -> io.BytesIO:
    file = io.BytesIO()
    Image.fromarray(np.full(shape, shade, np.uint8).squeeze()).save(file, "PNG")
    file.seek(0)
    return file


def prepare(home, name="tiny", version="1.0.0", splits=None, shapes=((4, 6, 1),), labelled=True):
    """Prepares `splits`, names to shades; an example's label is its shade modulo 10."""
    builder = make_builder(name, version, splits or {"train": range(5), "test": range(100, 103)}, shapes, labelled)
    builder(data_dir=home, file_format="array_record").download_and_prepare()
    return home / name / version


def make_builder(name, version, splits, shapes, labelled):
    core = pytest.importorskip("tensorflow_datasets")
    shape = shapes[0] if len(shapes) == 1 else (None, None, shapes[0][-1])
    features = {"image": core.features.Image(shape=shape)} | (
        {"label": core.features.ClassLabel(num_classes=10)} if labelled else {}
    )

    class Builder(core.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = core.core.Version(version)

        def _info(self):
            return core.core.DatasetInfo(builder=self, features=core.features.FeaturesDict(features))

        def _split_generators(self, _):
            return {split: self._generate_examples(values) for split, values in splits.items()}

        def _generate_examples(self, values):
            for number, shade in enumerate(values):
                label = {"label": shade % 10} if labelled else {}
                yield number, {"image": png(shade, shapes[number % len(shapes)]), **label}

    Builder.name = name
    return Builder


@pytest.fixture
def home(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    return tmp_path / "tfds"


def test_a_prepared_set_is_read_without_tensorflow(home, monkeypatch):
    prepare(home)
    installed(monkeypatch, *TFDS)
    train, test = data.load("tfds:tiny"), data.load("tfds:tiny", "test")
    assert (train.images.shape, train.images.dtype, train.labels.dtype) == ((5, 4, 6, 1), "uint8", "int32")
    assert (shades(train), shades(test)) == ([0, 1, 2, 3, 4], [100, 101, 102])
    np.testing.assert_array_equal(train.labels, train.images[:, 0, 0, 0])
    assert train.white == 255
    assert train.classes == test.classes == tuple("0123456789")


def test_one_line_sums_up_what_was_loaded(home):
    prepare(home, splits={"train": range(1, 11)}, shapes=((4, 6, 1),))
    for _ in range(2):  # decoded, then cached
        told = []
        data.load("tfds:tiny", size=(8, 8), log=told.append)
        data.load("tfds:tiny", size=(8, 8), crop=True, log=told.append)
        assert told == [
            "tfds:tiny: 10 training images of 8×8 pixels in 10 classes; "
            "resized, which squeezed or stretched 10 of 10 (crop keeps their proportions)",
            "tfds:tiny: 10 training images of 8×8 pixels in 10 classes; resized and cropped at the centre",
        ]


def test_emnist_is_read_as_prepared(home, monkeypatch):
    """Its images are transposed and its letters start from 1 there too."""
    upright = np.random.default_rng(0).integers(0, 256, (28, 28), np.uint8)

    def transposed(*_):
        file = io.BytesIO()
        Image.fromarray(upright.T).save(file, "PNG")
        file.seek(0)
        return file

    monkeypatch.setitem(globals(), "png", transposed)
    place = prepare(home, "emnist", splits={"train": range(1, 6)}, shapes=((28, 28, 1),))
    (home / "emnist" / "letters").mkdir()
    place.rename(home / "emnist" / "letters" / place.name)
    letters = data.load("emnist_letters")
    assert sorted(letters.labels.tolist()) == [0, 1, 2, 3, 4]
    assert letters.classes[:2] == ("a", "b")
    assert letters.images.flags.c_contiguous
    for image in letters.images:
        np.testing.assert_array_equal(image[..., 0], upright)


def test_size_and_channels(home):
    prepare(home, shapes=((4, 6, 3), (5, 5, 3)))
    assert data.load("tfds:tiny", size=(8, 8), channels=1).images.shape == (5, 8, 8, 1)
    with pytest.raises(InputError, match="different sizes, for example 4×6 and 5×5"):
        data.load("tfds:tiny")


def test_transparent_images_are_on_white(home):
    prepare(home, shapes=((4, 6, 4),))
    assert shades(data.load("tfds:tiny")) == [251, 252, 253, 254, 255]


def test_a_second_run_reads_the_cache(home, monkeypatch):
    prepare(home)
    first = data.load("tfds:tiny")
    monkeypatch.setattr(tfds, "_decode", lambda *_: pytest.fail("decoded again"))
    np.testing.assert_array_equal(data.load("tfds:tiny").images, first.images)


def test_validation_serves_as_test_if_there_is_no_test_split(home):
    prepare(home, splits={"train": [1], "validation": [2]})
    assert shades(data.load("tfds:tiny", "test")) == [2]


def test_an_unknown_split_is_refused_with_the_known_ones(home):
    prepare(home, splits={"train": [1], "extra": [2]})
    with pytest.raises(InputError, match=r"^tfds:tiny has no split 'test': it has .*extra"):
        data.load("tfds:tiny", "test")


def test_without_labels_there_are_no_classes(home):
    prepare(home, labelled=False)
    tiny = data.load("tfds:tiny")
    assert (tiny.labels.tolist(), tiny.classes) == ([0] * 5, ())


def test_the_latest_version_unless_one_is_named(home):
    prepare(home, version="9.0.0", splits={"train": [9]})
    prepare(home, version="10.0.0", splits={"train": [10]})
    assert shades(data.load("tfds:tiny")) == [10]
    assert shades(data.load("tfds:tiny:9.0.0")) == [9]


def test_a_configuration_is_named_after_a_slash(home):
    prepare(home, splits={"train": [1]}).parent.rename(home / "one")
    prepare(home, splits={"train": [2]}).parent.rename(home / "two")
    (home / "both").mkdir()
    (home / "one").rename(home / "both" / "one")
    assert shades(data.load("tfds:both")) == [1]
    (home / "two").rename(home / "both" / "two")
    assert shades(data.load("tfds:both/two")) == [2]
    with pytest.raises(InputError, match="several configurations, one, two"):
        data.load("tfds:both")


def test_formats_that_only_tensorflow_reads_are_refused(home):
    info = prepare(home) / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    with pytest.raises(InputError, match=r"prepared as tfrecord.*file_format='array_record'"):
        data.load("tfds:tiny")


def test_a_damaged_set_is_refused_by_name(home):
    for file in prepare(home).glob("*train*"):
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="tfds:tiny cannot be read from"):
        data.load("tfds:tiny")


def test_a_set_with_a_damaged_description_is_refused_by_name(home):
    (prepare(home) / "features.json").write_text("{")
    with pytest.raises(InputError, match="tfds:tiny cannot be read from"):
        data.load("tfds:tiny")


def test_preparing_takes_tensorflow_and_a_network(home, monkeypatch):
    import tensorflow_datasets

    installed(monkeypatch, *TFDS, "tensorflow")
    monkeypatch.setattr(fetch, "first_to_answer", lambda urls: urls[0])
    builder = make_builder("tiny", "1.0.0", {"train": [1, 2]}, ((4, 6, 1),), True)
    monkeypatch.setattr(tensorflow_datasets, "builder", lambda _, **options: builder(**options))
    told = []
    assert shades(data.load("tfds:tiny", log=told.append)) == [1, 2]
    assert len(told) == 2
    assert told[0].startswith("tfds:tiny: TensorFlow Datasets fetches and prepares it")


def test_a_set_that_cannot_be_prepared_is_an_input_error(home, monkeypatch):
    import tensorflow_datasets

    def unknown(name, **_):
        raise tensorflow_datasets.core.DatasetNotFoundError(f"Dataset {name} not found.")

    installed(monkeypatch, *TFDS, "tensorflow")
    monkeypatch.setattr(fetch, "first_to_answer", lambda urls: urls[0])
    monkeypatch.setattr(tensorflow_datasets, "builder", unknown)
    with pytest.raises(InputError, match="tfds:tiny cannot be prepared: Dataset tiny not found"):
        data.load("tfds:tiny")
