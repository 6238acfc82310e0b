// One face opened: its picture and heatmap, its measures as bars, its track's quality over time, near misses.

import { Chart } from "./chart.js";
import { make, one, say } from "./dom.js";
import { NAMES } from "./labels.js";
import { measureRows } from "./measures.js";
import { jpeg, missTile, momentOf } from "./tiles.js";
import { picksOf, pointsOf } from "./tracks.js";
import * as words from "./words.js";

export class Face {
  constructor({ faces, tracks, heats, labels, base, sift }) {
    Object.assign(this, { faces, tracks, heats, labels, base, sift });
    this.dialog = one("detail");
    this.chart = new Chart(one("chart"), one("course-readout"), { openKey: one("key-open"), clock: words.position });
    this.view = "photo";
    this.face = null;
    one("close").addEventListener("click", () => this.dialog.close());
    one("previous").addEventListener("click", () => this.go(-1));
    one("next").addEventListener("click", () => this.go(1));
    one("views").addEventListener("change", (event) => this.look(event.target.value));
    one("photo").addEventListener("error", () => this.small());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("close", () => this.closed());
    addEventListener("hashchange", () => this.follow());
    for (const button of one("label-keys").children) button.addEventListener("click", () => this.label(button.dataset.label));
    labels.listeners.push(() => this.labelled());
  }

  // Opens the face that the address names, if it names one.
  follow() {
    const match = /^#face=(.+)$/.exec(location.hash);
    const face = match && this.faces.get(decodeURIComponent(match[1]));
    if (face) this.open(face);
    else if (this.dialog.open) this.dialog.close();
  }

  open(face) {
    if (!this.dialog.open) this.opener = face.key;
    this.show(face);
    if (!this.dialog.open) {
      this.dialog.showModal();
      one("detail-title").focus({ preventScroll: true });
    }
    this.dialog.scrollTop = 0;
    this.chart.render();
  }

  show(face) {
    this.face = face;
    const track = this.tracks.get(face.track_key);
    say(one("detail-title"), face.source);
    say(one("detail-when"), [face.person, face.picture ? "" : `track ${face.track_id}`, momentOf(face), face.missed && !face.spaced && !face.picture ? "near miss" : ""].filter(Boolean).join(" · "));
    this.picture(face);
    this.look(this.view);
    this.labelled();
    say(one("quality"), words.whole(face.quality));
    const gate = one("gate");
    gate.className = face.gate.passed ? "gate" : "gate shut";
    say(gate, face.gate.passed ? "Passed the gate" : face.gate.reasons.length ? `Rejected: ${words.reasons(face.gate)}` : "Not scored in full");
    one("measures").replaceChildren(...measureRows(face));
    this.course(face, track);
    one("meta").replaceChildren(...facts(face, track, this.base).map(([term, what]) => make("div", {}, make("dt", {}, term), make("dd", {}, what))));
    const beside = this.beside();
    one("previous").disabled = beside.place <= 0;
    one("next").disabled = beside.place < 0 || beside.place >= beside.all.length - 1;
  }

  picture(face) {
    const photo = one("photo");
    photo.alt = `Face from ${face.source}`;
    one("photo-small").hidden = Boolean(face.image) || !face.thumbnail;
    photo.src = face.image ? this.base + path(face.image) : jpeg(face.thumbnail);
    const heat = this.heats.picture(face.heat);
    if (heat) one("heat").src = heat;
    else one("heat").removeAttribute("src");
  }

  // The picture in the folder is gone: the small one is left.
  small() {
    if (!this.face?.image || one("photo").src.startsWith("data:")) return;
    one("photo").src = jpeg(this.face.thumbnail);
    one("photo-small").hidden = false;
  }

  course(face, track) {
    const moving = track && track.series.length > 1;
    one("course").hidden = !moving;
    if (moving) this.chart.set(pointsOf(track), face.pts_seconds, track.first_pts, track.last_pts, picksOf(track));
    const misses = track && !track.picture ? track.misses : [];
    one("near").hidden = !misses.length;
    one("near-list").replaceChildren(...misses.map((miss) => missTile(miss, this.heats)));
    const spaced = track?.spaced ?? [];
    one("spaced").hidden = !spaced.length;
    one("spaced-list").replaceChildren(...spaced.map((one) => missTile(one, this.heats)));
    this.labels.tell();
  }

