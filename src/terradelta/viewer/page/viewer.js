// The page: opens the session, connects controls and keys.

import { Filters, formatHectares } from "/page/filters.js";
import { MapView } from "/page/map.js";
import { ReviewPanel } from "/page/review.js";
import { getJson, openSession } from "/page/server.js";

const byId = (id) => document.getElementById(id);
const SWIPE_STEP = 40; // of 1000
const POLL_MS = 1000;

start();

async function start() {
  setTheme(localStorage.getItem("terradelta-theme"));
  byId("theme").addEventListener("click", toggleTheme);
  let session;
  try {
    session = await openSession();
  } catch (error) {
    notify(`the server does not answer: ${error.message}`);
    return;
  }
  describe(session);
  let view;
  const filters = new Filters(session, () => { view.filter(); hint(filters); });
  view = new MapView(session, filters,
    { onPick: (fid) => { review.open(fid); if (fid !== null) showTab("review"); },
      onNotice: notify });
  const review = new ReviewPanel(session, filters, view, () => {
    filters.sum();
    view.refreshPatches({ again: true });
  });
  connect(view);
  connectKeys(view, filters, review);
  filters.sum();
  hint(filters);
  if (filters.needsPatches() || filters.transitionParameters().transitions) view.filter();
  watchPreparation(view);
  view.map.once("idle", () => { document.body.dataset.ready = "true"; });
}

function describe(session) {
  document.title = `${session.title} · terradelta`;
  byId("title").textContent = session.title;
  warn(session.cautions);
  const { changed_ha: changed, valid_ha: valid, changed_percent: percent } = session;
  const all = `${formatHectares(valid * 10_000)} ha`;
  byId("headline").textContent = changed === 0 ? `predicted: no change found in ${all}`
    : `predicted: ${formatHectares(changed * 10_000)} of ${all} changed (${percent.toFixed(1)} %)`;
  byId("name-before").textContent = `before · ${session.layers.before.name}`;
  byId("name-after").textContent = `after · ${session.layers.after.name}`;
  if (session.basemap) {
    byId("basemap-layer").hidden = false;
    byId("basemap-name").textContent = new URL(session.basemap).host;
  }
}

/** Say what makes the map doubtful, above it. */
function warn(cautions) {
  byId("cautions").hidden = cautions.length === 0;
  const reasons = cautions.length === 1 ? "1 reason" : `${cautions.length} reasons`;
  byId("cautions-summary").textContent = `${reasons} to doubt this map: `
    + cautions.map(({ name }) => name).join(", ");
  byId("cautions-list").replaceChildren(...cautions.map(({ message, fix }) => {
    const row = document.createElement("li");
    row.textContent = `${message}. What helps: ${fix}.`;
    return row;
  }));
}

function connect(view) {
  for (const choice of document.querySelectorAll("input[name=image]")) {
    choice.addEventListener("change", () => setImage(view, choice.value));
  }
  byId("swipe-position").addEventListener("input", () => moveSwipe(view, 0));
  const layers = { "show-change": "change", "show-outlines": "outlines",
    "show-confidence": "confidence", "show-basemap": "basemap" };
  for (const [id, layer] of Object.entries(layers)) {
    byId(id).addEventListener("change", () => {
      view.shown[layer] = byId(id).checked;
      byId("confidence-ramp").hidden = !byId("show-confidence").checked;
      view.apply();
    });
  }
  for (const layer of ["change", "confidence", "after"]) {
    byId(`${layer}-opacity`).addEventListener("input", () => {
      view.opacity[layer] = Number(byId(`${layer}-opacity`).value) / 100;
      view.apply();
    });
  }
  byId("show-all").addEventListener("click", () => view.showAll());
  byId("help-button").addEventListener("click", () => byId("help").showModal());
  for (const button of document.querySelectorAll("nav button")) {
    button.addEventListener("click", () => showTab(button.dataset.tab));
  }
  showTab("layers");
}

function setImage(view, image) {
  for (const choice of document.querySelectorAll("input[name=image]")) {
    choice.checked = choice.value === image;
  }
  view.setImage(image);
}

function moveSwipe(view, step) {
  const slider = byId("swipe-position");
  slider.value = Number(slider.value) + step;
  view.setShare(Number(slider.value) / 1000);
}

function connectKeys(view, filters, review) {
  const click = (id) => () => byId(id).click();
  const turn = (id) => () => { showTab("review"); byId(id).click(); };
  const actions = {
    n: turn("next"), p: turn("previous"), a: click("accept"), r: click("reject"),
    u: click("undo"), c: click("show-change"), o: click("show-outlines"),
    k: click("show-confidence"), d: click("theme"), x: click("reset"), 0: click("show-all"),
    "?": click("help-button"),
    l: () => { if (review.patch) { showTab("review"); byId("relabel-from").focus(); } },
    m: () => { if (review.patch) { showTab("review"); byId("note").focus(); } },
    f: () => { showTab("filter"); byId("min-area").select(); },
    g: () => view.map.getCanvas().focus(),
    z: () => { if (review.patch) view.goTo(review.patch.bounds); },
    1: () => setImage(view, "before"),
    2: () => setImage(view, "after"),
    3: () => setImage(view, "swipe"),
    "[": () => moveSwipe(view, -SWIPE_STEP),
    "]": () => moveSwipe(view, SWIPE_STEP),
  };
  let held = null;
  document.addEventListener("keydown", (event) => {
    const isTyping = event.target.matches("input[type=number], textarea, select");
    if (isTyping) {
      if (event.key === "Escape" || (event.key === "Enter" && event.ctrlKey)) event.target.blur();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || byId("help").open) return;
    if (event.key === " " && !event.target.matches("button, input, a")) {
      event.preventDefault();
      if (held === null) {
        held = view.image;
        view.setImage(held === "after" ? "before" : "after");
      }
      return;
    }
    const action = actions[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });
  document.addEventListener("keyup", (event) => {
    if (event.key === " " && held !== null) {
      view.setImage(held);
      held = null;
    }
  });
}

/** On a phone one panel is shown at a time. */
function showTab(tab) {
  document.body.dataset.tab = tab;
  for (const button of document.querySelectorAll("nav button")) {
    button.setAttribute("aria-pressed", String(button.dataset.tab === tab));
  }
}

function hint(filters) {
  byId("change-hint").textContent = filters.needsPatches()
    ? "Filtered by area, confidence or state: patches are shown, as they were checked." : "";
}

function notify(text) {
  byId("notice").textContent = text;
  byId("notice").hidden = !text;
}

async function watchPreparation(view) {
  const waiting = new Set(Object.keys(await getJson("/api/preparation")));
  while (waiting.size) {
    const parts = await getJson("/api/preparation");
    for (const date of [...waiting]) {
      const { is_done: isDone, error, share } = parts[date];
      if (isDone || error) {
        waiting.delete(date);
        view.refreshImage(date);
        notify(error ? `the ${date} image cannot be shown from afar: ${error}` : "");
      } else {
        notify(`the ${date} image has no overviews and is being read once: `
          + `${Math.round(100 * share)} %; zoom in to see it now`);
      }
    }
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
  }
}

function setTheme(theme) {
  const isDark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = isDark ? "dark" : "light";
  byId("theme").textContent = isDark ? "Light" : "Dark";
}

function toggleTheme() {
  const theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  localStorage.setItem("terradelta-theme", theme);
  setTheme(theme);
}
