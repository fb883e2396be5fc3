"""The measures of quality against SciPy, scikit-learn and scikit-image on the same arrays, or in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.linalg import sqrtm
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from sklearn.decomposition import PCA
from sklearn.metrics.pairwise import euclidean_distances, polynomial_kernel

from jaxgen import metrics
from jaxgen.metrics import pca


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def two_sets(first: int = 230, second: int = 170, size: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Correlated features of two distributions."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(2, size, size))
    return rng.normal(size=(first, size)) @ mixing[0], rng.normal(size=(second, size)) @ mixing[1] + 0.5


# ---- Fréchet distance ----


def test_frechet_distance_agrees_with_scipys_matrix_root():
    first, second = two_sets()
    covariances = [np.cov(each, rowvar=False) for each in (first, second)]
    mean = np.square(first.mean(0) - second.mean(0)).sum()
    expected = mean + np.trace(sum(covariances) - 2 * sqrtm(covariances[0] @ covariances[1]).real)
    assert metrics.frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)


def test_frechet_distance_of_independent_features_has_a_closed_form():
    """With diagonal covariances it is |μ₁ − μ₂|² + |σ₁ − σ₂|²."""
    signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]]) * np.sqrt(3 / 4)  # variances of exactly 1
    distance = metrics.frechet_distance(signs * [2, 3] + [1, 0], signs * [0.5, 7])
    assert distance == pytest.approx(1 + 1.5**2 + 4**2, rel=1e-13)


def test_frechet_distance_of_singular_covariances():
    """Fewer vectors than dimensions, where the root of the product of covariances is ill-conditioned."""
    first = rng().normal(size=(10, 40))
    assert metrics.frechet_distance(first, first) == pytest.approx(0, abs=1e-12)
    assert metrics.frechet_distance(first, first + 1) == pytest.approx(40, rel=1e-12)
    assert metrics.frechet_distance(first, 3 * first) == pytest.approx(
        4 * (np.square(first.mean(0)).sum() + np.trace(np.cov(first, rowvar=False))), rel=1e-12
    )


def test_frechet_distance_of_one_feature():
    first, second = two_sets(size=1)
    expected = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert metrics.frechet_distance(first, second) == pytest.approx(expected, rel=1e-12)


# ---- Kernel distance ----


def kernel_distance_of_scikit_learn(first: np.ndarray, second: np.ndarray) -> float:
    def kernel(x, y):
        return polynomial_kernel(x, y, degree=3, gamma=1 / x.shape[1], coef0=1)

    n, m = len(first), len(second)
    within_1, within_2 = kernel(first, first), kernel(second, second)
    within = (within_1.sum() - np.trace(within_1)) / (n * (n - 1))
    within += (within_2.sum() - np.trace(within_2)) / (m * (m - 1))
    return within - 2 * kernel(first, second).mean()


@pytest.mark.parametrize("counts", [(230, 170), (4, 5), (100, 100)])
def test_kernel_distance_agrees_with_scikit_learns_kernel(counts):
    first, second = two_sets(*counts)
    value, _ = metrics.kernel_distance(first, second)
    assert value == pytest.approx(kernel_distance_of_scikit_learn(first, second), rel=1e-10)


def test_standard_error_of_kernel_distance_is_the_jackknifes():
    first, second = two_sets(100, 60)
    _, error = metrics.kernel_distance(first, second)
    estimates = []
    for group in range(10):
        kept = [np.arange(len(each)) // (len(each) // 10) != group for each in (first, second)]
        estimates.append(kernel_distance_of_scikit_learn(first[kept[0]], second[kept[1]]))
    assert error == pytest.approx(np.sqrt(9 / 10 * np.square(estimates - np.mean(estimates)).sum()), rel=1e-8)


def test_kernel_distance_is_unbiased_and_its_error_is_about_right():
    rng = np.random.default_rng(0)
    draws = [metrics.kernel_distance(*rng.normal(size=(2, 40, 3))) for _ in range(200)]
    values, errors = np.transpose(draws)
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(200)
    assert 0.7 < errors.mean() / values.std() < 1.5


# ---- Neighbours ----


def by_all_distances(real: np.ndarray, samples: np.ndarray, k_recall: int, k_density: int) -> list[float]:
    """All four measures from scikit-learn's full matrices of distances."""
    between = euclidean_distances(real, samples)
    ball, wide = (np.sort(euclidean_distances(real, real), axis=1)[:, k] for k in (k_recall, k_density))
    sample_ball = np.sort(euclidean_distances(samples, samples), axis=1)[:, k_recall]
    held = between <= wide[:, None]
    return [
        (between <= ball[:, None]).any(0).mean(),
        (between <= sample_ball).any(1).mean(),
        held.sum() / (k_density * len(samples)),
        held.any(1).mean(),
    ]


