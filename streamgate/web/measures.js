// A face's quality and measures as bars.

import { make, meter } from "./dom.js";
import * as words from "./words.js";

// The quality shown below a face's picture.
export function scoreLine({ quality }, shut) {
  return make("span", { class: "score" }, make("b", {}, words.whole(quality)), meter((quality ?? 0) / 100, shut));
}

// One row per measure. Measures for which the gate rejected the face are highlighted; measures outside the set are muted.
export function measureRows({ measures, gate }) {
  const failing = words.failing(gate);
  return words.measured(measures).map((spec) => row(spec, measures[spec.name], failing.has(spec.name)));
}

function row({ label, hint, unit, use }, measure, failing) {
  const muted = !use && !failing;
  const title = make("span", { title: muted ? `${hint}; not used with these settings` : hint }, label);
  if (measure.status !== "ok") {
    return make("li", { class: "measure absent" }, title, make("span", { class: "why" }, words.status(measure)));
  }
  return make(
    "li",
    { class: failing ? "measure failing" : muted ? "measure muted" : "measure" },
    title,
    muted ? make("span", { class: "why" }, "not used") : meter(measure.scalar / 100, failing),
    make("span", { class: "scalar" }, words.whole(measure.scalar)),
    make("span", { class: "raw" }, words.raw(measure.raw, unit)),
  );
}
