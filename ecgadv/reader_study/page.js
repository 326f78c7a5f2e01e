"use strict";
(() => {
  const page = document.getElementById("page");
  const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
  const study = JSON.parse(new TextDecoder().decode(bytes(document.getElementById("study").textContent.trim())));
  const SPEED = 25, LEAD = 10; // mm/s, and mm of paper before the signal for the calibration pulse
  const SURE = ["a guess", "fairly sure", "certain"];
  const KEPT = "reading-study-" + study.study;

  // --- small helpers ---------------------------------------------------------------------------
  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const draw = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const key = name => make("kbd", {}, name);
  const show = (...children) => page.replaceChildren(...children);
  const hash = text => { // FNV-1a
    let h = 2166136261;
    for (const byte of new TextEncoder().encode(text)) h = Math.imul(h ^ byte, 16777619);
    return h >>> 0;
  };
  const random = seed => () => { // mulberry32
    seed = (seed + 0x6D2B79F5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  const shuffled = (list, next) => {
    const out = [...list];
    for (let i = out.length - 1; i > 0; i--) {
      const j = Math.floor(next() * (i + 1));
      [out[i], out[j]] = [out[j], out[i]];
    }
    return out;
  };

  // --- ECG paper -------------------------------------------------------------------------------
  const strip = (data, trial, name) => {
    const raw = bytes(data), view = new DataView(raw.buffer), count = raw.length / 2;
    const width = LEAD + count / study.fs * SPEED, height = (trial.high - trial.low) * trial.gain;
    const y = mv => (trial.high - mv) * trial.gain;
    const svg = draw("svg", {width: width + "mm", height: height + "mm", role: "img", viewBox: `0 0 ${width} ${height}`, "aria-label": name});
    for (const [step, style] of [[1, "paper-minor"], [5, "paper-major"]]) {
      let path = "";
      for (let x = 0; x <= width + 1e-6; x += step) path += `M${x} 0V${height}`;
      for (let v = 0; v <= height + 1e-6; v += step) path += `M0 ${v}H${width}`;
      svg.append(draw("path", {class: style, d: path}));
    }
    const zero = y(0), top = zero - 10;
    let path = `M0 ${zero}H2.5V${top}H7.5V${zero}H${LEAD}`;
    for (let i = 0; i < count; i++) {
      const mv = view.getInt16(2 * i, true) * study.step;
      path += `${i ? "L" : "M"}${(LEAD + i / study.fs * SPEED).toFixed(3)} ${y(mv).toFixed(3)}`;
    }
    svg.append(draw("path", {class: "trace", d: path}));
    return svg;
  };
  const figure = (data, trial, name) => make("figure", {class: "strip"}, make("figcaption", {}, name), strip(data, trial, name));

  // --- state: who reads, what comes, what was answered ---------------------------------------------
  let session = null, order = [], press = () => false;
  const begin = (reader, experience) => {
    const order_seed = hash(study.study + ":" + reader);
    const number = /^\d+$/.test(reader) ? Number(reader) - 1 : order_seed;
    const group = ((number % study.groups) + study.groups) % study.groups;
    session = {format: "ecgadv reading study: answers", study: study.study, reader, experience, order_seed, group,
      started: new Date().toISOString(), finished: null, answers: []};
    try {
      const kept = JSON.parse(localStorage.getItem(KEPT + ":" + reader));
      if (kept && kept.study === study.study) session = kept;
    } catch { /* private windows keep nothing */ }
    const next = random(session.order_seed);
    const of = kind => shuffled(study.trials.filter(t => t.kind === kind && (t.group === null || t.group === group)), next);
    order = [...of("detect"), ...of("closest")].map(trial => ({...trial, strips: shuffled(trial.strips, next)}));
    advance();
  };
  const keep = () => {
    try { localStorage.setItem(KEPT + ":" + session.reader, JSON.stringify(session)); } catch { /* as above */ }
  };
  const advance = () => {
    const at = session.answers.length;
    if (at >= order.length) return finish();
    const first = at === 0 || order[at].kind !== order[at - 1].kind;
    (first ? introduce : ask)(order[at], at);
  };

  // --- pages ---------------------------------------------------------------------------------------
  const start = () => {
    const reader = make("input", {id: "reader", required: "", autocomplete: "off", maxlength: "40"});
    const experience = make("select", {id: "experience"});
    for (const words of ["", "cardiologist", "other physician", "nurse or technician", "student", "other"]) experience.append(make("option", {}, words));
    const form = make("form", {},
      make("label", {}, "Your number or code, as you were told: ", reader),
      make("label", {}, "You are: ", experience),
      make("button", {type: "submit"}, "Begin (Enter)"));
    form.addEventListener("submit", event => {
      event.preventDefault();
      if (reader.value.trim()) begin(reader.value.trim(), experience.value);
    });
    const n = study.trials.filter(t => t.group === null || t.group === 0).length;
    show(make("h1", {}, "Reading study"),
      make("p", {}, `You will see ${n} recordings of one lead, at 25 mm/s. Some strips were altered by a computer, by more than one method. No answer is expected of you but what you see; where you see nothing, guess. There is no time limit, but please do not measure.`),
      make("p", {}, "Everything is answered with the keyboard: ", key("1"), " ", key("2"), " ", key("3"), " to answer, ", key("Backspace"), " to change a choice. Nothing leaves this computer; at the end you save your answers as files."),
      make("p", {}, "On paper this line would be 5 cm long. If it is much shorter or longer on your screen, change the size of the page (", key("Ctrl"), " with ", key("+"), " or ", key("−"), "):"),
      make("div", {class: "ruler", role: "img", "aria-label": "a line of 5 cm"}), form);
    press = () => false;
    reader.focus();
  };
  const introduce = (trial, at) => {
    const count = order.filter(t => t.kind === trial.kind).length;
    const text = trial.kind === "detect"
      ? `Two strips, one above the other: the same seconds of one recording. One of them was altered. Say which. ${count} recordings.`
      : `Above, marked as such, an original. Below it altered versions of the same seconds. Say which of them looks most like the original. ${count} recordings.`;
    const button = make("button", {}, "Go on (Enter)");
    button.addEventListener("click", () => ask(trial, at));
    show(make("h1", {}, trial.kind === "detect" ? "Which was altered?" : "Which is closest to the original?"), make("p", {}, text), button);
    press = () => false;
    button.focus();
  };
  const ask = (trial, at) => {
    const detect = trial.kind === "detect";
    const names = trial.strips.map((_, i) => `strip ${i + 1}`);
    const figures = trial.strips.map((s, i) => figure(s.data, trial, names[i]));
    const question = make("p", {class: "question", id: "question"});
    const keys = trial.strips.flatMap((_, i) => [key(String(i + 1)), " "]);
    const began = performance.now();
    let chosen = null, waited = 0;
    const first = () => {
      chosen = null;
      figures.forEach(f => f.classList.remove("chosen"));
      question.replaceChildren(detect ? "Which strip was altered? " : "Which strip looks most like the original? ", ...keys);
    };
    press = name => {
      if (chosen === null) {
        const i = Number(name) - 1;
        if (!(i in trial.strips)) return false;
        waited = performance.now() - began;
        chosen = i;
        figures[i].classList.add("chosen");
        question.replaceChildren(`Strip ${i + 1}. How sure are you? `, ...SURE.flatMap((words, k) => [key(String(k + 1)), ` ${words} `]), " · ", key("Backspace"), " back");
        return true;
      }
      if (name === "Backspace") { first(); return true; }
      const sure = Number(name);
      if (!(sure - 1 in SURE)) return false;
      session.answers.push({place: at + 1, trial: trial.id, kind: trial.kind, shown: trial.strips.map(s => s.id),
        chosen: trial.strips[chosen].id, confidence: sure, milliseconds: Math.round(waited)});
      if (session.answers.length === order.length) session.finished = new Date().toISOString();
      keep();
      advance();
      return true;
    };
    show(make("p", {class: "place"}, `${at + 1} of ${order.length}`), question,
      ...(detect ? [] : [figure(trial.reference, trial, "original")]), ...figures);
    first();
    window.scrollTo(0, 0);
  };
  const finish = () => {
    const columns = ["study", "reader", "experience", "order_seed", "group", "place", "trial", "kind", "shown", "chosen", "confidence", "milliseconds"];
    const quoted = value => /[",\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
    const lines = session.answers.map(a => columns.map(c => quoted(String(c === "shown" ? a.shown.join(" ") : c in a ? a[c] : session[c]))).join(","));
    const files = {
      json: ["application/json", JSON.stringify(session, null, 1) + "\n"],
      csv: ["text/csv", [columns.join(","), ...lines].join("\n") + "\n"],
    };
    const links = Object.entries(files).map(([kind, [type, text]]) => make("a", {
      id: "save-" + kind, download: `answers_${study.study}_${session.reader.replace(/[^\w.-]+/g, "_")}.${kind}`,
      href: URL.createObjectURL(new Blob([text], {type})),
    }, `Save as ${kind.toUpperCase()}`));
    show(make("h1", {}, "Thank you"),
      make("p", {}, `${session.answers.length} answers. Please save them and send the file to whoever gave you this page.`),
      make("p", {}, key("J"), " ", links[0]), make("p", {}, key("C"), " ", links[1]));
    press = name => {
      const link = {j: links[0], c: links[1]}[name.toLowerCase()];
      if (link) link.click();
      return Boolean(link);
    };
    links[0].focus();
  };
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    if (press(event.key)) event.preventDefault();
  });
  start();
})();
