// The arithmetic of networks over typed arrays. Arrays are float32; sums are kept in JavaScript's own float64, which is
// more exact and, in today's engines, twice as fast as rounding each of them to float32.

/**
 * y = x wᵀ + bias, for x [rows, inner] and w [columns, inner].
 *
 * Two rows and four columns at a time: eight sums fit into a processor's registers, and each number that is read takes
 * part in two or four products. Both operands are read along their rows.
 */
function product(x, w, bias, y, rows, inner, columns) {
  let row = 0;
  for (; row + 1 < rows; row += 2) {
    const x0 = row * inner, x1 = x0 + inner;
    let column = 0;
    for (; column + 3 < columns; column += 4) {
      const w0 = column * inner, w1 = w0 + inner, w2 = w1 + inner, w3 = w2 + inner;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let k = 0; k < inner; k++) {
        const a = x[x0 + k], b = x[x1 + k];
        const p = w[w0 + k], q = w[w1 + k], r = w[w2 + k], s = w[w3 + k];
        s00 += a * p; s01 += a * q; s02 += a * r; s03 += a * s;
        s10 += b * p; s11 += b * q; s12 += b * r; s13 += b * s;
      }
      const first = row * columns + column, second = first + columns;
      const b0 = bias[column], b1 = bias[column + 1], b2 = bias[column + 2], b3 = bias[column + 3];
      y[first] = s00 + b0; y[first + 1] = s01 + b1; y[first + 2] = s02 + b2; y[first + 3] = s03 + b3;
      y[second] = s10 + b0; y[second + 1] = s11 + b1; y[second + 2] = s12 + b2; y[second + 3] = s13 + b3;
    }
    for (; column < columns; column++) {
      y[row * columns + column] = dot(x, x0, w, column * inner, inner) + bias[column];
      y[(row + 1) * columns + column] = dot(x, x1, w, column * inner, inner) + bias[column];
    }
  }
  if (row < rows) vectorProduct(x, row * inner, w, bias, y, row * columns, inner, columns);
}

/** One row of `product`. */
function vectorProduct(x, from, w, bias, y, to, inner, columns) {
  let column = 0;
  for (; column + 3 < columns; column += 4) {
    const w0 = column * inner, w1 = w0 + inner, w2 = w1 + inner, w3 = w2 + inner;
    let s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    for (let k = 0; k < inner; k++) {
      const a = x[from + k];
      s0 += a * w[w0 + k]; s1 += a * w[w1 + k]; s2 += a * w[w2 + k]; s3 += a * w[w3 + k];
    }
    y[to + column] = s0 + bias[column];
    y[to + column + 1] = s1 + bias[column + 1];
    y[to + column + 2] = s2 + bias[column + 2];
    y[to + column + 3] = s3 + bias[column + 3];
  }
  for (; column < columns; column++) y[to + column] = dot(x, from, w, column * inner, inner) + bias[column];
}

function dot(x, xFrom, w, wFrom, length) {
  let sum = 0;
  for (let k = 0; k < length; k++) sum += x[xFrom + k] * w[wFrom + k];
  return sum;
}

/**
 * The windows of an image [H, W, C] that a convolution multiplies: [H'·W', kh·kw·C], with zeros outside the image.
 */
function windows(x, [height, width, channels], [outHeight, outWidth], step, into) {
  const [kh, kw] = step.kernel, [sh, sw] = step.stride, [ph, pw] = step.padding, [dh, dw] = step.dilation;
  let at = 0;
  for (let row = 0; row < outHeight; row++)
    for (let column = 0; column < outWidth; column++)
      for (let i = 0; i < kh; i++) {
        const top = row * sh - ph + i * dh;
        for (let j = 0; j < kw; j++, at += channels) {
          const left = column * sw - pw + j * dw;
          if (top < 0 || top >= height || left < 0 || left >= width) {
            into.fill(0, at, at + channels);
            continue;
          }
          const from = (top * width + left) * channels;
          for (let channel = 0; channel < channels; channel++) into[at + channel] = x[from + channel];
        }
      }
}

/**
 * The transpose of `windows`: adds what each pixel contributes, [H·W, kh·kw·C], up to an image [H', W', C].
 */
function addWindows(spread, [height, width], [outHeight, outWidth, channels], step, bias, y) {
  const [kh, kw] = step.kernel, [sh, sw] = step.stride, [ph, pw] = step.padding, [dh, dw] = step.dilation;
  for (let at = 0; at < y.length; at += channels)
    for (let channel = 0; channel < channels; channel++) y[at + channel] = bias[channel];
  let at = 0;
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++)
      for (let i = 0; i < kh; i++) {
        const top = row * sh - ph + i * dh;
        for (let j = 0; j < kw; j++, at += channels) {
          const left = column * sw - pw + j * dw;
          if (top < 0 || top >= outHeight || left < 0 || left >= outWidth) continue;
          const to = (top * outWidth + left) * channels;
          for (let channel = 0; channel < channels; channel++) y[to + channel] += spread[at + channel];
        }
      }
}

function maxPool(x, [height, width, channels], [outHeight, outWidth], step, y) {
  const [kh, kw] = step.window, [sh, sw] = step.stride, [ph, pw] = step.padding;
  y.fill(-Infinity);
  for (let row = 0; row < outHeight; row++)
    for (let column = 0; column < outWidth; column++) {
      const to = (row * outWidth + column) * channels;
      for (let i = 0; i < kh; i++)
        for (let j = 0; j < kw; j++) {
          const top = row * sh - ph + i, left = column * sw - pw + j;
          if (top < 0 || top >= height || left < 0 || left >= width) continue;
          const from = (top * width + left) * channels;
          for (let channel = 0; channel < channels; channel++) {
            const value = x[from + channel];
            // Not Math.max, so that the comparison stays cheap; NaN wins as in PyTorch.
            if (value > y[to + channel] || value !== value) y[to + channel] = value;
          }
        }
    }
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));
