// Runs: versions of the table, the runs that made them, how fast they were, evaluations over time.
import {ask, draw, facts, hasKey, link, make, notice, number, table, when} from "/page/dom.js";

export async function showRuns(main, state, overview, isCurrent) {
  const found = await ask("/api/runs");
  if (!isCurrent()) return;
  const chosen = found.runs.find(run => run.run_id === state.id);
  main.replaceChildren(make("div", {class: "stack"},
    make("h1", {}, "Runs"),
    found.going_on.map(run => notice(`Run ${run.run_id}, begun ${when(run.started)}, is going on or was killed.`, "warn")),
    state.id && !chosen ? notice(`No run [${state.id}] is known.`, "bad") : null,
    chosen ? detail(chosen) : null,
    found.runs.length ? latest(found.runs[0]) : notice("No run yet: make one with `semantic-ingest run CONFIG`."),
    plots(found),
    make("section", {class: "card"}, make("h2", {}, "Runs"), runs(found.runs, state.id)),
    make("section", {class: "card"}, make("h2", {}, "Versions of the table"), versions(found.versions))));
}

function tile(name, value, note) {
  return make("div", {class: "card tile"}, make("span", {class: "small dim"}, name), make("b", {}, value), note ? make("span", {class: "small dim"}, note) : null);
}

function latest(run) {
  const documents = run.documents || {};
  return make("section", {class: "tiles", "aria-label": "The last run"},
    tile("Last run", run.status, when(run.started)), tile("Added", number(documents.added ?? 0)), tile("Changed", number(documents.changed ?? 0)),
    tile("Deleted", number(documents.deleted ?? 0)), tile("Failed", number(documents.failed ?? 0)), tile("Chunks embedded", number(run.embedded), `${number(run.reused)} reused`),
    tile("Tokens a second", number(Math.round(run.tokens_per_second || 0)), `in ${number(run.seconds)} s`));
}

function status(run) {
  return make("span", {class: `pill ${run.status === "done" ? "good" : run.status === "failed" ? "bad" : "warn"}`}, run.status);
}

function what(run) {
  const documents = run.documents || {};
  return ["added", "changed", "deleted", "failed"].filter(name => documents[name]).map(name => `${number(documents[name])} ${name}`).join(", ") || "nothing";
}

function runs(all, chosen) {
  const columns = [["Run", ""], ["Status", ""], ["Documents", ""], ["Seconds", "n"], ["Tokens a second", "n"], ["Gates", ""], ["Failures", ""], ["Version", "n"]];
  const rows = all.map(run => ({class: run.run_id === chosen ? "on" : null, cells: [
    run.run_id ? make("a", {href: link("runs", {id: run.run_id})}, when(run.started)) : when(run.started), status(run), what(run), number(run.seconds),
    run.tokens_per_second ? number(Math.round(run.tokens_per_second)) : "–",
    (run.gates || []).map(gate => make("span", {class: `pill ${gate.problems.length ? "bad" : "good"}`}, `${gate.measure} ${number(gate.value)}`)),
    Object.entries(run.failures_by_reason || {}).map(([reason, count]) => make("span", {class: "pill bad"}, `${reason}: ${count}`)),
    run.table_version === null ? "" : String(run.table_version),
  ]}));
  return rows.length ? table(columns, rows, {label: "Runs"}) : make("p", {class: "dim"}, "None.");
}

function versions(all) {
  const columns = [["Version", "n"], ["When", ""], ["What", ""], ["Added", "n"], ["Changed", "n"], ["Deleted", "n"], ["Documents", "n"], ["Restorable", ""]];
  const rows = all.map(one => ({cells: [
    String(one.version), when(one.time), one.restored !== null ? `back to version ${one.restored}` : one.run_id ? make("a", {href: link("runs", {id: one.run_id})}, one.operation) : one.operation,
    number(one.added), number(one.changed), number(one.deleted), number(one.rows),
    make("span", {class: `pill ${one.restorable ? "good" : ""}`}, one.restorable ? "yes" : "no")]}));
  return rows.length ? table(columns, rows, {label: "Versions"}) : make("p", {class: "dim"}, "The table has no version yet.");
}

function detail(run) {
  const stages = Object.entries(run.timings || {}).map(([name, seconds]) => `${name} ${number(seconds)} s`).join(", ");
  const substitutions = Object.entries(run.substitutions || {}).map(([asked, used]) => `${used} stood in for ${asked}`).join(", ");
  return make("section", {class: "card stack", id: "run"},
    make("div", {class: "row spread"}, make("h2", {}, `Run ${run.run_id}`), make("a", {class: "small", href: link("runs")}, "Close")),
    run.error ? notice(run.error, "bad") : null,
    facts([["Status", status(run)], ["Begun", when(run.started)], ["Documents", what(run)], ["Chunks", `${number(run.chunks)} (${number(run.embedded)} embedded, ${number(run.reused)} reused)`],
      ["Tokens", number(run.tokens)], ["Truncated", `${number(run.truncated)} chunks`], ["Retries", run.retries ? number(run.retries) : null], ["Stages", stages], ["Substitutions", substitutions],
      ["Failure report", run.failures_path]]),
    (run.gates || []).length ? table([["Gate", ""], ["Value", "n"], ["Before", "n"], ["Bounds broken", ""]],
      run.gates.map(gate => ({cells: [gate.measure, number(gate.value), number(gate.published), gate.problems.join(" ") || make("span", {class: "pill good"}, "none")]})), {label: "Gates"}) : null,
    Object.keys(run.failures_by_reason || {}).length ? table([["Reason", ""], ["Documents", "n"]],
      Object.entries(run.failures_by_reason).map(([reason, count]) => ({cells: [reason, number(count)]})), {label: "Failures by reason"}) : null,
    hasKey() ? null : make("p", {}, make("a", {href: `/api/report?id=${encodeURIComponent(run.run_id)}`, target: "_blank", rel: "noopener"}, "Report of this run")));
}

