// Persons, or sources if persons were not identified: their best faces, then their tracks.

import { make } from "./dom.js";
import { faceTile, missTile, momentOf, placeOf } from "./tiles.js";
import { trackCard } from "./tracks.js";
import * as words from "./words.js";

const UNNAMED = { nobody: "Faces not assigned to a person", nothing: "Nothing kept" };
const ROW = matchMedia("(max-width: 720px)").matches ? 6 : 12; // faces shown before "Show all"
const GROUPS = 16; // groups shown before "Show more"
const OPEN_TRACKS = 120; // if the page has more tracks than this, they are collapsed

export class Groups {
  // `elements`: the elements to put on the page.
  constructor(context) {
    this.context = context;
    // Persons with a single picture share a section; otherwise the page would consist of headings.
    const alone = context.groups.filter(isSingle);
    const singles = alone.length > 1 ? alone : [];
    this.left = context.groups.filter((group) => !singles.includes(group));
    const nothing = this.left.at(-1)?.kind === "nothing" ? [this.left.pop()] : [];
    this.place = make("div");
    this.more = make("button", { type: "button", class: "toggle all" });
    this.more.addEventListener("click", () => {
      const first = this.draw(GROUPS);
      first?.querySelector("h2").focus();
    });
    this.elements = [this.place, this.more];
    if (singles.length) this.elements.push(singlesSection(singles, context));
    this.elements.push(...nothing.map((group) => groupSection(group, context)));
    this.draw(GROUPS);
    addEventListener("beforeprint", () => this.draw(Infinity));
  }

  // Draws `count` more groups; returns the first of them.
  draw(count) {
    const sections = this.left.splice(0, count).map((group) => groupSection(group, this.context));
    this.place.append(...sections);
    this.more.hidden = !this.left.length;
    const what = this.left[0]?.kind === "source" ? "source" : "person";
    this.more.textContent = this.left.length > GROUPS ? `Show ${GROUPS} more of ${words.count(this.left.length, what)}` : `Show the other ${words.count(this.left.length, what)}`;
    return sections[0];
  }

  // The heading of a group by its key; draws the group if needed.
  find(key) {
    if (!document.getElementById(`group-${key}`) && this.left.some((group) => group.key === key)) this.draw(Infinity);
    return document.getElementById(`group-${key}`);
  }
}

// `streamgate people` takes ids; the page shows numbers.
export function titleOf(group) {
  if (group.kind !== "person" || group.name !== group.key) return group.name || UNNAMED[group.kind];
  const number = /^p0*([1-9]\d*)$/.exec(group.key);
  return number ? `Person ${number[1]}` : group.key;
}

function isSingle(group) {
  return group.kind === "person" && !group.page && group.faces.length === 1 && group.face_count === 1 && group.faces[0].picture && !group.track_count;
}

function singlesSection(singles, context) {
  const section = make("section", { class: "group person", "aria-labelledby": "group-singles" });
  const note = `${words.count(singles.length, "person")}, each with only one picture`;
  section.append(make("div", { class: "heading" }, make("h2", { id: "group-singles" }, "Seen once"), make("p", { class: "note" }, note)));
  const tiles = singles.map((group) => () => faceTile(group.faces[0], [group.title, momentOf(group.faces[0])], context.heats));
  section.append(...row(tiles, context, 2 * ROW));
  return section;
}

function groupSection(group, context) {
  const id = `group-${group.key}`;
  const section = make("section", { class: `group ${group.kind}`, "aria-labelledby": id });
  const heading = make("div", { class: "heading" }, make("h2", { id, tabindex: "-1" }, group.title), make("p", { class: "note" }, noteOf(group)));
  const further = group.track_count ? " and tracks" : "";
  if (group.page) heading.append(make("a", { class: "more", href: group.page }, `All ${words.count(group.face_count, "face")}${further}`));
  section.append(heading);
  if (group.faces.length) section.append(...row(group.faces.map((face) => () => faceTile(face, whereOf(face, group), context.heats)), context));
  else if (group.kind === "source") section.append(make("p", { class: "nothing note" }, "No face was kept."));
  if (group.page) return section;
  const rejected = group.tracks.filter((track) => track.picture).flatMap((track) => track.misses);
  if (rejected.length) {
    if (group.kind !== "nothing") section.append(make("h3", { class: "rejected" }, `Rejected: ${words.grouped(rejected.length)}`));
    section.append(...row(rejected.map((miss) => () => missTile(miss, context.heats, placeOf(miss))), context));
  }
  const tracks = group.tracks.filter((track) => !track.picture);
  if (tracks.length) section.append(folded(tracks, group, context));
  return section;
}

// A row of tiles, created when they are shown: the first ones at once, the others on "Show all".
function row(tiles, { heats, labels }, first = ROW) {
  const list = make("ul", { class: "wall faces" });
  list.append(...tiles.slice(0, first).map((tile) => tile()));
  if (tiles.length <= first) return [list];
  const button = make("button", { type: "button", class: "toggle all" }, `Show all ${words.grouped(tiles.length)}`);
  button.addEventListener("click", () => {
    list.append(...tiles.slice(first).map((tile) => tile()));
    button.remove();
    list.children[first].querySelector("a").focus();
    if (document.body.classList.contains("heated")) heats.layAll();
    labels.tell();
  });
  return [list, button];
}

function folded(all, group, context) {
  // Tracks without a kept face have less to show, so several of them share a row.
  const lists = [true, false].map((kept) => [make("ul", { class: kept ? "tracks" : "tracks small" }), all.filter((track) => Boolean(track.kept) === kept)]);
  let drawn = false;
  const draw = () => {
    if (!drawn) for (const [list, tracks] of lists) list.append(...tracks.map((track) => make("li", {}, trackCard(track, group, context))));
    drawn = true;
  };
  const box = make("details", { class: "folded" }, make("summary", {}, words.count(all.length, "track")), ...lists.filter(([, tracks]) => tracks.length).map(([list]) => list));
  box.addEventListener("toggle", () => box.open && draw());
  addEventListener("beforeprint", () => box.open && draw());
  if ([...context.tracks.values()].filter((track) => !track.picture).length <= OPEN_TRACKS) {
    draw();
    box.open = true;
  }
  return box;
}

function whereOf(face, group) {
  if (face.picture) return [momentOf(face)];
  if (group.kind === "source" || group.source_count === 1) return [`track ${face.track_id}`, momentOf(face)];
  return [face.source.split("/").at(-1), momentOf(face)];
}

function noteOf(group) {
  const tracks = group.track_count ? [words.count(group.track_count, "track")] : [];
  if (group.kind === "nothing") {
    const parts = tracks.map((text) => `${text} without a kept face`);
    if (group.picture_count) parts.push(`${words.count(group.picture_count, "face")} in pictures`);
    return parts.join(" · ");
  }
  const parts = group.kind === "person" ? [group.key] : [];
  parts.push(words.count(group.face_count, "face"), ...tracks);
  if (group.kind === "person" || group.kind === "nobody") {
    parts.push(group.source_count === 1 && group.faces.length ? group.faces[0].source : words.count(group.source_count, "source"));
  }
  if (group.best !== null) parts.push(`best ${words.whole(group.best)}`);
  return parts.join(" · ");
}
