// Curves that one can read values off: with a pointer, by touch, or with the arrow keys.

const COLOURS = 8; // --series-0 and on, in the style sheet

/**
 * A chart of series {name, x, y}, with dashed lines for baselines {label, value}. Values may be null.
 */
function chart({title, note, series, baselines = [], key}) {
  const drawn = element("div", {class: "plot", tabindex: "0", role: "group",
    "aria-label": `${title} by epoch. The arrow keys read values off.`});
  const reading = element("p", {class: "reading", "aria-live": "polite"});
  const values = series.flatMap((one) => one.y).filter((y) => y !== null);
  const epochs = [...new Set(series.flatMap((one) => one.x))].sort((a, b) => a - b);
  const state = {log: kept.get(key, false), epoch: null};
  const toggle = button("log", () => {
    state.log = !state.log;
    kept.set(key, state.log);
    render();
  }, {class: "toggle", "aria-pressed": "false", title: "Logarithmic scale", "aria-label": `${title}: logarithmic scale`});
  toggle.hidden = !(values.length && Math.min(...values) > 0);

  function render() {
    const log = state.log && !toggle.hidden;
    toggle.setAttribute("aria-pressed", String(log));
    const width = drawn.clientWidth || 320, height = Math.round(clamp(width * 0.56, 180, 300));
    const margin = {left: 52, right: 12, top: 10, bottom: 26};
    const reach = [...values, ...baselines.map((line) => line.value).filter((value) => value !== null && (!log || value > 0))];
    const [low, high] = padded(Math.min(...reach), Math.max(...reach), log);
    const first = epochs[0], last = epochs.at(-1);
    const x = (epoch) => margin.left + (last === first ? 0.5 : (epoch - first) / (last - first)) * (width - margin.left - margin.right);
    const share = (value) => (log ? Math.log(value / low) / Math.log(high / low) : (value - low) / (high - low));
    const y = (value) => height - margin.bottom - share(value) * (height - margin.top - margin.bottom);
    const svg = svgElement("svg", {viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true"});
    for (const tick of log ? logTicks(low, high) : ticks(low, high, height / 50)) {
      svg.append(
        svgElement("line", {class: "grid", x1: margin.left, x2: width - margin.right, y1: y(tick), y2: y(tick)}),
        svgElement("text", {x: margin.left - 6, y: y(tick) + 4, "text-anchor": "end"}, shown(tick)));
    }
    for (const tick of ticks(first, last, width / 70).filter(Number.isInteger))
      svg.append(svgElement("text", {x: x(tick), y: height - 8, "text-anchor": "middle"}, tick.toLocaleString("en")));
    for (const line of baselines.filter(({value}) => value !== null && (!log || value > 0)))
      svg.append(
        svgElement("line", {class: "baseline", x1: margin.left, x2: width - margin.right, y1: y(line.value), y2: y(line.value)}),
        svgElement("text", {class: "baseline-label", x: width - margin.right, y: y(line.value) - 4, "text-anchor": "end"}, line.label));
    series.forEach((one, i) => {
      let path = "", pen = "M";
      one.x.forEach((epoch, at) => {
        const value = one.y[at];
        if (value === null || (log && value <= 0)) return (pen = "M"); // a gap
        path += `${pen}${x(epoch).toFixed(1)},${y(value).toFixed(1)}`;
        pen = "L";
      });
      const stroke = `var(--series-${i % COLOURS})`;
      svg.append(svgElement("path", {d: path, stroke, class: "curve"}));
      if (one.x.length < 25)
        one.x.forEach((epoch, at) => {
          if (one.y[at] !== null) svg.append(svgElement("circle", {cx: x(epoch), cy: y(one.y[at]), r: 2.5, fill: stroke}));
        });
    });
    if (state.epoch !== null) {
      svg.append(svgElement("line", {class: "cursor", x1: x(state.epoch), x2: x(state.epoch), y1: margin.top, y2: height - margin.bottom}));
      series.forEach((one, i) => {
        const value = one.y[one.x.indexOf(state.epoch)];
        if (value !== undefined && value !== null)
          svg.append(svgElement("circle", {cx: x(state.epoch), cy: y(value), r: 4.5, class: "dot", fill: `var(--series-${i % COLOURS})`}));
      });
    }
    drawn.replaceChildren(svg);
    drawn.atPointer = (place) => first + clamp((place * width - margin.left) / (width - margin.left - margin.right), 0, 1) * (last - first);
    read();
  }

  /** What the legend says: the last values, or those at the cursor. */
  function read() {
    const epoch = state.epoch ?? epochs.at(-1);
    reading.replaceChildren(`epoch ${epoch.toLocaleString("en")}`, ...series.map((one, i) => {
      const value = one.y[one.x.indexOf(epoch)];
      return element("span", {class: "key"},
        element("i", {style: `background:var(--series-${i % COLOURS})`}), `${one.name} `,
        element("b", {}, value === undefined ? "–" : shown(value)));
    }));
  }

  function moveTo(epoch) {
    if (epoch === state.epoch) return;
    state.epoch = epoch;
    render();
  }

  const nearest = (wanted) => epochs.reduce((best, epoch) => (Math.abs(epoch - wanted) < Math.abs(best - wanted) ? epoch : best));
  const point = (event) => moveTo(nearest(drawn.atPointer(placeIn(drawn, event)[0])));
  drawn.addEventListener("pointermove", point);
  drawn.addEventListener("pointerdown", point);
  drawn.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && moveTo(null));
  drawn.addEventListener("blur", () => moveTo(null));
  drawn.addEventListener("keydown", (event) => {
    const at = state.epoch === null ? epochs.length : epochs.indexOf(state.epoch);
    const to = {ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: epochs.length - 1}[event.key];
    if (to === undefined) return;
    event.preventDefault();
    moveTo(epochs[clamp(to, 0, epochs.length - 1)]);
  });
  new ResizeObserver(render).observe(drawn);
  return element("figure", {class: "chart card"},
    element("figcaption", {}, element("h3", {}, title), note ? element("span", {class: "muted"}, note) : null, toggle),
    drawn, reading);
}

/** A range that holds two values with a little air around. */
function padded(low, high, log) {
  if (log) return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.05, high * (high / low) ** 0.05];
  const air = low === high ? Math.abs(low) * 0.1 || 1 : (high - low) * 0.06;
  return [low >= 0 && low - air < 0 ? 0 : low - air, high + air];
}

/** About `count` round numbers between two values. */
function ticks(low, high, count) {
  if (low === high) return [low];
  const rough = (high - low) / Math.max(2, count), power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high * (1 + 1e-12); i++) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function logTicks(low, high) {
  const found = [];
  const factors = high / low > 1000 ? [1] : high / low > 8 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
    for (const factor of factors) {
      const value = Number((factor * 10 ** power).toPrecision(6));
      if (value >= low && value <= high) found.push(value);
    }
  return found.length < 2 ? ticks(low, high, 4) : found;
}
