"use strict";
// Maps of all images: drawn by deck.gl when they come into view, turned and enlarged, with what lies under the pointer.

{
  const EXTENT = 100; // of a map, in deck.gl's units
  const NOWHERE = 0xffff;
  const REACH = 10; // pixels between the pointer and what it means
  const STEPS = 4095; // of coordinates
  const FLAGGED = 0x8000; // added to the score of an image that is flagged
  const THOUSANDTHS = 1000; // of scores
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const of = (id) => document.getElementById(id);

  // Numbers and text as `iv_pipeline.report.maps` packs them.

  /** As `Array.from`, which takes ten times as long. */
  function filled(Type, n, value) {
    const values = new Type(n);
    for (let i = 0; i < n; i++) values[i] = value(i);
    return values;
  }

  async function inflate(packed) {
    const text = atob(packed);
    const bytes = filled(Uint8Array, text.length, (i) => text.charCodeAt(i));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function numbers(packed) {
    const planes = await inflate(packed);
    const n = planes.length / 2;
    return filled(Uint16Array, n, (i) => planes[i] | (planes[n + i] << 8));
  }

  const once = (make) => {
    let made;
    return () => (made ??= make());
  };

  const library = once(async () => {
    const source = new TextDecoder().decode(await inflate(of("deck-gl").textContent));
    const script = document.createElement("script");
    script.textContent = source; // the page's policy knows its hash
    document.head.append(script);
    return globalThis.deck;
  });

  const images = once(async () => {
    const told = JSON.parse(of("map-images").textContent);
    const paths = JSON.parse(new TextDecoder().decode(await inflate(told.paths)));
    const labels = await Promise.all(told.labels.map(async (l) => ({ ...l, codes: await numbers(l.codes) })));
    const tileOf = new Map(told.pictured.map((row, i) => [row, i]));
    return { ...told, paths, labels, tileOf };
  });

  const sheets = new Map();
  function sheet(uri) {
    if (!sheets.has(uri)) {
      const image = new Image();
      sheets.set(uri, new Promise((resolve) => image.addEventListener("load", () => resolve(image))));
      image.src = uri;
    }
    return sheets.get(uri);
  }

  async function drawPicture(canvas, tile, { sheets: uris, tile: [width, height, columns, rows] }) {
    canvas.dataset.tile = tile;
    const image = await sheet(uris[Math.floor(tile / (columns * rows))]);
    if (Number(canvas.dataset.tile) !== tile) return; // the pointer has gone on
    const at = tile % (columns * rows);
    const [x, y] = [(at % columns) * width, Math.floor(at / columns) * height];
    canvas.getContext("2d").drawImage(image, x, y, width, height, 0, 0, canvas.width, canvas.height);
  }

  // Colors

  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  const ramp = (t) => {
    const stops = dark.matches
      ? [[52, 62, 74], [190, 120, 60], [255, 214, 120]]
      : [[196, 206, 218], [224, 130, 60], [150, 20, 40]];
    const at = Math.min(Math.max(t, 0), 1) * 2;
    const i = Math.min(Math.floor(at), 1);
    return stops[i].map((v, k) => Math.round(v + (stops[i + 1][k] - v) * (at - i)));
  };

  const median = (values) => values.sort()[values.length >> 1];

  class PointMap {
    constructor(figure) {
      this.figure = figure;
      this.stage = figure.querySelector(".stage");
      this.tip = figure.querySelector(".tip");
      this.legend = figure.querySelector(".legend");
      this.status = figure.querySelector("[role=status]");
      this.section = of(figure.dataset.section);
      this.read = once(() => this.decode());
      this.solid = false;
      this.by = "cluster";
      this.only = null;
      this.near = false;
    }

    async decode() {
      const told = JSON.parse(of(`${this.figure.dataset.section}-points`).textContent);
      const [shared, cluster, suspicion, flat, solid] = await Promise.all([
        images(),
        numbers(told.cluster),
        numbers(told.suspicion),
        Promise.all(told.flat.map(numbers)),
        Promise.all(told.solid.map(numbers)),
      ]);
      this.shared = shared;
      this.clusters = new Map(told.clusters.map((c) => [c.number, c]));
      this.rows = filled(Uint32Array, cluster.length, (i) => i).filter((i) => flat[0][i] !== NOWHERE);
      this.cluster = this.each(Int32Array, (row) => cluster[row] - 1);
      this.score = this.each(Float32Array, (row) => (suspicion[row] % FLAGGED) / THOUSANDTHS);
      this.flagged = this.each(Uint8Array, (row) => Number(suspicion[row] >= FLAGGED));
      this.places = [this.placesOf(flat), this.placesOf(solid)];
      this.pictured = [];
      this.rows.forEach((row, i) => shared.tileOf.has(row) && this.pictured.push(i));
    }

    /** A value for each point, from its row in the delivery. */
    each(Type, value) {
      return filled(Type, this.rows.length, (i) => value(this.rows[i]));
    }

    placesOf(axes) {
      const places = new Float32Array(3 * this.rows.length);
      axes.forEach((axis, k) => {
        this.rows.forEach((row, i) => {
          places[3 * i + k] = (axis[row] / STEPS - 0.5) * EXTENT;
        });
      });
      return places;
    }

    nameOf(cluster) {
      if (cluster < 0) return "noise";
      const typed = this.section.querySelector(`[id="${this.section.id}-cluster-${cluster}"] .given`);
      return typed?.textContent || this.clusters.get(cluster).name || `cluster ${cluster}`;
    }

    // Groups of points that share a color: a title and a color for each, and the group of every point.

    groups() {
      if (this.by === "cluster" || this.by === "name") return this.groupsOfClusters(this.by === "name");
      const label = this.shared.labels[Number(this.by)];
      const groups = label.values.map((title, i) => ({ title, mark: title, color: label.colors[i + 1] }));
      groups.unshift({ title: "no label", mark: "", color: label.colors[0] });
      return { groups, of: this.each(Uint16Array, (row) => label.codes[row]) };
    }

    groupsOfClusters(byName) {
      const groups = [];
      const byTitle = new Map();
      const groupOf = new Map();
      for (const [number, { color }] of this.clusters) {
        const title = byName || number < 0 ? this.nameOf(number) : `${number} ${this.nameOf(number)}`;
        if (!byTitle.has(title)) {
          byTitle.set(title, groups.length);
          groups.push({ title, mark: number < 0 ? "" : byName ? title : String(number), color });
        }
        groupOf.set(number, byTitle.get(title));
      }
      return { groups, of: this.cluster.map((number) => groupOf.get(number)) };
    }

    // Drawing

    /** Resolves once the map is open, or has said why it is not; whoever asks meanwhile waits for the same. */
    open() {
      if (!this.deck) this.opening ??= this.openOnce().finally(() => (this.opening = null));
      return this.opening ?? Promise.resolve();
    }

    async openOnce() {
      this.figure.setAttribute("aria-busy", "true");
      try {
        const [deck] = await Promise.all([library(), this.read()]);
        if (this.near) await this.build(deck); // else it was scrolled past meanwhile
      } catch (error) {
        this.refuse(error);
      } finally {
        this.figure.removeAttribute("aria-busy");
      }
    }

    refuse(error) {
      this.status.textContent = `This browser does not draw the map (${error.message}); the picture shows it.`;
      this.figure.classList.remove("open");
      console.error(error);
    }

    /** Resolves once deck.gl can be asked for places on the screen, or has failed, or was given up meanwhile. */
    build(deck) {
      const { Deck } = deck;
      this.api = deck;
      this.paint();
      const ended = new Promise((end) => (this.end = end));
      this.deck = new Deck({
        parent: this.stage,
        views: this.lens(),
        initialViewState: this.start(),
        touchAction: "pan-y", // a finger that goes down the page goes on
        layers: this.layers(),
        getCursor: ({ isDragging }) => (isDragging ? "grabbing" : "crosshair"),
        onViewStateChange: () => this.hide(),
        onError: (error) => {
          this.refuse(error);
          this.end();
        },
        onLoad: () => {
          this.describeCanvas();
          this.figure.classList.add("open");
          this.end();
        },
      });
      return ended;
    }

    /** What takes the keys is what a screen reader should tell of. */
    describeCanvas() {
      this.canvas = this.stage.querySelector(":scope > canvas");
      this.canvas.setAttribute("role", "application");
      this.canvas.setAttribute("aria-label", this.stage.dataset.label);
    }

    start() {
      const side = this.stage.clientWidth || 600;
      const [target, radius] = this.solid ? this.ball() : [[0, 0, 0], 0.5 * EXTENT];
      const zoom = Math.log2(side / ((this.solid ? 1.95 : 2.08) * radius));
      const turned = this.solid ? { rotationX: 25, rotationOrbit: 35 } : {};
      return { target, zoom, minZoom: zoom - 1, maxZoom: zoom + 6, ...turned };
    }

    lens() {
      const { OrbitView, OrthographicView } = this.api;
      const controller = this.controller();
      if (this.solid) return new OrbitView({ id: "solid", orbitAxis: "Z", controller });
      return new OrthographicView({ id: "flat", flipY: false, controller });
    }

    /** Middle and radius of the ball that holds nearly all of the solid map. */
    ball() {
      const places = this.places[1];
      const n = this.rows.length;
      const middle = [0, 1, 2].map((k) => median(filled(Float32Array, n, (i) => places[3 * i + k])));
      const away = filled(Float32Array, n, (i) =>
        Math.sqrt(middle.reduce((sum, v, k) => sum + (places[3 * i + k] - v) ** 2, 0)),
      );
      return [middle, away.sort()[Math.floor(0.98 * (n - 1))] || 1];
    }

    /** The wheel scrolls the page, and enlarges a map only after it was clicked or reached by keyboard. */
    controller() {
      const focused = this.stage.contains(document.activeElement);
      return { scrollZoom: focused && { smooth: true, speed: 0.01 }, inertia: 200, keyboard: true };
    }

    paint() {
      const colors = new Uint8Array(4 * this.rows.length);
      if (this.by === "score") {
        this.grouped = null;
        this.top = this.score.reduce((a, b) => Math.max(a, b), 0) || 1;
        for (let i = 0; i < this.rows.length; i++) colors.set(this.heat(i), 4 * i);
      } else {
        this.grouped = this.groups();
        const faint = dark.matches ? [70, 76, 84, 60] : [205, 209, 214, 70];
        const palette = this.grouped.groups.map(({ color, title }, group) =>
          this.only === null || this.only === group ? [...rgb(color), title === "noise" ? 90 : 205] : faint,
        );
        this.grouped.of.forEach((group, i) => colors.set(palette[group], 4 * i));
      }
      this.colors = colors;
      this.tell();
    }

    heat(i) {
      return [...ramp(this.score[i] / this.top), this.flagged[i] ? 255 : 150];
    }

    layers() {
      const { ScatterplotLayer, TextLayer, COORDINATE_SYSTEM } = this.api;
      const n = this.rows.length;
      const pixels = Math.min(Math.max(2.4 * (4000 / n) ** 0.25, 0.8), 3.4);
      const common = { coordinateSystem: COORDINATE_SYSTEM.CARTESIAN, pickable: false };
      const points = new ScatterplotLayer({
        ...common,
        id: `points-${this.solid}`,
        data: {
          length: n,
          attributes: {
            getPosition: { value: this.places[Number(this.solid)], size: 3 },
            getFillColor: { value: this.colors, size: 4, normalized: true },
          },
        },
        billboard: true,
        radiusUnits: "common",
        getRadius: (pixels * EXTENT) / 640,
        radiusMinPixels: Math.min(pixels, 1),
        radiusMaxPixels: 7,
        parameters: { depthCompare: this.solid ? "less-equal" : "always" },
      });
      const marks = new TextLayer({
        ...common,
        id: "marks",
        data: this.marks(),
        characterSet: "auto",
        getText: (mark) => mark.text,
        getPosition: (mark) => mark.at,
        getSize: 12,
        getColor: dark.matches ? [240, 242, 245] : [27, 31, 36],
        fontFamily: "system-ui, 'Liberation Sans', sans-serif",
        fontWeight: 700,
        fontSettings: { sdf: true, fontSize: 48, buffer: 8, radius: 16 },
        outlineWidth: 4,
        outlineColor: dark.matches ? [18, 21, 24, 230] : [255, 255, 255, 230],
        parameters: { depthCompare: "always" },
      });
      return [points, marks];
    }

    /** Each group's mark at the member that is nearest to its middle. */
    marks() {
      if (!this.grouped || this.grouped.groups.length > 80) return [];
      const places = this.places[Number(this.solid)];
      const members = this.grouped.groups.map(() => []);
      this.grouped.of.forEach((group, i) => members[group].push(i));
      return this.grouped.groups.flatMap(({ mark }, group) => {
        if (!mark || !members[group].length || (this.only !== null && this.only !== group)) return [];
        const some = members[group].filter((_, i) => i % Math.ceil(members[group].length / 2000) === 0);
        const middle = [0, 1, 2].map((k) => median(Float32Array.from(some, (i) => places[3 * i + k])));
        const away = (i) => middle.reduce((sum, v, k) => sum + (places[3 * i + k] - v) ** 2, 0);
        const nearest = some.reduce((best, i) => (away(i) < away(best) ? i : best));
        const short = mark.length > 24 ? `${mark.slice(0, 23)}…` : mark;
        return [{ text: short, at: [...places.slice(3 * nearest, 3 * nearest + 3)] }];
      });
    }

    redraw() {
      this.paint();
      this.deck?.setProps({ layers: this.layers() });
    }

    turn(solid) {
      this.solid = solid;
      this.hide();
      this.deck?.setProps({ views: this.lens(), initialViewState: this.start(), layers: this.layers() });
    }

    colorBy(by) {
      [this.by, this.only] = [by, null];
      this.hide();
      this.redraw();
    }

    close() {
      if (!this.deck) return;
      this.hide();
      this.deck.finalize();
      this.deck = this.canvas = null;
      this.end();
      this.stage.querySelectorAll(":scope > canvas, :scope > div:not(.tip)").forEach((part) => part.remove());
      this.figure.classList.remove("open");
    }

    // Legend

    tell() {
      this.legend.replaceChildren();
      if (!this.grouped) {
        this.legend.append(this.scale());
        return;
      }
      const sizes = new Uint32Array(this.grouped.groups.length);
      for (const group of this.grouped.of) sizes[group]++;
      const order = [...sizes.keys()].filter((g) => sizes[g]).sort((a, b) => sizes[b] - sizes[a]);
      for (const group of order) {
        const { title, color } = this.grouped.groups[group];
        const button = document.createElement("button");
        button.type = "button";
        button.setAttribute("aria-pressed", String(this.only === group));
        const chip = document.createElement("i");
        chip.style.background = color;
        const count = document.createElement("small");
        count.textContent = sizes[group].toLocaleString("en");
        button.append(chip, title, " ", count);
        button.addEventListener("click", () => {
          this.only = this.only === group ? null : group;
          this.redraw();
          this.legend.querySelector("[aria-pressed=true]")?.focus();
        });
        this.legend.append(button);
      }
    }

    scale() {
      const bar = document.createElement("p");
      bar.className = "scale";
      const strip = document.createElement("i");
      const stops = [0, 0.25, 0.5, 0.75, 1].map((t) => `rgb(${ramp(t)})`);
      strip.style.background = `linear-gradient(90deg, ${stops})`;
      const flagged = this.flagged.reduce((a, b) => a + b, 0).toLocaleString("en");
      bar.append("0", strip, `${this.top.toFixed(2)} outlier score; ${flagged} images are flagged`);
      return bar;
    }

    // What lies under the pointer

    nearest(x, y) {
      const viewport = this.deck.getViewports()[0];
      const m = viewport.pixelProjectionMatrix;
      const places = this.places[Number(this.solid)];
      let [best, least, front] = [-1, REACH * REACH, Infinity];
      const look = (i) => {
        const [px, py, pz] = [places[3 * i], places[3 * i + 1], places[3 * i + 2]];
        const w = m[3] * px + m[7] * py + m[11] * pz + m[15];
        const dx = (m[0] * px + m[4] * py + m[8] * pz + m[12]) / w - x;
        const dy = (m[1] * px + m[5] * py + m[9] * pz + m[13]) / w - y;
        const away = dx * dx + dy * dy;
        if (away > least) return;
        const depth = (m[2] * px + m[6] * py + m[10] * pz + m[14]) / w;
        // in a solid map what lies in front hides what is as near to the pointer
        if (this.solid && away > 9 && away > least - 9 && depth > front) return;
        [best, least, front] = [i, away, depth];
      };
      for (let i = 0; i < this.rows.length; i++) look(i);
      return best;
    }

    placeOnScreen(i) {
      const places = this.places[Number(this.solid)];
      return this.deck.getViewports()[0].project([...places.slice(3 * i, 3 * i + 3)]);
    }

    /** Of the images with a thumbnail, the one nearest to point `i` on this map, in its cluster if it has one. */
    pictureFor(i) {
      if (this.shared.tileOf.has(this.rows[i]) || !this.pictured.length) return i;
      const places = this.places[Number(this.solid)];
      const away = (j) => [0, 1, 2].reduce((s, k) => s + (places[3 * j + k] - places[3 * i + k]) ** 2, 0);
      const own = this.pictured.filter((j) => this.cluster[j] === this.cluster[i]);
      return (own.length ? own : this.pictured).reduce((best, j) => (away(j) < away(best) ? j : best));
    }

    show(i) {
      const shown = this.pictureFor(i);
      const tile = this.shared.tileOf.get(this.rows[shown]);
      const path = this.shared.paths[this.rows[i]];
      const cluster = this.cluster[i];
      const canvas = this.tip.querySelector("canvas");
      canvas.hidden = tile === undefined;
      if (tile !== undefined) drawPicture(canvas, tile, this.shared);
      const note = shown === i ? "" : `Picture of ${this.shared.paths[this.rows[shown]]}, the nearest with one.`;
      const flag = this.flagged[i] ? ", flagged" : "";
      const words = [
        [".tip-name", cluster < 0 ? "noise" : `${cluster} ${this.nameOf(cluster)}`],
        [".tip-score", `outlier score ${this.score[i].toFixed(2)}${flag}`],
        [".tip-labels", this.labelsOf(i)],
        [".tip-path", path],
        [".tip-note", note],
      ];
      for (const [selector, text] of words) this.tip.querySelector(selector).textContent = text;
      this.tip.querySelector(".chip").style.background = this.clusters.get(cluster).color;
      this.tip.hidden = false;
      const [x, y] = this.placeOnScreen(i);
      const [width, height] = [this.stage.clientWidth, this.stage.clientHeight];
      const left = x + 16 + this.tip.offsetWidth > width ? x - 16 - this.tip.offsetWidth : x + 16;
      const top = Math.min(Math.max(y - this.tip.offsetHeight / 2, 0), height - this.tip.offsetHeight);
      this.tip.style.left = `${Math.max(left, 0)}px`;
      this.tip.style.top = `${Math.max(top, 0)}px`;
      const ring = this.figure.querySelector(".ring");
      ring.hidden = false;
      [ring.style.left, ring.style.top] = [`${x}px`, `${y}px`];
      this.at = i;
    }

    labelsOf(i) {
      const told = this.shared.labels.flatMap(({ title, values, codes }) => {
        const code = codes[this.rows[i]];
        return code ? [`${title} ${values[code - 1]}`] : [];
      });
      return told.join(", ");
    }

    hide() {
      this.tip.hidden = true;
      this.figure.querySelector(".ring").hidden = true;
      this.at = null;
    }

    find(words) {
      const wanted = words.trim().toLowerCase();
      if (!wanted) return;
      const found = [];
      this.rows.forEach((row, i) => this.shared.paths[row].toLowerCase().includes(wanted) && found.push(i));
      if (!found.length) {
        this.status.textContent = `No image on this map has ${words.trim()} in its path.`;
        return;
      }
      const next = (this.found?.words === wanted ? this.found.next : 0) % found.length;
      this.found = { words: wanted, next: next + 1 };
      const i = found[next];
      const which = found.length > 1 ? ` (${next + 1} of ${found.length.toLocaleString("en")}, Enter for the next)` : "";
      const cluster = this.cluster[i] < 0 ? "noise" : `cluster ${this.cluster[i]}, ${this.nameOf(this.cluster[i])}`;
      this.status.textContent = `${this.shared.paths[this.rows[i]]} is in ${cluster}; outlier score ${this.score[i].toFixed(2)}${which}.`;
      if (this.figure.classList.contains("open")) this.show(i);
    }

    point(event) {
      if (!this.canvas || event.buttons) return;
      const box = this.stage.getBoundingClientRect();
      this.pointer = [event.clientX - box.left, event.clientY - box.top];
      if (this.waiting) return;
      this.waiting = requestAnimationFrame(() => {
        this.waiting = null;
        if (!this.canvas) return;
        const i = this.nearest(...this.pointer);
        if (i < 0) this.hide();
        else if (i !== this.at) this.show(i);
      });
    }

    goToCluster() {
      if (this.at === null || this.at === undefined) return;
      const card = of(`${this.section.id}-cluster-${this.cluster[this.at]}`);
      if (!card) return;
      card.closest("details").open = true;
      location.hash = card.id;
    }
  }

  for (const figure of document.querySelectorAll("figure.map[data-section]")) {
    const map = new PointMap(figure);
    const tools = figure.querySelector(".map-tools");
    tools.hidden = false;
    for (const choice of tools.querySelectorAll("input[type=radio]")) {
      choice.addEventListener("change", async () => {
        await map.open();
        map.turn(choice.value === "3");
      });
    }
    tools.querySelector("select").addEventListener("change", async (event) => {
      const by = event.target.value;
      await map.open();
      map.colorBy(by);
    });
    const search = tools.querySelector("input[type=search]");
    search.addEventListener("keydown", async (event) => {
      if (event.key !== "Enter") return;
      await map.open();
      map.find(search.value);
    });
    map.stage.addEventListener("pointermove", (event) => map.point(event));
    map.stage.addEventListener("pointerleave", () => map.hide());
    map.stage.addEventListener("pointerdown", () => map.canvas?.focus({ preventScroll: true }));
    for (const kind of ["focusin", "focusout"]) {
      map.stage.addEventListener(kind, () => setTimeout(() => map.deck?.setProps({ views: map.lens() })));
    }
    map.stage.addEventListener("dblclick", () => map.goToCluster());
    map.section.addEventListener("input", (event) => {
      if (event.target.matches("[data-cluster]") && map.deck && map.by !== "score") map.redraw();
    });
    dark.addEventListener("change", () => map.deck && map.redraw());

    const ask = figure.querySelector(".open-map");
    ask.addEventListener("click", () => map.open());
    const atOnce = "atOnce" in figure.dataset;
    ask.hidden = atOnce;
    // a browser keeps few drawing contexts: a map that is far from the window gives its own back
    new IntersectionObserver(
      ([{ isIntersecting }]) => {
        map.near = isIntersecting;
        if (!isIntersecting) map.close();
        else if (atOnce || map.asked) map.open();
      },
      { rootMargin: "200px" },
    ).observe(figure);
    ask.addEventListener("click", () => (map.asked = true));
    figure.pointMap = map;
  }
}
