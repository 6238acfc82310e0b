// A face's measures as bars.

import { make, meter } from "./dom.js";
import * as words from "./words.js";

// A row a measure, in the order of `words.MEASURES`; those for which the gate stayed shut stand out.
export function measureRows({ measures, gate }) {
  const failing = words.failing(gate);
  return words.MEASURES.map(([name, label, hint]) => {
    return row(name, label, hint, measures[name] ?? { status: "not_scored" }, failing.has(name));
  });
}

function row(name, label, hint, measure, failing) {
  const title = make("span", { title: hint }, label);
  if (measure.status !== "ok") {
    return make("li", { class: "measure absent" }, title, make("span", { class: "why" }, words.status(measure)));
  }
  return make(
    "li",
    { class: failing ? "measure failing" : "measure" },
    title,
    meter(measure.scalar / 100, failing),
    make("span", { class: "scalar" }, words.whole(measure.scalar)),
    make("span", { class: "raw" }, words.raw(name, measure)),
  );
}
