// The open face: fetched when it opens, and again when a better one replaces it.

import { addressOf, ask, Missing } from "./api.js";
import { FaceDialog, placeFacts } from "./dialog.js";
import { one } from "./dom.js";
import { momentOf } from "./wall.js";
import * as words from "./words.js";

export class Detail extends FaceDialog {
  constructor(wall) {
    super();
    this.wall = wall;
    one("previous").setAttribute("aria-label", "Newer face");
    one("next").setAttribute("aria-label", "Older face");
  }

  async open(key) {
    this.wantedKey = key;
    const within = (this.within = this.dialog.open);
    let face;
    try {
      face = await ask(addressOf({ key }));
    } catch (error) {
      if (this.wantedKey === key) this.leave(key);
      if (!(error instanceof Missing)) console.warn(error);
      return;
    }
    if (this.wantedKey !== key) return;
    if (within && !this.dialog.open) return this.leave(key); // closed in the meantime
    this.show(face);
    this.reveal();
  }

  // Called when a better picture or the `final` event of the open face has arrived.
  async renew(face) {
    if (!this.dialog.open || this.face?.key !== face.key) return;
    const found = await ask(addressOf(face)).catch(() => null);
    if (found && this.face?.key === found.key) this.show(found);
  }

  show(face) {
    const { record } = face;
    const when = momentOf(face);
    this.draw(face, {
      title: face.stream,
      when: when ? `${words.day(when)}, ${words.clock(when)}${face.kind === "improved" ? " · still in view" : ""}` : "",
      photo: addressOf(face, "photo"),
      heat: face.heatmap ? addressOf(face, "heatmap") : null,
      judged: record,
      facts: factsOf(face),
    });
    this.chart.set(face.series, record.pts_seconds, record.track.first_pts, record.track.last_pts);
  }

  beside() {
    return this.wall.shown();
  }

  closed() {
    // A face that was asked for in the closed dialog is no longer wanted; one that was asked for since then is.
    if (this.within && this.wantedKey && !this.dialog.open) {
      this.leave(this.wantedKey);
      this.wantedKey = null;
    }
    super.closed();
  }
}

function factsOf({ record, image }) {
  const { track } = record;
  const found = [
    ["Smoothed quality", words.whole(record.quality_smoothed)],
    ["Mean quality around this time", words.whole(record.quality_context)],
    ["Track", `${record.track_id}, rank ${record.rank}`],
    ["In view", `${(track.last_pts - track.first_pts).toFixed(1)} s`],
    ["Faces fully scored", `${words.grouped(track.frames_scored)} of ${words.grouped(track.frames_seen)}`],
    ...placeFacts(record),
  ];
  if (record.stream) found.push(["Taken from", record.stream === "main" ? "main stream" : "substream"]);
  if (image) found.push(["File", image]);
  return found;
}
