"""The features that are learned from data, and the figures of each kind of model."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import data, metrics
from jaxgen.metrics import features as features_module
from jaxgen.metrics import samples as samples_module
from jaxgen.metrics.features import learned_features

pytestmark = pytest.mark.unoptimized


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def digits_features(digits):
    """Learned from the first 1,200, so that the others are new to them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features_module, "_STEPS", 300)
        return learned_features(digits.images[:1200], digits.labels[:1200], white=16)


def unit(images) -> np.ndarray:
    return np.asarray(images, np.float32) / 16


# ---- Features ----


def test_features_are_of_a_classifier_that_is_right_on_new_images(digits, digits_features):
    right = digits_features.classify(unit(digits.images[1200:])) == digits.labels[1200:]
    assert right.mean() > 0.9
    assert digits_features.of(unit(digits.images[:5])).shape == (5, 64)
    assert "classifier of 10 classes" in digits_features.description


def test_features_are_centred_and_of_unit_variance(digits, digits_features):
    features = digits_features.of(unit(digits.images[:1200]))
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    assert features.var(axis=0).mean() == pytest.approx(1, rel=1e-4)


def test_features_bring_images_of_a_class_together(digits, digits_features):
    """The mean distance within a class is smaller, against that between classes, than for pixels."""
    images, labels = unit(digits.images[1200:1500]), digits.labels[1200:1500]
    same = labels[:, None] == labels

    def ratio(features: np.ndarray) -> float:
        distances = np.linalg.norm(features[:, None] - features, axis=2)
        return distances[same].mean() / distances[~same].mean()

    assert ratio(digits_features.of(images)) < 0.7 * ratio(metrics.pixels().of(images))


