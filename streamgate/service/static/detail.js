// One face opened: its picture and heatmap, its measures as bars, its track's quality over time.

import { addressOf, ask, Missing } from "./api.js";
import { Chart } from "./chart.js";
import { make, one, say } from "./dom.js";
import { measureRows } from "./measures.js";
import { momentOf } from "./wall.js";
import * as words from "./words.js";

export class Detail {
  constructor(wall) {
    this.wall = wall;
    this.dialog = one("detail");
    this.chart = new Chart(one("chart"), one("course-readout"), { openKey: one("key-open") });
    this.view = "photo";
    this.face = null;
    one("close").addEventListener("click", () => this.dialog.close());
    one("newer-face").addEventListener("click", () => this.go(-1));
    one("older-face").addEventListener("click", () => this.go(1));
    one("views").addEventListener("change", (event) => this.look(event.target.value));
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // beside it
    });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("close", () => this.closed());
    addEventListener("hashchange", () => this.follow());
  }

  // Opens the face that the address names, if it names one.
  follow() {
    const match = /^#face=(.+)$/.exec(location.hash);
    if (match) this.open(decodeURIComponent(match[1]));
    else if (this.dialog.open) this.dialog.close();
  }

  async open(key) {
    this.wantedKey = key;
    let face;
    try {
      face = await ask(addressOf({ key }));
    } catch (error) {
      if (this.wantedKey === key) this.leave();
      if (!(error instanceof Missing)) console.warn(error);
      return;
    }
    if (this.wantedKey !== key) return;
    this.show(face);
    if (!this.dialog.open) {
      this.dialog.showModal();
      one("detail-title").focus({ preventScroll: true });
    }
    this.dialog.scrollTop = 0;
    this.chart.render();
  }

  // A better picture, or the final, of the face that is open.
  async renew(face) {
    if (!this.dialog.open || this.face?.key !== face.key) return;
    const found = await ask(addressOf(face)).catch(() => null);
    if (found && this.face?.key === found.key) this.show(found);
  }

  show(face) {
    this.face = face;
    const { record } = face;
    const when = momentOf(face);
    say(one("detail-title"), face.stream);
    say(one("detail-when"), when ? `${day(when)}${face.kind === "improved" ? " · still in view" : ""}` : "");
    one("photo").src = addressOf(face, "photo");
    one("photo").alt = `Face from ${face.stream}`;
    one("heat").alt = "IFQA's map over the face: red where it does not look like a clean photograph";
    one("heat").src = face.heatmap ? addressOf(face, "heatmap") : "";
    if (!face.heatmap) one("heat").removeAttribute("src");
    this.look(this.view);

    say(one("quality"), words.whole(record.quality));
    const gate = one("gate");
    gate.className = record.gate.passed ? "gate" : "gate shut";
    say(gate, record.gate.passed ? "Passed the gate" : `Rejected: ${words.reasons(record.gate)}`);
    one("measures").replaceChildren(...measureRows(record));

    this.chart.set(face.series, record.pts_seconds, record.track.first_pts, record.track.last_pts);
    one("meta").replaceChildren(...facts(face).map(([term, text]) => make("div", {}, make("dt", {}, term), make("dd", {}, text))));
    this.enable();
  }

  enable() {
    const faces = this.wall.shown();
    const place = faces.findIndex((face) => face.key === this.face.key);
    one("newer-face").disabled = place <= 0;
    one("older-face").disabled = place < 0 || place >= faces.length - 1;
  }

  go(step) {
    const faces = this.wall.shown();
    const place = faces.findIndex((face) => face.key === this.face?.key);
    const next = place < 0 ? null : faces[place + step];
    if (next) location.replace(`#face=${encodeURIComponent(next.key)}`);
  }

  look(view) {
    this.view = view;
    const heat = view === "heat";
    const there = Boolean(this.face?.heatmap);
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
    else if (event.key === "h") this.look(this.view === "heat" ? "photo" : "heat");
    else return;
    event.preventDefault();
  }

  closed() {
    const key = this.face?.key;
    this.face = null;
    this.wantedKey = null;
    this.leave();
    const item = [...this.wall.list.children].find((each) => each.dataset.key === key);
    item?.querySelector("a").focus();
  }

  leave() {
    if (location.hash.startsWith("#face=")) history.replaceState(null, "", location.pathname);
  }
}

function facts({ record, image }) {
  const { track, box } = record;
  const found = [
    ["Smoothed quality", words.whole(record.quality_smoothed)],
    ["Around it", words.whole(record.quality_context)],
    ["Track", `${record.track_id}, rank ${record.rank}`],
    ["In view", `${(track.last_pts - track.first_pts).toFixed(1)} s`],
    ["Faces evaluated", `${words.grouped(track.frames_scored)} of ${words.grouped(track.frames_seen)} seen`],
    ["Face in the picture", `${Math.round(box[2] - box[0])} × ${Math.round(box[3] - box[1])} px`],
  ];
  if (record.stream) found.push(["Taken from", record.stream === "main" ? "main stream" : "substream"]);
  if (record.upscaled) found.push(["Enlarged", `${record.upscaled.toFixed(1)} times`]);
  if (record.outside) found.push(["Outside the frame", `${(100 * record.outside).toFixed(1)} %`]);
  if (image) found.push(["File", image]);
  return found;
}

function day(moment) {
  return `${words.day(moment)}, ${words.clock(moment)}`;
}
