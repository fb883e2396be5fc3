"""The five recipes in PyTorch, the reference of the parity tests and of `experiments.benchmark`.

Modules have the state_dict names of the published tutorials and use PyTorch's layout, images `[B, C, H, W]`. A step is
a function of everything it uses (the networks, the optimisers, the batch and the noise), so that JAX can replay it.
All functions compute in the dtype of their inputs, float32 or float64. The library itself imports nothing from here.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, leaky_relu, mse_loss, relu
from torch.optim import Adam, Optimizer
from torch.utils.data import DataLoader, TensorDataset

Metrics = dict[str, float]
AT_ONCE = 250  # images in a forward pass outside training: about the fastest on a CPU, and little memory


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Use running statistics and compute no gradients; afterwards the module is in training mode again."""
    module.eval()
    with torch.no_grad():
        yield
    module.train()


# --- 1. Row completion ------------------------------------------------------------------------------------------------


class RowCompleter(nn.Module):
    """Predicts from rows `[B, T, width]` the next row `[B, width]`; `cell` is "lstm" or "gru"."""

    def __init__(self, cell: str, hidden: int = 256, width: int = 56) -> None:
        super().__init__()
        self.rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](width, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, width)

    def forward(self, rows: Tensor) -> Tensor:
        outputs, _ = self.rnn(rows)  # [B, T, hidden], from a zero state
        next_row: Tensor = self.fc(outputs[:, -1])
        return next_row


def completion_optimizer(model: nn.Module) -> Adam:
    return Adam(model.parameters(), lr=1e-3)


def completion_step(model: nn.Module, optimizer: Optimizer, windows: Tensor, targets: Tensor) -> Metrics:
    """Train one step on windows `[B, T, W]` and the rows that follow them, `[B, W]`."""
    optimizer.zero_grad()
    loss = mse_loss(model(windows), targets)
    loss.backward()
    optimizer.step()
    return {"loss": loss.item()}


def complete(model: nn.Module, images: Tensor, length: int) -> Tensor:
    """Keep the first `length` rows of images `[N, H, W]` and predict each other row from the `length` rows above it."""
    completed = images.clone()
    with evaluating(model):
        for row in range(length, images.shape[1]):
            completed[:, row] = model(completed[:, row - length : row])
    return completed


def cut_windows(images: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Cut images `[N, H, W]` into windows `[N·(H−length), length, W]` and the row after each, `[N·(H−length), W]`."""
    starts = range(images.shape[1] - length)
    windows = torch.stack([images[:, start : start + length] for start in starts], dim=1)
    return windows.flatten(0, 1), images[:, length:].flatten(0, 1)


# --- 2. Convolutional autoencoder -------------------------------------------------------------------------------------


class ConvAutoencoder(nn.Module):
    """Reconstructs images `[B, 3, 32, 32]` in [0, 1] from a code `[B, 8, 8, 8]`."""

    def __init__(self) -> None:
        super().__init__()
        self.enc = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.dec = nn.Sequential(
            nn.ConvTranspose2d(8, 16, 2, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(16, 3, 2, stride=2), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        reconstructions: Tensor = self.dec(self.enc(images))
        return reconstructions


def autoencoder_optimizer(model: nn.Module) -> Adam:
    return Adam(model.parameters(), lr=1e-3)


def autoencoder_step(model: nn.Module, optimizer: Optimizer, images: Tensor) -> Metrics:
    optimizer.zero_grad()
    loss = mse_loss(model(images), images)
    loss.backward()
    optimizer.step()
    return {"loss": loss.item()}


def reconstruct(model: nn.Module, images: Tensor) -> Tensor:
    with evaluating(model):
        return torch.cat([model(batch) for batch in images.split(AT_ONCE)])


def autoencoder_mse(model: nn.Module, images: Tensor) -> float:
    """Return the mean squared error over all pixels of images `[N, 3, 32, 32]`."""
    return mse_loss(reconstruct(model, images), images).item()


# --- 3. and 4. Shared by both DCGANs ----------------------------------------------------------------------------------


def bce_real(probability: Tensor) -> Tensor:
    """Binary cross-entropy of the discriminator's output with the target 1."""
    return binary_cross_entropy(probability, torch.ones_like(probability))


def bce_fake(probability: Tensor) -> Tensor:
    """Binary cross-entropy of the discriminator's output with the target 0."""
    return binary_cross_entropy(probability, torch.zeros_like(probability))


def sample(generator: nn.Module, z: Tensor) -> Tensor:
    """Generate images from noise `[N, latent]`, using the running statistics."""
    with evaluating(generator):
        return torch.cat([generator(batch) for batch in z.split(AT_ONCE)])


# --- 3. DCGAN on MNIST, 28×28 -----------------------------------------------------------------------------------------


def initialize_normal(module: nn.Module) -> None:
    """Draw weights from normal(0, 0.02) and set biases to 0; batch norms keep PyTorch's scale 1 and shift 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        assert module.bias is not None
        nn.init.zeros_(module.bias)


class MnistGenerator(nn.Module):
    """Maps z `[B, 62]`, uniform on [0, 1), to images `[B, 1, 28, 28]` in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Sequential(
            nn.Linear(62, 1024), nn.BatchNorm1d(1024), nn.ReLU(),
            nn.Linear(1024, 128 * 7 * 7), nn.BatchNorm1d(128 * 7 * 7), nn.ReLU(),
        )  # fmt: skip
        self.deconv = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 4, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 1, 4, stride=2, padding=1), nn.Sigmoid(),
        )  # fmt: skip
        self.apply(initialize_normal)

    def forward(self, z: Tensor) -> Tensor:
        images: Tensor = self.deconv(self.fc(z).view(-1, 128, 7, 7))
        return images


