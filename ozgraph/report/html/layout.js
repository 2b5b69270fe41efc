"use strict";
// Places for what is shown: every open scope is laid out by dagre on its own, and stands in the one around it as a box.
oz.Layout = class {
  constructor(model) {
    this.model = model;
    this.open = new Set([0]);
    this.known = new Map();
    const canvas = document.createElement("canvas").getContext("2d");
    this.width = (text, font = "12px system-ui") => { canvas.font = font; return canvas.measureText(text).width; };
  }

  toggle(scope, open = !this.open.has(scope)) {
    if (open === this.open.has(scope) || scope === 0) return;
    if (open) this.open.add(scope); else this.open.delete(scope);
    for (const around of this.model.scopes[scope].chain) this.known.delete(around);
  }

  // Open whole levels for as long as the picture stays small.
  openUpTo(most) {
    for (let depth = 1; ; depth += 1) {
      const level = this.model.scopes.filter((scope) => scope.depth === depth && this.open.has(scope.parent));
      const shown = [...this.open, ...level.map((scope) => scope.number)]
        .reduce((sum, scope) => sum + this.model.scopes[scope].children.length, 0);
      if (!level.length || shown > most) return;
      level.forEach((scope) => this.toggle(scope.number, true));
    }
  }

  reveal(op) { for (const scope of this.model.scopes[this.model.ops[op].scope].chain) this.toggle(scope, true); }

  // What of an operator shows: itself, or the outermost closed scope around it.
  visible(op) {
    for (const scope of this.model.scopes[this.model.ops[op].scope].chain) if (!this.open.has(scope)) return `s${scope}`;
    return `o${op}`;
  }

  dims(axes) { return axes.map((axis) => String(this.model.axes[axis].size)).join("×") || "scalar"; }
  dimsWidth(axes) { return this.dims(axes).length * 6.4 + axes.length * 4 + 6; }

  weights(op) {
    return op.inputs.map((value) => this.model.values[value]).filter((value) => value.kind === "weight" && value.axes.length);
  }

  // The size of one child of a scope, closed or open.
  size(key) {
    if (key[0] === "s") {
      const scope = this.model.scopes[+key.slice(1)];
      if (this.open.has(scope.number)) return this.scope(scope.number);
      const below = this.width(`${scope.ops.length} ops · 9.99 M params`, "10.5px system-ui");
      return { width: Math.max(150, below + 38, this.width(oz.short(scope.label, 34), "650 12px system-ui") + 52), height: 44 };
    }
    const op = this.model.ops[+key.slice(1)], shown = this.weights(op).slice(0, 2);
    const title = this.width(op.type, "600 12px system-ui") + (op.label ? this.width(oz.short(op.label, 22)) + 10 : 0);
    const lines = shown.map((value) => this.dimsWidth(value.axes) + 62);
    return { width: Math.max(64, title + 24, ...lines), height: 26 + 17 * shown.length };
  }

  // Tensors between the children of a scope, into it and out of it.
  tensors(number) {
    const edges = new Map(), into = new Map(), out = new Map();
    const add = (map, key, value) => (map.has(key) ? map.get(key).add(value) : map.set(key, new Set([value])));
    const scope = this.model.scopes[number];
    for (const op of scope.ops) {
      const here = this.model.within(op, number);
      for (const input of this.model.ops[op].inputs) {
        const value = this.model.values[input];
        if (value.kind === "weight" || value.kind === "constant") continue;
        const from = value.producer < 0 ? null : this.model.within(value.producer, number);
        if (from === null) add(into, input, here);
        else if (from !== here) add(edges, `${from} ${here}`, input);
      }
      for (const output of this.model.ops[op].outputs) {
        const uses = this.model.values[output].uses;
        if (this.model.results.has(output) || uses.some((use) => this.model.within(use, number) === null)) add(out, output, here);
      }
    }
    return { edges, into: this.merged(into), out: this.merged(out) };
  }

  // One port a tensor, as long as there are few; the others share the last one.
  merged(map) {
    const ports = [...map].map(([value, ends]) => ({ values: [value], ends: new Set(ends) }));
    while (ports.length > 7) {
      const last = ports.pop(), other = ports[6];
      other.values.push(...last.values);
      last.ends.forEach((end) => other.ends.add(end));
    }
    return ports;
  }

  scope(number) {
    if (this.known.has(number)) return this.known.get(number);
    const model = this.model, graph = new dagre.graphlib.Graph({ multigraph: true });
    graph.setGraph({ rankdir: "TB", nodesep: 26, edgesep: 16, ranksep: 22, ranker: "network-simplex" });
    graph.setDefaultEdgeLabel(() => ({}));
    const children = model.scopes[number].children, { edges, into, out } = this.tensors(number);
    for (const key of children) graph.setNode(key, { ...this.size(key) });
    const quiet = (values) => values.every((value) => model.values[value].axes.every((axis) => model.axes[axis].reason === -3));
    const label = (values) => (quiet(values) ? { width: 0, height: 0 }
      : { width: this.dimsWidth(model.values[values[0]].axes) + (values.length > 1 ? 26 : 0), height: 18, labelpos: "c" });
    for (const [pair, found] of edges) {
      const [from, to] = pair.split(" "), values = [...found];
      graph.setEdge(from, to, { values, quiet: quiet(values), ...label(values) });
    }
    const port = (list, kind) => list.map((found, place) => {
      const name = `${kind}${place}`, first = model.values[found.values[0]];
      const text = number ? "" : oz.short(first.name, 26) + (found.values.length > 1 ? ` +${found.values.length - 1}` : "");
      graph.setNode(name, number ? { width: 8, height: 2 } : { width: this.width(text) + 28, height: 24, text });
      for (const end of found.ends) {
        const edge = { values: found.values, quiet: quiet(found.values), inner: number > 0 && list.length < 2,
          ...(number > 0 && list.length < 2 ? {} : label(found.values)) };
        if (kind === "in") graph.setEdge(name, end, edge); else graph.setEdge(end, name, edge);
      }
      return { name, values: found.values };
    });
    const ports = { in: port(into, "in"), out: port(out, "out") };
    // Ports stand in one row above everything, or below.
    if (number && into.length > 1) { graph.setNode("above", { width: 1, height: 1 }); ports.in.forEach(({ name }) => graph.setEdge("above", name, { weight: 9 })); }
    if (number && out.length > 1) { graph.setNode("below", { width: 1, height: 1 }); ports.out.forEach(({ name }) => graph.setEdge(name, "below", { weight: 9 })); }
    dagre.layout(graph);
    const made = this.cropped(number, graph, ports);
    this.known.set(number, made);
    return made;
  }

  // Coordinates from the corner of the scope's box, its head included.
  cropped(number, graph, ports) {
    const side = 14, head = number ? 30 : 0, isPort = (name) => /^(in|out)\d/.test(name);
    const hidden = (name) => name === "above" || name === "below";
    let left = Infinity, right = -Infinity, top = Infinity, bottom = -Infinity;
    const see = (x, y, width = 0, height = 0) => {
      left = Math.min(left, x - width / 2); right = Math.max(right, x + width / 2);
      top = Math.min(top, y - height / 2); bottom = Math.max(bottom, y + height / 2);
    };
    for (const name of graph.nodes()) if (!hidden(name)) { const node = graph.node(name); see(node.x, node.y, node.width, node.height); }
    const shown = graph.edges().filter(({ v, w }) => !hidden(v) && !hidden(w));
    for (const edge of shown) {
      const found = graph.edge(edge);
      found.points.forEach((point) => see(point.x, point.y));
      if (found.x !== undefined && found.width) see(found.x, found.y, found.width, found.height);
    }
    if (left > right) { left = right = top = bottom = 0; }
    const title = number ? this.width(oz.short(this.model.scopes[number].label, 40), "650 12px system-ui") + 60 : 0;
    const spare = Math.max(0, title - (right - left + 2 * side)) / 2;
    const move = (x, y) => [x - left + side + spare, y - top + head + 6];
    const nodes = graph.nodes().filter((name) => !hidden(name)).map((name) => {
      const node = graph.node(name), [x, y] = move(node.x - node.width / 2, node.y - node.height / 2);
      return { name, x, y, width: node.width, height: node.height, text: node.text, port: isPort(name) };
    });
    const height = bottom - top + head + 14, width = right - left + 2 * (side + spare);
    const lines = shown.map((edge) => {
      const found = graph.edge(edge), points = found.points.map((point) => move(point.x, point.y));
      const [x, y] = found.x === undefined ? [0, 0] : move(found.x, found.y);
      // Ports of a box are points on its border.
      if (number && isPort(edge.v)) points[0] = [points[0][0], 0];
      if (number && isPort(edge.w)) points[points.length - 1] = [points[points.length - 1][0], height];
      return { from: edge.v, to: edge.w, values: found.values, quiet: found.quiet, points, x, y,
        label: Boolean(found.width), width: found.width };
    });
    return { number, width, height, nodes, lines, ports };
  }

  // Everything that shows, in the coordinates of the picture, boxes before what is in them.
  scene() {
    const items = [];
    this.place(0, 0, 0, items);
    return items;
  }

  place(number, dx, dy, items) {
    const layout = this.scope(number), inner = new Map();
    const at = new Map(layout.nodes.map((node) => [node.name, node]));
    for (const node of layout.nodes) {
      if (node.port && number) continue;
      const item = { key: node.port ? `p${this.port(layout, node.name).values[0]}` : node.name, text: node.text,
        x: node.x + dx, y: node.y + dy, width: node.width, height: node.height, kind: node.port ? "port" : node.name[0] };
      item.open = item.kind === "s" && this.open.has(+node.name.slice(1));
      if (node.port) item.values = this.port(layout, node.name).values;
      items.push(item);
      if (item.open) {
        this.place(+node.name.slice(1), item.x, item.y, items);
        inner.set(node.name, this.scope(+node.name.slice(1)));
      }
    }
    for (const line of layout.lines) {
      const points = line.points.map(([x, y]) => [x + dx, y + dy]);
      this.meetPort(inner.get(line.from), "out", at.get(line.from), line.values, points, dx, dy);
      this.meetPort(inner.get(line.to), "in", at.get(line.to), line.values, points, dx, dy);
      const xs = points.map((point) => point[0]), ys = points.map((point) => point[1]);
      const x = Math.min(...xs, line.x + dx - (line.width || 0) / 2 || Infinity), y = Math.min(...ys);
      items.push({ kind: "e", key: `e${number} ${line.from} ${line.to}`, values: line.values, quiet: line.quiet, points,
        label: line.label ? { x: line.x + dx, y: line.y + dy } : null, x, y,
        width: Math.max(...xs, line.x + dx + (line.width || 0) / 2) - x, height: Math.max(...ys) - y });
    }
  }

  port(layout, name) { return [...layout.ports.in, ...layout.ports.out].find((port) => port.name === name); }

  // A line to an open box ends where the line inside begins.
  meetPort(layout, side, box, values, points, dx, dy) {
    const port = layout && layout.ports[side].find((found) => found.values.some((value) => values.includes(value)));
    const inside = port && layout.lines.find((line) => (side === "in" ? line.from : line.to) === port.name);
    if (!inside) return;
    const end = side === "in" ? inside.points[0] : inside.points[inside.points.length - 1];
    points[side === "in" ? points.length - 1 : 0] = [box.x + dx + end[0], box.y + dy + end[1]];
  }
};
