// Entry point of the page: listens for events, and fetches the faces at the start and after each gap.

import { ask, listen } from "./api.js";
import { Detail } from "./detail.js";
import { one, say, toggle } from "./dom.js";
import { Streams } from "./streams.js";
import { Wall } from "./wall.js";

const wall = new Wall();
const detail = new Detail(wall);
const streams = new Streams((name) => wall.filter({ stream: name }));

function link(state, text) {
  one("link").dataset.state = state;
  say(one("link-text"), text);
}

listen({
  open() {
    link("live", "Live");
    ask("/api/faces?limit=240").then(
      ({ faces }) => wall.set(faces),
      () => link("lost", "The server does not respond; trying again"),
    );
  },
  lost() {
    link("lost", "Connection lost; trying again");
  },
  face(face) {
    wall.add(face);
    detail.renew(face);
  },
  streams: (record) => streams.set(record),
  stream: (stream) => streams.update(stream),
  removed: (stream) => streams.remove(stream),
});

toggle(one("passed"), (on) => wall.filter({ passedOnly: on }));
toggle(one("pause"), (on) => wall.pause(on));
detail.follow();
