// What the types of a route promise: checked by tsc, which this file does not pass when one of them is wrong.
import { expect, expectTypeOf, test } from "bun:test";
import { z } from "zod";
import type { ConfigOf } from "./config.ts";
import type { InputOf, ResultOf } from "./route.ts";
import { type Secret, secret } from "./secret.ts";
import { smartService } from "./smart-service.ts";
import { testService } from "./test-service.ts";

const Team = z.object({ id: z.string(), size: z.coerce.number() });
const defaults = { SIZE: 20, NAME: "core", TAGS: ["a"], KEY: secret(), MODE: z.enum(["x", "y"]), LIMITS: { a: 1 } };

test("a path's parameters are known by name, unless they are declared", () => {
  expectTypeOf<InputOf<"/teams/:id/members/:member", object>["params"]>().toEqualTypeOf<{
    readonly id: string;
    readonly member: string;
  }>();
  expectTypeOf<InputOf<"/teams/:id{[0-9]+}", object>["params"]>().toEqualTypeOf<{ readonly id: string }>();
  expectTypeOf<InputOf<"/files/:name?", object>["params"]>().toEqualTypeOf<{ readonly name?: string }>();
  expectTypeOf<InputOf<"/teams", object>["body"]>().toEqualTypeOf<undefined>();
  expectTypeOf<InputOf<"/teams/:id", { params: typeof Team }>["params"]>().toEqualTypeOf<{
    id: string;
    size: number;
  }>();
  expectTypeOf<InputOf<"/teams", { body: typeof Team }>["body"]>().toEqualTypeOf<{ id: string; size: number }>();
  expectTypeOf<ResultOf<object>>().toEqualTypeOf<unknown>();
});

test("a configuration has the types of its defaults", () => {
  type Config = ConfigOf<typeof defaults>;
  expectTypeOf<Config["SIZE"]>().toEqualTypeOf<number>();
  expectTypeOf<Config["NAME"]>().toEqualTypeOf<string>();
  expectTypeOf<Config["TAGS"]>().toEqualTypeOf<readonly string[]>();
  expectTypeOf<Config["KEY"]>().toEqualTypeOf<Secret>();
  expectTypeOf<Config["MODE"]>().toEqualTypeOf<"x" | "y">();
  expectTypeOf<Config["LIMITS"]>().toEqualTypeOf<{ readonly a: number }>();
});

test("a handler that returns something else than it declares does not compile", async () => {
  const service = smartService("identity", { defaults: { SIZE: 20 } }, (app) => {
    // @ts-expect-error the id is missing
    app.get("/wrong", { returns: Team }, () => ({ size: 1 }));
    // @ts-expect-error there is no such parameter
    app.get("/teams/:id", ({ params }) => params.name ?? null);
    app.get(
      "/right/:id",
      { returns: Team, query: z.object({ n: z.coerce.number() }) },
      async ({ params, query, config }) => ({
        id: params.id,
        size: query.n + config.SIZE,
      }),
    );
  });
  const tested = testService(service);
  expect(await (await tested.request("/right/a?n=2")).json()).toEqual({ id: "a", size: 22 });
  await tested.stop();
});
