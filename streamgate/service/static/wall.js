// The wall: the latest best faces, newest track first, each track once. It does not move while the user points at it,
// navigates it by keyboard or has scrolled down; newer faces then wait behind a button.

import { addressOf } from "./api.js";
import { linkTo } from "./dialog.js";
import { make, one, say } from "./dom.js";
import { scoreLine } from "./measures.js";
import * as words from "./words.js";

const SHOWN = 60;
const KEPT = 240;

export class Wall {
  constructor() {
    this.faces = new Map(); // key -> face, for all known faces
    this.tiles = new Map(); // key -> {item, face}
    this.list = one("wall");
    this.newer = one("newer");
    this.stream = null;
    this.passedOnly = false;
    this.paused = false;
    this.loaded = false;
    this.newer.addEventListener("click", () => {
      this.render();
      scrollTo({ top: 0, behavior: "smooth" });
      this.list.querySelector("a")?.focus({ preventScroll: true });
    });
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.list.addEventListener("pointerleave", () => this.offer());
    this.list.addEventListener("focusout", () => setTimeout(() => this.offer()));
    addEventListener("scroll", () => this.offer(), { passive: true });
    setInterval(() => this.tick(), 5000);
  }

  set(faces) {
    this.loaded = true;
    const known = new Set(faces.map((face) => face.key));
    // After a restart of the service, its numbers start over: faces that it no longer knows are removed.
    for (const key of this.faces.keys()) if (!known.has(key)) this.faces.delete(key);
    for (const face of faces) this.faces.set(face.key, face);
    this.offer();
  }

  add(face) {
    const before = this.faces.get(face.key);
    if (before && before.number > face.number) return;
    this.faces.set(face.key, face);
    if (this.faces.size > KEPT) {
      const oldest = [...this.faces.values()].reduce((a, b) => (a.number < b.number ? a : b));
      this.faces.delete(oldest.key);
    }
    const tile = this.tiles.get(face.key);
    if (tile && !this.paused) this.refresh(tile, face); // better pictures of shown faces replace them in place
    this.offer();
  }

  filter({ stream = this.stream, passedOnly = this.passedOnly }) {
    this.stream = stream;
    this.passedOnly = passedOnly;
    this.render();
  }

  pause(paused) {
    this.paused = paused;
    this.offer();
  }

  // The faces shown, in order; the arrow buttons of the open face go through them.
  shown() {
    return [...this.list.children].map((item) => this.faces.get(item.dataset.key)).filter(Boolean);
  }

  wanted() {
    return this.sorted()
      .filter((face) => (!this.stream || face.stream === this.stream) && (!this.passedOnly || face.record.gate.passed))
      .slice(0, SHOWN);
  }

  // The best face of each track, ordered by the start of the track, which does not change while the track continues.
  sorted() {
    const best = new Map();
    for (const face of this.faces.values()) {
      const known = best.get(face.track_key);
      if (!known || face.record.rank < known.record.rank) best.set(face.track_key, face);
    }
    return [...best.values()].sort((a, b) => beganAt(b) - beganAt(a) || b.number - a.number);
  }

  held() {
    return (
      this.paused ||
      document.querySelector("dialog[open]") !== null ||
      this.list.matches(":hover") ||
      this.list.contains(document.activeElement) ||
      this.list.getBoundingClientRect().top < 0
    );
  }

  offer() {
    if (this.tiles.size && this.held()) {
      const fresh = this.wanted().filter((face) => !this.tiles.has(face.key)).length;
      this.newer.hidden = fresh === 0;
      if (fresh) say(this.newer, fresh === 1 ? "1 newer face" : `${fresh} newer faces`);
    } else {
      this.render();
    }
  }

