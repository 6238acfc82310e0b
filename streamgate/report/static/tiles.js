// Faces as tiles that open the dialog.

import { linkTo } from "./dialog.js";
import { make } from "./dom.js";
import { keyOf } from "./labels.js";
import { scoreLine } from "./measures.js";
import * as words from "./words.js";

export const jpeg = (text) => (text ? `data:image/jpeg;base64,${text}` : "");

// A kept face; `where`: up to two texts that distinguish it from its neighbours.
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

// A near miss or an evenly spaced face.
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

// When a face was seen; for a picture of a folder, its name.
export function momentOf(face) {
  return face.name ?? words.position(face.pts_seconds);
}

// Identifies a face in a list with faces of all sources and persons.
export function placeOf(face) {
  if (face.picture) return [momentOf(face)];
  return [face.person ?? face.source.split("/").at(-1), momentOf(face)];
}

// A picture's name may be long, so it gets its own line.
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
