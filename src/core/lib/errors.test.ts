import { expect, test } from "bun:test";
import { describeError, errorCode, Fault } from "./errors.ts";

test("an error is told with its causes", () => {
  const error = new Fault({ code: "a", message: "outer", cause: new Error("middle", { cause: "inner" }) });
  expect(describeError(error)).toBe("outer: middle: inner");
});

test("a cause that the message tells already is not told twice", () => {
  expect(describeError(new Error("could not start: port taken", { cause: new Error("port taken") }))).toBe(
    "could not start: port taken",
  );
});

test("a bundle of errors without a message of its own tells its members", () => {
  expect(describeError(new AggregateError([new Error("one"), new Error("two")], ""))).toBe("one; two");
});

test("an error that is its own cause comes to an end", () => {
  const error = new Error("again");
  error.cause = error;
  expect(describeError(error)).toBe("again");
  const other = new Error("b", { cause: error });
  error.cause = new Error("c", { cause: other });
  expect(describeError(error).split(": ")).toHaveLength(10);
  const bundle = new AggregateError([], "");
  bundle.errors.push(bundle);
  expect(describeError(bundle)).toBe("");
});

test("a code is a string or nothing", () => {
  expect(errorCode(Object.assign(new Error("x"), { code: "ECONNREFUSED" }))).toBe("ECONNREFUSED");
  for (const none of [undefined, null, "text", {}, { code: 5 }]) expect(errorCode(none)).toBeUndefined();
});
