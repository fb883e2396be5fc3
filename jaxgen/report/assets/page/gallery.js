// The pictures of a run, with a slider through the epochs.

function gallery({key, title, frames, total}) {
  const image = element("img", {class: "sheet"});
  const caption = element("p", {class: "muted"});
  let timer = null;

  function show(place) {
    const frame = frames[place];
    image.src = frame.source;
    const when = frame.epoch === null ? "at the end" : frame.epoch === 0 ? "before training" : `after epoch ${frame.epoch}`;
    image.alt = `${title}, ${when}`;
    caption.textContent = when;
  }

  const parts = [element("h3", {}, title), element("div", {class: "frame"}, image)];
  if (frames.length > 1) {
    const last = frames.length - 1;
    let wasLast = true;
    const at = slider({label: "Epoch", min: 0, max: last, step: 1, value: last, show: (place) => frames[place].epoch ?? "end",
      onChange: (place) => {
        kept.set(key, place === last ? undefined : place);
        wasLast = place === last;
        show(place);
      }});
    const start = clamp(kept.get(key, last), 0, last);
    at.value(start);
    show(start);
    const play = button("Play", () => (timer ? stop() : run()));
    const run = () => {
      play.textContent = "Pause";
      let place = Number(at.input.value) === last ? -1 : Number(at.input.value);
      timer = setInterval(() => {
        place += 1;
        at.value(place);
        show(place);
        if (place === last) stop();
      }, Math.max(60, 4000 / frames.length));
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    parts.push(element("div", {class: "row"}, at.element, play));
  } else {
    show(0);
  }
  if (frames.length < total)
    caption.title = `${frames.length} of ${total} epochs are in this file, to keep it small.`;
  parts.push(caption);
  return element("figure", {class: "card"}, ...parts);
}
