// A pad to draw on: with a pointer, by touch, or with the keyboard. It can start from a picture.

const PEN_SCALE = 8; // the pen moves on a canvas this much finer than the image

/**
 * `onChange(values)` gets the image [H, W, C] from 0 to 1. `rows` is how many of its rows can be drawn on.
 * `fit` names the share of the frame to which a drawing is scaled and centred, as MNIST's digits were; 0 does not.
 */
function drawingPad({label, shape, originals = [], rows = shape[0], fit = 0, onChange}) {
  const [height, width, channels] = shape;
  const canvas = element("canvas", {class: "pad", width, height, tabindex: "0", role: "application",
    "aria-label": `${label}. Arrow keys move the pen, space draws, Delete clears.`});
  const ink = element("canvas", {width: width * PEN_SCALE, height: height * PEN_SCALE});
  const small = element("canvas", {width, height});
  const pen = ink.getContext("2d", {willReadFrequently: true});
  const pixels = small.getContext("2d", {willReadFrequently: true});
  let base = new Float32Array(height * width * channels), last = null, cursor = null, pending = false;
  const brush = {width: Math.max(1, Math.round(width / 12)), colour: "#ffffff"};
  let fitted = fit > 0;

  /** The image under the ink, with the ink. */
  function values() {
    pixels.clearRect(0, 0, width, height);
    pixels.imageSmoothingQuality = "high";
    if (fitted && base.every((value) => value === 0)) drawFitted(ink, pixels, fit);
    else pixels.drawImage(ink, 0, 0, width, height);
    const rgba = pixels.getImageData(0, 0, width, height).data, image = Float32Array.from(base);
    for (let pixel = 0; pixel < width * rows; pixel++) {
      const alpha = rgba[pixel * 4 + 3] / 255;
      if (!alpha) continue;
      const drawn = fromRgba(rgba.subarray(pixel * 4, pixel * 4 + 4), channels);
      for (let channel = 0; channel < channels; channel++) {
        const at = pixel * channels + channel;
        image[at] = image[at] * (1 - alpha) + drawn[channel] * alpha;
      }
    }
    return image;
  }

  function changed() {
    if (pending) return;
    pending = true; // at most once a frame
    requestAnimationFrame(() => {
      pending = false;
      const image = values();
      show(image);
      onChange(image);
    });
  }

  function show(image) {
    paint(canvas, image, shape);
    if (!cursor) return;
    const context = canvas.getContext("2d");
    context.fillStyle = colour("--accent");
    context.globalAlpha = 0.7;
    context.fillRect(cursor[0], cursor[1], 1, 1);
    context.globalAlpha = 1;
  }

  function stroke(from, to) {
    pen.save();
    pen.beginPath();
    pen.rect(0, 0, ink.width, rows * PEN_SCALE);
    pen.clip();
    pen.strokeStyle = brush.colour;
    pen.lineWidth = brush.width * PEN_SCALE;
    pen.lineCap = pen.lineJoin = "round";
    pen.beginPath();
    pen.moveTo(...from);
    pen.lineTo(to[0] + 0.01, to[1]); // a line of no length would leave no dot
    pen.stroke();
    pen.restore();
    changed();
  }

  const inked = (event) => {
    const [x, y] = placeIn(canvas, event);
    return [x * ink.width, y * ink.height];
  };
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    cursor = null;
    last = inked(event);
    stroke(last, last);
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!last) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const now = inked(each);
      stroke(last, now);
      last = now;
    }
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (last = null));
  canvas.addEventListener("keydown", (event) => {
    const move = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
    if (event.key === "Delete" || event.key === "Backspace") clear();
    else if (move) {
      const from = cursor ?? [Math.floor(width / 2), Math.floor(rows / 2)];
      cursor = [clamp(from[0] + move[0], 0, width - 1), clamp(from[1] + move[1], 0, rows - 1)];
      if (canvas.held) stroke(middle(from), middle(cursor));
      show(values());
    } else if (event.key === " ") {
      cursor ??= [Math.floor(width / 2), Math.floor(rows / 2)];
      canvas.held = true;
      stroke(middle(cursor), middle(cursor));
    } else return;
    event.preventDefault();
  });
  canvas.addEventListener("keyup", (event) => event.key === " " && (canvas.held = false));
  canvas.addEventListener("blur", () => {
    canvas.held = false;
    cursor = null;
    show(values());
  });
  const middle = (place) => place.map((x) => (x + 0.5) * PEN_SCALE);

  function clear() {
    pen.clearRect(0, 0, ink.width, ink.height);
    base = new Float32Array(height * width * channels);
    changed();
  }

  /** Starts from a picture in a data URI. */
  async function open(source) {
    const image = await pixelsOf(source, shape);
    pen.clearRect(0, 0, ink.width, ink.height);
    base = image;
    changed();
  }

  const file = element("input", {type: "file", accept: "image/*", class: "hidden", tabindex: "-1", "aria-hidden": "true"});
  const openFile = async (given) => {
    if (!given) return;
    const reader = new FileReader();
    reader.onload = () => open(reader.result).catch(() => (openButton.textContent = "Not a picture"));
    reader.readAsDataURL(given);
  };
  file.addEventListener("change", () => openFile(file.files[0]));
  const openButton = button("Open a picture…", () => file.click());
  canvas.addEventListener("dragover", (event) => event.preventDefault());
  canvas.addEventListener("drop", (event) => {
    event.preventDefault();
    openFile(event.dataTransfer.files[0]);
  });

  const inks = channels === 3 ? ["#ffffff", "#000000", "#d03a2b", "#e8b92f", "#3f9b4f", "#3867c9"] : ["#ffffff", "#000000"];
  const names = ["white", "black", "red", "yellow", "green", "blue"];
  const swatches = element("div", {class: "swatches", role: "group", "aria-label": "Colour of the pen"},
    ...inks.map((one, i) => button("", (event) => {
      brush.colour = one;
      for (const other of swatches.children) other.setAttribute("aria-pressed", String(other === event.currentTarget));
    }, {class: "swatch", style: `background:${one}`, "aria-label": names[i], title: names[i], "aria-pressed": String(i === 0)})));
  const size = slider({label: "Pen", min: 1, max: Math.max(4, Math.round(width / 5)), step: 1, value: brush.width,
    show: (x) => `${x} px`, onChange: (x) => (brush.width = x)});
  const centre = element("input", {type: "checkbox", checked: fitted});
  centre.addEventListener("change", () => {
    fitted = centre.checked;
    changed();
  });
  const controls = [
    element("div", {class: "row"}, swatches, size.element),
    element("div", {class: "row"}, button("Clear", clear), openButton, file),
    fit ? element("label", {class: "check"}, centre, " centre and scale it, as the data was") : null,
    originals.length ? element("div", {class: "originals", role: "group", "aria-label": "Pictures of the data"},
      ...originals.map((source, i) => button(element("img", {src: source, alt: `picture ${i + 1} of the data`}),
        () => open(source), {class: "thumbnail"}))) : null,
  ];
  show(values());
  return {element: element("div", {class: "tools"}, canvas, element("div", {class: "controls"}, ...controls)), open, values};
}

/** Draws ink scaled to a share of the frame, with its centre of mass in the middle. */
function drawFitted(ink, into, share) {
  const {data, width, height} = ink.getContext("2d").getImageData(0, 0, ink.width, ink.height);
  let left = width, right = -1, top = height, bottom = -1, mass = 0, x = 0, y = 0;
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const weight = data[(row * width + column) * 4 + 3];
      if (!weight) continue;
      left = Math.min(left, column);
      right = Math.max(right, column);
      top = Math.min(top, row);
      bottom = Math.max(bottom, row);
      mass += weight;
      x += weight * column;
      y += weight * row;
    }
  if (right < 0) return;
  const {width: w, height: h} = into.canvas;
  const scale = (share * Math.min(w, h)) / Math.max(right - left + 1, bottom - top + 1);
  const middle = share < 0.95 ? [x / mass, y / mass] : [(left + right) / 2, (top + bottom) / 2];
  into.drawImage(ink, w / 2 - middle[0] * scale, h / 2 - middle[1] * scale, width * scale, height * scale);
}
