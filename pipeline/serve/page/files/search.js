// Search: one mode or all side by side. The address holds the whole question.
import {ask, field, go, link, make, mark, notice, option, tokenList} from "/page/dom.js";

const FIELDS = ["q", "mode", "field", "filter", "k", "rerank", "depth"];
const DEPTH = "100";
const NAMES = {all: "Side by side", bm25: "BM25", sparse: "Sparse", dense: "Dense", hybrid: "Hybrid"};

export async function showSearch(main, state, overview, isCurrent) {
  if (!overview.index) {
    main.replaceChildren(make("div", {class: "stack"}, make("h1", {}, "Search"), notice(overview.problem)));
    return;
  }
  if (main.dataset.place !== "search" || !document.getElementById("results")) {
    main.replaceChildren(make("h1", {class: "sr"}, "Search"), form(overview.index), make("div", {id: "results", "aria-live": "polite"}));
  }
  fill(state, overview.index);
  await showResults(state, overview.index, isCurrent);
}

function form(index) {
  const query = make("input", {type: "search", placeholder: "What are you looking for?", autocomplete: "off", autofocus: true});
  const modes = make("fieldset", {}, make("legend", {}, "Mode"), make("div", {class: "segments"},
    ["all", ...index.modes].map(mode => make("label", {}, make("input", {type: "radio", name: "mode", value: mode}), make("span", {}, NAMES[mode] || mode)))),
  make("p", {class: "error", id: "mode-error", role: "alert"}));
  const fields = make("select", {}, option("", "All fields"), index.fields.map(one => option(one.name, one.name)));
  const names = Object.keys(index.filters);
  const filter = make("input", {autocomplete: "off", spellcheck: false, list: "filter-values",
    placeholder: names.length ? `${names[0]}=… AND …` : "year>=2020 AND kind=report"});
  const values = make("datalist", {id: "filter-values"});
  filter.addEventListener("input", () => suggest(filter, values, index.filters));
  filter.addEventListener("focus", () => suggest(filter, values, index.filters));
  const hint = names.length ? `Fields: ${names.slice(0, 6).join(", ")}${names.length > 6 ? " …" : ""}` : "The mapping has no field to filter by.";
  const amount = make("input", {type: "number", min: 1, max: 100, value: 10});
  const rerank = make("select", {}, option("", "No"), index.rerankers.map(one => option(one, one)));
  const depth = make("input", {type: "number", min: 1, max: 1000, value: DEPTH});
  const box = make("form", {class: "card", role: "search", noValidate: true, onsubmit: event => {
    event.preventDefault();
    submit(box);
  }},
  make("div", {class: "find"}, field("q", "Query", query), make("button", {class: "primary"}, "Search")),
  make("div", {class: "options"}, modes, field("field", "Field", fields), make("div", {}, field("filter", "Filter", filter, hint), values), field("k", "Hits", amount),
    field("rerank", "Rerank", rerank), field("depth", "Depth", depth)));
  depth.title = "Documents that are ranked again";
  rerank.addEventListener("change", () => { depth.disabled = !rerank.value; });
  box.addEventListener("change", event => { if (event.target.name === "mode" || ["field", "rerank"].includes(event.target.id)) submit(box); });
  return make("div", {class: "stack"}, box);
}

function submit(box) {
  const mode = box.querySelector("[name=mode]:checked")?.value || "all";
  const value = id => box.querySelector(`#${id}`).value;
  const state = {q: value("q"), mode: mode === "all" ? "" : mode, field: value("field"), filter: value("filter").trim(), k: value("k") === "10" ? "" : value("k"),
    rerank: value("rerank"), depth: !value("rerank") || value("depth") === DEPTH ? "" : value("depth")};
  if (!state.q.trim()) {
    clear();
    mark("q", "Type what to look for.");
    document.getElementById("q").focus();
    return;
  }
  go("search", state);
}

function fill(state, index) {
  const mode = state.mode || "all";
  for (const id of ["q", "field", "filter", "rerank"]) document.getElementById(id).value = state[id] || "";
  document.getElementById("k").value = state.k || "10";
  document.getElementById("depth").value = state.depth || DEPTH;
  document.getElementById("depth").disabled = !state.rerank;
  const chosen = [...document.querySelectorAll("[name=mode]")].find(one => one.value === mode);
  if (chosen) chosen.checked = true;
}

