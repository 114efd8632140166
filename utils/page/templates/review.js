"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("review-data").textContent);
  const STORED = `data-cleansing decisions ${data.key}`;
  const HEADER = ["x:image", "y:label", "set", "row", "decision", "new_label"];
  const NEW_CLASS = "new_class";  // which a file may lack
  const DECISIONS = ["keep", "relabel", "remove"];
  const UNDO = "undo";
  const STRIP = 24;
  const className = new Map(data.classes);
  const nameOf = (label) => className.get(label) ?? String(label);

  const images = data.images.map(([folder, file, label, set, row, suspect, score, suggested, confidence, picture]) => ({
    path: data.folders[folder] + file, file, label, set: data.sets[set], row, suspect: suspect === 1,
    score, suggested, confidence, picture, key: `${data.sets[set]}/${row}`,
  }));

  // Decisions by "set/row": [path, label, set, row, decision, new label or ""].
  const known = new Map(data.known.map((d) => [`${d[2]}/${d[3]}`, d[4] === "relabel" ? d : [...d.slice(0, 5), ""]]));
  const decisions = new Map(known);
  const endOf = (path) => path.split("/").slice(-2).join("/");
  // Whether a decision is about an image, which may have been moved since with its folder.
  const isAbout = ([path, label], image) => label === image.label && endOf(path) === endOf(image.path);
  const briefly = (decision) => decision ? `${decision[4]} ${decision[5]}` : "";
  const decisionOn = (image) => { const d = decisions.get(image.key); return d?.[4] === UNDO ? undefined : d; };
  // By the key of each decision of this browser, what it and the output folder had before.
  const before = new Map();
  const unsaved = new Set();  // keys of decisions that the browser has not kept yet
  let shown = [], at = 0, last = null, seen = null;

  function put(key, decision) {
    before.set(key, [...new Set([...before.get(key) ?? [], briefly(known.get(key)), briefly(decisions.get(key))])]);
    decisions.set(key, decision);
    unsaved.add(key);
  }

  // ------------------------------------------------------------ kept by the browser

  const undone = (image) => [image.path, image.label, image.set, image.row, UNDO, ""];
  const imageAt = new Map(images.map((image) => [image.key, image]));

  // Take in what this browser keeps, from this page and others, and return how many decisions of the output folder
  // replace some of it: those that this browser never had.
  function takeIn() {
    const kept = localStorage.getItem(STORED);
    if (kept === seen) return 0;
    seen = kept;
    let replaced = 0;
    for (const [key, value, past] of JSON.parse(kept ?? "[]")) {
      const image = imageAt.get(key), now = briefly(known.get(key));
      const decision = value ?? (image && undone(image)), earlier = [past].flat();  // as pages wrote them before
      if (!decision || unsaved.has(key) || image && decision[1] !== image.label) continue;
      if (now && ![...earlier, briefly(decision)].includes(now)) { replaced += 1; continue; }
      before.set(key, earlier);
      decisions.set(key, image ? [image.path, ...decision.slice(1)] : decision);
    }
    return replaced;
  }

  function restore() {
    try {
      const replaced = takeIn();
      if (replaced) say(`Newer decisions in the output folder replace ${replaced} of this browser.`);
    } catch {
      say("This browser keeps no decisions: download them before you leave the page.");
    }
  }

  // Take in what other pages of this browser have decided meanwhile.
  function catchUp() {
    try {
      takeIn();
    } catch { /* `restore` and `keep` say so */ }
  }

  function keep() {
    try {
      const content = JSON.stringify([...before].map(([key, past]) => [key, decisions.get(key), past]));
      localStorage.setItem(STORED, content);
      seen = content;
      unsaved.clear();
    } catch {
      say("This browser could not keep the decision: download decisions.csv before you leave the page.");
    }
  }

  function refresh() {
    const had = seen;
    catchUp();
    if (seen !== had) show();
  }

  // ------------------------------------------------------------ filters

  function chosen(image) {
    const decision = decisionOn(image)?.[4] ?? "none";
    const which = find("r-which").value, pair = find("r-pair").value;
    return (which === "" || image.suspect === (which === "suspects"))
      && ["", image.set].includes(find("r-set").value)
      && ["", String(image.label)].includes(find("r-given").value)
      && (pair === "" || pair === pairOf(image))
      && ["", decision].includes(find("r-decision").value);
  }

  const pairOf = (image) => image.suggested === null ? "" : `${image.label} ${image.suggested}`;

  function filter() {
    shown = images.filter(chosen);
    at = Math.max(0, shown.findIndex((image) => !decisionOn(image)));
    show();
  }

  function fill(select, values, text) {
    for (const value of values) select.add(new Option(text(value), value));
  }

  function counted(values) {
    const counts = new Map();
    for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
    return [...counts].sort((a, b) => b[1] - a[1]);
  }

  function fillFilters() {
    const labels = [...new Set(images.map((image) => image.label))].sort((a, b) => a - b);
    fill(find("r-set"), data.sets.filter((set) => images.some((image) => image.set === set)), (set) => set);
    fill(find("r-given"), labels, nameOf);
    const pairs = counted(images.filter((i) => i.suspect && i.suggested !== null && i.suggested !== i.label).map(pairOf));
    for (const [pair, n] of pairs) {
      const [given, suggested] = pair.split(" ").map(Number);
      find("r-pair").add(new Option(`${nameOf(given)} → ${nameOf(suggested)} (${n})`, pair));
    }
    fill(find("r-class"), data.classes.map(([label]) => label), nameOf);
    if (!images.some((image) => image.suspect)) find("r-which").value = "";
  }

  // ------------------------------------------------------------ what is shown

  const percent = (share) => share > 0.999 ? "> 99.9 %" : `${Number((100 * share).toPrecision(3))} %`;
  const worded = (decision) => !decision ? "none yet" : decision[4] === "relabel" ? `relabel as ${nameOf(decision[5])}` : decision[4];

  function show() {
    const image = shown[at];
    for (const id of ["r-keep", "r-relabel", "r-remove", "r-undo", "r-as", "r-class", "r-previous", "r-next"]) find(id).disabled = !image;
    find("r-place").textContent = image ? `Image ${at + 1} of ${shown.length}` : "No image passes the filters.";
    paint(find("r-picture"), image);
    find("r-label").textContent = image ? nameOf(image.label) : "";
    find("r-suggested").textContent = suggestion(image);
    find("r-score").textContent = image ? likely(image) : "";
    find("r-in").textContent = image ? `${image.set}, row ${image.row}` : "";
    find("r-file").textContent = find("r-file").title = image?.path ?? "";
    find("r-decided").textContent = image ? worded(decisionOn(image)) : "";
    const other = image && image.suggested !== null && image.suggested !== image.label;
    find("r-relabel").disabled = !other;
    find("r-relabel").querySelector("span").textContent = other ? `relabel as ${nameOf(image.suggested)}` : "relabel";
    if (image && image !== last) find("r-class").value = String(image.suggested ?? image.label);
    last = image;
    showStrip();
    count();
  }

  function likely(image) {
    if (image.suggested === null) return "not judged";
    return `probability ${percent(image.score)}${image.suspect ? ", suspect" : ""}`;
  }

  function suggestion(image) {
    if (!image) return "";
    if (image.suggested === null) return "none";
    const sure = image.confidence === null ? "" : `, ${percent(image.confidence)}`;
    return nameOf(image.suggested) + sure + (image.suggested === image.label ? " (as given)" : "");
  }

  function paint(element, image) {
    element.className = `pic ${image?.picture ?? ""}`;
    element.textContent = image && !image.picture ? "image not found" : "";
    element.setAttribute("aria-label", image ? `${image.file}, labelled ${nameOf(image.label)}` : "no image");
  }

  function showStrip() {
    const first = Math.floor(at / STRIP) * STRIP;
    find("r-strip").replaceChildren(...shown.slice(first, first + STRIP).map((image, n) => {
      const button = document.createElement("button"), picture = document.createElement("span"), item = document.createElement("li");
      button.type = "button";
      button.dataset.decision = decisionOn(image)?.[4] ?? "";
      if (first + n === at) button.setAttribute("aria-current", "true");
      paint(picture, image);
      const mark = document.createElement("small");
      mark.textContent = worded(decisionOn(image)).replace("none yet", "·").replace("relabel as", "→");
      button.append(picture, mark);
      button.addEventListener("click", () => { at = first + n; show(); find("review-card").focus(); });
      item.append(button);
      return item;
    }));
  }

  function count() {
    const suspects = images.filter((image) => image.suspect);
    const done = suspects.filter(decisionOn).length;
    const kinds = counted([...decisions.values()].map((decision) => decision[4]));
    const each = DECISIONS.map((kind) => `${kinds.find(([k]) => k === kind)?.[1] ?? 0} ${kind}`).join(", ");
    find("r-progress").max = Math.max(1, suspects.length);
    find("r-progress").value = done;
    find("r-counts").textContent = `${done} of ${suspects.length} suspects on this page decided; in all ${each}`;
  }

  function say(text) {
    find("r-message").textContent = text;
  }

  // ------------------------------------------------------------ decisions

  function decide(decision, newLabel = "") {
    const image = shown[at];
    if (!image) return;
    if (decision === "relabel" && newLabel === image.label) decision = "keep", newLabel = "";
    catchUp();
    put(image.key, [image.path, image.label, image.set, image.row, decision, newLabel]);
    keep();
    move(1);
  }

  function undo() {
    const image = shown[at];
    if (!image || !decisionOn(image)) return;
    catchUp();
    put(image.key, undone(image));
    keep();
    show();
  }

  function move(step) {
    at = Math.min(Math.max(at + step, 0), Math.max(shown.length - 1, 0));
    show();
  }

  function relabel() {
    if (!find("r-relabel").disabled) decide("relabel", shown[at].suggested);
  }

  function relabelAs() {
    if (!find("r-as").disabled) decide("relabel", Number(find("r-class").value));
    find("review-card").focus();
  }

  const KEYS = {
    k: () => decide("keep"), r: relabel, x: () => decide("remove"), u: undo,
    c: () => find("r-class").focus(), ArrowLeft: () => move(-1), ArrowRight: () => move(1),
  };

  find("review-card").addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const inSelect = event.target.tagName === "SELECT";
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    if (inSelect && key === "Enter") relabelAs();
    else if (inSelect && key === "Escape") find("review-card").focus();
    else if (inSelect || !KEYS[key]) return;
    else KEYS[key]();
    event.preventDefault();
  });

  // ------------------------------------------------------------ decisions.csv

  const quoted = (value) => /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value);

  // A decision that was undone is a row too, as the output folder may have it meanwhile.
  function asCsv() {
    catchUp();
    const rows = [...decisions.values()]
      .sort((a, b) => data.sets.indexOf(a[2]) - data.sets.indexOf(b[2]) || a[3] - b[3])
      .map((row) => [...row, row[4] === "relabel" ? nameOf(row[5]) : ""]);
    const csv = [[...HEADER, NEW_CLASS], ...rows].map((row) => row.map(quoted).join(",") + "\n").join("");
    return /[^\x00-\x7f]/.test(csv) ? `\uFEFF${csv}` : csv;  // without the mark, Excel takes UTF-8 for another code
  }

  function parsed(text) {
    const rows = [[]];
    const field = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r?\n|\r|$)/y;
    text = text.replace(/^\uFEFF/, "");
    while (field.lastIndex < text.length) {
      const found = field.exec(text);
      if (!found) throw new Error(`row ${rows.length} is not CSV`);
      rows.at(-1).push(found[1] === undefined ? found[2] : found[1].replaceAll('""', '"'));
      if (found[3] !== ",") rows.push([]);
    }
    return rows.filter((row) => row.length > 0 && row.join("") !== "");
  }

  function loaded(text) {
    const [header = [], ...rows] = parsed(text);
    const places = HEADER.map((name) => header.indexOf(name)), classes = header.indexOf(NEW_CLASS);
    if (places.includes(-1)) throw new Error(`the header must be ${HEADER.join(",")}`);
    const byPath = new Map();
    for (const image of images) byPath.set(image.path, byPath.has(image.path) ? null : image);
    return rows.flatMap((row, n) => {
      const [path, label, set, number, decision, newLabel] = places.map((place) => (row[place] ?? "").trim());
      const where = `row ${n + 2}`, there = imageAt.get(`${set}/${Number(number)}`);
      const found = there?.path === path ? there : byPath.get(path);  // others came or went
      const image = found === undefined ? there : found;
      if (!decision && !newLabel) return [];
      if (image && image.label !== Number(label) && endOf(path) === endOf(image.path)) return [null];  // it has another label now
      if (!data.sets.includes(set) || !/^\d+(\.0)?$/.test(number)) throw new Error(`${where}: no set ${set} or row ${number}`);
      if (image === null || image && !isAbout([path, Number(label)], image)) throw new Error(`${where}: ${path} is another image, or has another label here`);
      if (![...DECISIONS, UNDO].includes(decision)) throw new Error(`${where}: decision ${decision}; it must be one of ${DECISIONS.join(", ")}`);
      if (decision === "relabel" && (newLabel === "" || !className.has(Number(newLabel)))) throw new Error(`${where}: no class ${newLabel}`);
      const named = (row[classes] ?? "").trim();
      if (decision === "relabel" && named && named !== nameOf(Number(newLabel)).trim()) throw new Error(`${where}: ${newLabel} is the class ${nameOf(Number(newLabel))} here, not ${named}`);
      return [[path, Number(label), image?.set ?? set, image?.row ?? Number(number), decision, decision === "relabel" ? Number(newLabel) : ""]];
    });
  }

  function download() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([asCsv()], { type: "text/csv" }));
    link.download = "decisions.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    say("decisions.csv is downloaded.");
  }

  async function load() {
    const [file] = find("r-file-chosen").files;
    if (!file) return;
    try {
      const all = loaded(await file.text()), rows = all.filter(Boolean), skipped = all.length - rows.length;
      let replaced = 0;
      catchUp();
      for (const row of rows) {
        const key = `${row[2]}/${row[3]}`, earlier = decisions.get(key);
        if (earlier && earlier[4] !== UNDO && String(earlier) !== String(row)) replaced += 1;
        put(key, row);
      }
      keep();
      filter();
      const more = skipped ? ` ${skipped} skipped: the image has another label now.` : "";
      say(`${rows.length} decision${rows.length === 1 ? "" : "s"} loaded from ${file.name}; ${replaced} others replaced.${more}`);
    } catch (error) {
      say(`${file.name} was not loaded: ${error.message}.`);
    }
    find("r-file-chosen").value = "";
  }

  // ------------------------------------------------------------ begin

  for (const id of ["r-which", "r-set", "r-given", "r-pair", "r-decision"]) find(id).addEventListener("change", filter);
  const clicks = {
    "r-keep": KEYS.k, "r-relabel": relabel, "r-remove": KEYS.x, "r-undo": undo, "r-as": relabelAs,
    "r-previous": KEYS.ArrowLeft, "r-next": KEYS.ArrowRight, "r-download": download,
    "r-load": () => find("r-file-chosen").click(),
  };
  for (const [id, act] of Object.entries(clicks)) find(id).addEventListener("click", act);
  find("r-file-chosen").addEventListener("change", load);
  for (const event of ["storage", "focus"]) window.addEventListener(event, refresh);
  fillFilters();
  restore();
  filter();
  find("review-tool").hidden = false;
})();
