// A variational autoencoder: its latent space under the pointer, and a pad whose drawing lands in it.

function latentPanel(model, engine) {
  const {latent, means, shape, range} = model;
  const z = Float32Array.from({length: latent}, () => 0);
  const extent = Math.max(model.extent, 1.15 * Math.max(0, ...Object.values(means).flat().map(Math.abs)));
  const state = {axes: [0, Math.min(1, latent - 1)], label: 0, drawn: null};
  const labels = () => (model.conditional ? [[state.label]] : []);
  const image = picture("The decoded image");
  const reading = element("p", {class: "reading", "aria-live": "off"});

  // ---- The decoded image follows z ----
  function decode() {
    reading.textContent = `z = (${[...z].slice(0, 8).map((x) => fixed(x)).join(", ")}${latent > 8 ? ", …" : ""})`;
    engine.latest("decode", "decode", [Float32Array.from(z), ...labels()], ([values]) => paint(image, values, shape, range));
  }
  const sliders = Array.from(z, (_, i) => slider({label: `z${subscript(i + 1)}`, min: -extent, max: extent, step: 0.01, value: 0,
    onChange: (value) => {
      z[i] = value;
      moved();
    }}));
  function moved() {
    sliders.forEach((one, i) => one.value(z[i]));
    plane?.draw();
    decode();
  }
  function moveTo(values) {
    values.forEach((value, i) => (z[i] = clamp(value, -extent, extent)));
    moved();
  }
  const plane = latent > 1 ? latentPlane(model, engine, {z, state, extent, moved, labels}) : null;

  // ---- A drawing is encoded ----
  const where = element("p", {class: "reading", "aria-live": "polite"}, "Draw, and see where it lands.");
  const back = picture("The drawing, encoded and decoded again", "picture small");
  function encode(values) {
    if (values.every((value) => value === 0)) {
      state.drawn = null;
      where.textContent = "Draw, and see where it lands.";
      plane?.draw();
      return;
    }
    engine.latest("encode", "encode", [values, ...labels()], ([mean, logVariance]) => {
      const spread = logVariance.map((x) => Math.exp(x / 2));
      state.drawn = {mean, spread};
      where.textContent = "It lands at " + Array.from(mean).slice(0, 4)
        .map((x, i) => `z${subscript(i + 1)} = ${fixed(x)} ± ${fixed(spread[i])}`).join(", ") + (latent > 4 ? ", …" : "");
      moveTo([...mean]);
      engine.latest("back", "decode", [mean, ...labels()], ([decoded]) => paint(back, decoded, shape, range));
    });
  }
  const fit = {mnist: 20 / 28, fashion_mnist: 0, digits: 1}[model.data.name] ?? 0;
  const pad = drawingPad({label: "Drawing pad", shape, originals: model.originals, fit, onChange: encode});

  const classes = Object.entries(means);
  const panel = element("div", {class: "live latent"},
    element("div", {class: "stack seen"},
      element("h3", {}, "What the model sees there"), image, reading),
    element("div", {class: "stack"},
      plane?.element,
      model.conditional ? choice("Class", model.data.classes, (label) => {
        state.label = label;
        plane?.redecode();
        decode();
      }).element : null,
      element("div", {class: latent > 6 ? "sliders many" : "sliders"}, ...sliders.map((one) => one.element)),
      classes.length ? element("div", {class: "row", role: "group", "aria-label": "Go to the mean of a class"},
        element("span", {class: "muted"}, "Go to"), ...classes.map(([name, mean]) => button(name, () => moveTo(mean), {class: "chip"}))) : null),
    element("div", {class: "stack drawing"},
      element("h3", {}, "Your own drawing"),
      element("div", {class: "beside"}, pad.element,
        element("div", {class: "stack"}, where, element("p", {class: "muted"}, "What comes back of it:"), back))));
  moveTo(classes.length ? classes[0][1] : [...z]);
  return panel;
}

const subscript = (number) => String(number).replace(/\d/g, (digit) => "₀₁₂₃₄₅₆₇₈₉"[digit]);

