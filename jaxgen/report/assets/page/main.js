// Builds the page from its data.

const page = JSON.parse(document.getElementById("data").textContent);

function section(id, title, ...children) {
  return element("section", {id, "aria-labelledby": `${id}-title`}, element("h2", {id: `${id}-title`}, title), ...children);
}

const PANELS = {vae: latentPanel, generator: generatorPanel, autoencoder: autoencoderPanel};

/** The part of the page in which the model runs. */
function livePart() {
  const model = page.live;
  if (!model) return page.plain ? section("live", "The model", element("p", {class: "card muted"}, page.plain)) : null;
  const weights = document.getElementById("weights").textContent;
  const cannot = (error) => element("p", {class: "card muted"},
    `This viewer cannot run the model (${error.message ?? "it allows no workers"}). A web browser can.`);
  let panel;
  try {
    const makeEngine = () => {
      const engine = new Engine(model, weights);
      (window.jaxgen ??= {engines: []}).engines.push(engine); // for whoever wants to compute with it in the console
      engine.failed.catch((error) => panel.replaceWith(cannot(error)));
      return engine;
    };
    panel = model.kind === "completion" ? completionPanel(model, makeEngine) : PANELS[model.kind](model, makeEngine());
  } catch (error) {
    panel = cannot(error);
  }
  return section("live", page.live_title, element("p", {class: "lead"}, page.live_text), panel);
}

function build() {
  const main = document.querySelector("main");
  document.querySelector("header").append(
    element("p", {class: "eyebrow"}, page.eyebrow),
    element("h1", {}, page.title),
    element("p", {class: "lead"}, page.summary),
    element("p", {class: "row"}, ...page.chips.map(([text, kind]) => element("span", {class: `chip ${kind}`}, text))));
  const parts = [
    livePart(),
    page.notes.length ? section("notes", "What happened", element("ul", {class: "card"}, ...page.notes.map((note) => element("li", {}, note)))) : null,
    page.figures.length ? section("figures", "What came out", element("div", {class: "cards"}, ...page.figures.map(figureCard))) : null,
    page.figure_rows?.length ? section("figures", "What came out", comparison("Figures at the end", page.names, page.figure_rows)) : null,
    page.curves.length ? section("curves", "Curves", element("div", {class: "cards wide"}, ...page.curves.map(chart))) : null,
    page.pictures.length ? section("pictures", "Pictures", element("div", {class: "cards wide"}, ...page.pictures.map(gallery))) : null,
    section("settings", page.names ? "What differs" : "How to repeat it",
      ...(page.command ? [commandLine(page.command)] : []),
      page.names ? comparison("Settings that differ", page.names, page.setting_rows)
        : element("div", {class: "cards wide"}, element("div", {class: "card"}, table(page.settings, "Configuration")),
          element("div", {class: "card"}, table(page.environment, "Made with")))),
  ].filter(Boolean);
  main.append(...parts);
  document.querySelector("nav").append(...parts.map((part) => element("a", {href: `#${part.id}`}, part.querySelector("h2").textContent)));
  document.querySelector("footer").append(...page.footer.map((text) => element("p", {}, text)));
}

/** While the run is not finished, the page loads itself again, but not under the reader's hands. */
function reloadUntilFinished(seconds) {
  let touched = -Infinity;
  for (const kind of ["pointerdown", "keydown", "wheel", "touchstart"])
    addEventListener(kind, () => (touched = performance.now()), {passive: true});
  setInterval(() => {
    if (document.hidden || performance.now() - touched < seconds * 1000) return;
    kept.set("scroll", scrollY);
    location.reload();
  }, seconds * 1000);
}

kept.load();
build();
scrollTo(0, kept.get("scroll", 0));
kept.set("scroll", undefined);
if (page.reload) reloadUntilFinished(page.reload);
