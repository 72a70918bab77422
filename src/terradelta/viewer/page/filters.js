// Which patches are meant, and how much ground they are.

import { getJson } from "/page/server.js";

const HECTARE_M2 = 10_000;
const byId = (id) => document.getElementById(id);

/** Return square metres as hectares, with as many decimals as suit `scale_m2`. */
export function formatHectares(area_m2, scale_m2 = area_m2) {
  const digits = scale_m2 < 100 * HECTARE_M2 ? (scale_m2 < 10 * HECTARE_M2 ? 3 : 2) : 1;
  return (area_m2 / HECTARE_M2).toLocaleString("en",
    { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function makeArrow() {
  const arrow = document.createElement("span");
  arrow.textContent = "→";
  return arrow;
}

export class Filters {
  constructor(session, onChange) {
    this.session = session;
    this.onChange = onChange;
    this.storage = `terradelta-filter-${session.version}`;
    this.chosen = { from: new Set(), to: new Set() }; // class ids; empty means all
    for (const side of ["from", "to"]) this.addChips(side);
    for (const id of ["min-area", "min-confidence", "max-confidence", "status-filter"]) {
      byId(id).addEventListener("input", () => this.change());
    }
    byId("reset").addEventListener("click", () => this.reset());
    this.restore();
  }

  addChips(side) {
    this.session.classes.slice(1).forEach((kind, index) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.setAttribute("aria-pressed", "false");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = `rgb(${kind.colour.join(",")})`;
      chip.append(swatch, kind.name);
      chip.addEventListener("click", () => {
        this.toggle(side, index + 1);
        this.change();
      });
      byId(`${side}-chips`).append(chip);
    });
  }

  toggle(side, id) {
    if (!this.chosen[side].delete(id)) this.chosen[side].add(id);
    this.press(side);
  }

  press(side) {
    [...byId(`${side}-chips`).children].forEach((chip, index) => {
      chip.setAttribute("aria-pressed", String(this.chosen[side].has(index + 1)));
    });
  }

  reset() {
    for (const side of ["from", "to"]) {
      this.chosen[side].clear();
      this.press(side);
    }
    byId("min-area").value = 0;
    byId("min-confidence").value = 0;
    byId("max-confidence").value = 100;
    byId("status-filter").value = "";
    this.change();
  }

  /** Return what the server is to be told. */
  parameters() {
    const number = (id, low, high, empty) => {
      const value = byId(id).value === "" ? empty : Number(byId(id).value);
      return Math.min(high, Math.max(low, Number.isFinite(value) ? value : empty));
    };
    const told = {};
    if (this.chosen.from.size) told.from_ids = [...this.chosen.from];
    if (this.chosen.to.size) told.to_ids = [...this.chosen.to];
    const area = number("min-area", 0, 1e12, 0);
    const low = number("min-confidence", 0, 100, 0), high = number("max-confidence", 0, 100, 100);
    if (area > 0) told.min_area_m2 = area;
    if (low > 0) told.min_confidence = low / 100;
    if (high < 100) told.max_confidence = high / 100;
    if (byId("status-filter").value) told.statuses = byId("status-filter").value;
    return told;
  }

  /** Whether the raster, which knows transitions only, cannot show what is meant. */
  needsPatches() {
    const { from_ids, to_ids, ...rest } = this.parameters();
    return Object.keys(rest).length > 0;
  }

  /** Return what the change map's tiles are to be told. */
  transitionParameters() {
    const { from_ids, to_ids } = this.parameters();
    if (!from_ids && !to_ids) return {};
    const ids = this.session.classes.map((_, id) => id);
    const wanted = (side) => (side ? side : ids);
    const transitions = wanted(from_ids).flatMap((from) =>
      wanted(to_ids).map((to) => from * ids.length + to));
    return { transitions: transitions.filter((transition) => transition > 0) };
  }

  change() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      sessionStorage.setItem(this.storage, JSON.stringify(this.state()));
      this.onChange();
      this.sum();
    }, 60);
  }

  state() {
    const values = ["min-area", "min-confidence", "max-confidence", "status-filter"]
      .map((id) => [id, byId(id).value]);
    return { from: [...this.chosen.from], to: [...this.chosen.to], values };
  }

  restore() {
    try {
      const state = JSON.parse(sessionStorage.getItem(this.storage));
      if (!state) return;
      this.chosen = { from: new Set(state.from), to: new Set(state.to) };
      for (const [id, value] of state.values) byId(id).value = value;
      this.press("from");
      this.press("to");
    } catch {
      sessionStorage.removeItem(this.storage);
    }
  }

  /** Show the sums over the whole map, not only what is in view. */
  async sum() {
    this.request?.abort();
    this.request = new AbortController();
    let sums;
    try {
      sums = await getJson("/api/sums", this.parameters(), this.request.signal);
    } catch (error) {
      if (error.name !== "AbortError") byId("total-area").textContent = "no answer";
      return;
    }
    byId("total-area").textContent = `${formatHectares(sums.area_m2)} ha`;
    byId("total-count").textContent = `in ${sums.count.toLocaleString("en")} patches`;
    const largest = Math.max(1e-9, ...sums.transitions.map((row) => row.area_m2));
    byId("sums").tBodies[0].replaceChildren(
      ...sums.transitions.map((row) => this.makeRow(row, largest)));
    const { rejected, unreviewed } = sums.statuses;
    byId("rejected-sum").textContent = rejected.count
      ? `not counted: ${formatHectares(rejected.area_m2)} ha in `
        + `${rejected.count.toLocaleString("en")} rejected` : "";
    const total = Object.values(sums.statuses).reduce((sum, part) => sum + part.count, 0);
    byId("progress").textContent =
      `${(total - unreviewed.count).toLocaleString("en")} of ${total.toLocaleString("en")}`;
  }

  makeRow(row, largest) {
    const { classes } = this.session;
    const line = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.className = "link";
    for (const [index, id] of [row.from_id, row.to_id].entries()) {
      if (index) button.append(makeArrow());
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = `rgb(${classes[id].colour.join(",")})`;
      button.append(swatch, classes[id].name);
    }
    button.title = "show this transition only";
    button.addEventListener("click", () => {
      this.chosen = { from: new Set([row.from_id]), to: new Set([row.to_id]) };
      this.press("from");
      this.press("to");
      this.change();
    });
    name.append(button);
    const cells = [row.count.toLocaleString("en"), formatHectares(row.area_m2, largest)].map((text) => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    });
    line.style.setProperty("--share", `${(100 * row.area_m2) / largest}%`);
    line.append(name, ...cells);
    return line;
  }
}
