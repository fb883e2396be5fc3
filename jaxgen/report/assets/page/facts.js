// What the run came to, and how it was made.

/** A figure of the trained model, with its baselines as bars of one scale. */
function figureCard({title, value, baselines, error, unit, note}) {
  const rows = [["this model", value, true], ...baselines.map((one) => [one.label, one.value, false])];
  const finite = rows.map(([, amount]) => amount).filter((amount) => amount !== null);
  const low = Math.min(0, ...finite), high = Math.max(0, ...finite);
  const bar = ([label, amount, own]) => {
    const from = (Math.min(0, amount) - low) / (high - low || 1), length = Math.abs(amount) / (high - low || 1);
    return element("div", {class: own ? "bar own" : "bar"},
      element("span", {}, label),
      element("div", {class: "track", "aria-hidden": "true"},
        element("i", {style: `left:${from * 100}%;width:${Math.max(0.5, length * 100)}%`})),
      element("b", {}, shown(amount)));
  };
  return element("div", {class: "figure card"},
    element("h3", {}, title),
    element("p", {class: "value"}, shown(value), error ? element("small", {}, ` ± ${shown(Number(error.toPrecision(2)))}`) : null,
      unit ? element("small", {}, ` ${unit}`) : null),
    element("p", {class: "muted"}, note),
    ...(baselines.length ? rows.map(bar) : []));
}

function table(rows, caption) {
  return element("table", {}, element("caption", {}, caption),
    element("tbody", {}, ...rows.map(([name, value]) => element("tr", {}, element("th", {scope: "row"}, name), element("td", {}, value)))));
}

/** A table with a column for each run. */
function comparison(caption, names, rows) {
  return element("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": caption},
    element("table", {}, element("caption", {}, caption),
      element("thead", {}, element("tr", {}, element("td", {}), ...names.map((name) => element("th", {scope: "col"}, name)))),
      element("tbody", {}, ...rows.map(([title, values, best]) => element("tr", {}, element("th", {scope: "row"}, title),
        ...values.map((value, i) => element("td", {class: i === best ? "best" : null}, value ?? "–")))))));
}

function commandLine(text) {
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
    } catch {
      copy.textContent = "Select the text to copy it"; // a viewer without a clipboard
    }
  });
  return element("div", {class: "command"}, element("code", {}, text), copy);
}
