// The dialog for one face, with the near misses of its track and the buttons for labelling it.

import { FaceDialog, placeFacts } from "./dialog.js";
import { make, one, say } from "./dom.js";
import { NAMES } from "./labels.js";
import { jpeg, missTile, momentOf } from "./tiles.js";
import { picksOf, pointsOf } from "./tracks.js";
import * as words from "./words.js";

export class Face extends FaceDialog {
  constructor({ faces, tracks, heats, labels, base, sift }) {
    super({ clock: words.position });
    Object.assign(this, { faces, tracks, heats, labels, base, sift });
    say(one("key-chosen"), "kept faces and this face");
    this.small = make("p", { class: "note", id: "photo-small", hidden: true }, "The full-size picture is missing; this is a small copy.");
    one("heat-none").after(this.small);
    one("photo").addEventListener("error", () => this.shrink());
    this.keys = NAMES.map((name, place) => labelKey(name, String(place + 1)));
    for (const button of this.keys) button.addEventListener("click", () => this.label(button.dataset.label));
    one("measures-title").before(make("div", { class: "label-keys", id: "label-keys", role: "group", "aria-label": "Label of this face" }, ...this.keys));
    this.near = tileSection("near", "Near misses in this track");
    this.spaced = tileSection("spaced", "Faces of this track, evenly spaced in time");
    one("course").after(this.near, this.spaced);
    labels.listeners.push(() => this.labelled());
  }

  open(key) {
    const face = this.faces.get(key);
    if (face) {
      this.show(face);
      this.reveal();
    } else if (this.dialog.open) this.dialog.close();
  }

  show(face) {
    const track = this.tracks.get(face.track_key);
    this.small.hidden = Boolean(face.image) || !face.thumbnail;
    this.draw(face, {
      title: face.source,
      when: [face.person, face.picture ? "" : `track ${face.track_id}`, momentOf(face), face.missed && !face.spaced && !face.picture ? "near miss" : ""].filter(Boolean).join(" · "),
      photo: face.image ? this.base + path(face.image) : jpeg(face.thumbnail),
      heat: this.heats.picture(face.heat),
      judged: face,
      facts: factsOf(face, track, this.base),
    });
    this.labelled();
    this.course(face, track);
  }

  // The picture in the folder is missing: show the small one.
  shrink() {
    if (!this.face?.image || one("photo").src.startsWith("data:")) return;
    one("photo").src = jpeg(this.face.thumbnail);
    this.small.hidden = false;
  }

  course(face, track) {
    const moving = track && track.series.length > 1;
    one("course").hidden = !moving;
    if (moving) this.chart.set(pointsOf(track), face.pts_seconds, track.first_pts, track.last_pts, picksOf(track));
    for (const [section, tiles] of [[this.near, track && !track.picture ? track.misses : []], [this.spaced, track?.spaced ?? []]]) {
      section.hidden = !tiles.length;
      section.querySelector("ul").replaceChildren(...tiles.map((tile) => missTile(tile, this.heats)));
    }
    this.labels.tell();
  }

  // The faces through which the arrow keys move: the search results, if the open face is one of them; otherwise all faces
  // of the open face's kind: rejected faces in pictures, evenly spaced faces, the near misses of its track, or the kept
  // faces in the order of the page.
  beside() {
    const { face, sift } = this;
    if (sift.found?.includes(face)) return sift.found;
    const all = [...this.faces.values()];
    if (face.picture && face.missed) return all.filter((each) => each.picture && each.missed);
    if (face.spaced) return all.filter((each) => each.spaced);
    return face.missed ? this.tracks.get(face.track_key).misses : all.filter((each) => !each.missed);
  }

  // Shows the face at once, because the next key may be pressed before the hashchange event.
  go(step) {
    const next = super.go(step);
    if (next) this.show(next);
  }

  key(event) {
    const name = NAMES[["1", "2", "3"].indexOf(event.key)];
    if (!name || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return super.key(event);
    this.label(name);
    event.preventDefault();
  }

  // Sets a label and moves on to the next face.
  label(name) {
    if (this.labels.set(this.face, name)) this.go(1);
  }

  labelled() {
    const label = this.face && this.labels.of(this.face);
    for (const button of this.keys) button.setAttribute("aria-pressed", String(button.dataset.label === label));
  }
}

function labelKey(name, key) {
  const text = name[0].toUpperCase() + name.slice(1);
  return make("button", { type: "button", class: "toggle", "data-label": name, "aria-pressed": "false", "aria-keyshortcuts": key }, `${text} `, make("kbd", {}, key));
}

function tileSection(id, title) {
  return make("div", { class: "course", id, hidden: true }, make("h3", {}, title), make("ul", { class: "misses", id: `${id}-list` }));
}

function path(image) {
  return image.split("/").map(encodeURIComponent).join("/");
}

function factsOf(face, track, base) {
  const found = [];
  if (!face.missed && !face.picture) {
    found.push(["Rank in the track", String(face.rank)], ["Smoothed quality", words.whole(face.quality_smoothed)]);
    found.push(["Mean quality around this time", words.whole(face.quality_context)]);
  }
  if (track && track.last_pts > track.first_pts) found.push(["Track length", `${(track.last_pts - track.first_pts).toFixed(1)} s`]);
  if (face.frame_index !== null && face.frame_index !== undefined && !face.name) found.push(["Frame", words.grouped(face.frame_index)]);
  found.push(...placeFacts(face));
  if (face.image) found.push(["File", make("a", { href: base + path(face.image) }, face.image)]);
  return found;
}
