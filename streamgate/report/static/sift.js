// Search, filters and order: shows the matching faces as one list instead of the groups.

import { make, one, say } from "./dom.js";
import { faceTile, missTile, placeOf } from "./tiles.js";
import * as words from "./words.js";

const STEP = 60; // faces drawn before "Show more"
const KEPT = "kept";

export class Sift {
  // `faces` by key, in the order of the page; `changed` is called when the list is shown, updated or hidden.
  constructor({ faces, heats, groups, part }, changed) {
    this.all = [...faces.values()].filter((face) => !face.spaced);
    this.heats = heats;
    this.part = part;
    this.changed = changed;
    this.found = null;
    if (this.all.length < 2) return;
    this.fields = fieldsOf(this.all, groups);
    this.clear = make("button", { type: "reset", class: "quiet", hidden: true }, "Clear");
    this.count = make("p", { class: "note", role: "status" });
    this.form = make("form", { class: "sift", role: "search", "aria-label": "Faces" }, ...Object.values(this.fields).map(({ label }) => label), make("div", { class: "told" }, this.count, this.clear));
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("input", () => this.render());
    this.form.addEventListener("reset", () => setTimeout(() => this.render()));
    one("sift").append(this.form);
    this.render();
  }

  // The values of the existing fields, {name: text}.
  said() {
    return Object.fromEntries(Object.entries(this.fields).map(([name, { input }]) => [name, input.value.trim()]));
  }

  render() {
    const said = this.said();
    const active = Object.entries(said).some(([name, text]) => text !== (this.fields[name].usual ?? ""));
    this.found = active ? sifted(this.all, said) : null;
    this.clear.hidden = !active;
    one("groups").hidden = active;
    one("found").hidden = !active;
    const kept = this.all.filter((face) => !face.missed).length;
    const told = active ? `${words.grouped(this.found.length)} of ${words.count(this.all.length, "face")}` : `${words.count(kept, "face")} kept`;
    say(this.count, this.part ? `${told} on this page` : told);
    one("found").replaceChildren(...(active ? this.list() : []));
    this.heats.prune();
    this.changed();
  }

  list() {
    if (!this.found.length) return [make("p", { class: "empty" }, "No face matches. Change or clear the filters.")];
    const list = make("ul", { class: "wall faces" });
    const more = make("button", { type: "button", class: "toggle all" });
    const draw = () => {
      const next = this.found.slice(list.children.length, list.children.length + STEP);
      list.append(...next.map((face) => (face.missed ? missTile(face, this.heats, placeOf(face)) : faceTile(face, placeOf(face), this.heats))));
      const left = this.found.length - list.children.length;
      more.hidden = !left;
      say(more, left > STEP ? `Show ${STEP} more of ${words.grouped(left)}` : `Show the other ${left}`);
    };
    more.addEventListener("click", () => {
      const place = list.children.length;
      draw();
      list.children[place].querySelector("a").focus();
      this.changed();
    });
    draw();
    return [list, more];
  }
}

function fieldsOf(all, groups) {
  const fields = { text: field("Search", make("input", { type: "search", placeholder: "file, source, person", autocomplete: "off", spellcheck: "false" }), "wide") };
  const persons = groups.filter((group) => group.kind === "person").map((group) => [group.key, group.title]);
  if (persons.length > 1) fields.person = choice("Person", [["", "All persons"], ...persons]);
  const sources = [...new Set(all.map((face) => face.source))].sort();
  if (sources.length > 1) fields.source = choice("Source", [["", "All sources"], ...sources.map((name) => [name, name])]);
  const missed = all.filter((face) => face.missed);
  if (missed.length) {
    const counts = new Map();
    for (const face of all) for (const name of face.gate.reasons) counts.set(name, (counts.get(name) ?? 0) + 1);
    const reasons = [...counts].sort((one, other) => other[1] - one[1]).map(([name, count]) => [name, `${words.reason(name)} (${words.grouped(count)})`]);
    const what = all.every((face) => face.picture) ? "Rejected" : "Near misses";
    fields.show = choice("Show", [[KEPT, "Kept faces"], ["missed", `${what} (${words.grouped(missed.length)})`]], [["Reason for rejection", reasons]]);
    fields.show.usual = KEPT;
  }
  fields.least = field("Minimum quality", make("input", { type: "number", min: 0, max: 100, step: 1, inputmode: "numeric", placeholder: "0" }));
  const grouped = persons.length ? "By person" : "By source";
  const scored = words.measured(all[0].measures).filter(({ name }) => all.some((face) => face.measures[name]?.status === "ok"));
  const measures = scored.map(({ name, label }) => [`measure:${name}`, label]);
  fields.order = choice("Order", [["", grouped], ["best", "Best first"], ["worst", "Worst first"], ["time", "Source and time"]], [["Lowest first", measures]]);
  return fields;
}

function field(name, input, kind = "") {
  return { input, label: make("label", { class: kind }, make("span", {}, name), input) };
}

function choice(name, options, groups = []) {
  const option = ([value, text]) => make("option", { value }, text);
  return field(name, make("select", {}, ...options.map(option), ...groups.filter(([, inside]) => inside.length).map(([label, inside]) => make("optgroup", { label }, ...inside.map(option)))));
}

function sifted(all, { text, person = "", source = "", show = KEPT, least, order }) {
  const parts = text.toLowerCase().split(/\s+/).filter(Boolean);
  const from = least === "" ? null : Number(least);
  const fits = (face) =>
    (show === KEPT ? !face.missed : show === "missed" ? face.missed : face.gate.reasons.includes(show)) &&
    (!person || face.group === person) &&
    (!source || face.source === source) &&
    (from === null || (face.quality !== null && face.quality >= from)) &&
    parts.every((part) => textOf(face).includes(part));
  const found = all.filter(fits);
  const by = orderOf(order);
  return by ? found.sort(by) : found;
}

function textOf(face) {
  face.text ??= [face.source, face.name, face.person, face.group, face.picture ? "" : `track ${face.track_id}`].filter(Boolean).join("\n").toLowerCase();
  return face.text;
}

// Faces without a value come last in every order.
function orderOf(order) {
  if (order === "best" || order === "worst") return byValue((face) => face.quality, order === "best" ? -1 : 1);
  if (order === "time") return (one, other) => (one.source < other.source ? -1 : one.source > other.source ? 1 : one.pts_seconds - other.pts_seconds);
  if (order.startsWith("measure:")) return byValue((face) => face.measures[order.slice(8)]?.scalar, 1);
  return null;
}

function byValue(value, sign) {
  return (one, other) => {
    const [mine, theirs] = [value(one) ?? null, value(other) ?? null];
    if (mine === null || theirs === null) return (mine === null) - (theirs === null);
    return sign * (mine - theirs);
  };
}
