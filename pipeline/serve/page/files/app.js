import {address, ask, make, notice} from "/page/dom.js";
import {showDocuments} from "/page/documents.js";
import {showEndpoints} from "/page/endpoints.js";
import {showRuns} from "/page/runs.js";
import {showSearch} from "/page/search.js";

const PLACES = {search: ["Search", showSearch], documents: ["Documents", showDocuments], endpoints: ["Endpoints", showEndpoints], runs: ["Runs", showRuns]};
const main = document.getElementById("main");
let shown = 0;
let overview = null;

async function show() {
  const {place, state} = address();
  const [title, place_of] = PLACES[place] || PLACES.search;
  const turn = ++shown;
  document.title = `${title} · semantic-ingest`;
  for (const tab of document.querySelectorAll("nav a")) {
    if (tab.dataset.place === place) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  if (main.dataset.place !== place) {
    main.dataset.place = "";
    main.replaceChildren(notice("Loading …"));
  }
  try {
    // The index may have changed since: what a place shows is asked for each time it is opened.
    if (main.dataset.place !== place || overview === null) overview = await ask("/api/overview");
    describe(overview);
    // A slow answer to an address that was left meanwhile is not shown.
    await place_of(main, state, overview, () => turn === shown);
    main.dataset.place = place;
  } catch (error) {
    if (turn === shown) main.replaceChildren(make("div", {class: "stack"}, make("h1", {}, title), notice(error.message, "bad")));
  }
}

function describe({index, config}) {
  document.getElementById("about").textContent = index
    ? `${index.documents.toLocaleString("en")} documents · ${index.chunks.toLocaleString("en")} chunks · version ${index.table.version}`
    : config || "";
}

addEventListener("hashchange", () => { show(); });
if (!location.hash) history.replaceState(null, "", "#/search");
show();
