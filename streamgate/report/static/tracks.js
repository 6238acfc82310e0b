// A track: its quality over time with the kept faces, and its near misses.

import { Chart } from "./chart.js";
import { make } from "./dom.js";
import { missTile } from "./tiles.js";
import * as words from "./words.js";

const HEIGHT = 132;

// Charts are drawn when they scroll into view: drawing thousands of them at once would block the page.
const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      target.chart?.();
    }
  },
  { rootMargin: "400px" },
);
addEventListener("beforeprint", () => {
  for (const holder of document.querySelectorAll(".track .chart")) holder.chart?.();
});

export function trackCard(track, group, { heats }) {
  const several = group.kind !== "source";
  const still = track.last_pts - track.first_pts < 0.001; // a single frame
  const name = several ? `${track.source} · track ${track.track_id}` : `Track ${track.track_id}`;
  const card = make(
    "article",
    { class: "track" },
    make("header", {}, make("h3", {}, name), make("p", { class: "note" }, factsOf(track, still))),
  );
  const body = make("div", { class: "track-body" });
  if (!still && track.series.some(([, quality]) => quality !== null)) body.append(courseOf(track));
  if (track.misses.length) {
    body.append(
      make("div", { class: "nears" }, make("h4", {}, track.misses.length === 1 ? "Near miss" : "Near misses"), make("ul", { class: "misses" }, ...track.misses.map((miss) => missTile(miss, heats)))),
    );
  }
  if (track.spaced?.length) {
    body.append(
      make("div", { class: "nears spaced" }, make("h4", {}, "Evenly spaced"), make("ul", { class: "misses" }, ...track.spaced.map((face) => missTile(face, heats)))),
    );
  }
  if (body.children.length) card.append(body);
  return card;
}

export function pointsOf(track) {
  return track.series.map(([pts_seconds, quality, passed]) => ({ pts_seconds, quality, passed }));
}

export function picksOf(track) {
  return track.picks.map(([pts_seconds, quality]) => ({ pts_seconds, quality }));
}

function courseOf(track) {
  const holder = make("div", { class: "chart" });
  const readout = make("p", { class: "note readout", "aria-live": "polite" });
  holder.style.minHeight = `${HEIGHT}px`;
  holder.chart = () => {
    delete holder.chart;
    new Chart(holder, readout, { height: HEIGHT, clock: words.position }).set(pointsOf(track), null, track.first_pts, track.last_pts, picksOf(track));
  };
  watcher.observe(holder);
  return make("div", { class: "course" }, holder, readout);
}

function factsOf(track, still) {
  const kept = track.kept ? `${track.kept} kept` : "nothing kept";
  const turned = Object.entries(track.rejected).sort((one, other) => other[1] - one[1]);
  const why = turned.map(([name, count]) => `${words.reason(name)} ${words.grouped(count)}`).join(", ");
  const parts = [kept];
  if (!still) parts.unshift(`${words.position(track.first_pts)} to ${words.position(track.last_pts)}`);
  if (!still) parts.push(`${words.grouped(track.frames_scored)} of ${words.grouped(track.frames_seen)} faces fully scored`);
  if (why) parts.push(`rejected: ${why}`);
  return parts.join(" · ");
}