  render() {
    this.newer.hidden = true;
    const wanted = this.wanted();
    const keys = new Set(wanted.map((face) => face.key));
    const first = this.tiles.size === 0;
    for (const [key, tile] of this.tiles) {
      if (!keys.has(key)) {
        tile.item.remove();
        this.tiles.delete(key);
      }
    }
    const fresh = wanted.filter((face) => !this.tiles.has(face.key));
    for (const face of wanted) if (this.tiles.has(face.key)) this.refresh(this.tiles.get(face.key), face);
    for (const face of fresh) {
      const item = make("li", { "data-key": face.key, class: first ? null : "fresh" });
      const tile = { item, face: null };
      this.tiles.set(face.key, tile);
      this.refresh(tile, face);
      this.list.append(item);
    }
    // A final may arrive after the final of a later track. Items already in place are not touched, so that they keep
    // the focus.
    wanted.forEach((face, place) => {
      const { item } = this.tiles.get(face.key);
      if (this.list.children[place] !== item) this.list.insertBefore(item, this.list.children[place] ?? null);
    });
    const empty = this.loaded && wanted.length === 0;
    one("wall-empty").hidden = !empty;
    if (empty) say(one("wall-empty-text"), this.emptyText());
    this.tick();
  }

  emptyText() {
    if (this.faces.size === 0) return "No faces yet. The best face of each person in view appears here.";
    if (this.stream && this.passedOnly) return `No face from ${this.stream} has passed the gate yet.`;
    return this.stream ? `No faces from ${this.stream} yet.` : "No face has passed the gate yet.";
  }

  refresh(tile, face) {
    if (tile.face?.number === face.number) return;
    const { record } = face;
    const shut = !record.gate.passed;
    const when = momentOf(face);
    if (!tile.link) {
      tile.photo = make("img", { alt: "", width: 256, height: 256, decoding: "async" });
      tile.frame = make("div", { class: "frame" }, tile.photo);
      tile.body = make("div");
      tile.link = make("a", {}, tile.frame, tile.body);
      tile.item.append(tile.link);
    }
    tile.face = face;
    tile.link.className = shut ? "tile shut" : "tile";
    tile.link.href = linkTo(face);
    tile.link.setAttribute("aria-label", labelOf(face, when));
    tile.photo.src = addressOf(face, "photo");
    tile.frame.querySelector(".inview")?.remove();
    if (face.kind === "improved") tile.frame.append(make("span", { class: "inview" }, "in view"));
    tile.time = make("time", { datetime: when?.toISOString(), title: when?.toLocaleString() });
    tile.body.replaceChildren(
      scoreLine(record, shut),
      make("div", { class: "where" }, make("span", {}, face.stream), tile.time),
      ...(shut ? [make("div", { class: "reasons" }, words.reasons(record.gate))] : []),
    );
  }

  tick() {
    const now = Date.now();
    for (const { face, time } of this.tiles.values()) {
      const when = momentOf(face);
      if (when) say(time, words.age(when, now));
    }
    const held = this.paused ? "paused" : "";
    const passing = this.stream ? `from ${this.stream}` : "";
    say(one("wall-note"), [passing, held].filter(Boolean).join(" · "));
  }

  // Arrow keys move through the grid as it is laid out.
  move(event) {
    const links = [...this.list.querySelectorAll("a")];
    const place = links.indexOf(document.activeElement);
    if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = getComputedStyle(this.list).gridTemplateColumns.split(" ").length;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const target = { Home: 0, End: links.length - 1 }[event.key] ?? place + (steps[event.key] ?? 0);
    if (target === place && !(event.key in steps)) return;
    event.preventDefault();
    links[target]?.focus();
  }
}

// When the track of a face started, in milliseconds.
function beganAt({ record, number }) {
  if (!record.captured_at) return number;
  return new Date(record.captured_at).getTime() - 1000 * (record.pts_seconds - record.track.first_pts);
}

export function momentOf(face) {
  const text = face.record.captured_at;
  return text ? new Date(text) : null;
}

function labelOf(face, when) {
  return [`Face from ${face.stream}`, ...words.judged(face.record), ...(when ? [words.clock(when)] : [])].join(", ");
}
