// Elements. Every text from a run goes through `textContent` or `setAttribute`, so none of it is ever read as HTML.

/** element("button", {type: "button", onclick: f}, "Clear"): an element, its attributes or properties, its children. */
function element(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

function svgElement(name, properties = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", name), properties, children);
}

function filled(made, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

/** A number for people: four significant digits. */
function shown(value) {
  if (value === null || value === undefined) return "not finite";
  if (value === 0 || Number.isInteger(value) && Math.abs(value) < 1e6) return value.toLocaleString("en");
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) return value.toExponential(2);
  return value.toLocaleString("en", {maximumSignificantDigits: 4});
}

/** A short fixed-point number, with a proper minus sign. */
function fixed(value, digits = 2) {
  return value.toFixed(digits).replace("-", "−");
}

/** A labelled slider. `slider.value(x)` moves it without calling `onChange`. */
function slider({label, min, max, step, value, onChange, show = (x) => fixed(x)}) {
  const output = element("output", {}, show(value));
  const input = element("input", {type: "range", min, max, step, value, "aria-label": label});
  input.addEventListener("input", () => {
    output.textContent = show(Number(input.value));
    onChange(Number(input.value));
  });
  return {
    element: element("label", {class: "slider"}, element("span", {}, label), input, output),
    input,
    value(x) {
      input.value = x;
      output.textContent = show(x);
    },
  };
}

function button(text, onclick, properties = {}) {
  return element("button", {type: "button", onclick, ...properties}, text);
}

function choice(label, options, onChange) {
  const select = element("select", {"aria-label": label});
  options.forEach((option, i) => select.append(element("option", {value: i}, option)));
  select.addEventListener("change", () => onChange(Number(select.value)));
  return {element: element("label", {class: "choice"}, element("span", {}, label), select), select};
}

/** A canvas that shows an image of a network, with its pixels enlarged by the browser. */
function picture(label, className = "picture") {
  return element("canvas", {class: className, role: "img", "aria-label": label, width: 1, height: 1});
}

/** Draws values [H, W, C] between low and high on a canvas. */
function paint(canvas, values, [height, width, channels], [low, high] = [0, 1]) {
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, {width, height});
  const data = new ImageData(width, height);
  for (let pixel = 0; pixel < width * height; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      const value = values[pixel * channels + (channels === 3 ? channel : 0)];
      data.data[pixel * 4 + channel] = Math.round((255 * (value - low)) / (high - low)); // clipped by its type
    }
    data.data[pixel * 4 + 3] = 255;
  }
  canvas.getContext("2d").putImageData(data, 0, 0);
}

/** The values [H, W, C] from 0 to 1 of a picture in a data URI, resized to fit and made gray where C is 1. */
async function pixelsOf(source, [height, width, channels]) {
  const image = new Image();
  image.src = source;
  await image.decode();
  const canvas = element("canvas", {width, height});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  context.imageSmoothingQuality = "high";
  // The largest part of the picture that has the right proportions, from its middle.
  const scale = Math.max(width / image.width, height / image.height);
  const w = image.width * scale, h = image.height * scale;
  context.drawImage(image, (width - w) / 2, (height - h) / 2, w, h);
  return fromRgba(context.getImageData(0, 0, width, height).data, channels);
}

function fromRgba(rgba, channels) {
  const values = new Float32Array((rgba.length / 4) * channels);
  for (let pixel = 0; pixel < rgba.length / 4; pixel++) {
    const [r, g, b] = rgba.subarray(pixel * 4, pixel * 4 + 3);
    if (channels === 3) values.set([r / 255, g / 255, b / 255], pixel * 3);
    else values[pixel] = (0.299 * r + 0.587 * g + 0.114 * b) / 255;
  }
  return values;
}

/** The place of a pointer in an element, from 0 to 1 from the left and from the top. */
function placeIn(target, event) {
  const box = target.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/** A colour of the style sheet, for canvases. */
function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** What the reader had set (sliders, scales), kept over the page's own reloads. */
const kept = {
  key: `jaxgen ${location.pathname}`, // files share one storage
  values: {},
  load() {
    try {
      this.values = JSON.parse(sessionStorage.getItem(this.key)) ?? {};
    } catch {
      // Some viewers have no storage; then a reload starts afresh.
    }
  },
  get(name, otherwise) {
    return this.values[name] ?? otherwise;
  },
  set(name, value) {
    this.values[name] = value;
    try {
      sessionStorage.setItem(this.key, JSON.stringify(this.values));
    } catch {
      // As above.
    }
  },
};