@pytest.fixture
def small(monkeypatch, tmp_path):
    """64 images of 5×7, a short training, and a cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = (rng.uniform(0, 100, (64, 5, 7, 3)) + 100 * labels[:, None, None, None]).astype(np.uint8)
    return images, labels


def refuse_to_train(*args):
    raise AssertionError("trained again")


def test_features_are_trained_once_and_kept(small, monkeypatch):
    images, labels = small
    first = learned_features(images, labels).of(images / 255)
    monkeypatch.setattr(features_module, "_train", refuse_to_train)
    np.testing.assert_array_equal(learned_features(images, labels).of(images / 255), first)
    changed = images.copy()
    changed[0, 0, 0, 0] ^= 1
    for other in [(changed, labels), (images, 1 - labels), (images, None)]:
        with pytest.raises(AssertionError, match="trained again"):
            learned_features(*other)
    with pytest.raises(AssertionError, match="trained again"):
        learned_features(images, labels, white=200)


def test_features_are_the_same_when_trained_again(small, tmp_path):
    images, labels = small
    first = learned_features(images, labels).of(images / 255)
    (kept,) = tmp_path.glob("jaxgen/features/*.npz")
    kept.unlink()
    np.testing.assert_array_equal(learned_features(images, labels).of(images / 255), first)


@pytest.mark.parametrize("damage", ["short", "empty", "bytes", "folder", "shapes"])
def test_a_damaged_cache_is_replaced(small, tmp_path, damage):
    images, labels = small
    first = learned_features(images, labels).of(images / 255)
    (kept,) = tmp_path.glob("jaxgen/features/*.npz")
    content = kept.read_bytes()
    middle = len(content) // 2
    if damage == "folder":
        kept.unlink()
        kept.mkdir()
    elif damage == "shapes":
        np.savez(kept, **{name: array[..., :1] for name, array in np.load(kept).items()})
    else:
        made = {
            "short": content[:middle],
            "empty": b"",
            "bytes": content[:middle] + b"\xff" * 9 + content[middle + 9 :],
        }
        kept.write_bytes(made[damage])
    np.testing.assert_array_equal(learned_features(images, labels).of(images / 255), first)
    if damage != "folder":
        assert kept.read_bytes()[:middle] == content[:middle]


def test_features_need_no_cache(small, monkeypatch, tmp_path):
    images, labels = small
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert learned_features(images, labels).of(images / 255).shape == (64, 64)


@pytest.mark.parametrize("shape", [(1, 9, 1), (40, 17, 3)])
def test_features_of_images_of_any_size_without_labels_are_of_an_autoencoder(small, shape):
    images = np.random.default_rng(0).integers(0, 255, (10, *shape)).astype(np.uint8)
    found = learned_features(images, np.zeros(10, int))
    assert found.of(images / 255).shape == (10, 64)
    assert "autoencoder" in found.description
    assert found.classify is None


# ---- Figures ----


def test_figures_of_samples_beside_the_floor(digits, digits_features):
    train, test = digits.images[:1000], digits.images[1000:]
    measure = metrics.of_samples(train, test, features=[digits_features, metrics.pixels()], white=16)
    rng = np.random.default_rng(0)
    images = unit(digits.images[:900])
    good = measure(images)
    noisy = measure(np.clip(images + 0.5 * rng.normal(size=images.shape), 0, 1))
    few = measure(images[np.arange(900) % 20])
    names = ["frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"]
    assert list(good) == [*names, *(f"{name}_of_pixels" for name in names)]
    for name, figure in good.items():
        floor = figure.baselines["real against held-out real"]
        assert floor == noisy[name].baselines["real against held-out real"]
        if "recall" not in name:  # the neighbourhoods of noise are so large that they hold all that is real
            better = max if figure.better == "higher" else min
            assert better(figure.value, noisy[name].value) == figure.value, name
    assert few["recall"].value < good["recall"].value
    assert few["coverage"].value < 0.5 < good["coverage"].value
    assert good["kernel_distance"].standard_error > 0


def test_figures_of_samples_are_of_equal_counts(digits):
    """As many of each as there are of the fewest."""
    seen = []

    def of(images):
        seen.append(len(images))
        return metrics.pixels().of(images)

    measure = metrics.of_samples(
        digits.images[:300], digits.images[300:380], features=[metrics.Features("counted", of)], white=16
    )
    measure(unit(digits.images[:100]))
    assert seen == [80, 80, 80]
    measure(unit(digits.images[:60]))
    assert seen[3:] == [60, 60, 60]
    measure(unit(digits.images[100:160]))
    assert seen[6:] == [60]


def test_few_images_give_no_figures(digits):
    measure = metrics.of_samples(digits.images[:40], digits.images[40:60], features=[metrics.pixels()], white=16)
    assert measure(unit(digits.images[:9])) == {}
    assert measure(unit(digits.images[:10]))


def test_data_without_a_test_split_are_cut_into_halves(digits):
    first, second = metrics.halves(digits.images)
    assert [len(first), len(second)] == [898, 899]
    both = np.concatenate([first, second]).reshape(1797, -1)
    assert sorted(map(bytes, both)) == sorted(map(bytes, digits.images.reshape(1797, -1)))
    measure = metrics.of_samples(digits.images, features=[metrics.pixels()], white=16)
    figures = measure(unit(second))
    for figure in figures.values():  # the second half as samples is the floor itself
        assert figure.value == pytest.approx(figure.baselines["real against held-out real"], abs=0.02)
    assert measure.most == 898
    same_again = metrics.of_samples(digits.images, lambda: digits.images, features=[metrics.pixels()], white=16)
    assert same_again(unit(second)) == figures


def test_features_are_learned_when_they_are_needed(monkeypatch):
    """And pixels are compared too where there are few of them."""
    learned = []

    def learn(images, labels, white):
        learned.append((images.shape, labels, white))
        return metrics.pixels()._replace(name="")

    monkeypatch.setattr(samples_module, "learned_features", learn)
    for side in (8, 16):
        images = np.random.default_rng(0).integers(0, 17, (50, side, side, 1))
        measure = metrics.of_samples(images, labels="their labels", white=16)
        assert not learned
        assert len(measure.features) == (2 if side == 8 else 1)
        assert ("coverage_of_pixels" in measure(unit(images))) == (side == 8)
        assert learned == [((50, side, side, 1), "their labels", 16)]
        learned.clear()


def test_figures_of_an_autoencoder_beside_pca(digits):
    train, test = digits.images[:1000], digits.images[1000:1200]
    measure = metrics.of_autoencoder(test, train, 10, white=16)
    pca = metrics.principal_components(train, 10, white=16)
    figures = measure(pca.reconstruct)
    assert list(figures) == ["mse", "psnr", "ssim"]
    for figure in figures.values():
        assert figure.baselines == {"PCA with 10 numbers": pytest.approx(figure.value, rel=1e-6)}
    exact = measure(lambda images: images)
    assert [exact[name].value for name in exact] == [0, 100, pytest.approx(1)]
    worse = measure(lambda images: 0.5 * images)
    assert worse["mse"].value == pytest.approx(np.square(0.5 * unit(test)).mean(), rel=1e-5)
    errors = np.square(0.5 * unit(test)).mean(axis=(1, 2, 3))
    assert worse["mse"].standard_error == pytest.approx(errors.std(ddof=1) / np.sqrt(200), rel=1e-5)
    assert worse["psnr"].unit == "dB"


def linear_vae(train):
    """Two principal components as a VAE whose codes are nearly certain."""
    pca = metrics.principal_components(train, 2, white=16)

    def encode(images):
        mean = jnp.asarray(pca.encode(images))
        return mean, jnp.full_like(mean, -8.0)

    def decode(z):
        return jnp.clip(z @ pca.components + pca.mean, 0.001, 0.999).reshape(-1, 8, 8, 1)

    return encode, decode


def test_figures_of_a_vae(digits):
    train, test = digits.images[:1000], digits.images[1000:1200]
    labels = {"train_labels": digits.labels[:1000], "test_labels": digits.labels[1000:1200]}
    figures = metrics.of_vae(test, train, white=16, importance_samples=3, **labels)(*linear_vae(train))
    terms = ["elbo", "reconstruction", "kl_divergence"]
    others = ["importance_weighted_bound", "active_units", "reconstruction_mse", "linear_probe"]
    assert list(figures) == [*terms, *others]
    elbo, reconstruction, kl = (figures[name].value for name in terms)
    assert elbo == pytest.approx(-(reconstruction + kl), rel=1e-6)
    assert figures["importance_weighted_bound"].value > figures["importance_weighted_bound"].baselines["ELBO"] == elbo
    assert (figures["active_units"].value, figures["active_units"].unit) == (2, "of 2")
    for name in ("reconstruction_mse", "linear_probe"):
        assert figures[name].baselines == {"PCA with 2 numbers": pytest.approx(figures[name].value, rel=1e-3)}
    assert figures["linear_probe"].value > 0.3


def test_vae_without_labels_has_no_probe(digits):
    train, test = digits.images[:200], digits.images[200:260]
    figures = metrics.of_vae(test, train, white=16)(*linear_vae(train))
    assert {"linear_probe", "importance_weighted_bound"}.isdisjoint(figures)
    one_class = {"train_labels": np.zeros(200, int), "test_labels": np.zeros(60, int)}
    assert "linear_probe" not in metrics.of_vae(test, train, white=16, **one_class)(*linear_vae(train))


def test_figures_of_a_conditional_vae(digits):
    train, test = digits.images[:200], digits.images[200:260]
    encode, decode = linear_vae(train)
    seen = []

    def with_labels(function):
        def apply(batch, labels):
            seen.append(len(batch) == len(labels))
            return function(batch)

        return apply

    labels = {"train_labels": digits.labels[:200], "test_labels": digits.labels[200:260]}
    plain = metrics.of_vae(test, train, white=16, **labels)(encode, decode)
    conditional = metrics.of_vae(test, train, white=16, conditional=True, **labels)
    assert conditional(with_labels(encode), with_labels(decode)) == plain
    assert seen
    assert all(seen)


def test_figures_of_completion_beside_simple_completions(digits):
    train, test = digits.images[:1000], digits.images[1000:1100]
    images = unit(test)
    figures = metrics.of_completion(test, train, 4, white=16)(
        lambda given: np.where(np.arange(8)[:, None, None] < 4, given, 0)
    )
    mse = figures["completion_mse"]
    assert mse.value == pytest.approx(np.square(images[:, 4:]).mean(), rel=1e-5)
    nearest = [np.square(unit(train[:, :4]) - image[:4]).sum(axis=(1, 2, 3)).argmin() for image in images]
    completions = {
        "last row repeated": np.broadcast_to(images[:, 3:4], (100, 4, 8, 1)),
        "mean image": unit(train).mean(axis=0)[4:],
        "nearest image": unit(train)[nearest, 4:],
    }
    expected = {label: np.square(made - images[:, 4:]).mean() for label, made in completions.items()}
    assert mse.baselines == pytest.approx(expected, rel=1e-5)
    assert figures["completion_ssim"].baselines.keys() == expected.keys()
    exact = metrics.of_completion(test, train, 4, white=16)(lambda given: given)
    assert exact["completion_mse"].value == 0
    assert exact["completion_ssim"].value == pytest.approx(1)


# ---- The table ----


def test_table_has_a_row_for_each_figure_and_a_column_for_each_baseline():
    figures = {
        "frechet_distance": metrics.Figure(1.23456, {metrics.FLOOR: 0.5}),
        "kernel_distance": metrics.Figure(0.012, {metrics.FLOOR: -0.001}, standard_error=0.0034),
        "psnr": metrics.Figure(21.5, {"PCA": 29.0}, unit="dB", better="higher"),
        "test_mse": 0.25,
    }
    lines = metrics.table(figures).splitlines()
    assert re.split(r"\s{2,}", lines[0])[1:] == ["model", "real against held-out real", "PCA"]
    assert [line.split() for line in lines[1:]] == [
        ["Fréchet", "distance", "↓", "1.235", "0.5"],
        ["Kernel", "distance", "↓", "0.012", "±", "0.0034", "-0.001"],
        ["PSNR", "↑", "21.5", "29", "dB"],
        ["Test", "MSE", "0.25"],
    ]
    column = lines[0].index("real against held-out real") + len("real against held-out real")
    assert lines[1][column - 3 : column] == "0.5"


def test_figures_as_json():
    figures = {"psnr": metrics.Figure(21.5, {"PCA": 29.0}, unit="dB", better="higher"), "test_mse": 0.25}
    assert json.loads(json.dumps(metrics.as_json(figures))) == {
        "psnr": {"value": 21.5, "baselines": {"PCA": 29.0}, "standard_error": None, "unit": "dB", "better": "higher"},
        "test_mse": {"value": 0.25, "baselines": {}, "standard_error": None, "unit": "", "better": "lower"},
    }


def test_measuring_leaves_float64_off():
    metrics.frechet_distance(np.eye(4), np.eye(4))
    metrics.ssim(np.zeros((1, 11, 11, 1)), np.zeros((1, 11, 11, 1)))
    assert not jax.config.jax_enable_x64
