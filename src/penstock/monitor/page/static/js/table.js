// A table with sortable columns. Rows keep their elements, so that the keyboard's focus stays where it is.
import { make, setText } from "./dom.js";

export class Table {
  // columns: {key, label, title, text(row), number, sort, open}
  constructor(host, { caption, columns, keyOf, onSort, onOpen }) {
    Object.assign(this, { columns, keyOf, onSort, onOpen });
    this.rows = new Map();
    this.caption = make("caption", {}, caption);
    this.heads = columns.map((column) => this.#head(column));
    this.body = make("tbody");
    const table = make("table", {}, this.caption, make("thead", {}, make("tr", {}, ...this.heads)), this.body);
    this.element = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, table);
    host.append(this.element);
  }

  #head(column) {
    const head = make("th", { scope: "col", class: column.number ? "number" : "", title: column.title });
    if (!column.sort) { head.append(column.label); return head; }
    // before the label: numbers are aligned at the right
    const arrow = make("span", { class: "arrow", "aria-hidden": "true" });
    head.append(make("button", { type: "button", onclick: () => this.onSort(column.sort) }, arrow, column.label));
    return head;
  }

  showSort(sort, descending) {
    this.columns.forEach((column, at) => {
      if (!column.sort) return;
      const isSorted = column.sort === sort;
      const order = descending ? "descending" : "ascending";
      this.heads[at].setAttribute("aria-sort", isSorted ? order : "none");
      this.heads[at].querySelector(".arrow").textContent = isSorted ? (descending ? "▼" : "▲") : "";
    });
  }

  show(rows) {
    const focused = document.activeElement;
    const had = this.body.contains(focused) ? focused : null;
    const kept = new Map();
    const elements = rows.map((row, at) => {
      const key = String(this.keyOf(row, at));
      const element = this.rows.get(key) || make("tr", {}, ...this.columns.map((column) => this.#cell(column)));
      element.row = row;
      this.columns.forEach((column, index) => this.#fill(element.cells[index], column, row));
      kept.set(key, element);
      return element;
    });
    this.rows = kept;
    if (elements.length !== this.body.rows.length || elements.some((element, at) => element !== this.body.rows[at])) {
      this.body.replaceChildren(...elements);
      if (had && had.isConnected) had.focus({ preventScroll: true });
    }
  }

  #cell(column) {
    const cell = make("td", { class: column.number ? "number" : "text" });
    if (column.open) {
      cell.append(make("button", { type: "button", class: "open", onclick: () => this.onOpen(cell.parentNode.row) }));
    }
    return cell;
  }

  #fill(cell, column, row) {
    const value = column.text(row);
    if (value instanceof Node) { if (!cell.firstChild) cell.append(value); return; }
    setText(column.open ? cell.firstChild : cell, String(value));
  }
}
