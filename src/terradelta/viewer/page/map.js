// Two maps, one on the other: the lower shows before, the upper one, cut at the swipe, after.

import * as maplibregl from "/page/maplibre-gl/maplibre-gl.mjs";
import { address, getJson } from "/page/server.js";

maplibregl.setWorkerUrl("/page/maplibre-gl/maplibre-gl-worker.mjs");

const EMPTY = { type: "FeatureCollection", features: [] };
const STATUS_COLOURS = {
  unreviewed: "#ffffff", accepted: "#2dd4bf", rejected: "#f87171", relabelled: "#fbbf24",
};
const MARGIN = 0.4; // of the view's size, fetched around it so that small moves need nothing new
const EXTRA_ZOOMS = 4; // beyond the zoom that shows every pixel

export class MapView {
  constructor(session, filters, { onPick, onNotice }) {
    this.session = session;
    this.filters = filters;
    this.onNotice = onNotice;
    this.image = "swipe";
    this.share = 0.5;
    this.shown = { change: true, outlines: true, confidence: false, basemap: true };
    this.opacity = { change: 0.55, confidence: 0.6, after: 1 };
    this.fetched = null;
    const bounds = session.layers.change.bounds;
    const options = {
      attributionControl: false,
      dragRotate: false,
      pitchWithRotate: false,
      touchPitch: false,
      fadeDuration: 0,
      maxZoom: session.layers.change.max_zoom + EXTRA_ZOOMS,
      canvasContextAttributes: { antialias: false },
    };
    this.map = new maplibregl.Map({ ...options, container: "map", style: this.style("before"), bounds,
      fitBoundsOptions: { padding: 16 }, hash: "map" });
    this.map.touchZoomRotate.disableRotation();
    this.map.keyboard.disableRotation();
    this.map.addControl(new maplibregl.NavigationControl({ showCompass: false }), "top-right");
    this.map.addControl(new maplibregl.ScaleControl({ maxWidth: 120 }), "bottom-left");
    if (session.basemap) {
      this.map.addControl(new maplibregl.AttributionControl({ compact: false }), "bottom-right");
    }
    this.upper = new maplibregl.Map({ ...options, container: "map-after", style: this.style("after"),
      interactive: false, center: this.map.getCenter(), zoom: this.map.getZoom() });
    this.map.on("move", () => this.follow());
    this.map.on("moveend", () => this.refreshPatches());
    this.map.on("click", (event) => this.pick(event, onPick));
    this.map.on("mousemove", "patch-fill", () => { this.map.getCanvas().style.cursor = "pointer"; });
    this.map.on("mouseleave", "patch-fill", () => { this.map.getCanvas().style.cursor = ""; });
    this.map.on("resize", () => this.cut());
    this.loaded = Promise.all([this.map, this.upper].map(
      (map) => new Promise((resolve) => { map.once("load", resolve); })));
    this.loaded.then(() => { this.apply(); this.refreshPatches(); });
  }

  get maps() { return [this.map, this.upper]; }

