// The worker: it holds the networks and computes what the page asks for.

let networks = {}, model, weights;
let newest = 0; // the newest completion that was asked for; an older one stops

onmessage = ({data}) => {
  if (data.task === "start") {
    model = data.model;
    weights = decoded(data.weights, model.weights);
    for (const [name, network] of Object.entries(model.networks ?? {})) networks[name] = new Network(network, weights);
    postMessage({id: data.id, outputs: []});
  } else if (data.task === "complete") {
    newest = data.id;
    complete(data);
  } else {
    const start = performance.now();
    const outputs = networks[data.network].run(data.inputs);
    postMessage({id: data.id, outputs, milliseconds: performance.now() - start});
  }
};

async function complete({id, cell, image}) {
  const about = model.cells[cell];
  const ofCell = weights.slice(about.first, about.first + 6);
  const start = performance.now();
  for (const [row, values] of completeRows(about, ofCell, image, model.shape, model.length)) {
    postMessage({id, row, values});
    await nextTask();
    if (newest !== id) break;
  }
  postMessage({id, outputs: [], milliseconds: performance.now() - start});
}

/** Lets messages that have arrived come first. A timer of 0 ms would wait for 4. */
function nextTask() {
  return new Promise((resolve) => {
    const channel = new MessageChannel();
    channel.port1.onmessage = resolve;
    channel.port2.postMessage(null);
  });
}

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
