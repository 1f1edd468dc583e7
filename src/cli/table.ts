// How people are shown things: aligned columns, ages in words, colour on a terminal alone.
import { styleText } from "node:util";

type Style = "bold" | "dim" | "red" | "green" | "yellow";

/** The content of a cell; a style shows on a terminal only. */
export type Cell = string | { readonly text: string; readonly style: Style };

/** Blanks between two columns. */
const GAP = "   ";

/**
 * Columns under headings, left-aligned, no line ends in blanks. Text of others (an owner, a reason) cannot move the
 * cursor: control characters become blanks.
 */
export function formatTable(headings: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const lines: readonly (readonly Cell[])[] = [headings.map((text) => ({ text, style: "bold" })), ...rows];
  const widths = headings.map((_, column) => Math.max(...lines.map((cells) => Bun.stringWidth(plain(cells[column])))));
  return lines
    .map((cells) =>
      formatLine(
        headings.map((_, column) => cells[column] ?? ""),
        widths,
      ),
    )
    .join("\n");
}

function formatLine(cells: readonly Cell[], widths: readonly number[]): string {
  const last = cells.findLastIndex((cell) => plain(cell) !== "");
  return cells
    .slice(0, last + 1)
    .map((cell, column) => {
      const text = plain(cell);
      const padding = column === last ? "" : " ".repeat((widths[column] ?? 0) - Bun.stringWidth(text));
      return (typeof cell === "string" ? text : paint(cell.style, text)) + padding;
    })
    .join(GAP);
}

function plain(cell: Cell | undefined): string {
  const text = typeof cell === "object" ? cell.text : (cell ?? "");
  return text.replaceAll(/\p{Cc}+/gu, " ").trim();
}

/** Colour, unless standard output is no terminal, or NO_COLOR or a dumb terminal says otherwise. */
export function paint(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

const UNITS: readonly (readonly [string, number])[] = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  ["s", 1_000],
];

/** `41 s`, `3 min`, `2 h`, `5 d`: the largest unit of which there are two, or seconds. Never negative: clocks differ. */
export function formatAge(ms: number): string {
  const positive = Math.max(0, ms);
  const [name, size] = UNITS.find(([, size]) => positive >= 2 * size) ?? ["s", 1_000];
  return `${Math.floor(positive / size)} ${name}`;
}

/** `1 host`, `3 hosts`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${count} ${count === 1 ? one : many}`;
}
