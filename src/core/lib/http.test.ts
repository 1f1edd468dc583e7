import { expect, test } from "bun:test";
import { z } from "zod";
import { Fault } from "./errors.ts";
import { fieldErrors, ProblemFault, problemOf, requestIdOf, withUrl } from "./http.ts";

const answer = async (error: unknown): Promise<{ response: Response; body: unknown; bugs: unknown[] }> => {
  const bugs: unknown[] = [];
  const response = problemOf(error, "request-1", (bug) => bugs.push(bug));
  return { response, body: await response.json(), bugs };
};

function zodErrorOf(schema: z.ZodType, value: unknown): z.ZodError {
  const { error } = schema.safeParse(value);
  if (error === undefined) throw new Error("the value was meant to be bad");
  return error;
}

test("a harmless request id is kept, anything else replaced", () => {
  const id = (value: string): string => requestIdOf(new Headers({ "x-request-id": value }));
  expect(id("abc-123/4:5+6=7_8.9")).toBe("abc-123/4:5+6=7_8.9");
  for (const bad of ["", "a b", 'a"b', "<script>", "a".repeat(129)]) {
    expect(id(bad)).not.toBe(bad);
    expect(id(bad)).toMatch(/^[0-9a-f-]{36}$/);
  }
  expect(requestIdOf(new Headers())).toMatch(/^[0-9a-f-]{36}$/);
});

test("a request without Host, or with nonsense in it, has a URL all the same", () => {
  const given = (url: string): string =>
    withUrl(Object.defineProperty(new Request("http://x/"), "url", { value: url })).url;
  expect(given("http://host001:7400/livez?a=1")).toBe("http://host001:7400/livez?a=1");
  expect(given("/livez?a=1")).toBe("http://localhost/livez?a=1");
  expect(given("http://[/livez?a=1")).toBe("http://localhost/livez?a=1");
  expect(given("http://x:99999/livez")).toBe("http://localhost/livez");
});

test("every bad field is named by its path, unknown ones one by one", () => {
  const schema = z.strictObject({ healthcheck: z.strictObject({ path: z.string() }), port: z.int() });
  const error = zodErrorOf(schema, { healthcheck: { path: 1, colour: 1, size: 2 }, port: "x" });
  expect(fieldErrors(error).map(({ path }) => path)).toEqual([
    "healthcheck.path",
    "healthcheck.colour",
    "healthcheck.size",
    "port",
  ]);
});

test("bad input is 400 with its fields, in the form of RFC 9457", async () => {
  const { response, body, bugs } = await answer(zodErrorOf(z.object({ port: z.int() }), { port: 1.5 }));
  expect(response.status).toBe(400);
  expect(response.headers.get("content-type")).toBe("application/problem+json");
  expect(response.headers.get("x-request-id")).toBe("request-1");
  expect(body).toMatchObject({
    type: "about:blank",
    title: "invalid",
    status: 400,
    code: "invalid",
    requestId: "request-1",
    errors: [{ path: "port" }],
  });
  expect(bugs).toEqual([]);
});

test("a fault keeps its code, its members and its headers, and tells its hint", async () => {
  const fault = new ProblemFault("not_applied", "2 of 3 applied", {
    extra: { pending: ["host003"] },
    headers: { "retry-after": "1" },
  });
  const { response, body } = await answer(fault);
  expect(response.status).toBe(504);
  expect(response.headers.get("retry-after")).toBe("1");
  expect(body).toMatchObject({ code: "not_applied", detail: "2 of 3 applied", pending: ["host003"] });
  const hinted = await answer(new Fault({ code: "not_found", message: "no identity", hint: "Define it." }));
  expect(hinted.body).toMatchObject({ status: 404, detail: "no identity. Define it." });
});

test("extra members cannot be mistaken for the problem's own by a header or status", async () => {
  const { body } = await answer(new ProblemFault("rejected", "refused", { extra: { rejected: [] } }));
  expect(body).toMatchObject({ status: 409, code: "rejected" });
});

test("anything else is our bug: the log has it, the caller does not", async () => {
  for (const bug of [
    new Error("secret path"),
    new Fault({ code: "meta_missing", message: "secret path" }),
    "secret path",
  ]) {
    const { response, body, bugs } = await answer(bug);
    expect(response.status).toBe(500);
    expect(JSON.stringify(body)).not.toContain("secret path");
    expect(bugs).toEqual([bug]);
  }
});

test("a fault named as something every object has is no known code", async () => {
  const { response } = await answer(new Fault({ code: "constructor", message: "x" }));
  expect(response.status).toBe(500);
});
