// One patch after the other, the largest first; what is decided is saved at once.

import { formatHectares } from "/page/filters.js";
import { getJson, mayReview, onToken, READ_ONLY, ReadOnlyError, sendReview } from "/page/server.js";

const byId = (id) => document.getElementById(id);
const RETRY_MS = 2000;

export class ReviewPanel {
  constructor(session, filters, map, onSaved) {
    Object.assign(this, { session, filters, map, onSaved });
    this.patch = null;
    this.waiting = []; // reviews that the server has not confirmed, oldest first
    for (const id of ["relabel-from", "relabel-to"]) {
      session.classes.slice(1).forEach((kind, index) => {
        byId(id).append(new Option(kind.name, index + 1));
      });
    }
    byId("next").addEventListener("click", () => this.step(1));
    byId("previous").addEventListener("click", () => this.step(-1));
    byId("accept").addEventListener("click", () => this.decide("accepted"));
    byId("reject").addEventListener("click", () => this.decide("rejected"));
    byId("undo").addEventListener("click", () => this.undo());
    byId("relabel").addEventListener("submit", (event) => {
      event.preventDefault();
      document.activeElement?.blur();
      this.decide("relabelled");
    });
    byId("note").addEventListener("change", () => this.saveNote());
    this.isRefused = false; // until there is another token
    onToken(() => {
      this.isRefused = false;
      this.allow();
      if (this.waiting.length) this.flush();
    });
    this.allow();
    addEventListener("beforeunload", (event) => {
      if (this.waiting.length) event.preventDefault();
    });
  }

  /** Without a token all can be looked at and nothing be decided. */
  allow() {
    const isAllowed = mayReview();
    for (const id of ["accept", "reject", "relabel-from", "relabel-to", "relabel-button", "note"]) {
      byId(id).disabled = !isAllowed;
    }
    byId("undo").disabled = !isAllowed || !this.canUndo();
    byId("read-only").textContent = isAllowed ? "" : READ_ONLY;
    byId("read-only").hidden = isAllowed;
  }

  canUndo() {
    return this.patch !== null && (this.patch.status !== "unreviewed" || Boolean(this.patch.note));
  }

  async open(fid) {
    if (fid === null) return this.show(null);
    try {
      this.show(await getJson(`/api/patches/${fid}`));
    } catch (error) {
      this.tell(error.message);
    }
    return undefined;
  }

  /** Go to the next smaller (1) or larger (-1) patch of the filter. */
  async step(step, extra = {}) {
    const start = this.patch ? { fid: this.patch.fid } : {};
    try {
      const patch = await getJson("/api/next",
        { ...this.filters.parameters(), ...extra, ...start, step });
      if (patch === null) {
        this.tell(step > 0 ? "that was the smallest" : "that was the largest");
        return;
      }
      this.show(patch);
      this.map.goTo(patch.bounds);
      this.tell("");
    } catch (error) {
      this.tell(error.message);
    }
  }

  show(patch) {
    this.patch = patch;
    this.map.select(patch);
    byId("patch").hidden = patch === null;
    byId("no-patch").hidden = patch !== null;
    if (patch === null) return;
    const { classes, transition_colours: colours } = this.session;
    const name = (id) => classes[id].name;
    byId("patch-label").textContent = `${name(patch.from_id)} → ${name(patch.to_id)}`;
    const colour = colours[patch.from_id * classes.length + patch.to_id];
    byId("patch-swatch").style.background = `rgb(${colour.join(",")})`;
    byId("patch-area").textContent = `${formatHectares(patch.area_m2)} ha · `
      + `${Math.round(patch.area_m2).toLocaleString("en")} m² · `
      + `${patch.pixels.toLocaleString("en")} px`;
    byId("patch-confidence").textContent = `${(100 * patch.confidence).toFixed(0)} %`;
    byId("patch-rank").textContent = `${patch.rank.toLocaleString("en")} of `
      + `${this.session.patches.toLocaleString("en")} by area`;
    const [west, south, east, north] = patch.bounds;
    byId("patch-centre").textContent =
      `${((south + north) / 2).toFixed(6)}, ${((west + east) / 2).toFixed(6)}`;
    const wasLabel = patch.status === "relabelled"
      ? ` (was ${name(patch.predicted_from_id)} → ${name(patch.predicted_to_id)})` : "";
    byId("patch-status").textContent = patch.status + wasLabel;
    byId("patch-status").dataset.status = patch.status;
    byId("relabel-from").value = patch.from_id;
    byId("relabel-to").value = patch.to_id;
    byId("note").value = patch.note;
    byId("undo").disabled = !mayReview() || !this.canUndo();
  }

  async decide(status) {
    if (!this.patch || !mayReview()) return;
    const review = { status, note: byId("note").value };
    if (status === "relabelled") {
      review.from_id = Number(byId("relabel-from").value);
      review.to_id = Number(byId("relabel-to").value);
    }
    const isSaved = await this.save(this.patch.fid, review);
    if (isSaved && byId("advance").checked) await this.step(1, { statuses: "unreviewed" });
  }

  undo() {
    if (!this.patch) return;
    byId("note").value = "";
    this.save(this.patch.fid, { status: "unreviewed" });
  }

  saveNote() {
    if (!this.patch || byId("note").value === this.patch.note) return;
    const { fid, status, from_id, to_id } = this.patch;
    const review = { status, note: byId("note").value };
    this.save(fid, status === "relabelled" ? { ...review, from_id, to_id } : review);
  }

  async save(fid, review) {
    this.waiting.push([fid, review]);
    return this.flush();
  }

  /** Send what waits, in order; a server that does not answer is asked again. */
  async flush() {
    clearTimeout(this.timer);
    if (this.flushing) return this.flushing;
    this.flushing = this.sendAll();
    const isSaved = await this.flushing;
    this.flushing = null;
    if (this.waiting.length && !this.isRefused) this.timer = setTimeout(() => this.flush(), RETRY_MS);
    return isSaved;
  }

  async sendAll() {
    while (this.waiting.length) {
      const [fid, review] = this.waiting[0];
      try {
        const patch = await sendReview(fid, review);
        this.waiting.shift();
        if (this.patch?.fid === fid) this.show(patch);
        this.tell(`${patch.status}: saved`);
        this.onSaved();
      } catch (error) {
        if (error instanceof ReadOnlyError) {
          this.isRefused = true;
          this.tell(`${this.waiting.length} unsaved. ${error.message}`);
          return false;
        }
        if (error instanceof TypeError) {
          this.tell(`no answer from the server: ${this.waiting.length} unsaved, trying again`);
        } else {
          this.waiting.shift();
          this.tell(`not saved: ${error.message}`);
        }
        return false;
      }
    }
    return true;
  }

  tell(text) { byId("saved").textContent = text; }
}
