// An autoencoder: its code as an image, and what changing it does.

function autoencoderPanel(model, engine) {
  const {shape, range, code: [height, width, maps]} = model;
  const back = picture("What the code becomes", "picture large");
  const state = {code: new Float32Array(height * width * maps), encoded: null, map: 0, row: 0, column: 0, high: 1};
  const error = element("p", {class: "reading"});
  let image = null;

  function decode() {
    drawCode();
    engine.latest("decode", "decode", [Float32Array.from(state.code)], ([values]) => {
      paint(back, values, shape, range);
      if (!image) return;
      const mean = values.reduce((sum, value, i) => sum + (value - image[i]) ** 2, 0) / values.length;
      error.textContent = `mean squared error ${shown(mean)}`;
    });
  }
  function encode(values) {
    image = values;
    engine.latest("encode", "encode", [values], ([encoded]) => {
      state.encoded = encoded;
      state.code = Float32Array.from(encoded);
      state.high = Math.max(1e-3, ...encoded);
      value.input.max = (2 * state.high).toPrecision(3);
      value.input.step = (state.high / 100).toPrecision(3);
      select(state.map, state.row, state.column);
      decode();
    });
  }

  // ---- The code: a canvas for each of its maps ----
  const at = (map, row, column) => (row * width + column) * maps + map;
  const canvases = Array.from({length: maps}, (_, map) => {
    const canvas = element("canvas", {class: "code", width, height, tabindex: map === 0 ? "0" : "-1", role: "application",
      "aria-label": `Map ${map + 1} of the code. Arrow keys choose a number, plus and minus change it.`});
    const change = (event) => {
      const [x, y] = placeIn(canvas, event);
      if (x < 0 || x >= 1 || y < 0 || y >= 1) return;
      select(map, Math.floor(y * height), Math.floor(x * width));
      set(state.pen);
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      // The first cell decides what the stroke does: a dark one becomes bright, a bright one dark.
      const [x, y] = placeIn(canvas, event);
      const now = state.code[at(map, clamp(Math.floor(y * height), 0, height - 1), clamp(Math.floor(x * width), 0, width - 1))];
      state.pen = now > state.high / 2 ? 0 : state.high;
      change(event);
    });
    canvas.addEventListener("pointermove", (event) => event.buttons && change(event));
    canvas.addEventListener("keydown", (event) => {
      const move = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
      const by = {"+": 1, "=": 1, "-": -1}[event.key];
      if (move) select(map, clamp(state.row + move[0], 0, height - 1), clamp(state.column + move[1], 0, width - 1));
      else if (by) set(state.code[at(map, state.row, state.column)] + (by * state.high) / 10);
      else if (event.key === "PageDown" || event.key === "PageUp") {
        const next = (map + (event.key === "PageDown" ? 1 : maps - 1)) % maps;
        select(next, state.row, state.column);
        canvases[next].focus();
      } else return;
      event.preventDefault();
    });
    canvas.addEventListener("focus", () => select(map, state.row, state.column));
    return canvas;
  });
  function drawCode() {
    canvases.forEach((canvas, map) => {
      const values = Float32Array.from({length: height * width}, (_, i) => state.code[i * maps + map] / state.high);
      paint(canvas, values, [height, width, 1]);
      canvas.classList.toggle("selected", map === state.map);
      canvas.tabIndex = map === state.map ? 0 : -1;
      if (map !== state.map) return;
      const context = canvas.getContext("2d");
      context.fillStyle = colour("--accent");
      context.globalAlpha = 0.55;
      context.fillRect(state.column, state.row, 1, 1);
      context.globalAlpha = 1;
    });
  }
  function select(map, row, column) {
    Object.assign(state, {map, row, column});
    const number = state.code[at(map, row, column)];
    value.value(number);
    which.textContent = `Map ${map + 1}, row ${row + 1}, column ${column + 1}`;
    drawCode();
  }
  function set(number) {
    state.code[at(state.map, state.row, state.column)] = Math.max(0, number); // the encoder ends with a ReLU
    value.value(number);
    decode();
  }
  const which = element("p", {class: "reading", "aria-live": "polite"});
  const value = slider({label: "Its value", min: 0, max: 1, step: 0.01, value: 0, onChange: set});
  const all = (change) => () => {
    state.code = state.code.map((number, i) => change(number, i % maps));
    decode();
  };

  const pad = drawingPad({label: "A picture", shape, originals: model.originals, onChange: encode});
  if (model.originals.length) pad.open(model.originals[0]);
  else encode(pad.values());
  return element("div", {class: "live three coded"},
    element("div", {class: "stack"}, element("h3", {}, "A picture"), pad.element),
    element("div", {class: "stack"},
      element("h3", {}, `Its ${(height * width * maps).toLocaleString("en")} numbers`),
      element("div", {class: "maps"}, ...canvases),
      which, value.element,
      element("div", {class: "row"},
        button("As encoded", () => {
          state.code = Float32Array.from(state.encoded);
          decode();
        }),
        button("Clear this map", all((number, map) => (map === state.map ? 0 : number))),
        button("Only this map", all((number, map) => (map === state.map ? number : 0)))),
      element("p", {class: "muted"}, "Draw on the maps, or choose a number with the arrow keys and change it with + and −.")),
    element("div", {class: "stack seen"}, element("h3", {}, "What becomes of them"), back, error));
}
