// Endpoints: list, look at one, add, test, delete with what uses it.
import {ask, copyButton, facts, field, go, link, make, mark, notice, number, option, table, toast, tokenList} from "/page/dom.js";

const path = definition => `/_inference/${definition.task_type}/${encodeURIComponent(definition.inference_id)}`;

export async function showEndpoints(main, state, overview, isCurrent) {
  const asked = [ask("/api/endpoints"), state.new ? ask("/api/services") : null];
  const [known, services] = await Promise.all(asked);
  if (!isCurrent()) return;
  if (state.new) {
    main.replaceChildren(addForm(services, state));
    return;
  }
  const chosen = known.endpoints.find(one => one.definition.inference_id === state.id);
  main.replaceChildren(make("div", {class: "stack"},
    make("div", {class: "row spread"}, make("h1", {}, "Endpoints"), make("a", {class: "button primary", href: link("endpoints", {new: 1})}, "Add endpoint")),
    state.id && !chosen ? notice(`There is no endpoint [${state.id}].`, "bad") : null,
    chosen ? detail(chosen) : null,
    make("section", {class: "card"}, list(known.endpoints, state.id)),
    known.wrong.length ? notice(known.wrong.map(one => `${one.file} defines no endpoint: ${one.reason}`).join(" "), "bad") : null,
    make("p", {class: "small dim"}, "Definitions are files in ", make("code", {}, known.folder), ".")));
}

function list(endpoints, chosen) {
  const columns = [["Endpoint", ""], ["Task", ""], ["Service", ""], ["Model", ""], ["Dimensions", "n"], ["Used by", ""]];
  const rows = endpoints.map(one => ({class: one.definition.inference_id === chosen ? "on" : null, cells: [
    make("span", {}, make("a", {href: link("endpoints", {id: one.definition.inference_id})}, one.definition.inference_id), " ",
      one.is_loaded ? make("span", {class: "pill good"}, "in memory") : null, one.problems.length ? make("span", {class: "pill bad"}, "not usable here") : null),
    one.definition.task_type, one.definition.service, one.model || "", one.dimensions ? number(one.dimensions) : "",
    usedBy(one.used_by),
  ]}));
  return table(columns, rows, {label: "Endpoints"});
}

// Run configs say it best; a table counts where no config is known that makes it.
function usedBy(uses) {
  const configs = uses.filter(use => use.kind === "pipelines"), names = (configs.length ? configs : uses).map(use => use.name);
  return names.length > 2 ? `${names.slice(0, 2).join(", ")} and ${names.length - 2} more` : names.join(", ");
}

const title = name => name[0].toUpperCase() + name.slice(1).replaceAll("_", " ");

function detail(one) {
  const {definition} = one;
  const describes = Object.entries(one.describes).filter(([name]) => name !== "model_id").map(([name, value]) => [title(name), value === null ? null : typeof value === "object" ? JSON.stringify(value) : String(value)]);
  return make("section", {class: "card stack", id: "endpoint"},
    make("div", {class: "row spread"}, make("h2", {}, definition.inference_id), make("a", {class: "small", href: link("endpoints")}, "Close")),
    make("div", {class: "row"}, copyButton(definition.inference_id, "Copy id"), copyButton(JSON.stringify(definition, null, 2), "Copy JSON"),
      make("a", {class: "small", href: link("endpoints", {new: 1, from: definition.inference_id})}, "Add one like it")),
    one.problems.length ? notice(one.problems.join(" "), "bad") : null,
    facts([["Task", definition.task_type], ["Service", definition.service], ["Model", one.model], ["Dimensions", one.dimensions ? number(one.dimensions) : null],
      ["Window", one.window ? `${number(one.window)} tokens` : null], ...describes,
      ["Used by", one.used_by.length ? one.used_by.map(use => `${use.kind === "indexes" ? "table" : "run config"} ${use.name}`).join(", ") : "nothing that is known here"]]),
    testForm(definition),
    make("details", {}, make("summary", {}, "Definition as JSON"), make("pre", {tabindex: "0"}, JSON.stringify(definition, null, 2))),
    one.is_preconfigured ? make("p", {class: "small dim"}, "Preconfigured: it is always there, and cannot be changed or deleted.")
      : make("div", {}, make("button", {type: "button", class: "danger", onclick: () => confirmDelete(definition)}, "Delete …")));
}

function testForm(definition) {
  const text = make("input", {value: "how much wood would a woodchuck chuck", autocomplete: "off"});
  const kind = make("select", {}, ["search", "ingest", "classification", "clustering"].map(name => option(name, name)));
  const result = make("div", {id: "attempt", "aria-live": "polite"});
  const isSparse = definition.task_type === "sparse_embedding";
  return make("form", {class: "stack", onsubmit: async event => {
    event.preventDefault();
    mark("test-text", "");
    result.replaceChildren(notice("Embedding …"));
    const body = {inference_id: definition.inference_id, input: text.value, ...(isSparse ? {} : {input_type: kind.value})};
    try {
      result.replaceChildren(attempt(await ask("/api/try", {method: "POST", body})));
    } catch (error) {
      result.replaceChildren();
      mark("test-text", error.message);
    }
  }}, make("div", {class: "form"}, field("test-text", "Test with a text", text), isSparse ? null : field("test-kind", "Input type", kind)),
  make("div", {class: "row"}, make("button", {}, "Test")), result);
}

