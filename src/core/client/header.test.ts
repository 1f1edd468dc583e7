import { expect, test } from "bun:test";
import { mergeHeaders } from "./header.ts";

test("names are compared without case, the later value wins, and undefined takes one away", () => {
  expect(mergeHeaders({ accept: "a/b", "x-one": "1" }, { Accept: "c/d", "X-One": undefined, "x-two": " 2 " })).toEqual({
    accept: "c/d",
    "x-two": "2",
  });
});

test("pairs and Headers are taken too", () => {
  expect(mergeHeaders({}, [["X-A", "1"]])).toEqual({ "x-a": "1" });
  expect(mergeHeaders({}, new Headers({ "X-A": "1" }))).toEqual({ "x-a": "1" });
});

const injections: [string, string][] = [
  ["x-name", "a\r\nRunscope-Service: billing"],
  ["x-name", "a\nb"],
  ["x-name", "a\rb"],
  ["x-name", "a\u0000b"],
  ["x-name", "snow ☃"],
  ["x-name\r\nevil", "a"],
  ["x name", "a"],
  ["", "a"],
  ["x:y", "a"],
];
for (const [name, value] of injections) {
  test(`${JSON.stringify([name, value])} is refused`, () => {
    expect(() => mergeHeaders({}, { [name]: value })).toThrow(/header/);
  });
}

test("a value that is not text is refused", () => {
  expect(() => mergeHeaders({}, { "x-a": 1 as unknown as string })).toThrow("must be text, not number");
});