  // The faces that the arrows go through: those that were searched for; else kept ones as they stand on the page, the
  // near misses of a track, what was rejected in pictures, or the evenly spaced ones of all tracks.
  beside() {
    if (this.sift.found?.includes(this.face)) return { all: this.sift.found, place: this.sift.found.indexOf(this.face) };
    if (this.face.picture && this.face.missed) {
      const rejected = [...this.faces.values()].filter((face) => face.picture && face.missed);
      return { all: rejected, place: rejected.indexOf(this.face) };
    }
    const of = this.face.spaced ? (face) => face.spaced : (face) => !face.missed;
    const all = this.face.missed && !this.face.spaced ? this.tracks.get(this.face.track_key).misses : [...this.faces.values()].filter(of);
    return { all, place: all.indexOf(this.face) };
  }

  // Says a label and goes on to the next face.
  label(name) {
    if (this.labels.set(this.face, name)) this.go(1);
  }

  labelled() {
    const label = this.face && this.labels.of(this.face);
    for (const button of one("label-keys").children) button.setAttribute("aria-pressed", String(button.dataset.label === label));
  }

  go(step) {
    const { all, place } = this.beside();
    const next = place < 0 ? null : all[place + step];
    if (!next) return;
    // At once, and not when the browser tells of the new address: the next key may be pressed before.
    this.show(next);
    location.replace(`#face=${encodeURIComponent(next.key)}`);
  }

  look(view) {
    this.view = view;
    const heat = view === "heat";
    const there = Boolean(this.face?.heat);
    one("figure").dataset.view = heat && there ? "heat" : "photo";
    one("heat").hidden = !(heat && there);
    one("heat-legend").hidden = !(heat && there);
    one("heat-none").hidden = !(heat && !there);
    for (const input of one("views").querySelectorAll("input")) input.checked = input.value === view;
  }

  key(event) {
    if (event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowLeft") this.go(-1);
    else if (event.key === "ArrowRight") this.go(1);
    else if (["1", "2", "3"].includes(event.key)) this.label(NAMES[Number(event.key) - 1]);
    else if (event.key === "h") this.look(this.view === "heat" ? "photo" : "heat");
    else return;
    event.preventDefault();
  }

  closed() {
    const keys = [this.face?.key, this.opener];
    this.face = null;
    if (location.hash.startsWith("#face=")) history.replaceState(null, "", location.pathname + location.search);
    const links = keys.map((key) => key && document.querySelector(`main a[href="${CSS.escape(`#face=${encodeURIComponent(key)}`)}"]`));
    links.find(Boolean)?.focus();
  }
}

function path(image) {
  return image.split("/").map(encodeURIComponent).join("/");
}

function facts(face, track, base) {
  const found = [];
  if (!face.missed && !face.picture) {
    found.push(["Rank in its track", String(face.rank)], ["Smoothed quality", words.whole(face.quality_smoothed)]);
    found.push(["Around it", words.whole(face.quality_context)]);
  }
  if (track && track.last_pts > track.first_pts) found.push(["Track in view", `${(track.last_pts - track.first_pts).toFixed(1)} s`]);
  if (face.box) found.push(["Face in the picture", `${Math.round(face.box[2] - face.box[0])} × ${Math.round(face.box[3] - face.box[1])} px`]);
  if (face.frame_index !== null && face.frame_index !== undefined && !face.name) found.push(["Frame", words.grouped(face.frame_index)]);
  if (face.upscaled) found.push(["Enlarged", `${face.upscaled.toFixed(1)} times`]);
  if (face.outside) found.push(["Outside the frame", `${(100 * face.outside).toFixed(1)} %`]);
  if (face.image) found.push(["File", make("a", { href: base + path(face.image) }, face.image)]);
  return found;
}
