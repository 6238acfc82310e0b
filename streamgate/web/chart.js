// A track's quality over time: a curve with a point per evaluated face, and below it a band of the gate's verdicts.

import { draw, make, say } from "./dom.js";

const LEFT = 30;
const RIGHT = 10;
const TOP = 12;
const BAND = 10; // height of the gate's band
const AXIS = 22; // room for the times

let patterns = 0; // each chart has its own pattern: a shared pattern would not be drawn while the chart that defines it is hidden

export class Chart {
  // `openKey`: the legend entry for faces without a verdict, shown only if there are any.
  // `clock`: formats a time in the source; without it, times count from the track's first face.
  constructor(holder, readout, { height = 190, openKey = null, clock = null } = {}) {
    this.holder = holder;
    this.readout = readout;
    this.height = height;
    this.openKey = openKey;
    this.clock = clock;
    this.pattern = `shut-${(patterns += 1)}`;
    this.points = [];
    this.place = null;
    new ResizeObserver(() => this.render()).observe(holder);
    holder.addEventListener("pointermove", (event) => this.point(event));
    holder.addEventListener("pointerdown", (event) => this.point(event));
    holder.addEventListener("pointerleave", () => this.show(null));
    holder.addEventListener("blur", () => this.show(null), true);
    holder.addEventListener("keydown", (event) => this.step(event));
  }

  // `points`: {pts_seconds, quality or null, passed (null: no verdict)}; `chosen`: pts_seconds of the open face, or null;
  // `start`, `end`: times of the track's first and last face, in seconds; `picks`: other faces to mark, {pts_seconds, quality}.
  set(points, chosen, start, end, picks = []) {
    this.points = points;
    this.chosen = chosen;
    this.picks = picks;
    this.start = Math.min(start, points[0]?.pts_seconds ?? start);
    this.end = Math.max(end, points.at(-1)?.pts_seconds ?? end, this.start + 0.001);
    this.place = null;
    this.width = 0;
    this.render();
    this.show(null);
  }

  x(pts) {
    return LEFT + ((pts - this.start) / (this.end - this.start)) * (this.width - LEFT - RIGHT);
  }

  y(quality) {
    const floor = this.height - AXIS - BAND - 8;
    return floor - (quality / 100) * (floor - TOP);
  }

