// The dialog for one face: its picture and heatmap, its measures as bars, its track's quality over time.

import { Chart } from "./chart.js";
import { make, one, say } from "./dom.js";
import { measureRows } from "./measures.js";
import * as words from "./words.js";

// Subclasses implement `open(key)`, which shows a face, and `beside()`, which returns the faces through which the
// arrow keys move.
export class FaceDialog {
  // `clock`: formats a time in the source, as for a chart.
  constructor({ clock = null } = {}) {
    this.dialog = one("detail");
    this.chart = new Chart(one("chart"), one("course-readout"), { openKey: one("key-open"), clock });
    this.view = "photo";
    this.face = null;
    one("close").addEventListener("click", () => this.dialog.close());
    one("previous").addEventListener("click", () => this.go(-1));
    one("next").addEventListener("click", () => this.go(1));
    one("views").addEventListener("change", (event) => this.look(event.target.value));
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close(); // a click outside the dialog
    });
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.addEventListener("close", () => this.closed());
    addEventListener("hashchange", () => this.follow());
  }

  // Opens the face named in the address, if any.
  follow() {
    const key = named();
    if (key) this.open(key);
    else if (this.dialog.open) this.dialog.close();
  }

  // Opens the dialog on the face that `draw` has put into it.
  reveal() {
    if (!this.dialog.open) {
      this.opener = this.face.key;
      this.dialog.showModal();
      one("detail-title").focus({ preventScroll: true });
    }
    this.dialog.scrollTop = 0;
    this.chart.render();
  }

  // `face`: {key, ...}; `judged`: its {quality, gate, measures}; `photo`, `heat`: addresses of its pictures, `heat` may be null;
  // `facts`: [name, text or element].
  draw(face, { title, when, photo, heat, judged, facts }) {
    this.face = face;
    say(one("detail-title"), title);
    say(one("detail-when"), when);
    one("photo").src = photo;
    one("photo").alt = `Face from ${title}`;
    if (heat) one("heat").src = heat;
    else one("heat").removeAttribute("src");
    this.look(this.view);
    const { quality, gate } = judged;
    say(one("quality"), words.whole(quality));
    one("gate").className = gate.passed ? "gate" : "gate shut";
    say(one("gate"), gate.passed ? "Passed the gate" : gate.reasons.length ? `Rejected: ${words.reasons(gate)}` : "Not fully scored");
    one("measures").replaceChildren(...measureRows(judged));
    one("meta").replaceChildren(...facts.map(([term, what]) => make("div", {}, make("dt", {}, term), make("dd", {}, what))));
    this.enable();
  }

  // Index of the open face among the faces of `beside()`.
  place() {
    return this.beside().findIndex((face) => face.key === this.face.key);
  }

  enable() {
    const place = this.place();
    one("previous").disabled = place <= 0;
    one("next").disabled = place < 0 || place >= this.beside().length - 1;
  }

  // Opens the next (1) or previous (-1) face and returns it, if there is one.
  go(step) {
    const place = this.face ? this.place() : -1;
    const next = place < 0 ? null : this.beside()[place + step];
    if (next) location.replace(linkTo(next));
    return next;
  }

  look(view) {
    this.view = view;
    const heat = view === "heat";
    const there = one("heat").hasAttribute("src");
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
    // The event arrives after the dialog has closed. By then, another face may be open, or the address may name one.
    if (this.dialog.open || !this.face) return;
    this.leave(this.face.key);
    const faces = [this.face, { key: this.opener }];
    this.face = null;
    const links = faces.map((face) => face && document.querySelector(`main a[href="${CSS.escape(linkTo(face))}"]`));
    links.find(Boolean)?.focus();
  }

  // Takes a face out of the address, unless the address names another one.
  leave(key) {
    if (named() === key) history.replaceState(null, "", location.pathname + location.search);
  }
}

// The key of the face that the address names, or null.
function named() {
  const match = /^#face=(.+)$/.exec(location.hash);
  try {
    return match && decodeURIComponent(match[1]);
  } catch {
    return null; // a damaged address
  }
}

// The address that opens a face.
export function linkTo(face) {
  return `#face=${encodeURIComponent(face.key)}`;
}

// The size of a face in its picture, its enlargement, and its share outside the frame, as far as they are known.
export function placeFacts({ box, upscaled, outside }) {
  const found = [];
  if (box) found.push(["Size of the face in the picture", `${Math.round(box[2] - box[0])} × ${Math.round(box[3] - box[1])} px`]);
  if (upscaled) found.push(["Enlarged", `${upscaled.toFixed(1)} times`]);
  if (outside) found.push(["Outside the frame", `${(100 * outside).toFixed(1)} %`]);
  return found;
}