class MnistDiscriminator(nn.Module):
    """Maps images `[B, 1, 28, 28]` to the probability that each is real, `[B, 1]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 64, 4, stride=2, padding=1), nn.LeakyReLU(0.2),
            nn.Conv2d(64, 128, 4, stride=2, padding=1), nn.BatchNorm2d(128), nn.LeakyReLU(0.2),
        )  # fmt: skip
        self.fc = nn.Sequential(
            nn.Linear(128 * 7 * 7, 1024), nn.BatchNorm1d(1024), nn.LeakyReLU(0.2),
            nn.Linear(1024, 1), nn.Sigmoid(),
        )  # fmt: skip
        self.apply(initialize_normal)

    def forward(self, images: Tensor) -> Tensor:
        probabilities: Tensor = self.fc(self.conv(images).flatten(1))
        return probabilities


def mnist_optimizer(network: nn.Module) -> Adam:
    return Adam(network.parameters(), lr=2e-4, betas=(0.5, 0.999))


def mnist_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer_g: Optimizer,
    optimizer_d: Optimizer,
    real: Tensor,  # [B, 1, 28, 28]
    z_discriminator: Tensor,  # [B, 62]
    z_generator: Tensor,  # [B, 62]
) -> Metrics:
    """Train the discriminator one step, then the generator.

    All passes are in training mode: the discriminator's running statistics are updated three times (real, fake, and
    the generator's fake), the generator's twice.
    """
    with torch.no_grad():
        fake = generator(z_discriminator)
    optimizer_d.zero_grad()
    loss_discriminator = bce_real(discriminator(real)) + bce_fake(discriminator(fake))
    loss_discriminator.backward()
    optimizer_d.step()

    optimizer_g.zero_grad()
    loss_generator = bce_real(discriminator(generator(z_generator)))
    loss_generator.backward()
    optimizer_g.step()
    return {"loss_discriminator": loss_discriminator.item(), "loss_generator": loss_generator.item()}


# --- 4. DCGAN on 8×8 digits -------------------------------------------------------------------------------------------


class DigitsGenerator(nn.Module):
    """Maps z `[B, 64]`, standard normal, to images `[B, 1, 8, 8]` in [−1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.convt_1 = nn.ConvTranspose2d(64, 64, 3)
        self.convt_2 = nn.ConvTranspose2d(64, 32, 3)
        self.convt_3 = nn.ConvTranspose2d(32, 1, 4)

    def forward(self, z: Tensor) -> Tensor:
        x = relu(self.convt_1(z[:, :, None, None]))  # [B, 64, 3, 3]
        x = relu(self.convt_2(x))  # [B, 32, 5, 5]
        return torch.tanh(self.convt_3(x))


class DigitsDiscriminator(nn.Module):
    """Maps images `[B, 1, 8, 8]` to the probability that each is real, `[B, 1]`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(1, 16, 4)
        self.conv_2 = nn.Conv2d(16, 32, 3)
        self.conv_3 = nn.Conv2d(32, 1, 3)

    def forward(self, images: Tensor) -> Tensor:
        x = leaky_relu(self.conv_1(images), 0.2)  # [B, 16, 5, 5]
        x = leaky_relu(self.conv_2(x), 0.2)  # [B, 32, 3, 3]
        return torch.sigmoid(self.conv_3(x)).flatten(1)


def digits_optimizer(network: nn.Module) -> Adam:
    return Adam(network.parameters(), lr=1e-3)


def digits_step(
    generator: nn.Module,
    discriminator: nn.Module,
    optimizer_g: Optimizer,
    optimizer_d: Optimizer,
    real: Tensor,  # [B, 1, 8, 8]
    z_discriminator: Tensor,  # [B, 64]
    z_generator: Tensor,  # [2B, 64]
) -> Metrics:
    """Take three Adam steps: the discriminator on fakes, the discriminator on real images, the generator.

    Errors are batch means. Accuracies are counts of the discriminator's correct outputs before its step.
    """
    with torch.no_grad():
        fake = generator(z_discriminator)
    optimizer_d.zero_grad()
    answers_fake = discriminator(fake)
    error_fake = bce_fake(answers_fake)
    error_fake.backward()
    optimizer_d.step()

    optimizer_d.zero_grad()
    answers_real = discriminator(real)
    error_real = bce_real(answers_real)
    error_real.backward()
    optimizer_d.step()

    optimizer_g.zero_grad()
    bce_real(discriminator(generator(z_generator))).backward()
    optimizer_g.step()
    return {
        "error_fake": error_fake.item(),
        "error_real": error_real.item(),
        "accuracy_fake": (answers_fake < 0.5).sum().item(),
        "accuracy_real": (answers_real >= 0.5).sum().item(),
    }


# --- 5. VAE on MNIST, 32×32 -------------------------------------------------------------------------------------------


class VAEOutput(NamedTuple):
    mean: Tensor  # [B, latent]
    log_variance: Tensor  # [B, latent]
    z: Tensor  # [B, latent]
    reconstruction: Tensor  # [B, 1, 32, 32]


def down(channels_in: int, channels_out: int) -> nn.Sequential:
    """Halve height and width."""
    convolution = nn.Conv2d(channels_in, channels_out, 3, padding=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), nn.ReLU(), nn.MaxPool2d(2))


def up(channels_in: int, channels_out: int, padding: int, activation: nn.Module) -> nn.Sequential:
    """Double height and width (padding 1), or make 4×4 of 1×1 (padding 0)."""
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, stride=2, padding=padding)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels_out), activation)


class ConvVAE(nn.Module):
    """Maps images `[B, 1, 32, 32]` in [0, 1] and standard normal epsilon `[B, latent]` to `VAEOutput`."""

    def __init__(self, latent: int = 2) -> None:
        super().__init__()
        self.conv1 = down(1, 64)
        self.conv2 = down(64, 128)
        self.conv3 = down(128, 256)
        self.conv4 = nn.Sequential(nn.Conv2d(256, 512, 4), nn.BatchNorm2d(512), nn.ReLU())
        self.mean = nn.Sequential(nn.Linear(512, latent))
        self.var = nn.Sequential(nn.Linear(512, latent))  # the logarithm of the variance, under the tutorial's name
        self.decoder = nn.Sequential(nn.Linear(latent, 512), nn.BatchNorm1d(512), nn.ReLU())
        self.convTrans1 = up(512, 256, 0, nn.ReLU())
        self.convTrans2 = up(256, 128, 1, nn.ReLU())
        self.convTrans3 = up(128, 64, 1, nn.ReLU())
        self.convTrans4 = up(64, 1, 1, nn.Sigmoid())

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log variance, `[B, latent]` each."""
        features = self.conv4(self.conv3(self.conv2(self.conv1(images)))).flatten(1)  # [B, 512]
        return self.mean(features), self.var(features)

    def decode(self, z: Tensor) -> Tensor:
        x = self.decoder(z)[:, :, None, None]  # [B, 512, 1, 1]
        images: Tensor = self.convTrans4(self.convTrans3(self.convTrans2(self.convTrans1(x))))
        return images

    def forward(self, images: Tensor, epsilon: Tensor) -> VAEOutput:
        mean, log_variance = self.encode(images)
        z = mean + epsilon * torch.exp(0.5 * log_variance)
        return VAEOutput(mean, log_variance, z, self.decode(z))


def vae_losses(images: Tensor, output: VAEOutput) -> tuple[Tensor, Tensor]:
    """Return reconstruction error and KL divergence in nats, summed over the batch; their sum is the negative ELBO."""
    delta = 1e-7
    mean, log_variance, _, y = output
    reconstruction = -torch.sum(images * torch.log(y + delta) + (1 - images) * torch.log(1 - y + delta))
    kl = -0.5 * torch.sum(1 + log_variance - mean**2 - torch.exp(log_variance))
    return reconstruction, kl


def vae_optimizer(model: nn.Module) -> Adam:
    return Adam(model.parameters(), lr=1e-3, weight_decay=1e-5)


def vae_step(model: nn.Module, optimizer: Optimizer, images: Tensor, epsilon: Tensor) -> Metrics:
    """Train one step; all three metrics are sums over the batch, in nats."""
    optimizer.zero_grad()
    reconstruction, kl = vae_losses(images, model(images, epsilon))
    loss = reconstruction + kl
    loss.backward()
    optimizer.step()
    return {"loss": loss.item(), "reconstruction": reconstruction.item(), "kl": kl.item()}


def decode(model: ConvVAE, z: Tensor) -> Tensor:
    """Decode latent points `[N, latent]` to images `[N, 1, 32, 32]`, using the running statistics."""
    with evaluating(model):
        return torch.cat([model.decode(batch) for batch in z.split(AT_ONCE)])


def vae_loss(model: nn.Module, images: Tensor, epsilon: Tensor) -> float:
    """Return the loss of images `[N, 1, 32, 32]` in evaluation mode, in nats per image."""
    total = 0.0
    with evaluating(model):
        for batch, noise in zip(images.split(AT_ONCE), epsilon.split(AT_ONCE), strict=True):
            total += sum(part.item() for part in vae_losses(batch, model(batch, noise)))
    return total / len(images)


# --- Whole epochs, as PyTorch's users run them ------------------------------------------------------------------------


class Recipe(NamedTuple):
    """Newly initialised networks, and how `Training` uses them."""

    modules: tuple[nn.Module, ...]
    step: Callable[..., Metrics]  # (*batch) -> metrics; draws its own noise
    generate: Callable[[Tensor], Tensor]  # (images [N, C, H, W] or latent points [N, latent]) -> images [N, C, H, W]
    batch_size: int
    drop_last: bool = False
    examples: Callable[[Tensor], tuple[Tensor, ...]] = lambda images: (images,)  # the tensors to shuffle and batch
    counts: tuple[str, ...] = ()  # metrics that are sums over the batch's images; the others are means


def completion_recipe(cell: str) -> Recipe:
    model = RowCompleter(cell)
    return Recipe(
        (model,),
        step=partial(completion_step, model, completion_optimizer(model)),
        generate=lambda images: complete(model, images[:, 0], 28)[:, None],
        batch_size=32,
        examples=lambda images: cut_windows(images[:, 0], 28),
    )


def autoencoder_recipe() -> Recipe:
    model = ConvAutoencoder()
    step = partial(autoencoder_step, model, autoencoder_optimizer(model))
    return Recipe((model,), step, partial(reconstruct, model), batch_size=50)


def mnist_recipe() -> Recipe:
    generator, discriminator = MnistGenerator(), MnistDiscriminator()
    networks = generator, discriminator, mnist_optimizer(generator), mnist_optimizer(discriminator)

    def step(real: Tensor) -> Metrics:
        return mnist_step(*networks, real, torch.rand(len(real), 62), torch.rand(len(real), 62))

    return Recipe((generator, discriminator), step, partial(sample, generator), batch_size=128, drop_last=True)


def digits_recipe() -> Recipe:
    generator, discriminator = DigitsGenerator(), DigitsDiscriminator()
    networks = generator, discriminator, digits_optimizer(generator), digits_optimizer(discriminator)

    def step(real: Tensor) -> Metrics:
        return digits_step(*networks, real, torch.randn(len(real), 64), torch.randn(2 * len(real), 64))

    counts = ("accuracy_fake", "accuracy_real")
    return Recipe((generator, discriminator), step, partial(sample, generator), batch_size=16, counts=counts)


def vae_recipe() -> Recipe:
    model = ConvVAE()
    optimizer = vae_optimizer(model)

    def step(images: Tensor) -> Metrics:
        return vae_step(model, optimizer, images, torch.randn(len(images), 2))

    return Recipe((model,), step, partial(decode, model), batch_size=30, counts=("loss", "reconstruction", "kl"))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "rnn_lstm": partial(completion_recipe, "lstm"),
    "rnn_gru": partial(completion_recipe, "gru"),
    "conv_autoencoder": autoencoder_recipe,
    "dcgan_mnist": mnist_recipe,
    "dcgan_digits": digits_recipe,
    "vae_mnist": vae_recipe,
}


