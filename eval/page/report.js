"use strict";
// Shows the queries of the JSON block: filters, orders and pages them, enlarges photographs, and says who a point of a map is.
// What comes from the run becomes text and attributes, never markup.
(() => {
  const { queries, tiles, images, sources, orders, pairs, kinds, names, baseline } = JSON.parse(document.getElementById("data").textContent);
  const PAGE = { photographs: 20, table: 100 }, NEW = names ? "new individual" : "unknown individual";
  const [form, rows, pages, shown, enlarged, point] = ["filters", "rows", "pages", "shown", "enlarged", "point"].map(id => document.getElementById(id));
  const WORDS = ["scenario", "whale", "viewpoint"]; // columns of the table that are no numbers
  const folds = new Set(queries.fold).size > 1;
  const tilesOf = grouped(tiles.query), pairsOf = grouped(pairs.query);
  const imageOf = new Map(images.id.map((id, image) => [`${images.fold[image]}/${images.part[image]}/${id}`, image]));
  let found = [], page = 0; // queries that pass the filters, in order
  let row = [], place = 0; // what is enlarged

  function grouped(keys) {
    const lists = new Map();
    keys.forEach((key, number) => lists.has(key) ? lists.get(key).push(number) : lists.set(key, [number]));
    return lists;
  }

  function make(tag, properties = {}, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function sign(right) {
    const [svg, path] = ["svg", "path"].map(tag => document.createElementNS("http://www.w3.org/2000/svg", tag));
    svg.setAttribute("viewBox", "0 0 16 16");
    svg.setAttribute("aria-hidden", "true");
    path.setAttribute("d", right ? "M2 9l4 4L14 3" : "M3 3l10 10M13 3L3 13");
    svg.append(path);
    return svg;
  }

  const number = (value, digits = 3) => value === null ? "–" : value.toFixed(digits);
  const signed = value => value === null ? "–" : (value < 0 ? "▼ −" : value > 0 ? "▲ +" : "±") + Math.abs(value).toFixed(3);
  const change = query => queries.value[query] === null || queries.before[query] === null ? null : queries.value[query] - queries.before[query];

  // A row of photographs: items {kind, label, lines, image, source}, the query first

  function who(image, name = "") {
    if (name) return [name === "new_whale" ? NEW : name];
    if (image < 0) return ["unknown individual"];
    return [images.whale[image] || "unknown individual", images.encounter[image] && `encounter ${images.encounter[image]}`, images.date[image]].filter(Boolean);
  }

  function photograph(image, kind, label, name) {
    return { kind, label, image, lines: who(image, name), source: sources[image] };
  }

  function answer(tile) {
    const right = tiles.right[tile], name = tiles.name[tile], score = tiles.score[tile];
    if (!tiles.place[tile]) return photograph(tiles.image[tile], "missed", "not found", name);
    const item = photograph(tiles.image[tile], right ? "right" : "wrong", `${tiles.place[tile]} ${right ? "right" : "wrong"}`, name);
    if (score !== null) item.lines.push(`${name ? "probability" : "similarity"} ${number(score, 4)}`);
    return item;
  }

  function heat(pair) {
    const figure = document.getElementById(`pair-${pair}`);
    return figure && { kind: "heat", label: "where it was seen", image: -1, lines: [`with place ${pairs.place[pair]}`], source: figure.querySelector("img")?.src };
  }

  function items(query) {
    return [photograph(queries.image[query], "query", "query"), ...(tilesOf.get(query) ?? []).map(answer), ...(pairsOf.get(query) ?? []).map(heat).filter(Boolean)];
  }

  function named(item) {
    return [item.label, item.image < 0 ? "" : `photograph ${images.id[item.image]}`, ...item.lines].filter(Boolean).join(", ");
  }

  function tile(item, place, row) {
    const picture = item.source ? make("img", { src: item.source, alt: "" }) : make("span", {}, item.image < 0 ? "no photograph" : "nothing to show");
    item.button = make("button", { type: "button", className: "photograph", tabIndex: place ? -1 : 0, ariaLabel: named(item), onclick: () => enlarge(row, place) }, picture);
    const label = make("span", { className: "sign" }, item.label);
    if (item.kind === "right" || item.kind === "wrong") label.prepend(sign(item.kind === "right"), " ");
    return make("li", { className: item.kind }, make("figure", {}, item.button, make("figcaption", {}, label, ...item.lines.flatMap(line => [line, make("br")]))));
  }

  // Queries, as rows of photographs or as a table

  function pictured(query) {
    return queries.image[query] in sources && (tilesOf.get(query) ?? []).every(tile => tiles.image[tile] < 0 || tiles.image[tile] in sources);
  }

  function about(query) {
    const matches = queries.matches[query], first = queries.first[query];
    return [
      folds && `fold ${queries.fold[query]}`, queries.scenario[query], queries.viewpoint[query],
      names ? queries.whale[query] ? "known individual" : NEW : `${matches} true match${matches === 1 ? "" : "es"} in the database`,
      first === null ? "no right answer was given" : `the first right answer stands at place ${first}`,
    ].filter(Boolean).join("; ");
  }

  function ranking(query) {
    const row = items(query), value = change(query), score = make("p", {}, make("strong", {}, `average precision ${number(queries.value[query])}`));
    if (value !== null) score.append("; ", make("span", { className: value < 0 ? "lost" : value > 0 ? "gained" : "" }, signed(value)), ` against ${baseline} (${number(queries.before[query])})`);
    const answers = pictured(query)
      ? make("ul", { className: "strip" }, ...row.map(tile))
      : make("p", { className: "absent" }, `Its photographs are not on this page. ${row.slice(1).map(item => `${item.label}: ${item.lines[0]}`).join("; ")}`);
    return make("article", { className: "card ranking" }, make("h3", {}, queries.id[query]), score, make("p", { className: "soft" }, about(query)), answers);
  }

  function table(part) {
    const columns = {
      query: query => make("button", { type: "button", className: "link", onclick: () => only(query) }, queries.id[query]),
      ...(folds && { fold: query => queries.fold[query] }), scenario: query => queries.scenario[query] || "–", whale: query => queries.whale[query] || NEW,
      viewpoint: query => queries.viewpoint[query] || "–", "average precision": query => number(queries.value[query]),
      "first right": query => queries.first[query] ?? "–", ...(baseline && { change: query => signed(change(query)) }),
    };
    const head = make("tr", {}, ...Object.keys(columns).map(title => make("th", { scope: "col", className: WORDS.includes(title) ? "word" : "" }, title)));
    const body = part.map(query => make("tr", {}, ...Object.entries(columns).map(([title, cell]) => title === "query"
      ? make("th", { scope: "row" }, cell(query)) : make("td", { className: WORDS.includes(title) ? "word" : "" }, cell(query)))));
    return make("div", { className: "scroll card", tabIndex: 0, role: "region", ariaLabel: "Queries" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
  }

  function only(query) {
    Object.keys(FILTERS).forEach(name => { form[name].value = ""; });
    form.view.value = "photographs";
    form.fold.value = queries.fold[query];
    form.search.value = queries.id[query];
    if (change(query) === 0 && form.order.value === "changed") form.order.value = "best";
    update();
    rows.querySelector("button")?.focus();
  }

  function draw() {
    const size = PAGE[form.view.value], start = page * size, part = found.slice(start, start + size);
    rows.replaceChildren(...(form.view.value === "table" ? [table(part)] : part.map(ranking)));
    const of = found.length < queries.id.length ? ` of ${queries.id.length}` : "", last = Math.ceil(found.length / size);
    const here = last > 1 ? `, ${start + 1} to ${start + part.length} shown` : "";
    shown.textContent = found.length ? `${found.length}${of} queries${here}` : "No query is like that.";
    pages.hidden = last < 2;
    const [previous, where, next] = pages.children;
    where.textContent = `page ${page + 1} of ${last}`;
    previous.disabled = page === 0;
    next.disabled = page + 1 === last;
  }

  // Filters

  const FILTERS = {
    fold: query => String(queries.fold[query]), scenario: query => queries.scenario[query], viewpoint: query => queries.viewpoint[query],
    known: query => names ? queries.whale[query] ? "known" : "new" : "", whale: query => queries.whale[query],
  };

  function choices(name) {
    const counts = new Map();
    queries.id.forEach((_, query) => counts.set(FILTERS[name](query), (counts.get(FILTERS[name](query)) ?? 0) + 1));
    const values = [...counts.keys()].filter(Boolean).sort((one, other) => one.localeCompare(other, "en", { numeric: true }));
    const kind = value => name === "scenario" && kinds[value] ? `: ${kinds[value]}` : "";
    form[name].append(...values.map(value => new Option(`${value} (${counts.get(value)})${kind(value)}`, value)));
    form[name].parentElement.hidden = values.length < 2;
  }

  function update() {
    const search = form.search.value.trim().toLowerCase(), order = form.order.value;
    const asked = Object.entries(FILTERS).filter(([name]) => form[name].value);
    found = orders[order].filter(query => asked.every(([name, value]) => value(query) === form[name].value)
      && queries.id[query].toLowerCase().includes(search) && (order !== "changed" || change(query)));
    page = 0;
    draw();
  }

  // Enlarged photographs

  function enlarge(items, start) {
    [row, place] = [items, start];
    show();
    enlarged.showModal();
  }

  function show() {
    const item = row[place], [picture, words, buttons] = enlarged.children;
    picture.replaceChildren(item.source ? make("img", { src: item.source, alt: named(item) }) : make("p", { className: "absent" }, item.image < 0 ? "There is no photograph to show." : "Its photograph is missing or cannot be read."));
    picture.firstElementChild.classList.add("photograph");
    picture.className = item.kind;
    words.textContent = named(item);
    buttons.firstElementChild.disabled = place === 0;
    buttons.lastElementChild.disabled = place === row.length - 1;
  }

  function step(by) {
    place = Math.min(Math.max(place + by, 0), row.length - 1);
    show();
  }

  const STEPS = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };

  enlarged.addEventListener("keydown", event => event.key in STEPS && (event.preventDefault(), step(STEPS[event.key])));
  enlarged.addEventListener("click", event => {
    const value = event.target.closest("button")?.value;
    if (value) step(Number(value));
    else if (value === "" || event.target === enlarged) enlarged.close();
  });
  enlarged.addEventListener("close", () => row[place].button?.focus());

  // Along a row, and to the rows above and below

  rows.addEventListener("focusin", event => {
    const strip = event.target.closest(".strip");
    strip?.querySelectorAll("button").forEach(button => { button.tabIndex = button === event.target ? 0 : -1; });
  });

  rows.addEventListener("keydown", event => {
    const strip = event.target.closest(".strip"), away = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!strip || !(away || event.key in STEPS)) return;
    const strips = [...rows.querySelectorAll(".strip")], to = strips[strips.indexOf(strip) + (away ?? 0)];
    const here = [...strip.querySelectorAll("button")].indexOf(event.target), there = to ? [...to.querySelectorAll("button")] : [];
    event.preventDefault();
    there[Math.min(Math.max(here + (STEPS[event.key] ?? 0), 0), there.length - 1)]?.focus();
  });

  // Points of a map

  function pointed(event) {
    const mark = event.target.closest?.("[data-image]"), image = mark ? imageOf.get(`${mark.dataset.fold}/test/${mark.dataset.image}`) : undefined;
    return image === undefined ? null : { mark, item: photograph(image, "query", "") };
  }

  function tell(event) {
    const at = pointed(event);
    point.hidden = !at;
    if (!at) return;
    point.replaceChildren(...(at.item.source ? [make("img", { src: at.item.source, alt: "" })] : []), make("strong", {}, images.id[at.item.image]), ...at.item.lines.flatMap(line => [make("br"), line]));
    const box = at.mark.getBoundingClientRect(), room = document.documentElement;
    point.style.left = `${Math.max(8, Math.min(box.right + 8, room.clientWidth - point.offsetWidth - 8))}px`;
    point.style.top = `${Math.max(8, Math.min(box.bottom + 8, room.clientHeight - point.offsetHeight - 8))}px`;
  }

  for (const kind of ["pointerover", "focusin"]) document.addEventListener(kind, tell);
  document.addEventListener("click", event => { const at = pointed(event); if (at) enlarge([at.item], 0); });
  document.addEventListener("keydown", event => {
    const at = pointed(event);
    if (event.key === "Escape") point.hidden = true;
    if (!at || !(event.key in STEPS || event.key === "Enter")) return;
    event.preventDefault();
    if (event.key === "Enter") return enlarge([at.item], 0);
    const marks = [...at.mark.closest("svg").querySelectorAll("[data-image]")];
    const next = marks[Math.min(Math.max(marks.indexOf(at.mark) + STEPS[event.key], 0), marks.length - 1)];
    next.tabIndex = 0;
    next.focus();
  });
  document.querySelectorAll("svg").forEach(svg => svg.querySelector("[data-image]")?.setAttribute("tabindex", 0));

  // Begin

  for (const shown of [".pairs img", ".doubts img"]) {
    const row = [...document.querySelectorAll(shown)].map(img => ({ kind: img.closest("li, figure.card").className.replace("card", "heat"),
      label: img.closest("figure").querySelector("figcaption").textContent.trim().replace(/\s+/g, " "), image: -1, lines: [], source: img.src }));
    document.querySelectorAll(shown).forEach((img, place) => {
      const button = make("button", { type: "button", className: "photograph", onclick: () => enlarge(row, place) });
      row[place].button = button;
      img.replaceWith(button);
      button.append(img);
    });
  }
  Object.keys(FILTERS).forEach(choices);
  form.addEventListener("input", update);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  pages.addEventListener("click", event => {
    if (!event.target.value) return;
    page += Number(event.target.value);
    draw();
    form.scrollIntoView();
    rows.querySelector("button")?.focus({ preventScroll: true });
  });
  form.hidden = false;
  update();
})();
