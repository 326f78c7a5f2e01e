"use strict";
// Tables that sort by a heading and filter by the fields below it; nothing here is needed to read.
for (const table of document.querySelectorAll("table[id]")) {
  const name = table.id.slice("table-".length);
  const body = table.tBodies[0];
  let rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const fields = [...table.tHead.querySelectorAll("input, select")];
  const count = document.getElementById("count-" + name);
  const tools = count.parentElement;
  const total = rows.length;

  const value = (row, k) => {
    const cell = row.cells[k];
    return cell.dataset.key === undefined ? cell.textContent : Number(cell.dataset.key);
  };
  const missing = v => v === "" || Number.isNaN(v);

  const sort = (k, sign) => {
    // Keys are read once; the row for all pairs stays at the end.
    const keyed = rows.map(row => [row.classList.contains("total"), value(row, k), row]);
    keyed.sort(([lastA, a], [lastB, b]) => {
      if (lastA !== lastB) return lastA - lastB;
      if (missing(a) || missing(b)) return missing(a) - missing(b);
      if (typeof a === "number" && typeof b === "number") return sign * (a - b);
      return sign * String(a).localeCompare(String(b), "en", {numeric: true});
    });
    rows = keyed.map(entry => entry[2]);
    const fresh = document.createDocumentFragment();
    for (const row of rows) fresh.append(row);
    body.append(fresh);
  };
  heads.forEach((head, k) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    sort(k, down ? -1 : 1);
  }));

  const number = "([-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:e[-+]?\\d+)?)";
  const bound = new RegExp("^(<=|>=|<|>|=)\\s*" + number + "$", "i");
  const range = new RegExp("^" + number + "\\s*\\.\\.\\s*" + number + "$", "i");
  const test = field => {
    const wanted = field.value.trim();
    if (!wanted) return null;
    if (field.tagName === "SELECT") return cell => cell.textContent === wanted;
    const one = bound.exec(wanted), two = range.exec(wanted);
    const text = wanted.toLowerCase();
    return cell => {
      if (cell.dataset.key !== undefined && (one || two)) {
        const v = Number(cell.dataset.key);
        if (two) return v >= Number(two[1]) && v <= Number(two[2]);
        const b = Number(one[2]);
        return {"<": v < b, ">": v > b, "<=": v <= b, ">=": v >= b, "=": v === b}[one[1]];
      }
      return cell.textContent.toLowerCase().includes(text);
    };
  };
  const button = (words, action) => {
    const made = document.createElement("button");
    made.type = "button";
    made.textContent = words;
    made.addEventListener("click", action);
    tools.append(made);
    return made;
  };
  if (fields.length) {
    const reset = button("clear filters", () => {
      for (const field of fields) field.value = "";
      filter();
      fields[0].focus();
    });
    reset.hidden = true;
    const filter = () => {
      const tests = fields.map(test);
      let shown = 0;
      for (const row of rows) {
        row.hidden = !tests.every((passes, k) => !passes || passes(row.cells[k]));
        if (!row.hidden) shown += 1;
      }
      reset.hidden = !tests.some(Boolean);
      count.textContent = shown === total ? total + " rows" : shown + " of " + total + " rows";
    };
    for (const field of fields) {
      if (field.tagName === "INPUT") field.title = "text, a bound such as < 0.5, or a range such as 1..5";
      field.addEventListener("input", filter);
    }
  }
  if (total > 1) {
    button("save these rows as CSV", () => {
      const quote = text => /[",\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
      const plain = cell => quote(cell.dataset.key === undefined || cell.dataset.key === "nan"
        ? cell.textContent : cell.dataset.key);
      const lines = [heads.map(h => quote(h.textContent)).join(",")];
      for (const row of rows) if (!row.hidden) lines.push([...row.cells].map(plain).join(","));
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([lines.join("\n") + "\n"], {type: "text/csv"}));
      link.download = name + ".csv";
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }
}
// Paper has no buttons to open what is folded.
const folded = () => [...document.querySelectorAll("details:not([open])")];
let opened = [];
addEventListener("beforeprint", () => { opened = folded(); for (const d of opened) d.open = true; });
addEventListener("afterprint", () => { for (const d of opened) d.open = false; });
