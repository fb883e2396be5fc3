// A network: steps that jaxgen traced from the trained module, for one image. Every shape begins with 1.

const UNARY = {
  abs: Math.abs,
  exp: Math.exp,
  log: Math.log,
  logistic: sigmoid,
  neg: (x) => -x,
  sqrt: Math.sqrt,
  square: (x) => x * x,
  tanh: Math.tanh,
};

const BINARY = {
  add: (a, b) => a + b,
  add_any: (a, b) => a + b,
  div: (a, b) => a / b,
  eq: (a, b) => Number(a === b),
  ge: (a, b) => Number(a >= b),
  gt: (a, b) => Number(a > b),
  le: (a, b) => Number(a <= b),
  lt: (a, b) => Number(a < b),
  max: (a, b) => (a > b || a !== a ? a : b),
  min: (a, b) => (a < b || a !== a ? a : b),
  mul: (a, b) => a * b,
  sub: (a, b) => a - b,
};

class Network {
  constructor({inputs, steps, outputs}, weights) {
    this.inputs = inputs;
    this.outputs = outputs;
    // The memory of each result is taken once: a picture is computed many times a second.
    this.steps = steps.map((step) => ({
      ...step,
      weights: step.weights.map((number) => weights[number]),
      result: new Float32Array(size(step.shape)),
    }));
    this.shapes = [...inputs, ...steps.map((step) => step.shape)];
  }

  /** The outputs for these inputs, arrays of numbers each. */
  run(inputs) {
    const values = [...inputs];
    for (const step of this.steps) {
      const given = step.inputs.map((number) => values[number]);
      const shapes = step.inputs.map((number) => this.shapes[number]);
      values.push(compute(step, given, shapes));
    }
    return this.outputs.map((number) => Float32Array.from(values[number]));
  }
}

function size(shape) {
  return shape.reduce((product, length) => product * length, 1);
}

function compute(step, given, shapes) {
  const y = step.result, [x] = given;
  if (step.op in UNARY) {
    const f = UNARY[step.op];
    for (let i = 0; i < y.length; i++) y[i] = f(x[i]);
    return y;
  }
  if (step.op in BINARY) {
    const f = BINARY[step.op];
    const [a, b] = given.map((value, i) => expanded(value, shapes[i], step.shape));
    for (let i = 0; i < y.length; i++) y[i] = f(a[i], b[i]);
    return y;
  }
  return STEPS[step.op](step, given, shapes, y);
}

const STEPS = {
  constant: (step) => step.weights[0] ?? [step.value],
  reshape: (step, [x]) => x,
  broadcast: (step, [x]) => expanded(x, step.placed, step.shape),

  affine(step, [x], shapes, y) {
    const [scale, shift] = step.weights;
    for (let i = 0; i < y.length; i++) y[i] = x[i] * scale[i % scale.length] + shift[i % scale.length];
    return y;
  },

  select_n(step, given, shapes, y) {
    const [which, no, yes] = given.map((value, i) => expanded(value, shapes[i], step.shape));
    for (let i = 0; i < y.length; i++) y[i] = which[i] ? yes[i] : no[i];
    return y;
  },

  linear(step, [x], [shape], y) {
    const inner = shape.at(-1), columns = step.shape.at(-1);
    product(x, step.weights[0], step.weights[1], y, x.length / inner, inner, columns);
    return y;
  },

  conv(step, [x], [shape], y) {
    const [w, bias] = step.weights, [, height, width, columns] = step.shape;
    const inner = w.length / columns;
    step.buffer ??= new Float32Array(height * width * inner);
    windows(x, shape.slice(1), [height, width], step, step.buffer);
    product(step.buffer, w, bias, y, height * width, inner, columns);
    return y;
  },

  conv_transpose(step, [x], [shape], y) {
    const [w, bias] = step.weights, [, height, width, inner] = shape;
    const columns = w.length / inner;
    step.buffer ??= new Float32Array(height * width * columns);
    step.zeros ??= new Float32Array(columns);
    product(x, w, step.zeros, step.buffer, height * width, inner, columns);
    addWindows(step.buffer, [height, width], step.shape.slice(1), step, bias, y);
    return y;
  },

  max_pool(step, [x], [shape], y) {
    maxPool(x, shape.slice(1), step.shape.slice(1), step, y);
    return y;
  },

  transpose(step, [x], [shape], y) {
    const strides = stridesOf(shape);
    return gather(x, step.shape, step.order.map((axis) => strides[axis]), 0, y);
  },

  slice(step, [x], [shape], y) {
    const strides = stridesOf(shape);
    const first = step.start.reduce((sum, start, axis) => sum + start * strides[axis], 0);
    return gather(x, step.shape, strides, first, y);
  },

  concatenate(step, given, shapes, y) {
    const inner = size(step.shape.slice(step.axis + 1));
    const row = step.shape[step.axis] * inner;
    let offset = 0;
    given.forEach((x, i) => {
      const length = shapes[i][step.axis] * inner;
      for (let from = 0, to = offset; from < x.length; from += length, to += row)
        for (let k = 0; k < length; k++) y[to + k] = x[from + k];
      offset += length;
    });
    return y;
  },
};

function stridesOf(shape) {
  return shape.map((_, axis) => size(shape.slice(axis + 1)));
}

/** Fills y, of this shape, with the elements of x that lie these strides apart. */
function gather(x, shape, strides, first, y) {
  const index = shape.map(() => 0);
  let from = first;
  for (let to = 0; to < y.length; to++) {
    y[to] = x[from];
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis];
      if (++index[axis] < shape[axis]) break;
      from -= strides[axis] * shape[axis];
      index[axis] = 0;
    }
  }
  return y;
}

/** x repeated along its axes of length 1 (and those that it lacks) to a larger shape. */
function expanded(x, from, to) {
  if (x.length === size(to)) return x;
  if (x.length === 1) return new Float32Array(size(to)).fill(x[0]);
  const full = [...Array(to.length - from.length).fill(1), ...from];
  const strides = stridesOf(full).map((stride, axis) => (full[axis] === 1 ? 0 : stride));
  return gather(x, to, strides, 0, new Float32Array(size(to)));
}
