import { expect, test } from "bun:test";
import { formatAge, formatTable, plural } from "./table.ts";

test("columns are aligned and no line ends in blanks", () => {
  expect(
    formatTable(
      ["SERVICE", "UP", "NOTE"],
      [
        ["identity", "6/6"],
        ["ads", { text: "10/12", style: "yellow" }, "host007 down"],
        ["x", "", ""],
      ],
    ),
  ).toBe(["SERVICE    UP      NOTE", "identity   6/6", "ads        10/12   host007 down", "x"].join("\n"));
});

test("a table without rows is its headings", () => {
  expect(formatTable(["A", "B"], [])).toBe("A   B");
});

test("wide characters keep the columns aligned", () => {
  expect(
    formatTable(
      ["A", "B"],
      [
        ["日本", "x"],
        ["é", "y"],
      ],
    ),
  ).toBe("A      B\n日本   x\né      y");
});

test("text of others cannot clear the screen or add lines", () => {
  expect(formatTable(["A"], [["\u001b[2Jowned\r\nSERVICE"]])).toBe("A\n[2Jowned SERVICE");
});

test("an age is the largest unit of which there are two", () => {
  const ages = {
    0: "0 s",
    999: "0 s",
    41_000: "41 s",
    119_000: "119 s",
    120_000: "2 min",
    7_200_000: "2 h",
    172_800_000: "2 d",
  };
  for (const [ms, text] of Object.entries(ages)) expect(formatAge(Number(ms))).toBe(text);
  expect(formatAge(-5_000)).toBe("0 s");
});

test("one is one", () => {
  expect([plural(0, "host"), plural(1, "host"), plural(2, "host"), plural(2, "Atlas", "Atlases")]).toEqual([
    "0 hosts",
    "1 host",
    "2 hosts",
    "2 Atlases",
  ]);
});