function attempt(found) {
  const sizes = [`${number(found.size)} ${found.weights ? "tokens with weights" : "dimensions"}`, `${number(found.latency_ms)} ms`,
    found.load_ms === null ? null : `loaded in ${number(found.load_ms)} ms`, found.tokens_seen ? `${number(found.tokens_seen)} tokens read` : null,
    found.norm === undefined ? null : `length ${found.norm.toFixed(4)}`];
  return make("div", {class: "stack"},
    make("p", {class: "row"}, sizes.filter(Boolean).map(size => make("span", {class: "pill accent"}, size)), found.is_truncated ? make("span", {class: "pill bad"}, "truncated") : null),
    found.weights ? tokenList(found.weights) : vector(found.values, found.size));
}

function vector(values, size) {
  const most = Math.max(...values.map(Math.abs), 1e-9);
  const bars = make("div", {class: "vector", role: "img", "aria-label": `The first ${values.length} of ${size} numbers as bars`}, values.map(value => {
    const bar = make("i", {title: value.toFixed(5)});
    bar.style.height = `${Math.max(3, 50 * Math.abs(value) / most)}%`;
    bar.style.transform = `translateY(${value < 0 ? 50 : -50}%)`;
    return bar;
  }));
  return make("div", {}, bars, make("p", {class: "mono small dim"}, `[${values.slice(0, 6).map(value => value.toFixed(5)).join(", ")}, …]`));
}

async function confirmDelete(definition) {
  const dialog = document.getElementById("dialog"), problem = make("p", {class: "error", role: "alert"});
  let found;
  try {
    found = await ask(path(definition), {method: "DELETE", query: {dry_run: true}});
  } catch (error) {
    toast(error.message);
    return;
  }
  const uses = [...found.pipelines.map(name => `run config ${name}`), ...found.indexes.map(name => `table ${name}`)];
  const remove = async () => {
    try {
      await ask(path(definition), {method: "DELETE", query: {force: uses.length > 0}});
      dialog.close();
      toast(`${definition.inference_id} is deleted`);
      go("endpoints");
    } catch (error) {
      problem.textContent = error.message;
    }
  };
  dialog.replaceChildren(make("div", {class: "stack"},
    make("h2", {id: "dialog-title"}, `Delete ${definition.inference_id}?`),
    uses.length ? make("div", {}, make("p", {}, "It is used by"), make("ul", {}, uses.map(use => make("li", {}, use))),
      make("p", {}, "Without it the next run fails, and queries cannot be embedded.")) : make("p", {class: "dim"}, "Nothing that is known here uses it."),
    problem,
    make("div", {class: "row"}, make("button", {type: "button", class: "danger", onclick: remove}, uses.length ? "Delete anyway" : "Delete"),
      make("button", {type: "button", onclick: () => dialog.close(), autofocus: true}, "Keep it"))));
  dialog.showModal();
}

const HIDDEN = ["rate_limit", "adaptive_allocations", "num_threads", "num_allocations", "max_input_tokens", "model_id"];