  render() {
    const width = Math.round(this.holder.clientWidth);
    if (!width || width === this.width) return;
    this.width = width;
    const passed = this.points.filter((point) => point.passed).length;
    const svg = draw("svg", {
      viewBox: `0 0 ${width} ${this.height}`,
      preserveAspectRatio: "none",
      role: "img",
      tabindex: this.points.length ? "0" : null,
      "aria-label":
        `Quality of ${this.points.length} faces over ${(this.end - this.start).toFixed(1)} seconds; ` +
        `${passed} passed the gate. Use the arrow keys to read individual points.`,
    });
    svg.append(
      draw("defs", {}, draw("pattern", { id: this.pattern, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(25)" }, draw("line", { class: "hatch", x1: 1, y1: 0, x2: 1, y2: 5 }))),
    );
    for (const level of [0, 50, 100]) {
      const y = Math.round(this.y(level)) + 0.5;
      svg.append(
        draw("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y, y2: y }),
        draw("text", { x: LEFT - 7, y: y + 4, "text-anchor": "end" }, String(level)),
      );
    }
    const origin = this.clock ? 0 : this.start;
    for (const seconds of ticks(this.start - origin, this.end - origin, Math.max(2, Math.floor(width / 85)))) {
      const x = this.x(origin + seconds);
      const text = this.clock ? this.clock(seconds) : `${trimmed(seconds)} s`;
      svg.append(draw("text", { x, y: this.height - 4, "text-anchor": x > width - 30 ? "end" : "middle" }, text));
    }
    svg.append(...this.band());
    const scored = this.points.filter((point) => point.quality !== null);
    svg.append(
      draw("polyline", {
        class: "curve",
        points: scored.map((point) => `${this.x(point.pts_seconds).toFixed(1)},${this.y(point.quality).toFixed(1)}`).join(" "),
      }),
    );
    if (scored.length <= width / 9) {
      for (const point of scored) {
        svg.append(draw("circle", { class: point.passed ? "point passed" : "point", cx: this.x(point.pts_seconds), cy: this.y(point.quality), r: 2.75 }));
      }
    }
    this.cursor = draw("line", { class: "cursor", y1: TOP, y2: this.height - AXIS, visibility: "hidden" });
    svg.append(this.cursor);
    for (const pick of this.picks) {
      if (pick.pts_seconds !== this.chosen) svg.append(...this.mark(pick, this.chosen === null ? 5.5 : 4));
    }
    if (this.chosen !== null) {
      const own = this.picks.find((pick) => pick.pts_seconds === this.chosen) ?? nearest(this.points, this.chosen);
      svg.append(...this.mark({ pts_seconds: this.chosen, quality: own?.quality ?? null }, 6));
    }
    svg.style.height = `${this.height}px`;
    this.holder.replaceChildren(this.points.length ? svg : make("p", { class: "note" }, "No face of this track has been evaluated yet."));
  }

  mark({ pts_seconds, quality }, r) {
    const x = this.x(pts_seconds);
    const line = draw("line", { class: "chosen-line", x1: x, x2: x, y1: TOP, y2: this.height - AXIS });
    return quality === null ? [line] : [line, draw("circle", { class: "chosen", cx: x, cy: this.y(quality), r })];
  }

  // Each evaluated face covers the time up to the midpoints between it and its neighbours.
  band() {
    const top = this.height - AXIS - BAND;
    const all = runs(this.points, this.start, this.end);
    if (this.openKey) this.openKey.hidden = all.every((run) => run.passed !== null);
    return all.map(({ from, to, passed }) => {
      const x = this.x(from);
      const width = Math.max(passed === null ? 0 : 2, this.x(to) - x);
      if (passed === null) return draw("rect", { class: "band-open", x, y: top + BAND / 2 - 1, width, height: 2 });
      return draw("rect", { x, y: top, width, height: BAND, rx: 1.5, ...(passed ? { class: "band-passed" } : { fill: `url(#${this.pattern})` }) });
    });
  }

  point(event) {
    if (!this.points.length) return;
    const share = (event.clientX - this.holder.getBoundingClientRect().left - LEFT) / (this.width - LEFT - RIGHT);
    const pts = this.start + Math.min(1, Math.max(0, share)) * (this.end - this.start);
    this.show(this.points.indexOf(nearest(this.points, pts)));
  }

  step(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps) || !this.points.length) return;
    event.preventDefault();
    event.stopPropagation();
    const from = this.place ?? this.points.indexOf(nearest(this.points, this.chosen ?? this.start));
    this.show(Math.min(this.points.length - 1, Math.max(0, from + steps[event.key])));
  }

  show(place) {
    this.place = place;
    const point = this.points[place];
    if (this.cursor) {
      this.cursor.setAttribute("visibility", point ? "visible" : "hidden");
      if (point) for (const end of ["x1", "x2"]) this.cursor.setAttribute(end, this.x(point.pts_seconds));
    }
    if (!point) return say(this.readout, "");
    const quality = point.quality === null ? "not fully scored" : `quality ${point.quality.toFixed(0)}`;
    const time = this.clock ? this.clock(point.pts_seconds) : `${(point.pts_seconds - this.start).toFixed(1)} s`;
    say(this.readout, `${time}: ${quality}, ${point.passed === null ? "no verdict" : point.passed ? "passed" : "rejected"}`);
  }
}

function nearest(points, pts) {
  return points.reduce((best, point) => (best && Math.abs(best.pts_seconds - pts) <= Math.abs(point.pts_seconds - pts) ? best : point), null);
}

function runs(points, start, end) {
  const found = [];
  points.forEach((point, place) => {
    const from = place ? (points[place - 1].pts_seconds + point.pts_seconds) / 2 : start;
    const to = place + 1 < points.length ? (point.pts_seconds + points[place + 1].pts_seconds) / 2 : end;
    const last = found.at(-1);
    if (last && last.passed === point.passed) last.to = to;
    else found.push({ from, to, passed: point.passed });
  });
  return found;
}

// Round, evenly spaced times between `from` and `to`; the spacing is chosen so that there are about `most` of them or fewer.
function ticks(from, to, most) {
  const steps = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600];
  const step = steps.find((length) => (to - from) / length <= most) ?? 7200;
  const first = Math.ceil(from / step - 1e-9);
  return Array.from({ length: Math.floor(to / step + 1e-9) - first + 1 }, (_, place) => (first + place) * step);
}

function trimmed(seconds) {
  return String(Math.round(seconds * 10) / 10);
}