def channels_first(images: np.ndarray) -> Tensor:
    """Return NHWC images as a contiguous NCHW copy."""
    return torch.tensor(images).permute(0, 3, 1, 2).contiguous()


class Training:
    """A training run on the CPU with PyTorch's default threads.

    Args:
        recipe: a name in `RECIPES`.
        images: float32 `[N, H, W, C]`, already scaled to the recipe's range.
        compile: apply `torch.compile` to the networks. They are compiled during the first calls of `epoch` (again for
            a smaller last batch) and of `generate`.
        seed: for initialisation, shuffling and noise.
    """

    def __init__(self, recipe: str, images: np.ndarray, *, compile: bool = False, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.recipe = RECIPES[recipe]()
        examples = TensorDataset(*self.recipe.examples(channels_first(images)))
        self.loader = DataLoader(examples, self.recipe.batch_size, shuffle=True, drop_last=self.recipe.drop_last)
        if compile:
            compile_quietly(self.recipe.modules)

    def epoch(self, max_steps: int | None = None) -> Metrics:
        """Train an epoch, or its first `max_steps` steps.

        Returns:
            The mean of each metric, over images for those in `Recipe.counts` and over steps for the others.
        """
        sums: defaultdict[str, float] = defaultdict(float)
        steps = images = 0
        for batch in islice(self.loader, max_steps):
            for name, value in self.recipe.step(*batch).items():
                sums[name] += value
            steps += 1
            images += len(batch[0])
        return {name: total / (images if name in self.recipe.counts else steps) for name, total in sums.items()}

    def generate(self, given: np.ndarray) -> np.ndarray:
        """Generate float32 images `[N, H, W, C]`.

        Args:
            given: float32. For completion images `[N, H, W, 1]`, whose lower half is predicted; for the autoencoder
                images `[N, H, W, C]` to reconstruct; for DCGAN and VAE latent points `[N, latent]`.
        """
        inputs = channels_first(given) if given.ndim == 4 else torch.tensor(given)
        return self.recipe.generate(inputs).permute(0, 2, 3, 1).numpy()


def compile_quietly(modules: Iterable[nn.Module]) -> None:
    """Apply `torch.compile` in place and hide the two warnings that PyTorch 2.13's own code then raises."""
    warnings.filterwarnings("ignore", ".*script_method. is deprecated", DeprecationWarning)
    warnings.filterwarnings("ignore", "The .grad attribute of a Tensor that is not a leaf", UserWarning)
    for module in modules:
        module.compile()