/** The plane of two latent dimensions: decoded images as a map, class means, the drawing with its spread, and z. */
function latentPlane(model, engine, {z, state, extent, moved, labels}) {
  const {latent, means, shape, range} = model;
  const tiles = 13; // a side of the map
  const canvas = element("canvas", {class: "plane", width: 1, height: 1, tabindex: "0", role: "application",
    "aria-label": "Latent plane. The arrow keys move, with Shift in larger steps. The sliders below do the same."});
  const map = element("canvas", {width: tiles * shape[1], height: tiles * shape[0]});
  let generation = 0, slice = null; // the map is a slice through the other dimensions

  const toPlane = (share) => (2 * share - 1) * extent;
  const fromPlane = (value, side) => ((value / extent + 1) / 2) * side;

  function draw() {
    const others = z.filter((_, axis) => !state.axes.includes(axis)).join();
    if (slice !== null && slice !== others) redecode();
    const side = canvas.clientWidth || 320, ratio = devicePixelRatio || 1;
    if (canvas.width !== Math.round(side * ratio)) canvas.width = canvas.height = Math.round(side * ratio);
    const context = canvas.getContext("2d"), [a, b] = state.axes;
    const x = (point) => fromPlane(point[a], side), y = (point) => side - fromPlane(point[b], side);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
    context.imageSmoothingEnabled = false;
    context.globalAlpha = 0.5;
    context.drawImage(map, 0, 0, side, side);
    context.globalAlpha = 1;
    axes(context, side);
    Object.entries(means).forEach(([name, mean], i) => marker(context, x(mean), y(mean), name, colour(`--class-${i % 10}`)));
    if (state.drawn) {
      const {mean, spread} = state.drawn;
      context.strokeStyle = "#ffd34d";
      for (const times of [1, 2]) {
        context.lineWidth = times === 1 ? 2 : 1;
        context.beginPath();
        context.ellipse(x(mean), y(mean), Math.max(3, times * (spread[a] / extent / 2) * side),
          Math.max(3, times * (spread[b] / extent / 2) * side), 0, 0, 2 * Math.PI);
        context.stroke();
      }
    }
    context.strokeStyle = "#fff";
    context.lineWidth = 2;
    context.beginPath();
    context.arc(x(z), y(z), 7, 0, 2 * Math.PI);
    context.stroke();
  }

  function axes(context, side) {
    context.strokeStyle = "rgba(255,255,255,0.28)";
    context.fillStyle = "#fff";
    context.font = "11px system-ui, sans-serif";
    context.lineWidth = 1;
    for (const tick of ticks(-extent, extent, 6)) {
      const at = fromPlane(tick, side);
      if (at < 14 || at > side - 14) continue;
      context.textAlign = "center";
      context.fillText(String(tick).replace("-", "−"), at, side - 5);
      context.textAlign = "left";
      context.fillText(String(tick).replace("-", "−"), 4, side - at + 4);
      if (tick !== 0) continue;
      context.beginPath();
      context.moveTo(at, 0);
      context.lineTo(at, side);
      context.moveTo(0, side - at);
      context.lineTo(side, side - at);
      context.stroke();
    }
    context.font = "bold 13px system-ui, sans-serif";
    context.textAlign = "right";
    context.fillText(`z${subscript(state.axes[0] + 1)} →`, side - 6, side - 20);
    context.textAlign = "left";
    context.fillText(`↑ z${subscript(state.axes[1] + 1)}`, 6, 16);
  }

  function marker(context, x, y, name, fill) {
    context.font = "bold 12px system-ui, sans-serif";
    context.textAlign = "center";
    const text = name.length > 12 ? `${name.slice(0, 11)}…` : name;
    const half = Math.max(10, context.measureText(text).width / 2 + 6);
    context.fillStyle = fill;
    context.beginPath();
    context.roundRect(x - half, y - 10, 2 * half, 20, 10);
    context.fill();
    context.fillStyle = "#fff";
    context.fillText(text, x, y + 4);
  }

  /** Decodes the map, from coarse to fine, whenever the pointer leaves the worker alone. */
  async function redecode() {
    slice = z.filter((_, axis) => !state.axes.includes(axis)).join();
    const mine = ++generation, [a, b] = state.axes, target = map.getContext("2d");
    const tile = element("canvas", {});
    const places = Array.from({length: tiles * tiles}, (_, i) => [Math.floor(i / tiles), i % tiles]);
    const coarse = ([row, column]) => (row % 4 === 0 && column % 4 === 0 ? 0 : row % 2 === 0 && column % 2 === 0 ? 1 : 2);
    for (const [row, column] of places.sort((p, q) => coarse(p) - coarse(q))) {
      while (!engine.idle) await new Promise((resolve) => setTimeout(resolve, 30));
      const point = Float32Array.from(z);
      point[a] = toPlane((column + 0.5) / tiles);
      point[b] = -toPlane((row + 0.5) / tiles);
      const [values] = await engine.run("decode", [point, ...labels()]);
      if (mine !== generation) return;
      paint(tile, values, shape, range);
      target.drawImage(tile, column * shape[1], row * shape[0]);
      draw();
    }
  }

  function point(event) {
    const [x, y] = placeIn(canvas, event);
    if (x < 0 || x > 1 || y < 0 || y > 1) return;
    z[state.axes[0]] = toPlane(x);
    z[state.axes[1]] = -toPlane(y);
    moved();
  }
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    point(event);
  });
  canvas.addEventListener("pointermove", point); // without a button too: the image follows a mouse
  canvas.addEventListener("keydown", (event) => {
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1]}[event.key];
    if (!move) return;
    event.preventDefault();
    state.axes.forEach((axis, i) => {
      z[axis] = clamp(z[axis] + move[i] * (event.shiftKey ? 0.5 : 0.1), -extent, extent);
    });
    moved();
  });
  new ResizeObserver(draw).observe(canvas);

  const parts = [canvas];
  if (latent > 2) {
    const names = Array.from({length: latent}, (_, i) => `z${subscript(i + 1)}`);
    const pick = (place, label) => {
      const made = choice(label, names, (axis) => {
        state.axes[place] = axis;
        redecode();
        draw();
      });
      made.select.value = state.axes[place];
      return made.element;
    };
    parts.push(element("div", {class: "row"}, pick(0, "Across"), pick(1, "Up")));
  }
  setTimeout(redecode, 300); // the first image comes first
  return {element: element("div", {class: "stack"}, ...parts), draw, redecode};
}
