"""How fast the recipes train and generate here, beside PyTorch.

python -m experiments.benchmark
python -m experiments.benchmark vae_mnist rnn_complete
python -m experiments.benchmark dcgan_digits --quick
python -m experiments.benchmark conv_autoencoder --epochs 3

**Training.** Both systems hold the same images in memory and take batches of the same size, each in its own shuffled
order, with the thread counts that they choose themselves. Ours is `jaxgen.training.slices`, as every experiment calls
it, on as many devices of the CPU as the experiment takes; PyTorch's is the reference of the parity tests
(`tests/support/torch_recipes.py`): a `DataLoader` over float32 tensors and `.item()` at every step, eagerly and with
`torch.compile`. After a warm-up they take turns in one process, A B C A B C … A turn is an epoch, or, where that takes
long, a slice of one: ours trains for a given time and the others do the same number of steps, each going on where its
last turn ended. Compilation is not in the figures but has its own columns: what JAX says it took, and by how much
PyTorch's warm-up was slower than its usual turns.

**The ratio** is taken within each round, so that what slows the machine down for a while slows both. Its interval is
the one for the median that holds whatever the distribution is (between two order statistics). It is taken against the
form of PyTorch that was the faster one in the median.

**The floor** is what the step's arithmetic would take as one large matrix product. `floor.py` counts multiply-adds in
the layers, forward and backward, from their shapes, gradients that the recipe does not need left out. Winograd's form
of a convolution takes fewer than are counted, so with it the floor is a measure and not a bound. The rate is the best
of many float32 products of 2048 × 2048, by XLA or by PyTorch, measured around the race.

**Where the time goes**: the same loop once more under XLA's profiler, its kernels sorted into matrix products, sums,
elementwise arithmetic, copies, and the meetings of devices that share a batch, most of which is waiting. They run on
several threads and the profiler costs something too, so the kinds need not add up to the step.

**Memory and starting time** are those of processes started for it alone, ours with an empty compilation cache (cold)
and with the one that the first start left (warm), as from a user's second run on. Memory: the peak of the resident set
after ten steps on ten batches of images, so that PyTorch is not charged for its copies of the data as float32. Start:
from the command to the end of the first training step; the files are in the system's cache.

**Generation**: one call of the device in ours, the reference's own loop in PyTorch, taking turns in the same way.

Without the original files of MNIST or CIFAR-10 random images take their place, and the table says so: nothing here
depends on what a pixel's value is. `--quick` races the training alone, eagerly, in fewer and shorter turns.

**How well they learn**, with `--epochs N`: both train for N epochs from weights and orders of their own, on real images
only, and the mean metrics of every epoch stand beside each other.

Nothing else should be running: PyTorch's threads wait for each other, and on a busy machine much longer than ours. The
table says how busy it was before the start.
"""
