// The generator of a GAN: samples of a seed, a walk between them, and a slider for each latent dimension.

const SAMPLES = 16;

function generatorPanel(model, engine) {
  const {latent, shape, range, prior} = model;
  const draw = prior === "uniform" ? uniform : normal;
  const state = {seed: 0, samples: [], z: null, label: 0, walking: null};
  const labels = () => (model.conditional ? [[state.label]] : []);
  const image = picture("The generated image", "picture large");
  const reading = element("p", {class: "reading"});

  function generate() {
    engine.latest("image", "generate", [Float32Array.from(state.z), ...labels()], ([values]) => paint(image, values, shape, range));
  }
  const [low, high] = prior === "uniform" ? [0, 1] : [-3, 3];
  const sliders = Array.from({length: latent}, (_, i) => slider({label: `z${subscript(i + 1)}`, min: low, max: high, step: 0.01, value: 0,
    onChange: (value) => {
      stop();
      state.z[i] = value;
      generate();
    }}));
  function moveTo(z) {
    state.z = Float32Array.from(z);
    sliders.forEach((one, i) => one.value(z[i]));
    generate();
  }

  // ---- The samples of a seed ----
  const sheet = element("div", {class: "sheet-of-samples", role: "group", "aria-label": "Samples of this seed"});
  const thumbnails = Array.from({length: SAMPLES}, (_, i) => {
    const canvas = picture(`sample ${i + 1}`, "picture");
    sheet.append(button(canvas, () => {
      stop();
      state.at = i;
      reading.textContent = `sample ${i + 1} of seed ${state.seed}`;
      moveTo(state.samples[i]);
    }, {class: "thumbnail"}));
    return canvas;
  });
  let generation = 0;
  async function showSamples() {
    const mine = ++generation;
    for (let i = 0; i < SAMPLES; i++) {
      const [values] = await engine.run("generate", [state.samples[i], ...labels()]);
      if (mine !== generation) return;
      paint(thumbnails[i], values, shape, range);
    }
  }
  function useSeed(seed) {
    state.seed = seed;
    seedInput.value = seed;
    kept.set("seed", seed);
    state.samples = Array.from({length: SAMPLES}, (_, i) => draw(seed, i * latent, latent));
    state.at = 0;
    reading.textContent = `sample 1 of seed ${seed}`;
    moveTo(state.samples[0]);
    showSamples();
  }
  const seedInput = element("input", {type: "number", min: 0, max: 2 ** 31 - 1, step: 1, value: 0, "aria-label": "Seed"});
  seedInput.addEventListener("change", () => useSeed(clamp(Math.round(Number(seedInput.value)) || 0, 0, 2 ** 31 - 1)));

  // ---- The walk ----
  const walkButton = button("Walk between samples", () => (state.walking ? stop() : walk()), {"aria-pressed": "false", class: "primary"});
  function stop() {
    cancelAnimationFrame(state.walking);
    state.walking = null;
    walkButton.textContent = "Walk between samples";
    walkButton.setAttribute("aria-pressed", "false");
  }
  function walk() {
    let start = null, from = state.z, to = (state.at + 1) % SAMPLES;
    walkButton.textContent = "Pause";
    walkButton.setAttribute("aria-pressed", "true");
    const frame = (now) => {
      start ??= now;
      const share = Math.min(1, (now - start) / 1500);
      moveTo(between(from, state.samples[to], share, prior));
      reading.textContent = `on the way to sample ${to + 1} of seed ${state.seed}`;
      if (share === 1) {
        state.at = to;
        [start, from, to] = [now, state.samples[to], (to + 1) % SAMPLES];
      }
      state.walking = requestAnimationFrame(frame);
    };
    state.walking = requestAnimationFrame(frame);
  }

  const panel = element("div", {class: "live two generated"},
    element("div", {class: "stack"}, image, reading,
      element("div", {class: "row"}, walkButton),
      model.conditional ? choice("Class", model.data.classes, (label) => {
        state.label = label;
        generate();
        showSamples();
      }).element : null),
    element("div", {class: "stack"},
      element("div", {class: "row"}, element("label", {class: "choice"}, element("span", {}, "Seed"), seedInput),
        button("Another", () => useSeed(state.seed + 1))),
      sheet,
      element("p", {class: "muted"}, model.conditional ? "" : "The same seed gives “jaxgen sample” the same samples.",
        ` Choose one, or move any of the ${latent} numbers that it is made of:`),
      element("div", {class: "sliders many", tabindex: "0", role: "group", "aria-label": "Latent vector"}, ...sliders.map((one) => one.element))));
  useSeed(kept.get("seed", 0));
  return panel;
}

/** A point between two latent vectors: on a straight line, or for a normal prior on an arc, which keeps to its lengths. */
function between(from, to, share, prior) {
  let left = 1 - share, right = share;
  if (prior === "normal") {
    const length = (x) => Math.sqrt(x.reduce((sum, value) => sum + value * value, 0));
    const cosine = from.reduce((sum, value, i) => sum + value * to[i], 0) / (length(from) * length(to) || 1);
    const angle = Math.acos(clamp(cosine, -1, 1));
    if (Math.sin(angle) > 1e-3) [left, right] = [Math.sin(left * angle) / Math.sin(angle), Math.sin(right * angle) / Math.sin(angle)];
  }
  return Float32Array.from(from, (value, i) => left * value + right * to[i]);
}