@pytest.mark.parametrize(("neighbours", "counts"), [((3, 5), (230, 170)), ((1, 2), (100, 201)), ((2, 3), (7, 6))])
def test_neighbour_measures_agree_with_all_distances(neighbours, counts):
    real, samples = two_sets(*counts)
    found = [
        *metrics.precision_recall(real, samples, neighbours=neighbours[0]),
        *metrics.density_coverage(real, samples, neighbours=neighbours[1]),
    ]
    expected = by_all_distances(real, samples, *neighbours)
    assert found == pytest.approx(expected, rel=1e-12)
    assert len(set(np.round(expected, 3))) > 1


def test_radii_count_equal_vectors_as_neighbours():
    vectors = np.array([[0.0], [0.0], [0.0], [1.0], [3.0]])
    np.testing.assert_allclose(metrics.radii(vectors, 1), [0, 0, 0, 1, 2])
    np.testing.assert_allclose(metrics.radii(vectors, 3), [1, 1, 1, 1, 3])


def test_neighbour_measures_tell_too_few_modes_from_noise():
    """Samples of one mode of two are precise but do not cover; samples of noise are the other way round."""
    rng = np.random.default_rng(0)
    real = rng.normal(size=(400, 2)) + 20 * rng.integers(0, 2, (400, 1))
    one_mode, noise = rng.normal(size=(400, 2)), rng.uniform(-50, 70, (400, 2))
    assert metrics.precision_recall(real, one_mode).precision > 0.9
    assert metrics.precision_recall(real, one_mode).recall < 0.6
    assert metrics.density_coverage(real, one_mode).coverage < 0.6
    assert metrics.precision_recall(real, noise).precision < 0.1
    assert metrics.density_coverage(real, noise).density < 0.1


def test_nearest():
    vectors, among = two_sets()
    np.testing.assert_array_equal(metrics.nearest(vectors, among), euclidean_distances(vectors, among).argmin(axis=1))


# ---- Images ----


