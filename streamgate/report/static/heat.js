// IFQA's maps: stored as text in the data, and coloured when they are shown.

import { make } from "./dom.js";

export class Heats {
  // `side`: the side of a map, in cells; `signs`: the character for each level; `colours`: [r, g, b, a] for each level;
  // `weight`: the opacity of each cell, one byte per cell, in base64.
  constructor({ side, signs, colours, weight }) {
    this.side = side;
    this.levels = new Map([...signs].map((sign, level) => [sign, level]));
    this.colours = colours;
    this.weight = Uint8Array.from(atob(weight), (sign) => sign.charCodeAt(0));
    this.waiting = new Map();
  }

  // A transparent overlay for the grey face; null if there is no map.
  picture(text) {
    if (!text || text.length !== this.side ** 2) return null;
    const canvas = make("canvas", { width: this.side, height: this.side });
    const drawn = canvas.getContext("2d");
    const image = drawn.createImageData(this.side, this.side);
    [...text].forEach((sign, cell) => {
      const [red, green, blue, alpha] = this.colours[this.levels.get(sign) ?? 0];
      image.data.set([red, green, blue, Math.round((alpha * this.weight[cell]) / 255)], cell * 4);
    });
    drawn.putImageData(image, 0, 0);
    return canvas.toDataURL();
  }

  // Shows the map `text` over `frame` while `link` is hovered or focused, and while all maps are shown.
  attach(link, frame, text) {
    if (!text) return;
    const lay = () => this.lay(frame);
    this.waiting.set(frame, text);
    link.addEventListener("pointerenter", lay, { once: true });
    link.addEventListener("focus", lay, { once: true });
  }

  // Forgets frames that were removed from the page.
  prune() {
    for (const frame of [...this.waiting.keys()]) if (!frame.isConnected) this.waiting.delete(frame);
  }

  lay(frame) {
    const source = this.picture(this.waiting.get(frame));
    this.waiting.delete(frame);
    if (source) frame.append(make("img", { class: "heat", src: source, alt: "" }));
  }

  layAll() {
    for (const frame of [...this.waiting.keys()]) this.lay(frame);
  }
}
