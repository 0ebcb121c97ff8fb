// Documents: browse and filter on the left, one with its chunks drawn on the right.
import {ask, copyButton, facts, field, go, link, make, mark, notice, number, table, tokenList} from "/page/dom.js";

const PAGE = 25;

export async function showDocuments(main, state, overview, isCurrent) {
  if (!overview.index) {
    main.replaceChildren(make("div", {class: "stack"}, make("h1", {}, "Documents"), notice(overview.problem)));
    return;
  }
  const {id = "", ...asked} = state, from = Number(state.from || 0);
  const list = make("div", {class: "list stack"}, form(asked), make("div", {id: "listed"}, notice("Loading …")));
  const detail = make("div", {class: "detail"}, id ? notice("Loading …") : make("p", {class: "notice"}, "Choose a document to see its chunks."));
  main.replaceChildren(make("h1", {class: "sr"}, "Documents"), make("div", {class: id ? "split open" : "split"}, list, detail));
  const query = {text: asked.text, filter: asked.filter, from, size: PAGE};
  const [listed, opened] = await Promise.allSettled([ask("/api/documents", {query}), id ? ask("/api/document", {query: {id}}) : null]);
  if (!isCurrent()) return;
  showList(listed, state, from);
  if (id) detail.replaceChildren(opened.status === "fulfilled" ? shown(opened.value, asked) : notice(opened.reason.message, "bad"));
}

function form(state) {
  const text = make("input", {type: "search", value: state.text || "", autocomplete: "off"});
  const filter = make("input", {value: state.filter || "", autocomplete: "off", spellcheck: false, placeholder: "year>=2020 AND kind=report"});
  return make("form", {class: "card stack", role: "search", onsubmit: event => {
    event.preventDefault();
    go("documents", {text: text.value.trim(), filter: filter.value.trim()});
  }}, field("text", "Id contains", text), field("filter", "Filter", filter), make("div", {class: "row"}, make("button", {class: "primary"}, "Show")));
}

function showList(listed, state, from) {
  const box = document.getElementById("listed");
  if (listed.status === "rejected") {
    box.replaceChildren();
    const {parameter, message} = listed.reason;
    if (!(parameter && mark(parameter, message))) box.replaceChildren(notice(message, "bad"));
    return;
  }
  const {total, documents} = listed.value;
  const items = documents.map(one => make("li", {}, make("a", {href: link("documents", {...state, id: one._id}), "aria-current": one._id === state.id ? "true" : null},
    make("strong", {}, one.title || one._id), make("span", {}, one.title ? `${one._id} · ${one.beginning}` : one.beginning))));
  const step = by => link("documents", {...state, id: "", from: Math.max(0, from + by) || ""});
  box.replaceChildren(
    make("p", {class: "small dim row spread"}, make("span", {}, total ? `${from + 1}–${Math.min(from + PAGE, total)} of ${number(total)}` : "No document."),
      make("span", {class: "row"}, from ? make("a", {href: step(-PAGE)}, "Previous") : null, from + PAGE < total ? make("a", {href: step(PAGE)}, "Next") : null)),
    make("ul", {class: "pick"}, items));
}

function shown(found, asked) {
  const plain = Object.entries(found.plain).map(([name, value]) => [name, typeof value === "object" ? JSON.stringify(value) : String(value)]);
  return make("div", {class: "stack"},
    make("div", {class: "card stack"},
      make("div", {class: "row spread"}, make("h2", {}, found.title || found._id), make("a", {class: "small", href: link("documents", asked)}, "Close")),
      make("div", {class: "row"}, make("code", {}, found._id), copyButton(found._id, "Copy id")),
      facts([["Path", found.path], ...plain]),
      make("details", {}, make("summary", {}, "Source as JSON"), make("pre", {tabindex: "0"}, JSON.stringify(found._source, null, 2)))),
    found.fields.map(semanticField));
}

function semanticField(one) {
  const truncated = one.chunks.filter(chunk => chunk.is_truncated).length;
  const about = [`${number(one.chunks.length)} chunks`, one.inference_id, JSON.stringify(one.chunking_settings)].join(" · ");
  return make("section", {class: "card stack", "data-field": one.name},
    make("div", {}, make("h2", {}, one.name), make("p", {class: "small dim"}, about)),
    truncated ? notice(`${truncated} of ${one.chunks.length} chunks were cut at the model's window of ${number(one.window)} tokens.`, "warn") : null,
    make("p", {class: "legend"}, ["a", "b"].map((kind, at) => make("span", {}, make("i", {class: kind}), at ? "the next" : "a chunk")), make("span", {}, make("i", {class: "both"}), "overlap")),
    Object.entries(one.texts).map(([name, text]) => source(one, name, text)));
}

function source(one, name, text) {
  const chunks = one.chunks.map((chunk, at) => ({...chunk, number: at + 1})).filter(chunk => chunk.source_field === name);
  const drawn = drawText(text, chunks, `${one.name}: text of ${name}`);
  const columns = [["#", "n"], ["Place", "n"], ["Tokens", "n"], ...(chunks.some(chunk => chunk.page) ? [["Page", "n"]] : []), ["", ""]];
  const rows = chunks.map(chunk => ({cells: [
    make("button", {type: "button", class: "quiet", "aria-label": `Show chunk ${chunk.number}`, onclick: () => light(drawn, chunk.number)}, String(chunk.number)),
    `${chunk.start_offset}–${chunk.end_offset}`,
    chunk.tokens === null ? "–" : `${number(chunk.tokens)}${one.window ? ` of ${one.window}` : ""}`,
    ...(columns.length === 5 ? [chunk.page ? String(chunk.page) : ""] : []),
    [chunk.is_truncated ? make("span", {class: "pill bad"}, "truncated") : null,
      chunk.weights ? make("details", {}, make("summary", {}, "Tokens with weights"), tokenList(chunk.weights)) : null],
  ]}));
  return make("div", {class: "stack"}, make("h3", {}, name), drawn,
    make("details", {open: chunks.length <= 12}, make("summary", {}, "Chunks"), table(columns, rows, {label: `Chunks of ${one.name} in ${name}`, isTight: true})));
}

// Every chunk starts and ends somewhere; between two such places the text belongs to the same chunks.
function drawText(text, chunks, label) {
  const places = [...new Set([0, text.length, ...chunks.flatMap(chunk => [chunk.start_offset, chunk.end_offset])])].sort((a, b) => a - b);
  const box = make("div", {class: "text", tabindex: "0", role: "region", "aria-label": label});
  for (let at = 0; at + 1 < places.length; at++) {
    const [start, end] = [places[at], places[at + 1]];
    for (const chunk of chunks) if (chunk.start_offset === start) box.append(make("sup", {title: `chunk ${chunk.number} starts`}, `[${chunk.number}`));
    const inside = chunks.filter(chunk => chunk.start_offset <= start && end <= chunk.end_offset);
    const kind = inside.length > 1 ? "both" : inside.length ? (inside[0].number % 2 ? "a" : "b") : "";
    box.append(make("span", {class: kind, "data-chunks": ` ${inside.map(chunk => chunk.number).join(" ")} `}, text.slice(start, end)));
  }
  return box;
}

function light(box, wanted) {
  let first = null;
  for (const piece of box.querySelectorAll("span")) {
    const isIn = piece.dataset.chunks.includes(` ${wanted} `);
    piece.classList.toggle("on", isIn);
    if (isIn) first ??= piece;
  }
  if (first) box.scrollTop = first.offsetTop - box.offsetTop - 40;
}
