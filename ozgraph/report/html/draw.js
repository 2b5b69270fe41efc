"use strict";
// The graph as SVG: only what is in view, drawn anew when the view, the choice or the numbers change.
oz.Drawing = class {
  constructor(page, svg) {
    Object.assign(this, { page, svg, model: page.model, layout: page.layout, items: [], drawn: null, found: null });
    this.stage = oz.s("g");
    svg.append(this.stage);
    this.transform = d3.zoomIdentity;
    this.zoom = d3.zoom().scaleExtent([0.03, 3])
      // The wheel moves the picture, as it moves a page; with Ctrl, or two fingers, it zooms.
      .filter((event) => (event.type === "wheel" ? event.ctrlKey || event.metaKey : !event.button))
      .on("zoom", ({ transform }) => { this.transform = transform; this.moved(); });
    this.view = d3.select(svg).call(this.zoom).on("dblclick.zoom", null);
    svg.addEventListener("wheel", (event) => {
      if (event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      const unit = event.deltaMode ? 24 : 1;
      this.zoom.translateBy(this.view, (-event.deltaX * unit) / this.transform.k, (-event.deltaY * unit) / this.transform.k);
    }, { passive: false });
    this.line = d3.line().curve(d3.curveBasis);
    this.line.straight = d3.line();
  }

  // Lay out what is open, keeping a child of the picture where it is on the screen.
  arrange(anchor = null) {
    const before = anchor && this.items.find((item) => item.key === anchor);
    this.items = this.layout.scene();
    this.places = new Map(this.items.map((item) => [item.key, item]));
    const after = before && this.places.get(anchor);
    if (after) {
      const [x, y] = [before.x + before.width / 2 - after.x - after.width / 2, before.y - after.y];
      this.zoom.translateBy(this.view, x, y);
    }
    this.draw();
  }

  moved() {
    this.stage.setAttribute("transform", this.transform);
    const { left, right, top, bottom } = this.window(0), drawn = this.drawn;
    const near = drawn && left >= drawn.left && right <= drawn.right && top >= drawn.top && bottom <= drawn.bottom;
    if (!near || drawn.fine !== this.fine()) this.later();
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.draw(); });
  }

  fine() { return this.transform.k > 0.28; }

  window(margin) {
    const { width, height } = this.svg.getBoundingClientRect(), { k, x, y } = this.transform;
    return { left: -x / k - (margin * width) / k, right: (width - x) / k + (margin * width) / k,
      top: -y / k - (margin * height) / k, bottom: (height - y) / k + (margin * height) / k };
  }

  draw() {
    const area = this.window(0.6), fine = this.fine(), choice = this.page.choice;
    this.drawn = { ...area, fine };
    const seen = this.items.filter((item) => item.x < area.right && item.x + item.width > area.left
      && item.y < area.bottom && item.y + item.height > area.top);
    this.lit = choice ? this.lights(choice) : null;
    this.svg.classList.toggle("chosen", Boolean(choice));
    if (choice) this.svg.style.setProperty("--chosen", choice.kind === "family" ? this.model.color(choice.number) : "var(--accent)");
    const focused = document.activeElement && this.stage.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const boxes = seen.filter((item) => item.kind !== "e"), edges = seen.filter((item) => item.kind === "e");
    this.stage.replaceChildren(
      ...boxes.filter((item) => item.open).map((item) => this.box(item, fine)),
      ...edges.map((item) => this.edge(item)),
      ...boxes.filter((item) => !item.open).map((item) => this.box(item, fine)),
      ...boxes.filter((item) => item.open).map((item) => this.head(item)),
      ...(fine ? edges.filter((item) => item.label).map((item) => this.label(item)) : []));
    this.stage.setAttribute("transform", this.transform);
    if (focused) this.stage.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  // Keys of what the choice reaches, with the role that shows in its corner.
  lights(choice) {
    const lit = new Map(), note = (op, role) => {
      const key = this.layout.visible(op);
      if (!lit.get(key) || role === "producer") lit.set(key, role);
    };
    if (choice.kind === "family") this.model.places[choice.number].forEach((role, op) => note(op, role));
    if (choice.kind === "op") lit.set(this.layout.visible(choice.number), "");
    if (choice.kind === "scope") {
      lit.set(`s${choice.number}`, "");
      this.model.scopes[choice.number].ops.forEach((op) => note(op, ""));
    }
    if (choice.kind === "reason")
      for (const op of this.model.ops)
        if ([...op.inputs, ...op.outputs].some((value) => this.model.values[value].axes.some((axis) => this.model.carries(axis, choice))))
          note(op.number, "");
    return lit;
  }

  edge(item) {
    const choice = this.page.choice, values = item.values.map((value) => this.model.values[value]);
    const lit = choice && (values.some((value) => value.axes.some((axis) => this.model.carries(axis, choice)))
      || (choice.kind === "value" && item.values.includes(choice.number)));
    const line = item.points.length > 2 ? this.line : this.line.straight;
    return oz.s("g", { class: `edge${item.quiet ? " quiet" : ""}${lit ? " lit" : ""}` },
      oz.s("path", { d: line(item.points) }));
  }

  // The dims of a tensor: numbers, those of families in their colours.
  dims(axes, x, y) {
    const model = this.model, left = this.page.left, step = 6.4;
    const texts = axes.map((axis) => String(Math.round(left ? left.axes[axis] : model.axes[axis].size)));
    const widths = axes.map((axis) => String(model.axes[axis].size).length * step + 4);
    const total = widths.reduce((sum, width) => sum + width, 0) + Math.max(0, axes.length - 1) * step;
    const group = oz.s("g", { class: "dims" });
    group.append(oz.s("rect", { class: "back", x: x - total / 2 - 2, y: y - 8, width: total + 4, height: 16, rx: 4 }));
    let at = x - total / 2;
    axes.forEach((axis, place) => {
      const found = model.axes[axis], family = found.families[0], middle = at + widths[place] / 2;
      if (place) group.append(oz.s("text", { x: at - step / 2, y: y + 3.5 }, "×"));
      const frozen = family === undefined && found.reason >= 0, plain = family === undefined && found.reason < 0;
      const dim = oz.s("g", { class: `dim${frozen ? " frozen" : ""}`, "data-axis": plain ? undefined : axis },
        oz.s("title", {}, this.page.axisTitle(axis)));
      if (family !== undefined) {
        const width = widths[place];
        dim.append(oz.s("rect", { x: at, y: y - 7.5, width, height: 15, rx: 4, fill: model.color(family) }));
        const share = left ? left.axes[axis] / found.size : 1;
        if (share < 1) dim.append(oz.s("rect", { class: "left", x: at, y: y + 5.5, width: width * (1 - share), height: 2.5, rx: 1 }));
      }
      dim.append(oz.s("text", { x: middle, y: y + 3.5 }, texts[place]));
      group.append(plain ? oz.s("text", { x: middle, y: y + 3.5 }, oz.s("title", {}, this.page.axisTitle(axis)), texts[place]) : dim);
      at += widths[place] + step;
    });
    return { group, total };
  }

  label(item) {
    const value = this.model.values[item.values[0]], { x, y } = item.label, more = item.values.length - 1;
    const choice = this.page.choice;
    const lit = choice && item.values.some((one) => this.model.values[one].axes.some((axis) => this.model.carries(axis, choice)));
    const { group, total } = this.dims(value.axes, x - (more ? 11 : 0), y);
    if (!value.axes.length) group.append(oz.s("text", { x, y: y + 3.5 }, "scalar"));
    if (more) group.append(oz.s("text", { x: x + total / 2 + 2, y: y + 3.5 }, oz.s("title", {}, `${more + 1} tensors`), `+${more}`));
    group.setAttribute("class", `dims edge${lit ? " lit" : ""}`);
    return group;
  }

  box(item, fine) {
    const number = +item.key.slice(1), role = this.lit && this.lit.get(item.key);
    const lit = this.lit && (this.lit.has(item.key)
      || (item.kind === "port" && item.values.some((value) => this.model.values[value].axes.some((axis) => this.model.carries(axis, this.page.choice)))));
    const name = { o: "op", s: "scope", port: "port" }[item.kind];
    const group = oz.s("g", { class: `${name}${item.open ? " open" : ""}${lit ? " lit" : ""}${this.found === item.key ? " found" : ""}`,
      transform: `translate(${item.x} ${item.y})`, tabindex: 0, role: "button", "data-key": item.key });
    group.append(oz.s("rect", { class: "frame", width: item.width, height: item.height, rx: item.kind === "s" ? 10 : 7 }));
    if (item.kind === "o") this.operator(group, this.model.ops[number], item, fine);
    else if (item.kind === "s") this.scope(group, this.model.scopes[number], item, fine);
    else {
      const values = item.values.map((value) => oz.long(this.model.values[value].name)).slice(0, 6).join(", ");
      group.setAttribute("aria-label", `tensor ${values}`);
      group.append(oz.s("title", {}, values), oz.s("text", { class: "small", x: item.width / 2, y: 16, "text-anchor": "middle" }, item.text));
    }
    if (role) {
      group.append(oz.s("circle", { cx: item.width - 2, cy: 2, r: 8, fill: "var(--chosen)" }), oz.s("text", { class: "badge", x: item.width - 2, y: 5.5 },
        { producer: "P", consumer: "C", slice: "S" }[role], oz.s("title", {}, role)));
    }
    return group;
  }

  operator(group, op, item, fine) {
    const weights = this.layout.weights(op);
    group.setAttribute("aria-label", `operator ${op.type} ${oz.short(op.label || op.name, 80)}`);
    group.append(oz.s("title", {}, `${op.type}\n${oz.long(op.name)}`));
    if (weights.length) group.classList.add("weighted");
    if (!fine && item.width < 200) { group.append(oz.s("text", { class: "title", x: 12, y: 17 }, op.type)); return; }
    group.append(oz.s("text", { x: 12, y: 17 }, oz.s("tspan", { class: "title" }, op.type),
      op.label ? oz.s("tspan", { dx: 8, class: "small" }, oz.short(op.label, 22)) : null));
    weights.slice(0, 2).forEach((value, line) => {
      const y = 35 + 17 * line, last = oz.clean(value.name.slice(-200)).split(/[./]/).pop() || value.name;
      group.append(oz.s("text", { class: "small", x: 12, y }, oz.short(last, 8), oz.s("title", {}, oz.long(value.name))));
      const width = this.layout.dimsWidth(value.axes);
      group.append(this.dims(value.axes, item.width - 8 - width / 2, y - 4).group);
    });
  }

  scope(group, scope, item, fine) {
    const left = this.page.shares, share = left.macs[scope.number] / Math.max(1, left.macs[0]);
    group.setAttribute("aria-label", `scope ${oz.short(scope.path, 80)}, ${oz.plural(scope.ops.length, "operator")}`);
    group.setAttribute("aria-expanded", String(item.open));
    group.append(oz.s("title", {}, `${oz.long(scope.path)}\nclick to ${item.open ? "close" : "open"}`));
    if (!fine && !item.open) {
      group.append(oz.s("text", { class: "title", x: 12, y: 26 }, oz.short(scope.label, 34)));
      return;
    }
    if (item.open) return;
    group.append(oz.s("text", { class: "sign", x: 11, y: 19.5 }, "+"),
      oz.s("text", { class: "title", x: 25, y: 19 }, oz.short(scope.label, 34)));
    group.append(oz.s("text", { class: "small", x: 25, y: 34 },
      `${scope.ops.length} ops · ${oz.human(left.parameters[scope.number])} params`));
    group.append(oz.s("rect", { x: 0, y: item.height - 3, width: item.width, height: 3, fill: "var(--faint)", rx: 1.5 }),
      oz.s("rect", { x: 0, y: item.height - 3, width: Math.max(0, item.width * share), height: 3, fill: "var(--accent)", rx: 1.5 },
        oz.s("title", {}, `${oz.percent(share)} of the MACs`)));
  }

  // What an open scope is called, over the lines that go into it.
  head(item) {
    const scope = this.model.scopes[+item.key.slice(1)];
    return oz.s("g", { class: "head", transform: `translate(${item.x} ${item.y})`, "aria-hidden": "true" },
      oz.s("text", { class: "sign", x: 11, y: 19.5 }, "−"), oz.s("text", { class: "title", x: 25, y: 19 }, oz.short(scope.label, 40)));
  }

  // -- moving the view --------------------------------------------------------------------------------------------

  bounds() {
    const boxes = this.items.filter((item) => item.kind !== "e");
    return { left: Math.min(...boxes.map((b) => b.x)), right: Math.max(...boxes.map((b) => b.x + b.width)),
      top: Math.min(...boxes.map((b) => b.y)), bottom: Math.max(...boxes.map((b) => b.y + b.height)) };
  }

  // The whole width, from the top; everything where that is still readable.
  fit(whole = false) {
    const { width, height } = this.svg.getBoundingClientRect(), at = this.bounds();
    if (!width || !Number.isFinite(at.left)) return;
    const across = width / (at.right - at.left + 80), down = height / (at.bottom - at.top + 60);
    const k = Math.max(0.03, Math.min(1.15, across, whole ? down : Math.max(down, 0.95)));
    const x = width / 2 - (k * (at.left + at.right)) / 2;
    const y = k * (at.bottom - at.top + 60) <= height ? height / 2 - (k * (at.top + at.bottom)) / 2 : 30 - k * at.top;
    this.zoom.transform(this.view, d3.zoomIdentity.translate(x, y).scale(k));
    this.draw();
  }

  show(key) {
    const item = this.places.get(key);
    if (!item) return;
    const { width, height } = this.svg.getBoundingClientRect(), k = Math.max(0.75, Math.min(1.2, this.transform.k));
    const x = width / 2 - k * (item.x + item.width / 2), y = height / 2 - k * (item.y + Math.min(item.height, height / k) / 2);
    this.zoom.transform(this.view, d3.zoomIdentity.translate(x, y).scale(k));
    this.draw();
  }
};
