// Elements, requests and the address: what all places share. Text from outside becomes text nodes, never markup.

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name in element && !name.includes("-") && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(child => child !== null && child !== undefined && child !== false));
  return element;
}

export function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat());
  return element;
}

export class Refused extends Error {
  constructor(status, body) {
    const error = body?.error;
    super(typeof error === "string" ? error : error?.reason || error?.message || `the server answered ${status}`);
    this.status = status;
    this.parameter = body?.parameter;
  }
}

let key = sessionStorage.getItem("api-key") || "";

export const hasKey = () => key !== "";

export async function ask(path, {method = "GET", query = {}, body} = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  const address = given.length ? `${path}?${new URLSearchParams(given)}` : path;
  const headers = {Accept: "application/json"};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(address, {method, headers, body: body === undefined ? undefined : JSON.stringify(body)});
  } catch {
    throw new Refused(0, {error: "the server does not answer; is it still running?"});
  }
  if (response.status === 401) {
    await askForKey(key !== "");
    return ask(path, {method, query, body});
  }
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Refused(response.status, answer);
  return answer;
}

let asking = null;

function askForKey(wasWrong) {
  asking ??= new Promise(resolve => {
    const input = make("input", {id: "key", type: "password", autocomplete: "off", required: true});
    const form = make("form", {class: "stack", onsubmit: event => {
      event.preventDefault();
      key = input.value.trim();
      sessionStorage.setItem("api-key", key);
      dialog.close();
      asking = null;
      resolve();
    }},
    make("h2", {id: "dialog-title"}, "API key"),
    make("p", {class: "dim small"}, "This server was started with --api-key. The key stays in this tab."),
    make("div", {}, make("label", {htmlFor: "key"}, "Key"), input, wasWrong ? make("p", {class: "error"}, "This key was refused.") : null),
    make("div", {class: "row"}, make("button", {class: "primary"}, "Go on")));
    const dialog = document.getElementById("dialog");
    dialog.oncancel = event => event.preventDefault();
    dialog.replaceChildren(form);
    dialog.showModal();
  });
  return asking;
}

// The address after "#": a place, and its state as a query string.
export function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  return {place: path || "search", state: Object.fromEntries(new URLSearchParams(query))};
}

export function link(place, state = {}) {
  const given = Object.entries(state).filter(([, value]) => value !== "" && value !== undefined && value !== null);
  return `#/${place}${given.length ? `?${new URLSearchParams(given)}` : ""}`;
}

export function go(place, state) {
  const wanted = link(place, state);
  if (wanted === location.hash) dispatchEvent(new HashChangeEvent("hashchange"));
  else location.hash = wanted;
}

export function toast(text) {
  const box = document.getElementById("toast");
  box.textContent = text;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { box.textContent = ""; }, 2500);
}

export function copyButton(text, name = "Copy") {
  return make("button", {type: "button", class: "quiet", onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      toast("Copied");
    } catch {
      toast("The browser does not let this page copy");
    }
  }}, name);
}

export function notice(text, kind = "") {
  return make("p", {class: `notice ${kind}`, role: kind === "bad" ? "alert" : null}, text);
}

export const number = value => value === null || value === undefined ? "–" : value.toLocaleString("en", {maximumFractionDigits: 4});

export function when(time) {
  if (!time) return "–";
  const date = new Date(time);
  return Number.isNaN(date.getTime()) ? String(time) : date.toISOString().slice(0, 16).replace("T", " ");
}

export function tokenList(pairs) {
  const most = Math.max(...pairs.map(([, weight]) => weight), 1e-9);
  return make("ul", {class: "tokens"}, pairs.map(([token, weight, title]) => {
    const item = make("li", {title: title || null}, make("b", {}, token), weight.toPrecision(3));
    item.style.setProperty("--share", `${Math.round(100 * weight / most)}%`);
    return item;
  }));
}

// A table whose rows become blocks on a phone: each cell knows the name of its column.
export function table(columns, rows, properties = {}) {
  const head = make("tr", {}, columns.map(([name, kind]) => make("th", {scope: "col", class: kind || null}, name)));
  const body = rows.map(({cells, ...row}) => make("tr", row, cells.map((cell, at) =>
    make("td", {class: columns[at][1] || null, "data-name": columns[at][0]}, cell ?? ""))));
  return make("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": properties.label},
    make("table", {class: properties.isTight ? "rows tight" : "rows"}, make("caption", {class: "sr"}, properties.label), make("thead", {}, head), make("tbody", {}, body)));
}

export function facts(pairs) {
  const known = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return known.length === 0 ? null : make("dl", {class: "facts"}, known
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

export function field(id, name, control, hint) {
  control.id = id;
  control.setAttribute("aria-describedby", hint ? `${id}-error ${id}-hint` : `${id}-error`);
  return make("div", {}, make("label", {htmlFor: id}, name), control,
    hint ? make("p", {class: "hint", id: `${id}-hint`}, hint) : null, make("p", {class: "error", id: `${id}-error`, role: "alert"}));
}

export function mark(id, message) {
  const control = document.getElementById(id), box = document.getElementById(`${id}-error`);
  if (!box) return false;
  box.textContent = message;
  if (message) control?.setAttribute("aria-invalid", "true");
  else control?.removeAttribute("aria-invalid");
  return true;
}

export function option(value, text, chosen) {
  return make("option", {value, selected: value === chosen}, text);
}
