// The worker: it holds the networks and computes what the page asks for.

let networks = {}, model, weights;

onmessage = ({data}) => {
  const start = performance.now();
  const done = (outputs) => postMessage({id: data.id, outputs, milliseconds: performance.now() - start});
  if (data.task === "start") {
    model = data.model;
    weights = decoded(data.weights, model.weights);
    for (const [name, network] of Object.entries(model.networks ?? {})) networks[name] = new Network(network, weights);
    done([]);
  } else if (data.task === "complete") {
    const cell = model.cells[data.cell], ofCell = weights.slice(cell.first, cell.first + 6);
    for (const [row, values] of completeRows(cell, ofCell, data.image, model.shape, model.length))
      postMessage({id: data.id, row, values}); // each row as soon as it is known
    done([]);
  } else {
    done(networks[data.network].run(data.inputs));
  }
};

/** The arrays of all weights as float32, from base64. */
function decoded(base64, {type, sizes}) {
  const text = atob(base64), bytes = new Uint8Array(text.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = text.charCodeAt(i);
  const all = type === "float16" ? fromHalf(new Uint16Array(bytes.buffer)) : new Float32Array(bytes.buffer);
  let first = 0;
  return sizes.map((length) => all.subarray(first, (first += length)));
}

/** float16 to float32, by a table of all 65,536 values. */
function fromHalf(halves) {
  const table = new Float32Array(1 << 16);
  for (let bits = 0; bits < table.length; bits++) {
    const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
    if (exponent === 31) table[bits] = fraction ? NaN : sign * Infinity;
    else if (exponent) table[bits] = sign * 2 ** (exponent - 15) * (1 + fraction / 1024);
    else table[bits] = sign * 2 ** -14 * (fraction / 1024);
  }
  return Float32Array.from(halves, (bits) => table[bits]);
}