  /** Return a map's style; what is not seen at first is fetched when it is. */
  style(image) {
    const { session } = this;
    const isSeen = (id) => id === image || id === "basemap"
      || (id === "change" && !this.filters.needsPatches());
    const farZoom = session.layers.change.max_zoom - 1;
    const sources = {
      patches: { type: "geojson", data: EMPTY },
      selected: { type: "geojson", data: EMPTY },
    };
    for (const layer of ["before", "after", "change", "confidence"]) {
      const { bounds, max_zoom: maxzoom } = session.layers[layer] ?? session.layers.change;
      sources[layer] = { type: "raster", tiles: [this.tiles(layer)], bounds, maxzoom,
        tileSize: session.tile_size_px };
    }
    const images = ["before", "after"];
    if (session.basemap) {
      const { host } = new URL(session.basemap);
      sources.basemap = { type: "raster", tiles: [session.basemap], tileSize: 256, maxzoom: 19,
        attribution: `basemap: ${host}` };
      images.unshift("basemap");
    }
    const colour = ["match", ["get", "transition"]];
    session.transition_colours.forEach((rgb, id) => colour.push(id, `rgb(${rgb.join(",")})`));
    colour.push("#888888");
    const width = (far, near) => ["interpolate", ["linear"], ["zoom"],
      session.layers.change.max_zoom - 5, far, session.layers.change.max_zoom, near];
    const statusColour = ["match", ["get", "status"], ...Object.entries(STATUS_COLOURS).flat(),
      "#ffffff"];
    const isRejected = ["==", ["get", "status"], "rejected"];
    return {
      version: 8,
      sources,
      layers: [
        ...[...images, "confidence", "change"].map((id) => ({ id, type: "raster", source: id,
          layout: { visibility: isSeen(id) ? "visible" : "none" },
          paint: { "raster-fade-duration": 0,
            // From near, pixels are seen as they are.
            "raster-resampling": images.includes(id)
              ? ["step", ["zoom"], "linear", farZoom, "nearest"] : "nearest" } })),
        { id: "patch-fill", type: "fill", source: "patches",
          paint: { "fill-color": colour, "fill-antialias": false } },
        { id: "patch-casing", type: "line", source: "patches",
          paint: { "line-color": "#000000", "line-opacity": 0.55, "line-width": width(0.6, 3) } },
        { id: "patch-line", type: "line", source: "patches", filter: ["!", isRejected],
          paint: { "line-color": statusColour, "line-width": width(0.3, 1.4) } },
        { id: "patch-rejected", type: "line", source: "patches", filter: isRejected,
          paint: { "line-color": STATUS_COLOURS.rejected, "line-width": width(0.5, 1.8),
            "line-dasharray": [2, 2] } },
        { id: "selected-casing", type: "line", source: "selected",
          paint: { "line-color": "#000000", "line-width": 6 } },
        { id: "selected", type: "line", source: "selected",
          paint: { "line-color": "#fde047", "line-width": 3 } },
      ],
    };
  }

  /** Return the address of a layer's tiles; another one where what it shows has changed. */
  tiles(layer, parameters = {}) {
    const path = `${location.origin}/tiles/${layer}/{z}/{x}/{y}`;
    return `${path}?${address("", { v: this.session.version, ...parameters }).slice(1)}`;
  }

  setImage(image) {
    this.image = image;
    this.apply();
  }

  /** Show what the page's controls say. */
  apply() {
    const isSwiped = this.image === "swipe";
    const asPatches = this.filters.needsPatches();
    const seen = (isShown) => (isShown ? "visible" : "none");
    this.maps.forEach((map, index) => {
      const shows = isSwiped ? ["before", "after"][index] : this.image;
      const isBlend = shows === "after" && !isSwiped && this.opacity.after < 1;
      map.setLayoutProperty("before", "visibility", seen(shows === "before" || isBlend));
      map.setLayoutProperty("after", "visibility", seen(shows === "after"));
      map.setPaintProperty("after", "raster-opacity", isSwiped ? 1 : this.opacity.after);
      if (this.session.basemap) {
        map.setLayoutProperty("basemap", "visibility", seen(this.shown.basemap));
      }
      map.setLayoutProperty("confidence", "visibility", seen(this.shown.confidence));
      map.setPaintProperty("confidence", "raster-opacity", this.opacity.confidence);
      map.setLayoutProperty("change", "visibility", seen(this.shown.change && !asPatches));
      map.setPaintProperty("change", "raster-opacity", this.opacity.change);
      const fill = this.shown.change && asPatches ? this.opacity.change : 0;
      map.setPaintProperty("patch-fill", "fill-opacity",
        ["case", ["==", ["get", "status"], "rejected"], 0, fill]);
      for (const layer of ["patch-casing", "patch-line", "patch-rejected"]) {
        map.setLayoutProperty(layer, "visibility", seen(this.shown.outlines));
      }
    });
    this.upper.getContainer().hidden = !isSwiped;
    document.getElementById("swipe").hidden = !isSwiped;
    if (isSwiped) {
      this.upper.resize();
      this.follow();
      this.cut();
    }
  }

