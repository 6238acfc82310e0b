// A person, or a source where persons are not known: its best faces, then its tracks.

import { make } from "./dom.js";
import { faceTile, momentOf } from "./tiles.js";
import { trackCard } from "./tracks.js";
import * as words from "./words.js";

const UNNAMED = { nobody: "Faces of nobody in particular", nothing: "Nothing kept" };
const ROW = 12; // faces shown before one asks for all
const OPEN_TRACKS = 120; // with more tracks than this on the page they are folded away

export function groupSection(group, context) {
  const id = `group-${group.key}`;
  const section = make("section", { class: `group ${group.kind}`, "aria-labelledby": id });
  const heading = make("div", { class: "heading" }, make("h2", { id }, nameOf(group)), make("p", { class: "note" }, noteOf(group)));
  if (group.page) heading.append(make("a", { class: "more", href: group.page }, `All ${words.count(group.face_count, "face")} and tracks`));
  section.append(heading);
  if (group.faces.length) section.append(...row(group, context));
  else if (group.kind === "source") section.append(make("p", { class: "nothing note" }, "No face was kept."));
  if (group.tracks.length && !group.page) section.append(folded(group, context));
  return section;
}

function row(group, { heats }) {
  const list = make("ul", { class: "wall faces" });
  const show = (faces) => list.append(...faces.map((face) => faceTile(face, whereOf(face, group), heats)));
  show(group.faces.slice(0, ROW));
  const left = group.faces.length - ROW;
  if (left <= 0) return [list];
  const button = make("button", { type: "button", class: "toggle all" }, `Show all ${words.grouped(group.faces.length)}`);
  button.addEventListener("click", () => {
    show(group.faces.slice(ROW));
    button.remove();
    list.children[ROW].querySelector("a").focus();
    if (document.body.classList.contains("heated")) heats.layAll();
  });
  return [list, button];
}

function folded(group, context) {
  // Tracks that keep nothing have less to show: several stand in a row.
  const lists = [true, false].map((kept) => [make("ul", { class: kept ? "tracks" : "tracks small" }), group.tracks.filter((track) => Boolean(track.kept) === kept)]);
  let drawn = false;
  const draw = () => {
    if (!drawn) for (const [list, tracks] of lists) list.append(...tracks.map((track) => make("li", {}, trackCard(track, group, context))));
    drawn = true;
  };
  const box = make("details", { class: "folded" }, make("summary", {}, words.count(group.tracks.length, "track")), ...lists.filter(([, tracks]) => tracks.length).map(([list]) => list));
  box.addEventListener("toggle", () => box.open && draw());
  addEventListener("beforeprint", () => box.open && draw());
  if (context.tracks.size <= OPEN_TRACKS) {
    draw();
    box.open = true;
  }
  return box;
}

function whereOf(face, group) {
  if (group.kind === "source" || group.source_count === 1) {
    return face.name ? [face.name] : [`track ${face.track_id}`, momentOf(face)];
  }
  return [fileOf(face.source), momentOf(face)];
}

function fileOf(source) {
  return source.split("/").at(-1);
}

// `streamgate people` takes the ids; people read numbers.
function nameOf(group) {
  if (group.kind !== "person" || group.name !== group.key) return group.name || UNNAMED[group.kind];
  const number = /^p0*([1-9]\d*)$/.exec(group.key);
  return number ? `Person ${number[1]}` : group.key;
}

function noteOf(group) {
  if (group.kind === "nothing") return `${words.count(group.track_count, "track")} without a face that passed`;
  const parts = group.kind === "person" ? [group.key] : [];
  parts.push(words.count(group.face_count, "face"), words.count(group.track_count, "track"));
  if (group.kind !== "source") {
    parts.push(group.source_count === 1 && group.faces.length ? group.faces[0].source : words.count(group.source_count, "source"));
  }
  if (group.best !== null) parts.push(`best ${words.whole(group.best)}`);
  return parts.join(" · ");
}
