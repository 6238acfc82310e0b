// The row of streams with the state and rate of each; a click on a stream shows only its faces.

import { make, one, say } from "./dom.js";
import * as words from "./words.js";

const SNAPSHOT_MS = 5000;

export class Streams {
  constructor(onChosen) {
    this.chosen = null;
    this.known = new Map();
    this.onChosen = onChosen;
    this.list = one("streams");
  }

  // Updates all streams, in the order of the configuration.
  set({ overview, streams, login }) {
    const names = new Set(streams.map((stream) => stream.name));
    for (const name of [...this.known.keys()]) if (!names.has(name)) this.remove({ name });
    streams.forEach((stream, place) => {
      const item = this.update(stream);
      if (this.list.children[place] !== item) this.list.insertBefore(item, this.list.children[place] ?? null);
    });
    one("streams-empty").hidden = streams.length > 0;
    one("logout").hidden = !login;
    this.note(overview);
  }

  update(stream) {
    let entry = this.known.get(stream.name);
    if (!entry) {
      entry = this.build(stream.name);
      this.known.set(stream.name, entry);
      this.list.append(entry.item);
    }
    const running = stream.state === "running";
    entry.button.dataset.state = stream.state;
    say(entry.state, words.STATES[stream.state] ?? stream.state);
    say(entry.rate, running ? stream.fps.toFixed(stream.fps < 9.95 ? 1 : 0) : "");
    entry.unit.hidden = !running;
    say(entry.count, words.count(stream.faces, "final face"));
    const more = running ? factsOf(stream) : problemOf(stream);
    say(entry.more, more || "\u00a0");
    entry.main.hidden = !stream.main;
    const main = stream.main ? mainOf(stream.main) : "";
    say(entry.main, main);
    this.picture(entry, stream);
    entry.button.title = [stream.url, more, stream.main?.url, main].filter(Boolean).join("\n");
    return entry.item;
  }

  // The camera's snapshot, updated every five seconds.
  picture(entry, stream) {
    const turn = stream.last_frame_at ? Math.floor(new Date(stream.last_frame_at) / SNAPSHOT_MS) : 0;
    if (!turn || turn === entry.turn) return;
    entry.turn = turn;
    entry.image.src = `/api/streams/${encodeURIComponent(stream.name)}/snapshot?${turn}`;
  }

  remove({ name }) {
    this.known.get(name)?.item.remove();
    this.known.delete(name);
    if (this.chosen === name) this.choose(null);
  }

  choose(name) {
    this.chosen = name;
    for (const [other, { button }] of this.known) button.setAttribute("aria-pressed", String(other === name));
    this.onChosen(name);
  }

  note(overview) {
    const parts = [];
    if (overview.stopping) parts.push("stopping");
    else if (!overview.models_loaded) parts.push("loading the networks");
    else if (overview.streams) parts.push(`${overview.streams_running} of ${overview.streams} running`);
    if (overview.config_error) parts.push(`the new configuration was not applied: ${overview.config_error}`);
    for (const [kind, one] of Object.entries(overview.destinations)) {
      if (!one.ok) parts.push(`${kind}: ${one.error ?? "not reachable"}`);
      if (one.spool_events) parts.push(`${words.count(one.spool_events, "event")} waiting for ${kind}`);
    }
    say(this.noteLine ??= one("streams-note"), parts.join(" · "));
  }

  build(name) {
    const state = make("span");
    const rate = make("span");
    const unit = make("small", {}, " fps");
    const count = make("span", { class: "count" });
    const more = make("span", { class: "more" });
    const main = make("span", { class: "more main" });
    main.hidden = true;
    const image = make("img", { class: "snapshot", alt: "", width: 320, height: 180, decoding: "async" });
    image.hidden = true;
    image.addEventListener("load", () => (image.hidden = false));
    const button = make(
      "button",
      { type: "button", class: "stream", "aria-pressed": "false" },
      image,
      make("span", { class: "name" }, name),
      make("span", { class: "rate" }, rate, unit),
      make("span", { class: "state" }, make("span", { class: "dot", "aria-hidden": "true" }), state),
      count,
      more,
      main,
    );
    button.addEventListener("click", () => this.choose(this.chosen === name ? null : name));
    return { item: make("li", {}, button), button, image, state, rate, unit, count, more, main };
  }
}

function factsOf(stream) {
  const parts = [`${stream.tracks_open} in view`];
  const dropped = stream.frames_in ? (100 * stream.frames_dropped) / stream.frames_in : 0;
  if (dropped >= 0.1) parts.push(`${dropped.toFixed(dropped < 10 ? 1 : 0)} % dropped`);
  if (stream.width) parts.push(`${stream.width} × ${stream.height}`);
  return parts.join(" · ");
}

// State of the main stream of a camera with two streams.
function mainOf(main) {
  const state = words.STATES[main.state] ?? main.state;
  if (main.state !== "running") return `Main stream: ${[state.toLowerCase(), problemOf(main)].filter(Boolean).join("; ")}`;
  const fallbacks = Object.values(main.fallbacks).reduce((sum, count) => sum + count, 0);
  const parts = [words.count(main.faces, "face")];
  if (fallbacks) parts.push(`${words.grouped(fallbacks)} taken from the substream instead`);
  if (!main.aligned) parts.push("not yet aligned with the substream");
  return `Main stream: ${parts.join(" · ")}`;
}

function problemOf(stream) {
  const parts = [];
  if (stream.error) parts.push(stream.error);
  if (stream.retry_at) {
    const seconds = Math.ceil((new Date(stream.retry_at) - Date.now()) / 1000);
    if (seconds > 0) parts.push(`next attempt in ${seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`}`);
  }
  return parts.join("; ");
}
