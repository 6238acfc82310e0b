// Labels that users give faces: good, usable, bad. Stored in the browser and downloaded as labels.csv, or written by
// `streamgate label` if it serves the page.

import { make, one, say } from "./dom.js";
import * as words from "./words.js";

export const NAMES = ["good", "usable", "bad"];

export class Labels {
  constructor({ served, base }) {
    this.served = served;
    // All pages of one report share their labels.
    this.store = `streamgate-labels:${new URL(base || "./", location.href).pathname}`;
    this.all = new Map();
    this.listeners = [];
    this.stored = Promise.resolve();
    this.bar = one("labels");
    one("labels-download").hidden = served;
    one("labels-download").addEventListener("click", () => this.download());
  }

  // Reads the labels set earlier.
  async load() {
    try {
      const found = this.served ? await (await fetch("/labels")).json() : JSON.parse(localStorage.getItem(this.store) ?? "{}");
      for (const [key, label] of Object.entries(found)) if (NAMES.includes(label)) this.all.set(key, label);
    } catch (error) {
      this.fail(error);
    }
    this.tell();
  }

  of(face) {
    return this.all.get(keyOf(face)) ?? null;
  }

  // Sets the label of a face; setting the same label again removes it.
  set(face, label) {
    const key = keyOf(face);
    const now = this.all.get(key) === label ? null : label;
    if (now) this.all.set(key, now);
    else this.all.delete(key);
    this.tell();
    // Labels are sent one after the other, so that an earlier label never arrives last if the user types fast.
    this.stored = this.stored.then(() => this.keep(face, now)).catch((error) => this.fail(error));
    return now;
  }

  async keep(face, label) {
    if (this.served) await this.send(face, label);
    else localStorage.setItem(this.store, JSON.stringify(Object.fromEntries(this.all)));
  }

  async send(face, label) {
    const [source_id, track_id, pts_seconds] = partsOf(face);
    const answer = await fetch("/labels", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ source_id, track_id, pts_seconds, label }),
    });
    if (!answer.ok) throw new Error(await answer.text());
  }

  download() {
    const rows = [...this.all].map(([key, label]) => [...JSON.parse(key), label]);
    rows.sort((a, b) => (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : a[1] - b[1] || a[2] - b[2]));
    const lines = rows.map(([source, track, pts, label]) => [quoted(source), track, pts.toFixed(6), label].join(","));
    const text = `source_id,track_id,pts_seconds,label\n${lines.map((line) => `${line}\n`).join("")}`;
    const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "text/csv" })), download: "labels.csv" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  // Shows each tile's label, and the counts.
  tell() {
    for (const link of document.querySelectorAll("a[data-label-key]")) mark(link, this.all.get(link.dataset.labelKey));
    const counts = NAMES.map((name) => [name, [...this.all.values()].filter((label) => label === name).length]);
    this.bar.hidden = !this.all.size && !this.served;
    const text = this.all.size ? counts.filter(([, count]) => count).map(([name, count]) => `${words.grouped(count)} ${name}`).join(", ") : "none yet; to label a face, open it and press 1, 2 or 3";
    say(one("labels-count"), `Labels: ${text}`);
    for (const listen of this.listeners) listen();
  }

  fail(error) {
    this.bar.hidden = false;
    say(one("labels-count"), `The labels could not be loaded or saved: ${error.message}`);
  }
}

// Identifies a face by source, track and time.
export function keyOf(face) {
  return JSON.stringify(partsOf(face));
}

function partsOf(face) {
  const cut = face.track_key.lastIndexOf("/");
  return [face.track_key.slice(0, cut), Number(face.track_key.slice(cut + 1)), face.pts_seconds];
}

function mark(link, label) {
  if (label) link.dataset.label = label;
  else delete link.dataset.label;
}

function quoted(text) {
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
