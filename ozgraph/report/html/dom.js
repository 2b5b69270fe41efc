"use strict";
// Elements are made here alone: text becomes text nodes, never markup.
const oz = {};

oz.h = (tag, attributes = {}, ...children) => oz.fill(document.createElement(tag), attributes, children);
oz.s = (tag, attributes = {}, ...children) =>
  oz.fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

oz.fill = (element, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "on") for (const [event, act] of Object.entries(value)) element.addEventListener(event, act);
    else if (name === "style") for (const [key, text] of Object.entries(value)) element.style.setProperty(key, text);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
};

oz.byId = (id) => document.getElementById(id);

// Numbers as ozgraph/report/numbers.py writes them.
oz.human = (count) => {
  const prefixes = ["", "k", "M", "G", "T", "P"];
  let size = count, power = 0;
  while (Math.abs(size) >= 999.5 && power < prefixes.length - 1) { size /= 1000; power += 1; }
  if (!power) return String(Math.round(count));
  return `${size.toFixed(Math.abs(size) < 9.995 ? 2 : Math.abs(size) < 99.95 ? 1 : 0)} ${prefixes[power]}`;
};

oz.percent = (share) => {
  if (share === 0 || share === 1) return `${share * 100} %`;
  if (share > 0 && share < 0.001) return "< 0.1 %";
  if (share > 0.999 && share < 1) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
};

oz.whole = (count) => count.toLocaleString("en-US");
oz.plural = (count, noun) =>
  `${oz.whole(count)} ${count === 1 ? noun : noun.endsWith("y") ? noun.slice(0, -1) + "ies" : noun + "s"}`;

// Control and direction characters of a name show as what they are; the end of a long one tells layers apart.
oz.clean = (name) => name.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, "\ufffd");
oz.short = (name, width) => {
  const text = oz.clean(name.length > 4 * width ? name.slice(0, width) + "…" + name.slice(-width) : name);
  if (text.length <= width) return text;
  const head = Math.max(0, Math.floor((width - 1) / 5));
  return `${text.slice(0, head)}…${text.slice(text.length - (width - 1 - head))}`;
};
oz.long = (name) => oz.short(name, 400);
