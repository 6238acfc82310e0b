// Entry point of the report: builds it from the data in the page.

import { Face } from "./face.js";
import { make, one, say, toggle } from "./dom.js";
import { Heats } from "./heat.js";
import { Groups, titleOf } from "./groups.js";
import { Labels } from "./labels.js";
import { about, overview } from "./overview.js";
import { Sift } from "./sift.js";

const data = JSON.parse(one("data").textContent);
const heats = new Heats(data.heat);

// Every face and near miss by its key, and every track by its key.
const faces = new Map();
const tracks = new Map();
for (const group of data.groups) {
  group.title = titleOf(group);
  const whose = { group: group.key, person: group.kind === "person" ? group.title : null };
  for (const track of group.tracks) {
    const seen = { ...whose, missed: true, track_key: track.key, source: track.source, track_id: track.track_id, picture: track.picture };
    tracks.set(track.key, track);
    track.misses.forEach((miss, place) => {
      miss.key = `${track.key}/near/${place + 1}`;
      Object.assign(miss, seen);
      faces.set(miss.key, miss);
    });
    track.spaced?.forEach((face, place) => {
      face.key = `${track.key}/at/${place + 1}`;
      Object.assign(face, seen, { spaced: true });
      faces.set(face.key, face);
    });
  }
  for (const face of group.faces) faces.set(face.key, Object.assign(face, whose));
}

const labels = new Labels({ served: Boolean(data.served), base: data.base });
const context = { faces, tracks, heats, labels, base: data.base, groups: data.groups, part: !data.summary || data.pages?.length > 1 };

if (data.summary) one("overview").append(...overview(data));
else one("overview").append(make("div", { class: "heading page" }, make("h2", {}, data.title)));
const moving = [...tracks.values()].some((track) => !track.picture);
const groups = new Groups(context);
one("groups").append(...(moving ? [legend()] : []), ...pages(data.pages), ...groups.elements, ...pages(data.pages));
const sift = new Sift(context, drawn);
const face = new Face({ ...context, sift });
if (data.summary) one("about").append(...about(data.summary));
say(one("foot"), `Written by ${data.generator}`);

if (data.up) {
  one("up").href = data.up;
  one("up").hidden = false;
}
const heated = [...faces.values()].some((each) => each.heat);
one("heats").hidden = one("heats-legend").hidden = !heated;
toggle(one("heats"), (on) => {
  document.body.classList.toggle("heated", on);
  one("heats-hint").hidden = on;
  drawn();
});
// When the browser looked for the section that the address names, the section did not exist yet.
if (location.hash.startsWith("#group-")) groups.find(decodeURIComponent(location.hash.slice("#group-".length)))?.scrollIntoView();
labels.load();
face.follow();

// Called after tiles were added or removed.
function drawn() {
  if (document.body.classList.contains("heated")) heats.layAll();
  labels.tell();
}

function legend() {
  const keys = [["line", "quality"], ["passed", "passed"], ["failed", "rejected"], ["open", "no verdict"], ["chosen", "kept"]];
  return make("p", { class: "legend" }, "Tracks over time:", ...keys.map(([kind, name]) => make("span", { class: `key ${kind}` }, name)));
}

function pages(list) {
  if (!list || list.length < 2) return [];
  const items = list.map(({ name, href }) => make("li", {}, href ? make("a", { href }, name) : make("strong", { "aria-current": "page" }, name)));
  return [make("nav", { class: "pages", "aria-label": "Pages" }, make("ul", {}, ...items))];
}
