// JAX's random numbers, so that seed 7 gives the latent vectors that `jaxgen sample --seed 7` gives.

/** Threefry-2x32 with 20 rounds (Salmon et al., 2011), as JAX has it: two words of a key and two of a counter. */
function threefry(key0, key1, x0, x1) {
  const rotations = [[13, 15, 26, 6], [17, 29, 16, 24]];
  const keys = [key0, key1, key0 ^ key1 ^ 0x1bd11bda];
  x0 = (x0 + keys[0]) | 0;
  x1 = (x1 + keys[1]) | 0;
  for (let group = 0; group < 5; group++) {
    for (const rotation of rotations[group % 2]) {
      x0 = (x0 + x1) | 0;
      x1 = ((x1 << rotation) | (x1 >>> (32 - rotation))) ^ x0;
    }
    x0 = (x0 + keys[(group + 1) % 3]) | 0;
    x1 = (x1 + keys[(group + 2) % 3] + group + 1) | 0;
  }
  return [x0, x1];
}

/** `jax.random.uniform(jax.random.key(seed), ...)`: its numbers `first`, `first` + 1, ... */
function uniform(seed, first, count) {
  const high = Math.floor(seed / 2 ** 32) | 0, low = seed | 0;
  return Float32Array.from({length: count}, (_, i) => {
    const [x0, x1] = threefry(high, low, 0, first + i);
    return ((x0 ^ x1) >>> 9) / 2 ** 23;
  });
}

/** `jax.random.normal(jax.random.key(seed), ...)`, likewise. */
function normal(seed, first, count) {
  const lowest = Math.fround(-1 + 2 ** -24);
  return uniform(seed, first, count).map((u) => {
    const x = Math.max(lowest, Math.fround(u * Math.fround(1 - lowest)) + lowest);
    return Math.SQRT2 * inverseErf(x);
  });
}

/** The inverse of the error function to float32: Giles, "Approximating the erfinv function", 2010. */
function inverseErf(x) {
  let w = -Math.log((1 - x) * (1 + x));
  const near = [2.81022636e-8, 3.43273939e-7, -3.5233877e-6, -4.39150654e-6, 0.00021858087, -0.00125372503,
    -0.00417768164, 0.246640727, 1.50140941];
  const far = [-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773, -0.0076224613,
    0.00943887047, 1.00167406, 2.83297682];
  const coefficients = w < 5 ? near : far;
  w = w < 5 ? w - 2.5 : Math.sqrt(w) - 3;
  return x * coefficients.reduce((sum, coefficient) => sum * w + coefficient, 0);
}
