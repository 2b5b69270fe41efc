"use strict";
// The slider: what a target removes, live, as `ozgraph prune` would choose it.
oz.Slim = class {
  constructor(page) {
    this.page = page;
    this.model = page.model;
    const model = this.model;
    this.share = oz.h("span", { class: "share" }, "0 %");
    this.range = oz.h("input", { type: "range", min: 0, max: 950, step: 5, value: 0, id: "target",
      "aria-label": "fraction to remove", on: { input: () => this.ask() } });
    this.what = this.choice("of", "what the target counts", [["macs", "of the MACs"], ["parameters", "of the parameters"]]);
    this.by = this.choice("by", "saliency", model.orders.map((order, place) => [place, `by ${order.criterion}`]));
    this.after = oz.h("div", { class: "after" });
    this.histogram = oz.s("svg", { class: "histogram", role: "img", viewBox: "0 0 380 84", preserveAspectRatio: "none" });
    this.said = oz.h("p", { class: "key", "aria-live": "polite" });
    this.command = oz.h("div", { class: "command mono" });
    this.toggle = model.pruned ? oz.h("button", { "aria-pressed": "false", id: "pruned", on: { click: () => this.showPruned() } },
      `show ${oz.short(model.pruned.model, 30)}`) : null;
    this.element = oz.h("section", { class: "card slim", "aria-label": "what a target removes" },
      oz.h("div", { class: "row" }, oz.h("span", {}, "Remove "), this.share, oz.h("span", { class: "buttons", style: { margin: "0 0 0 auto" } }, this.what, this.by)),
      model.orders.length ? this.range : oz.h("p", { class: "note" }, "The weights cannot be read: there is nothing to rank."),
      this.after, this.histogram, this.said, this.command, this.toggle);
    this.showing = null;
  }

  choice(id, label, entries) {
    return oz.h("select", { id, "aria-label": label, on: { change: () => this.ask() } },
      entries.map(([value, text]) => oz.h("option", { value }, text)));
  }

  get order() { return this.model.orders[+this.by.value]; }

  // Sliding asks often; it is answered once a frame.
  ask() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => { this.waiting = 0; this.set(+this.range.value / 1000); });
  }

  set(share) {
    if (this.toggle) this.toggle.setAttribute("aria-pressed", "false");
    this.range.value = Math.round(share * 1000);
    if (!this.order) { this.render(share, 0, null, this.page.costs.full); return; }
    const blocks = share ? oz.meet(this.page.costs, this.order, this.what.value, share) : 0;
    const selection = new oz.Selection(this.model, this.order, blocks);
    this.render(share, blocks, selection, share ? this.page.costs.left(selection) : this.page.costs.full);
    this.page.slimmed(share ? selection : null, share ? this.page.costs.left(selection) : null);
  }

  showPruned() {
    const pruned = this.model.pruned, on = this.toggle.getAttribute("aria-pressed") !== "true";
    if (!on) { this.set(0); return; }
    const kept = this.model.families.map((family) => pruned.widths[family.id] ?? family.size);
    const left = { ...this.page.costs.left({ kept }), parameters: pruned.parameters, macs: pruned.macs };
    this.range.value = 0;
    this.render(0, 0, { kept }, left);
    this.toggle.setAttribute("aria-pressed", "true");
    this.command.textContent = oz.short(pruned.model, 60);
    this.page.slimmed({ kept }, left);
  }

  render(share, blocks, selection, left) {
    const full = this.page.costs.full, whole = full[this.what.value];
    this.share.textContent = `${(share * 100).toFixed(share * 1000 % 10 ? 1 : 0)} %`;
    const row = (name, before, after) => [oz.h("span", { class: "soft" }, name),
      oz.h("div", { class: "bar", title: oz.percent(after / Math.max(1, before)) }, oz.h("i", { style: { width: `${(100 * after) / Math.max(1, before)}%` } })),
      oz.h("span", { class: "number", id: `after-${name}`, "data-value": after }, oz.human(after)),
      oz.h("span", { class: "number soft" }, after < before ? `−${oz.percent(1 - after / before)}` : "as it is")];
    this.after.replaceChildren(...row("parameters", full.parameters, left.parameters), ...row("MACs", full.macs, left.macs));
    const gone = selection ? selection.kept.reduce((sum, kept, family) => sum + this.model.families[family].size - kept, 0) : 0;
    const met = !share || whole - left[this.what.value] >= share * whole;
    this.said.replaceChildren(
      oz.h("span", {}, oz.h("i", { style: { background: "var(--going)" } }), `${oz.plural(gone, "slot")} would go`),
      oz.h("span", {}, oz.h("i", { style: { background: "var(--staying)" } }), "stay"),
      ...(met ? [] : [oz.h("strong", {}, "more cannot be removed")]));
    const flag = this.what.value === "macs" ? "--target-macs" : "--target-params";
    const criterion = this.order && this.order.criterion !== "l2" ? ` --criterion ${this.order.criterion}` : "";
    this.command.textContent = `ozgraph prune model.onnx -o small.onnx ${flag} ${share ? +share.toFixed(3) : "…"}${criterion}`;
    this.bars(selection);
  }

  // Slots by their score over the family's mean; those that go in the colour of going.
  bars(selection) {
    const order = this.order, bins = this.model.bins;
    if (!order) return;
    const going = new Float64Array(bins), staying = new Float64Array(bins);
    const digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    const place = new Map([...digits].map((digit, number) => [digit, number]));
    for (const [family, scores] of Object.entries(order.scores)) {
      const gone = selection ? Math.round((this.model.families[family].size - selection.kept[family]) / this.model.step) : 0;
      for (let slot = 0; slot < scores.length; slot += 1) (slot < gone ? going : staying)[place.get(scores[slot])] += this.model.step;
    }
    const most = Math.max(1, ...going.map((count, bin) => count + staying[bin])), width = 380 / bins, height = 66;
    const rects = [];
    for (let bin = 0; bin < bins; bin += 1) {
      const low = (going[bin] / most) * height, high = (staying[bin] / most) * height;
      const tip = `${oz.percent(order.low + bin / (bins - 1) * (order.top - order.low))} of the family's mean: ${going[bin]} go, ${staying[bin]} stay`;
      if (low) rects.push(oz.s("rect", { class: "going", x: bin * width + 0.5, width: width - 1, y: height - low, height: low }, oz.s("title", {}, tip)));
      if (high) rects.push(oz.s("rect", { class: "staying", x: bin * width + 0.5, width: width - 1, y: height - low - high, height: high }, oz.s("title", {}, tip)));
    }
    const text = (x, anchor, words) => oz.s("text", { x, y: 80, "text-anchor": anchor }, words);
    this.histogram.setAttribute("aria-label", `histogram of ${order.criterion} saliency, ${oz.whole(going.reduce((a, b) => a + b, 0))} slots go`);
    this.histogram.replaceChildren(...rects, text(0, "start", `≤ ${order.low.toFixed(2)}`), text(190, "middle", `${order.criterion} of a group, over its family's mean`),
      text(380, "end", `≥ ${order.top.toFixed(2)}`));
  }
};
