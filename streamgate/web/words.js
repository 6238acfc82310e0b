// Texts for values and names on the page. The texts of measures and reasons come from their specs.

import { MEASURES, REASONS } from "./vocabulary.js";

const STATUSES = {
  not_scored: "not scored",
  no_weights: "no weights",
  uncalibrated: "not calibrated",
  error: "failed",
};

export const STATES = {
  connecting: "Connecting",
  running: "Running",
  stalled: "Stalled",
  waiting: "Waiting",
  failed: "Refused",
};

export function reason(name) {
  return REASONS[name]?.words ?? name;
}

export function reasons(gate) {
  return gate.reasons.map(reason).join(", ");
}

// The verdict on a face as text, for screen readers.
export function judged({ quality, gate }) {
  const parts = [quality === null ? "quality unknown" : `quality ${Math.round(quality)} out of 100`];
  return gate.passed ? parts : [...parts, `rejected: ${reasons(gate)}`];
}

// The measures for which the gate rejected a face.
export function failing(gate) {
  return new Set(gate.reasons.map((name) => REASONS[name]?.measure));
}

// The measures of a record as {name, label, hint, unit, use}, in order.
export function measured(record) {
  return MEASURES.filter(({ name }) => name in record);
}

export function label(name) {
  return MEASURES.find((each) => each.name === name)?.label ?? name;
}

// A raw value with its unit.
export function raw(value, unit) {
  switch (unit) {
    case "degrees":
      return `${signed(value)}°`;
    case "pixels":
      return `${value.toFixed(0)} px`;
    case "share":
      return `${Math.round(value * 100)} %`;
    default:
      return value.toFixed(3);
  }
}

export function status(measure) {
  return STATUSES[measure.status] ?? measure.status;
}

// A time within a source: 0:04.2, 1:02:07.5.
export function position(seconds) {
  const tenths = Math.round(seconds * 10);
  const [hours, minutes, rest] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, (tenths % 600) / 10];
  const padded = rest.toFixed(1).padStart(4, "0");
  return hours ? `${hours}:${String(minutes).padStart(2, "0")}:${padded}` : `${minutes}:${padded}`;
}

// A duration: 12 s, 3 min 20 s, 5 h 12 min.
export function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${whole % 60} s`;
  return `${grouped(Math.floor(whole / 3600))} h ${Math.floor(whole / 60) % 60} min`;
}

export function count(number, one, many = `${one}s`) {
  return `${grouped(number)} ${number === 1 ? one : many}`;
}

export function whole(value) {
  return value === null || value === undefined ? "–" : String(Math.round(value));
}

export function grouped(value) {
  return value.toLocaleString("en-GB").replaceAll(",", "\u202f");
}

export function age(moment, now) {
  const seconds = Math.max(0, (now - moment) / 1000);
  if (seconds < 5) return "now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} d ago`;
}

export function clock(moment) {
  return moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });
}

export function day(moment) {
  return moment.toLocaleDateString([], { weekday: "short", day: "numeric", month: "short" });
}

function signed(value) {
  const rounded = Math.round(value * 10) / 10;
  return (rounded < 0 ? "−" : rounded > 0 ? "+" : "") + Math.abs(rounded).toFixed(1);
}
