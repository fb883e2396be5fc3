// Completion: draw the upper half, or choose a picture, and watch the cells finish it, row by row.

function completionPanel(model, makeEngine) {
  const {shape, length} = model, [height, width] = shape;
  const outputs = model.cells.map((cell, i) => ({
    engine: makeEngine(), // a worker each, so that both compute at the same time
    cell: i,
    canvas: picture(`Completed by the ${cell.name}`, "picture large"),
    reading: element("p", {class: "reading"}),
    busy: false,
    pending: null,
  }));

  async function complete(output, image) {
    if (output.busy) {
      output.pending = image; // while one is completed, only the newest drawing waits
      return;
    }
    output.busy = true;
    const rows = Float32Array.from(image, (value, i) => (i < length * width ? value : 0));
    const show = () => {
      paint(output.canvas, rows, shape);
      const context = output.canvas.getContext("2d");
      context.fillStyle = colour("--accent"); // where the completion begins
      context.fillRect(0, length, 1, 1);
      context.fillRect(width - 1, length, 1, 1);
    };
    const {milliseconds} = await output.engine.ask({task: "complete", cell: output.cell, image: rows.slice()}, (row, values) => {
      rows.set(values, row * width);
      show();
    });
    output.reading.textContent = `${height - length} rows in ${Math.round(milliseconds)} ms`;
    output.busy = false;
    const next = output.pending;
    output.pending = null;
    if (next) complete(output, next);
  }
  const pad = drawingPad({label: "Upper half", shape, originals: model.originals, rows: length,
    onChange: (image) => outputs.forEach((output) => complete(output, image))});
  if (model.originals.length) pad.open(model.originals[0]);
  return element("div", {class: "live three completion"},
    element("div", {class: "stack"}, element("h3", {}, "The upper half"), pad.element,
      element("p", {class: "muted"}, `Only the upper ${length} rows are read; what a picture has below them is what it should have become.`)),
    ...outputs.map((output, i) => element("div", {class: "stack"},
      element("h3", {}, `Completed by the ${model.cells[i].name}`), output.canvas, output.reading)));
}
