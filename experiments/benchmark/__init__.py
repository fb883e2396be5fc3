"""How fast the recipes train and generate, beside PyTorch.

python -m experiments.benchmark
python -m experiments.benchmark vae_mnist rnn_complete
python -m experiments.benchmark --quick --out docs/benchmarks/MACHINE-jax-VERSION-quick.json
python -m experiments.benchmark --quick --precision bf16
python -m experiments.benchmark conv_autoencoder --epochs 3
python -m experiments.benchmark dcgan_digits --many 8
python -m experiments.benchmark dcgan_mnist --devices 1 2 4 8
python -m experiments.benchmark dcgan_mnist --processes 1 2 4
python -m experiments.benchmark --streaming 1000000
python -m experiments.benchmark.tables
python -m experiments.benchmark.projection

**Training.** Both systems hold the same images in memory and take batches of the same size, each in its own shuffled
order, with the numbers of threads that they choose themselves. Ours is `jaxgen.fit`, on as many CPU devices as the
experiment uses; PyTorch's is the reference of the parity tests (`tests/support/torch_recipes.py`), a `DataLoader`
over float32 tensors and `.item()` at every step, eager and with `torch.compile`. After a warm-up the systems take
turns in one process, A B C A B C …, and each goes on where its last turn ended. In a round all do the same number of
steps: as many as take the fastest of them two seconds (`--quick`: half a second), and five at least, because the
first step of a turn finds its arrays pushed out of the caches. From an epoch on, a turn is whole epochs. The tables
give the steps of a turn. Compilation is not part of these figures and has a table of its own: what JAX reports, and how
much longer PyTorch's warm-up took than its usual turns.

**In bfloat16**, with `--precision bf16`, ours multiplies as the experiments do with it, and PyTorch's steps are
run inside `torch.autocast`. Only training is measured, and the ideal time is that at the rate of bfloat16 products.

**The ratio** is taken within each round, against the form of PyTorch whose median is the faster one. Its interval is
the distribution-free 95 % interval of the median.

**A quiet machine.** PyTorch's threads wait for each other at barriers, and other processes make that many times
slower. So during every turn the benchmark reads how much of the processors other processes use. Only rounds in which
that is at most 5 % count. If there are fewer than six of them, the quieter half of the rounds counts, and the race is
marked with an asterisk in every table. A race that takes too long (ten minutes; `--quick`: one minute) ends after
fewer rounds.

**The ideal time** is that of the step's arithmetic at the rate of large matrix products: multiply-adds, counted in
the layers from their shapes, forward and backward, without gradients that the recipe does not need. The rate is the
best of several float32 products of 2048 × 2048, by XLA or by PyTorch, measured before and after the race. Matmul
utilisation is the ideal time divided by the measured one. Winograd's algorithm takes fewer multiply-adds than are
counted, so for a recipe that uses it the ideal time is not a lower bound.

**Where the time goes**: training under XLA's profiler, its kernels sorted into matmuls, reductions, elementwise
arithmetic, copies, and all-reduces between the devices that share a batch, most of which is waiting. Kernels run on
several threads, and profiling has a cost, so the kinds need not add up to the step.

**Start-up** is measured from outside: from the start of an experiment's command until its progress bar appears, which
is when the first step has been trained; with an empty compilation cache (cold) and with the one that the first start
filled (warm).

**Memory** is the peak of the resident set of a process that trains ten steps on ten batches of images, so that
PyTorch is not charged for its float32 copy of the whole data set.

**Generation**: one jitted call here, the reference's own loop in PyTorch, taking turns as in training.

Without the original files of MNIST or CIFAR-10 random images take their place, and the table says so: speed does not
depend on the values of pixels.

**How well they learn**, with `--epochs N`: both train for N epochs, from weights and orders of their own, on real
images only, and the tables give the mean metrics of every epoch.

**Streaming**, with `--streaming [IMAGES]`: `conv_autoencoder` trains an epoch on that many images of 56×56, once with
all of them in memory and once from disk (`--data-on`), each in a process of its own. The speed is that of the epoch
with the time that it waits for data; the peak memory is that of the whole command.

**Many models**, with `--many N`: ours alone, N models at once (`jaxgen.many`) beside N times as many steps of one, in
turns as above. On a CPU N is at most eight: one model's step already uses all cores, so that only the overhead of
small operations is saved.

**Several devices**, with `--devices N …`, or `--processes N …` that exchange over the loopback interface, ours alone:
the time of a step by their number and by the batch size. Measured are the recipe's own batch and that times each N,
wherever N can share it. The bytes that a step exchanges are counted in its compiled module. How long the exchange takes
within the step, waiting included, and for which part of that time the device also computes, XLA's profiler says. All of
them share the cores of this machine and cannot be faster than these. What follows for other machines is computed by
`python -m experiments.benchmark.projection`, in `docs/benchmarks/projections.md`.

**Reports.** Every run writes its figures, with the machine, versions, commit and command, as JSON to `--out`. Those
that are committed under `docs/benchmarks/` appear in the documentation: `python -m experiments.benchmark.tables`
generates `docs/benchmarks/tables.md` from them, and a test checks that it is up to date.
"""