function addForm({services, models}, state) {
  const body = make("textarea", {spellcheck: false, rows: 12}), inputs = make("div", {class: "form wide"}), note = make("p", {class: "hint wide"});
  const id = make("input", {autocomplete: "off", spellcheck: false, placeholder: "my-endpoint"});
  const service = make("select", {}, services.map(one => option(one.name, one.name, "elasticsearch")));
  const task = make("select"), strategy = make("select", {}, ["sentence", "word", "recursive", "none"].map(name => option(name, name)));
  const size = make("input", {type: "number", value: 250, min: 10}), overlap = make("input", {type: "number", value: 1, min: 0});
  const limit = make("input", {type: "number", min: 1, placeholder: "the model's window"});
  const known = make("datalist", {id: "models"});
  const chosen = () => services.find(one => one.name === service.value);

  function asks() {
    const one = chosen();
    task.replaceChildren(...one.tasks.map(name => option(name, name, task.value)));
    note.textContent = one.note || "";
    const shown = one.settings.filter(setting => setting.name === "model_id" || setting.required || (!HIDDEN.includes(setting.name) && ["string", "secret", "url"].includes(setting.kind) && !one.is_local));
    inputs.replaceChildren(...shown.map(setting => {
      const control = setting.choices.length ? make("select", {"data-setting": setting.name}, setting.required ? null : option("", "–"), setting.choices.map(name => option(name, name, setting.default)))
        : make("input", {"data-setting": setting.name, type: setting.kind === "secret" ? "password" : "text", autocomplete: "off", spellcheck: false,
          list: setting.name === "model_id" && one.is_local ? "models" : null});
      return field(`setting-${setting.name}`, setting.name + (setting.required ? " (required)" : ""), control, setting.kind === "secret" ? "Kept in a file of its own, never shown." : null);
    }));
    const fits = models.filter(model => model.task_type === task.value || task.value === "embedding");
    known.replaceChildren(...fits.map(model => option(model.id, model.id)));
    write();
  }

  // The form writes the JSON; what is sent is the JSON, so that it can hold more than the form asks.
  function write() {
    const settings = {}, one = chosen();
    for (const control of inputs.querySelectorAll("[data-setting]")) if (control.value) settings[control.dataset.setting] = control.value;
    if (limit.value && one.settings.some(setting => setting.name === "max_input_tokens")) settings.max_input_tokens = Number(limit.value);
    if (["elasticsearch", "elser"].includes(one.name)) Object.assign(settings, {num_threads: 1, num_allocations: 1});
    const chunking = {strategy: strategy.value};
    if (strategy.value !== "none") chunking.max_chunk_size = Number(size.value);
    if (strategy.value === "word") chunking.overlap = Number(overlap.value);
    if (strategy.value === "sentence") chunking.sentence_overlap = Number(overlap.value);
    body.value = JSON.stringify({service: one.name, service_settings: settings, chunking_settings: chunking}, null, 2);
  }

  const form = make("form", {class: "card stack", noValidate: true, onsubmit: event => {
    event.preventDefault();
    send(form, id.value.trim(), task.value, body.value);
  }},
  make("div", {class: "row spread"}, make("h1", {}, "Add endpoint"), make("a", {class: "small", href: link("endpoints")}, "Cancel")),
  make("div", {class: "form"},
    field("id", "Id", id, "Lower case letters, digits, - _ ."), field("service", "Service", service), field("task_type", "Task", task),
    note, inputs, known,
    field("max_input_tokens", "Maximum input tokens", limit, "Longer texts are cut."),
    field("strategy", "Chunking", strategy), field("max_chunk_size", "Words in a chunk", size), field("overlap", "Overlap", overlap, "Sentences (0 or 1), or words."),
    make("div", {class: "wide"}, field("raw", "Request body", body, "What is sent. It follows the form, and can be edited."))),
  make("p", {class: "error", id: "rest-error", role: "alert"}),
  make("div", {class: "row"}, make("button", {class: "primary"}, "Add")));
  form.addEventListener("input", event => {
    if ([service, task].includes(event.target)) asks();
    else if (event.target !== body && event.target !== id) write();
  });
  asks();
  if (state.from) like(state.from, body, service, asks);
  return form;
}

async function like(from, body, service, asks) {
  const {endpoints: [one]} = await ask(`/_inference/${encodeURIComponent(from)}`);
  const {inference_id: _, task_type: task, ...rest} = one;
  service.value = one.service;
  asks();
  document.getElementById("task_type").value = task;
  body.value = JSON.stringify(rest, null, 2);
}

async function send(form, id, task, text) {
  for (const box of form.querySelectorAll(".error")) box.textContent = "";
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  let body;
  try {
    body = JSON.parse(text);
  } catch (error) {
    mark("raw", `This is not JSON: ${error.message}`);
    return;
  }
  if (!id || id.includes("/")) {
    mark("id", id ? `[${id}] can be no id: it holds a slash.` : "An endpoint needs an id.");
    document.getElementById("id").focus();
    return;
  }
  try {
    const added = await ask(`/_inference/${task}/${encodeURIComponent(id)}`, {method: "PUT", body});
    toast(`${added.inference_id} is there`);
    go("endpoints", {id: added.inference_id});
  } catch (error) {
    place(form, error.message);
  }
}

// Each sentence of the validator goes to the field that it names.
function place(form, message) {
  const all = message.startsWith("Validation Failed: ") ? message.slice(19).split(/;?\d+: /).filter(Boolean).map(one => one.replace(/;$/, "")) : [message];
  const rest = [];
  for (const one of all) {
    const names = [...one.matchAll(/\[([^\]]+)\]/g)].flatMap(([, inner]) => inner.split(/[.,]\s*/)).map(name => name.trim());
    const ids = [...names.flatMap(name => [`setting-${name}`, name]), one.includes("model_id") ? "setting-model_id" : "",
      /inference_?id|inference endpoint|reserved/i.test(one) ? "id" : ""];
    const found = ids.find(id => id && id !== "service" && form.querySelector(`#${CSS.escape(id)}-error`));
    if (found) {
      const box = document.getElementById(`${found}-error`);
      mark(found, box.textContent ? `${box.textContent} ${one}` : one);
    } else rest.push(one);
  }
  if (rest.length) mark("raw", rest.join(" "));
  form.querySelector("[aria-invalid]")?.focus();
}