  follow() {
    if (this.image !== "swipe") return;
    this.upper.jumpTo({ center: this.map.getCenter(), zoom: this.map.getZoom() });
  }

  setShare(share) {
    this.share = share;
    this.cut();
  }

  /** Cut the upper map where the swipe's handle is. */
  cut() {
    const handle = 44; // the thumb's width in viewer.css: its middle does not reach the edges
    const width = this.map.getContainer().clientWidth;
    const x = handle / 2 + this.share * (width - handle);
    this.upper.getContainer().style.clipPath = `inset(0 0 0 ${x}px)`;
    document.getElementById("swipe-line").style.left = `${x}px`;
  }

  /** Take up a changed filter. */
  async filter() {
    await this.loaded;
    const parameters = this.filters.transitionParameters();
    for (const map of this.maps) map.getSource("change").setTiles([this.tiles("change", parameters)]);
    this.fetched = null;
    this.apply();
    await this.refreshPatches();
  }

  /** Ask an image's tiles again, once they can be drawn. */
  refreshImage(date) {
    for (const map of this.maps) {
      map.getSource(date).setTiles([this.tiles(date, { prepared: 1 })]);
    }
  }

  /** Fetch the patches around the view unless they are there. */
  async refreshPatches({ again = false } = {}) {
    const view = this.map.getBounds();
    const [west, south, east, north] = [view.getWest(), view.getSouth(), view.getEast(),
      view.getNorth()];
    const zoom = this.map.getZoom();
    const held = this.fetched;
    if (!again && held && west >= held.west && east <= held.east && south >= held.south &&
        north <= held.north && Math.abs(zoom - held.zoom) < 0.7 &&
        (!held.omitted || zoom === held.zoom)) return;
    const x = (east - west) * MARGIN, y = (north - south) * MARGIN;
    const box = { west: Math.max(-180, west - x), south: Math.max(-90, south - y),
      east: Math.min(180, east + x), north: Math.min(90, north + y) };
    this.request?.abort();
    this.request = new AbortController();
    try {
      const patches = await getJson("/api/patches", { ...this.filters.parameters(), ...box },
        this.request.signal);
      this.fetched = { ...box, zoom, omitted: patches.omitted };
      for (const map of this.maps) map.getSource("patches").setData(patches);
      this.onNotice(patches.omitted
        ? `the ${patches.features.length.toLocaleString("en")} largest patches here; zoom in for `
          + `${patches.omitted.toLocaleString("en")} more` : "");
    } catch (error) {
      if (error.name !== "AbortError") this.onNotice(`patches cannot be had: ${error.message}`);
    }
  }

  pick(event, onPick) {
    const reach = [[event.point.x - 3, event.point.y - 3], [event.point.x + 3, event.point.y + 3]];
    const layers = { layers: ["patch-fill"] };
    const [feature] = [...this.map.queryRenderedFeatures(event.point, layers),
      ...this.map.queryRenderedFeatures(reach, layers)];
    onPick(feature ? feature.id : null);
  }

  select(patch) {
    const data = patch ? { type: "Feature", properties: {}, geometry: patch.geometry } : EMPTY;
    this.loaded.then(() => this.maps.forEach((map) => map.getSource("selected").setData(data)));
  }

  goTo(bounds) {
    const isStill = matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.map.fitBounds(bounds, { padding: 90, duration: isStill ? 0 : 350,
      maxZoom: this.session.layers.change.max_zoom + 1 });
  }

  showAll() {
    this.map.fitBounds(this.session.layers.change.bounds, { padding: 16, duration: 0 });
  }
}