def image_pairs(height: int = 17, width: int = 14, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    references = rng.uniform(size=(3, height, width, channels))
    return np.clip(references + 0.2 * rng.normal(size=references.shape), 0, 1), references


def ssim_of_scikit_image(image: np.ndarray, reference: np.ndarray, **options) -> float:
    settings = {"channel_axis": -1, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(image, reference, **({"data_range": 1.0} | settings | options))


@pytest.mark.parametrize(("shape", "data_range"), [((17, 14, 3), 1.0), ((11, 11, 1), 1.0), ((28, 56, 1), 2.0)])
def test_ssim_equals_scikit_images(shape, data_range):
    images, references = image_pairs(*shape)
    expected = [ssim_of_scikit_image(*pair, data_range=data_range) for pair in zip(images, references, strict=True)]
    np.testing.assert_allclose(metrics.ssim(images, references, data_range=data_range), expected, rtol=1e-11)


def test_ssim_of_small_images_equals_scikit_images():
    images, references = image_pairs(8, 8, 1)
    sigma = metrics.window_sigma(8, 8)
    expected = [ssim_of_scikit_image(*pair, sigma=sigma) for pair in zip(images, references, strict=True)]
    np.testing.assert_allclose(metrics.ssim(images, references, sigma=sigma), expected, rtol=1e-11)


@pytest.mark.parametrize("size", [(1, 5), (2, 8), (3, 3), (4, 8), (8, 8), (10, 30), (11, 11), (64, 64)])
def test_window_of_ssim_fits_every_size(size):
    images = rng().uniform(size=(1, *size, 1))
    assert metrics.ssim(images, images, sigma=metrics.window_sigma(*size)) == pytest.approx([1.0])


def test_psnr_equals_scikit_images():
    images, references = image_pairs()
    expected = [peak_signal_noise_ratio(b, a, data_range=1.0) for a, b in zip(images, references, strict=True)]
    np.testing.assert_allclose(metrics.psnr(images, references), expected, rtol=1e-13)
    assert metrics.psnr(references, references).tolist() == [np.inf] * 3


def test_squared_error_is_of_each_image():
    images, references = image_pairs()
    expected = np.square(images - references).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(metrics.squared_error(images, references), expected, rtol=1e-13)


def test_float32_images_are_measured_in_float64():
    images, references = (each.astype(np.float32) for each in image_pairs())
    wide = [each.astype(np.float64) for each in (images, references)]
    np.testing.assert_array_equal(metrics.ssim(images, references), metrics.ssim(*wide))
    np.testing.assert_array_equal(metrics.squared_error(images, references), metrics.squared_error(*wide))


# ---- Principal components ----


@pytest.mark.parametrize(("as_integers", "count"), [(True, 300), (False, 300), (True, 15)])
def test_principal_components_agree_with_scikit_learn(as_integers, count):
    spread = (0.8 ** np.arange(20)).reshape(5, 4, 1)  # so that the components are well separated
    images = (120 + rng().uniform(-120, 120, (count, 5, 4, 1)) * spread).astype(np.uint8)
    floats = (images / 240).astype(np.float32)
    found = metrics.principal_components(images if as_integers else floats, 6, white=240)
    reference = PCA(6, svd_solver="full").fit(floats.reshape(count, 20))
    back = reference.inverse_transform(reference.transform(floats.reshape(count, 20))).clip(0, 1)
    np.testing.assert_allclose(found.reconstruct(floats).reshape(count, 20), back, atol=2e-5)
    np.testing.assert_allclose(
        np.abs(found.encode(floats)), np.abs(reference.transform(floats.reshape(count, 20))), atol=2e-5
    )


def test_principal_components_of_large_images_are_of_some_images(monkeypatch):
    """Three images span two components beside their mean."""
    monkeypatch.setattr(pca, "_LARGEST", 3)
    images = rng().uniform(size=(50, 4, 5, 1)).astype(np.float32)
    assert metrics.principal_components(images, 10).components.shape == (2, 20)


def test_as_many_components_as_pixels_lose_nothing():
    images = rng().uniform(size=(30, 3, 3, 1)).astype(np.float32)
    found = metrics.principal_components(images, 100)
    assert found.components.shape == (9, 9)
    np.testing.assert_allclose(found.reconstruct(images), images, atol=1e-6)


# ---- Latent variables ----

WEIGHTS = np.array([1.5, -0.7, 0.3])  # of a decoder from one number to three pixels


def toy_vae(mean_of_q: float, deviation_of_q: float, count: int):
    """Codes of equal images, and a decoder."""
    ones = np.ones((count, 1))

    def decode(z):
        return jax.nn.sigmoid(z * WEIGHTS).reshape(-1, 1, 3, 1)

    return metrics.Codes(mean_of_q * ones, 2 * np.log(deviation_of_q) * ones), decode


def log_likelihood(image: np.ndarray) -> float:
    """log ∫ N(z; 0, 1) p(x|z) dz by quadrature."""

    def density(z: float) -> float:
        p = 1 / (1 + np.exp(-z * WEIGHTS))
        return np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * np.prod(p**image * (1 - p) ** (1 - image))

    return np.log(quad(density, -12, 12)[0])


def test_importance_weighted_bound_rises_to_the_log_likelihood(float64):
    image = np.array([1.0, 0.0, 1.0])
    images = np.broadcast_to(image.reshape(1, 1, 3, 1), (600, 1, 3, 1))  # more than a batch
    means = []
    for samples in (1, 5, 100):
        found = metrics.bounds(*toy_vae(0.3, 1.2, 600), images, jax.random.key(0), importance_samples=samples)
        means.append(found.importance_weighted.mean())
    exact = log_likelihood(image)
    assert means[0] < means[1] < means[2]
    assert means[0] < exact - 0.02
    error = found.importance_weighted.std() / np.sqrt(len(images))
    assert means[2] == pytest.approx(exact, abs=4 * error + 1e-3)
    assert 4 * error + 1e-3 < exact - means[0]


def test_importance_weighted_bound_is_exact_where_the_encoder_is(float64):
    """With a decoder that ignores z, the posterior is the prior: every weight is p(x)."""
    codes, _ = toy_vae(0.0, 1.0, 4)
    images = rng().uniform(size=(4, 1, 3, 1))

    def decode(z):
        return jnp.full((len(z), 1, 3, 1), 0.25)

    expected = (images * np.log(0.25) + (1 - images) * np.log(0.75)).sum(axis=(1, 2, 3))
    found = metrics.bounds(codes, decode, images, jax.random.key(0), importance_samples=3)
    np.testing.assert_allclose(found.importance_weighted, expected, rtol=1e-6)
    np.testing.assert_allclose(found.elbo, expected, rtol=1e-6)
    np.testing.assert_allclose(found.kl, 0, atol=1e-12)


def test_elbo_terms_agree_with_quadrature(float64):
    images = np.broadcast_to(np.array([1.0, 0.0, 1.0]).reshape(1, 1, 3, 1), (2000, 1, 3, 1))
    found = metrics.bounds(*toy_vae(0.8, 0.6, 2000), images, jax.random.key(0))
    assert found.importance_weighted is None
    np.testing.assert_allclose(found.kl, 0.5 * (0.8**2 + 0.6**2 - 1) - np.log(0.6), rtol=1e-12)

    def cross_entropy(z: float) -> float:
        p = 1 / (1 + np.exp(-z * WEIGHTS))
        weight = np.exp(-(((z - 0.8) / 0.6) ** 2) / 2) / 0.6 / np.sqrt(2 * np.pi)
        return -weight * (np.log(p[0]) + np.log(1 - p[1]) + np.log(p[2]))

    expected = quad(cross_entropy, -6, 8)[0]
    error = found.reconstruction.std() / np.sqrt(2000)
    assert found.reconstruction.mean() == pytest.approx(expected, abs=4 * error)
    np.testing.assert_allclose(found.elbo, -(found.reconstruction + found.kl), rtol=1e-12)


def test_labels_go_to_the_functions_of_a_conditional_model():
    images, labels = rng().uniform(size=(600, 1, 3, 1)).astype(np.float32), np.arange(600) % 3

    def encode(batch, given):
        return jnp.asarray(given, jnp.float32)[:, None], jnp.zeros((len(batch), 1))

    def decode(z, given):
        return jnp.full((len(z), 1, 3, 1), 0.25) + 0.1 * jnp.asarray(given)[:, None, None, None]

    codes = metrics.encoded(encode, images, labels)
    np.testing.assert_array_equal(codes.mean[:, 0], labels)
    np.testing.assert_allclose(metrics.decoded(decode, codes.mean, labels)[:, 0, 0, 0], 0.25 + 0.1 * labels, rtol=1e-6)
    found = metrics.bounds(codes, decode, images, jax.random.key(0), labels=labels, importance_samples=2)
    np.testing.assert_allclose(found.kl, labels**2 / 2, atol=1e-6)


def test_active_units_are_those_whose_mean_varies():
    means = rng().normal(size=(1000, 4)) * [1.0, 0.05, 0.2, 0.0] + [0, 9, 9, 9]
    assert metrics.active_units(means) == 2


def test_linear_probe():
    codes = rng().normal(size=(300, 2))
    labels = (codes @ [1e3, 1e3] > 0).astype(int)
    assert metrics.linear_probe(codes * [1e3, 1e-3], labels, codes[:100] * [1e3, 1e-3], labels[:100]) > 0.95
    shuffled = np.random.default_rng(1).permutation(labels)
    assert metrics.linear_probe(codes, shuffled, codes[:100], labels[:100]) < 0.8


# ---- Bad input ----


@pytest.mark.parametrize("measure", [metrics.frechet_distance, metrics.kernel_distance, metrics.precision_recall])
@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (np.zeros((9, 3)), np.zeros((9, 2)), "one D"),
        (np.zeros((9, 3, 1)), np.zeros((9, 3, 1)), "one D"),
        (np.zeros((9, 3)), np.zeros((1, 3)), "at least"),
        (np.full((9, 3), np.nan), np.zeros((9, 3)), "not finite"),
    ],
)
def test_features_that_do_not_fit_are_refused(measure, first, second, message):
    with pytest.raises(ValueError, match=f"{measure.__name__}: .*{message}"):
        measure(first, second)


@pytest.mark.parametrize("measure", [metrics.ssim, metrics.psnr, metrics.squared_error])
def test_images_of_different_shapes_are_refused(measure):
    with pytest.raises(ValueError, match=r"\(2, 12, 12, 1\) and \(1, 12, 12, 1\)"):
        measure(np.zeros((2, 12, 12, 1)), np.zeros((1, 12, 12, 1)))


def test_window_larger_than_images_is_refused():
    with pytest.raises(ValueError, match="8×12 are smaller than the window of 11×11"):
        metrics.ssim(np.zeros((1, 8, 12, 1)), np.zeros((1, 8, 12, 1)))