function plots({runs: all, evaluations}) {
  const oldest = [...all].reverse().filter(run => run.started);
  const found = [];
  if (oldest.length > 1) {
    found.push(plot("Tokens a second, run by run", bars(oldest.map(run => [when(run.started), run.tokens_per_second || 0, run.status === "failed"]))));
    found.push(plot("Seconds, run by run", bars(oldest.map(run => [when(run.started), run.seconds || 0, run.status === "failed"]))));
  }
  const gates = series(oldest.flatMap(run => (run.gates || []).map(gate => [gate.measure, run.started, gate.value])));
  if (gates.length) found.push(plot("Gates, run by run", lines(gates), gates));
  for (const measure of ["ndcg@10", "recall@100", "mrr@10"]) {
    const modes = series(evaluations.flatMap(one => Object.entries(one.modes).map(([mode, values]) => [mode, one.time, values[measure]])).filter(([, , value]) => value !== undefined));
    if (modes.length) found.push(plot(`${measure} of each evaluation`, lines(modes), modes));
  }
  return found.length ? make("section", {class: "plots", "aria-label": "Over time"}, found) : null;
}

function plot(title, drawing, all) {
  const id = `plot-${title.replace(/\W+/g, "-")}`;
  drawing.setAttribute("aria-labelledby", id);
  return make("figure", {class: "card"}, make("h2", {id}, title), drawing,
    all ? make("p", {class: "legend"}, all.map(([name], at) => make("span", {}, make("i", {class: `s${at % 4}`}), name))) : null);
}

const WIDE = 420, HIGH = 150, LEFT = 44, LOW = 20;

function frame(least, most, labels) {
  const svg = draw("svg", {class: "plot", viewBox: `0 0 ${WIDE} ${HIGH + LOW}`, role: "img"});
  for (const share of [0, .5, 1]) {
    const y = HIGH - share * (HIGH - 10);
    svg.append(draw("line", {class: "axis", x1: LEFT, x2: WIDE, y1: y, y2: y}), draw("text", {x: LEFT - 6, y: y + 4, "text-anchor": "end"}, short(least + (most - least) * share)));
  }
  svg.append(draw("text", {x: LEFT, y: HIGH + 15}, labels[0]));
  if (labels.length > 1) svg.append(draw("text", {x: WIDE, y: HIGH + 15, "text-anchor": "end"}, labels.at(-1)));
  return svg;
}

const short = value => value >= 1000 ? `${+(value / 1000).toPrecision(3)}k` : String(+value.toPrecision(4));

function bars(values) {
  const most = Math.max(...values.map(([, value]) => value), 1e-9), step = (WIDE - LEFT) / values.length;
  const svg = frame(0, most, values.map(([label]) => label));
  values.forEach(([label, value, isFailed], at) => {
    const height = Math.max(1, value / most * (HIGH - 10)), width = Math.min(36, Math.max(step - 2, 1));
    svg.append(draw("rect", {class: isFailed ? "bar failed" : "bar", x: LEFT + at * step + (step - width) / 2, y: HIGH - height, width, height, rx: 1.5}, draw("title", {}, `${label}: ${number(value)}`)));
  });
  return svg;
}

// Points [name, time, value] as one line a name.
function series(points) {
  const found = new Map();
  for (const [name, time, value] of points) found.set(name, [...(found.get(name) || []), [time, value]]);
  return [...found];
}

function lines(all) {
  const times = [...new Set(all.flatMap(([, points]) => points.map(([time]) => time)))].sort();
  const values = all.flatMap(([, points]) => points.map(([, value]) => value)), most = Math.max(...values);
  // Measures differ by little: the axis begins a bit below the smallest, and its labels say where.
  const room = Math.max((most - Math.min(...values)) * .3, Math.abs(most) * .02, 1e-9), least = Math.min(...values) - room;
  const svg = frame(least, most, times.map(when));
  const x = time => LEFT + (times.length > 1 ? times.indexOf(time) / (times.length - 1) : .5) * (WIDE - LEFT - 8) + 4;
  all.forEach(([name, points], at) => {
    const places = points.map(([time, value]) => [x(time), HIGH - (value - least) / (most - least) * (HIGH - 10), time, value]);
    svg.append(draw("polyline", {class: `s${at % 4}`, points: places.map(([left, top]) => `${left},${top}`).join(" ")}));
    for (const [left, top, time, value] of places) svg.append(draw("circle", {class: `s${at % 4}`, cx: left, cy: top, r: 3}, draw("title", {}, `${name}, ${when(time)}: ${number(value)}`)));
  });
  return svg;
}
