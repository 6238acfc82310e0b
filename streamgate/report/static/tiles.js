// Faces as tiles that open.

import { linkTo } from "./dialog.js";
import { make } from "./dom.js";
import { keyOf } from "./labels.js";
import { scoreLine } from "./measures.js";
import * as words from "./words.js";

export const jpeg = (text) => (text ? `data:image/jpeg;base64,${text}` : "");

// A kept face; `where` says which one it is beside its neighbours.
export function faceTile(face, where, heats) {
  const shut = !face.gate.passed;
  const frame = framed(face);
  const link = make(
    "a",
    { class: shut ? "tile shut" : "tile", href: linkTo(face), "aria-label": labelOf(face), "data-label-key": keyOf(face) },
    frame,
    scoreLine(face, shut),
    whereLine(face, where),
  );
  if (shut) link.append(make("span", { class: "reasons" }, words.reasons(face.gate)));
  heats.attach(link, frame, face.heat);
  return make("li", {}, link);
}

// A face that nearly passed, or one of those that are evenly spaced.
export function missTile(miss, heats, where = [momentOf(miss)]) {
  const frame = framed(miss);
  const link = make(
    "a",
    { class: "tile miss", href: linkTo(miss), "aria-label": labelOf(miss), "data-label-key": keyOf(miss) },
    frame,
    make("span", { class: "reasons" }, miss.gate.reasons.length ? words.reasons(miss.gate) : ""),
    whereLine(miss, where),
  );
  heats.attach(link, frame, miss.heat);
  return make("li", {}, link);
}

// When a face was seen; a picture of a folder has a name instead.
export function momentOf(face) {
  return face.name ?? words.position(face.pts_seconds);
}

// Which face it is where faces of all sources and persons stand side by side.
export function placeOf(face) {
  if (face.picture) return [momentOf(face)];
  return [face.person ?? face.source.split("/").at(-1), momentOf(face)];
}

// A picture's name may be long: it has a line of its own.
function whereLine(face, [first, second]) {
  return make("span", { class: face.picture ? "where lines" : "where" }, make("span", { title: first }, first), second ? make("span", face.picture ? { title: second } : { class: "time" }, second) : null);
}

function framed(face) {
  if (!face.thumbnail) return make("span", { class: "frame none" });
  return make("span", { class: "frame" }, make("img", { class: "photo", src: jpeg(face.thumbnail), alt: "", width: 128, height: 128, decoding: "async" }));
}

function labelOf(face) {
  const what = face.picture ? `Face in ${momentOf(face)} of ${face.source}` : `Face from ${face.source} at ${momentOf(face)}`;
  return [what, ...words.judged(face)].join(", ");
}
