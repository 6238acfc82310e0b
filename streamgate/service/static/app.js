// Puts the page together: asks for everything once, listens, and asks anew after each gap.

import { ask, listen } from "./api.js";
import { Detail } from "./detail.js";
import { one, say } from "./dom.js";
import { Streams } from "./streams.js";
import { Wall } from "./wall.js";

const RATES_EVERY_MS = 3000;

const wall = new Wall();
const detail = new Detail(wall);
const streams = new Streams((name) => wall.filter({ stream: name }));

function link(state, text) {
  one("link").dataset.state = state;
  say(one("link-text"), text);
}

async function refreshStreams() {
  streams.set(await ask("/api/streams"));
}

async function refreshAll() {
  const [{ faces }] = await Promise.all([ask("/api/faces?limit=240"), refreshStreams()]);
  wall.set(faces);
}

listen({
  open() {
    link("live", "Live");
    refreshAll().catch(() => link("lost", "No answer, trying again"));
  },
  lost() {
    link("lost", "Connection lost, trying again");
  },
  face(face) {
    wall.add(face);
    detail.renew(face);
  },
  stream(stream) {
    streams.update(stream);
  },
  removed: (stream) => streams.remove(stream),
  config: () => refreshStreams().catch(() => {}),
});

setInterval(() => {
  if (!document.hidden) refreshStreams().catch(() => {});
}, RATES_EVERY_MS);

function toggle(button, act) {
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    act(on);
  });
}

toggle(one("passed"), (on) => wall.filter({ passedOnly: on }));
toggle(one("pause"), (on) => wall.pause(on));
detail.follow();