// Completes the last clause of the filter: a field's name, then one of its values.
let suggesting = 0;
async function suggest(filter, values, filters) {
  const turn = ++suggesting, at = filter.value.search(/[^\s]*\s*$/) < 0 ? 0 : filter.value.lastIndexOf(" AND ") + (filter.value.includes(" AND ") ? 5 : 0);
  const before = filter.value.slice(0, at), clause = filter.value.slice(at);
  const match = clause.match(/^\s*([\w.@-]+)\s*(!=|>=|<=|=|>|<)\s*(.*)$/);
  let offered = Object.entries(filters).map(([name, type]) => [`${before}${name}=`, type]);
  if (match && match[1] in filters) {
    try {
      const {values: found} = await ask("/api/suggestions", {query: {field: match[1], prefix: match[3]}});
      offered = found.map(one => [`${before}${match[1]}${match[2]}${one.value}`, `${one.documents} documents`]);
    } catch {
      offered = [];
    }
  }
  if (turn === suggesting) values.replaceChildren(...offered.map(([value, text]) => make("option", {value, label: `${value}  (${text})`})));
}

function clear() {
  for (const id of FIELDS) mark(id, "");
  document.getElementById("results").replaceChildren();
}

async function showResults(state, index, isCurrent) {
  clear();
  const results = document.getElementById("results");
  if (!state.q) {
    results.replaceChildren(make("p", {class: "notice"}, "Type a query: every mode that the field has is shown side by side."));
    return;
  }
  const modes = state.mode ? [state.mode] : (index.fields.find(one => one.name === state.field) || index).modes;
  results.replaceChildren(make("p", {class: "notice"}, "Searching …"));
  results.setAttribute("aria-busy", "true");
  const answers = await Promise.allSettled(modes.map(mode => ask("/api/search", {query: {q: state.q, mode, field: state.field, filter: state.filter, k: state.k, rerank: state.rerank, depth: state.depth}})));
  if (!isCurrent()) return;
  results.removeAttribute("aria-busy");
  const failed = answers.filter(one => one.status === "rejected").map(one => one.reason);
  if (failed.length) {
    // One wrong value makes every mode fail with the same words; nothing older stays on the page.
    results.replaceChildren();
    for (const error of failed) if (!(error.parameter && mark(error.parameter, error.message))) results.replaceChildren(notice(error.message, "bad"));
    return;
  }
  results.replaceChildren(make("div", {class: modes.length > 1 ? "columns" : "columns one"}, answers.map(one => column(one.value))));
}

function column({mode, ms, hits}) {
  return make("section", {"data-mode": mode, "aria-labelledby": `mode-${mode}`},
    make("header", {}, make("h2", {id: `mode-${mode}`}, NAMES[mode]), make("span", {class: "dim small"}, `${ms} ms`)),
    hits.length ? make("ol", {class: "hits"}, hits.map(hit)) : make("p", {class: "notice"}, "Nothing found."));
}

function hit(found, at) {
  const {field: name, start_offset: start, end_offset: end, page} = found.chunk;
  const place = `${name} ${start}–${end}${page ? `, page ${page}` : ""}`;
  const before = found.retrieved ? `found at ${found.retrieved.rank}` : null;
  const parts = Object.entries(found.parts).map(([name, value]) => `${name} ${value.toPrecision(3)}`).join(" + ");
  const tokens = Object.entries(found.tokens);
  return make("li", {class: "card hit"},
    make("header", {}, make("span", {class: "rank"}, `${at + 1}`), make("h3", {}, make("a", {href: link("documents", {id: found._id})}, found.title || found._id)),
      make("span", {class: "score", title: parts || null}, found.score.toFixed(4))),
    make("p", {class: "path"}, [found.title ? found._id : null, found.path, place, before].filter(Boolean).join(" · ")),
    make("p", {class: "snippet"}, found.snippet.map(([text, isMatch]) => isMatch ? make("mark", {}, text) : text)),
    tokens.length || parts ? make("details", {}, make("summary", {}, "Why"),
      parts ? make("p", {class: "small dim"}, parts) : null,
      tokens.map(([name, matches]) => make("div", {}, make("p", {class: "small dim"}, name),
        tokenList(matches.map(one => [one.token, one.score, `query ${one.query_weight.toPrecision(3)} × chunk ${one.chunk_weight.toPrecision(3)}`]))))) : null);
}
