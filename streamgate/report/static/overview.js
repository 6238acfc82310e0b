// The parts above the faces (key figures, histograms, problems) and below them (sources, settings, weights).

import { draw, make } from "./dom.js";
import * as words from "./words.js";

const CHART = { width: 320, height: 148, bottom: 20 };
const REASONS = 6;

export function overview({ summary, title }) {
  const found = [make("section", { class: "hero", "aria-labelledby": "title" }, make("h2", { id: "title" }, title), make("p", { class: "note" }, subtitle(summary)), figures(summary))];
  const told = problems(summary);
  if (told.length) found.push(make("section", { class: "problems", "aria-labelledby": "problems" }, make("h2", { id: "problems" }, "Problems"), make("ul", {}, ...told.map((text) => make("li", {}, text)))));
  if (summary.faces || Object.keys(summary.rejected).length) found.push(charts(summary));
  return found;
}

export function about(summary) {
  return [sources(summary), settings(summary), weights(summary)];
}

function subtitle(summary) {
  const parts = summary.persons === null ? [] : [words.count(summary.sources.length, "source")];
  if (summary.seconds) parts.push(`${words.duration(summary.seconds)} of video`);
  if (summary.pictures) parts.push(words.count(summary.pictures, "picture"));
  parts.push(`${words.count(summary.evaluated, "face")} fully scored`);
  return parts.join(" · ");
}

function figures(summary) {
  const shown = [[summary.faces, summary.faces === 1 ? "face kept" : "faces kept"]];
  if (summary.persons !== null) shown.push([summary.persons, summary.persons === 1 ? "person" : "persons"]);
  if (summary.tracks || !summary.pictures) shown.push([summary.tracks, summary.tracks === 1 ? "track" : "tracks"], [summary.tracks_without, summary.tracks_without === 1 ? "track without a kept face" : "tracks without a kept face"]);
  if (summary.pictures) shown.push([summary.pictures, summary.pictures === 1 ? "picture" : "pictures"], [summary.picture_faces_without, "rejected faces in pictures"]);
  const quality = summary.histograms.quality.median;
  if (quality !== null) shown.push([words.whole(quality), "median quality"]);
  return make(
    "dl",
    { class: "figures" },
    ...shown.map(([value, name]) => make("div", {}, make("dt", {}, name), make("dd", {}, typeof value === "number" ? words.grouped(value) : value))),
  );
}

function problems(summary) {
  const found = summary.complete ? [] : ["The run was interrupted, so this report shows only the faces that were found before. To continue the run, repeat the same command with --resume."];
  for (const source of summary.sources) {
    if (source.status === "failed" || source.status === "crashed") found.push(`${source.name}: ${source.error ?? source.status}`);
    else if (source.error && source.status === "done") found.push(source.error);
  }
  for (const [name, why] of Object.entries(summary.absent)) {
    found.push(`${words.label(name)} was not measured: ${words.status({ status: why })}`);
  }
  return [...found.slice(0, 30), ...summary.problems];
}

function charts(summary) {
  const { quality, yaw } = summary.histograms;
  const limit = summary.limits.yaw?.max;
  const cards = [];
  if (summary.faces) {
    cards.push(chartCard("Quality of the kept faces", histogram(quality, { unit: "", ticks: [0, 25, 50, 75, 100], label: "Quality" })));
    cards.push(chartCard("Yaw of the kept faces", histogram(yaw, { unit: "°", ticks: ticksOf(yaw), label: "Yaw", limits: limit ? [-limit, limit] : [] }), limit ? `faces beyond ±${limit}° are rejected` : ""));
  }
  const turned = Object.entries(summary.rejected).sort((one, other) => other[1] - one[1]);
  if (turned.length) cards.push(chartCard("Rejected", reasons(turned), turned.length > REASONS ? `number of rejected faces by reason; ${turned.length - REASONS} rarer reasons are not shown` : "number of rejected faces by reason"));
  return make("section", { class: "charts", "aria-label": "Distributions" }, ...cards);
}

function chartCard(title, body, note = "") {
  return make("figure", { class: "card" }, make("figcaption", {}, make("h3", {}, title), note ? make("p", { class: "note" }, note) : null), body);
}

function histogram({ first, step, counts, median }, { unit, ticks, label, limits = [] }) {
  const { width, height, bottom } = CHART;
  const last = first + step * counts.length;
  const x = (value) => 8 + ((value - first) / (last - first)) * (width - 16);
  const most = Math.max(1, ...counts);
  const floor = height - bottom;
  const svg = draw("svg", { class: "histogram", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": told(label, unit, first, step, counts, median) });
  counts.forEach((count, place) => {
    if (!count) return;
    const tallest = count === most && counts.indexOf(most) === place;
    const tall = Math.max(2, (count / most) * (floor - 16));
    const from = x(first + place * step);
    const bar = draw("rect", { class: "bar", x: from + 0.75, y: floor - tall, width: x(first + (place + 1) * step) - from - 1.5, height: tall, rx: 1.5 });
    bar.append(draw("title", {}, `${signed(first + place * step)} to ${signed(first + (place + 1) * step)}${unit}: ${words.count(count, "face")}`));
    svg.append(bar);
    if (tallest) svg.append(draw("text", { x: (from + x(first + (place + 1) * step)) / 2, y: floor - tall - 4, "text-anchor": "middle" }, words.grouped(count)));
  });
  for (const limit of limits) if (limit > first && limit < last) svg.append(draw("line", { class: "limit", x1: x(limit), x2: x(limit), y1: 6, y2: floor }));
  svg.append(draw("line", { class: "grid", x1: 8, x2: width - 8, y1: floor + 0.5, y2: floor + 0.5 }));
  for (const tick of ticks) {
    const anchor = tick === first ? "start" : tick === last ? "end" : "middle";
    svg.append(draw("text", { x: x(tick), y: height - 5, "text-anchor": anchor }, `${signed(tick)}${unit}`));
  }
  return svg;
}

function told(label, unit, first, step, counts, median) {
  const parts = counts.flatMap((count, place) => (count ? [`${first + place * step} to ${first + (place + 1) * step}${unit}: ${count}`] : []));
  return `${label}${median === null ? "" : `, median ${median.toFixed(0)}${unit}`}. ${parts.join("; ")}`;
}

function ticksOf({ first, step, counts }) {
  const reach = first + step * counts.length;
  const inner = reach > 60 ? 60 : reach > 30 ? 30 : 15;
  return [-inner, 0, inner];
}

function signed(value) {
  return value < 0 ? `−${-value}` : String(value);
}

function reasons(turned) {
  const most = turned[0][1];
  return make(
    "ul",
    { class: "bars" },
    ...turned.slice(0, REASONS).map(([name, count]) => {
      const bar = make("i");
      bar.style.setProperty("--share", (count / most).toFixed(4));
      return make("li", {}, make("span", {}, words.reason(name)), make("span", { class: "meter shut", "aria-hidden": "true" }, bar), make("b", {}, words.grouped(count)));
    }),
  );
}

function frames({ frames: all, frames_decoded: decoded }) {
  const count = words.grouped(all ?? 0);
  return decoded != null && decoded < all ? `${count} (${words.grouped(decoded)} decoded)` : count;
}

function sources({ sources: all }) {
  const head = ["Source", "Length", "Size", "Frames", "Errors", "Tracks", "Kept", "State"];
  const rows = all.map((source) =>
    make(
      "tr",
      source.status === "done" ? {} : { class: "off" },
      make("th", { scope: "row", title: source.source }, source.name),
      ...[
        source.pictures ? words.count(source.frames, "picture") : source.duration_seconds ? words.duration(source.duration_seconds) : "–",
        source.width && !source.pictures ? `${source.width} × ${source.height}` : "–",
        source.pictures ? "–" : frames(source),
        words.grouped(source.decode_errors ?? 0),
        source.pictures ? "–" : words.grouped(source.tracks ?? 0),
        words.grouped(source.kept ?? 0),
        source.status.replace("_", " "),
      ].map((text) => make("td", {}, text)),
    ),
  );
  return folded("Sources", `${words.count(all.length, "source")}`, table(head, rows), all.length <= 30);
}

function settings(summary) {
  const changed = summary.settings.filter(([, , differs]) => differs);
  const rows = summary.settings.map(([key, value, differs]) => make("tr", differs ? { class: "changed" } : {}, make("th", { scope: "row" }, make("code", {}, key)), make("td", {}, value)));
  const note = changed.length ? `${changed.map(([key, value]) => `${key} = ${value}`).join(", ")}; all other settings are those of the preset studio` : "all settings are those of the preset studio";
  return folded("Settings", note, table(["Key", "Value"], rows), false);
}

function weights({ weights: all, versions, calibration }) {
  const rows = all.map((each) =>
    make("tr", {}, make("th", { scope: "row" }, each.role), make("td", {}, each.name), make("td", { class: "long" }, each.licence), make("td", {}, make("code", { title: each.sha256 }, String(each.sha256 ?? "").slice(0, 12)))),
  );
  const note = make("p", { class: "note" }, `Calibration ${calibration}. Qualities can be compared only between runs with the same calibration. Versions: ${Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ")}.`);
  return folded("Weights and their licences", words.count(all.length, "role"), make("div", {}, table(["Role", "Network", "Licence", "sha256"], rows), note), true);
}

function folded(title, note, body, open) {
  return make("details", { class: "folded about", open }, make("summary", {}, make("h2", {}, title), make("span", { class: "note" }, note)), body);
}

function table(head, rows) {
  return make("div", { class: "scroll", tabindex: "0", role: "group" }, make("table", {}, make("thead", {}, make("tr", {}, ...head.map((name) => make("th", { scope: "col" }, name)))), make("tbody", {}, ...rows)));
}
