import { afterEach, describe, expect, test } from "bun:test";
import { z } from "zod";
import { createAtlasClient } from "./atlas-client.ts";

const servers: Bun.Server<undefined>[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) await server.stop(true);
});

type Asked = { readonly method: string; readonly path: string; readonly headers: Readonly<Record<string, string>> };

/** A replica that answers with `answer`, and remembers what it was asked. */
function replica(answer: (request: Request) => Response | Promise<Response>): { url: string; asked: Asked[] } {
  const asked: Asked[] = [];
  const server = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch(request) {
      const { method, url, headers } = request;
      asked.push({ method, path: url.slice(url.indexOf("/", 8)), headers: Object.fromEntries(headers) });
      return answer(request);
    },
  });
  servers.push(server);
  return { url: server.url.origin, asked };
}
const DEAD = "http://127.0.0.1:1";
const schema = z.object({ revision: z.int() });
const failure = async (work: Promise<unknown>): Promise<unknown> => work.catch((error: unknown) => error);

describe("a request", () => {
  test("carries method, body, token and headers, and gives back what the schema says", async () => {
    const { url, asked } = replica(() => Response.json({ revision: 5, more: true }));
    const client = createAtlasClient({ urls: [url], token: "t0k3n" });
    const answer = await client.request("/v1/services/a?x=1", {
      method: "PUT",
      body: { b: 1 },
      headers: { "if-match": '"3"' },
      schema,
    });
    expect(answer).toEqual({ revision: 5 });
    expect(asked).toMatchObject([
      {
        method: "PUT",
        path: "/v1/services/a?x=1",
        headers: { "if-match": '"3"', authorization: "Bearer t0k3n", "content-type": "application/json" },
      },
    ]);
  });

  test("shows the token that counts now", async () => {
    const { url, asked } = replica(() => Response.json({ revision: 1 }));
    let token: string | undefined = "first";
    const client = createAtlasClient({ urls: [url], token: () => token });
    for (const next of ["second", undefined, ""]) {
      await client.request("/a", { schema });
      token = next;
    }
    expect(asked.map(({ headers }) => headers.authorization)).toEqual(["Bearer first", "Bearer second", undefined]);
  });

  test("that is refused for its token says where a token comes from", async () => {
    const problem = { code: "unauthorized", detail: "none was sent" };
    const { url } = replica(() => Response.json(problem, { status: 401 }));
    expect(await failure(createAtlasClient({ urls: [url] }).request("/a", { schema }))).toMatchObject({
      code: "unauthorized",
      hint: expect.stringContaining("--token-file"),
    });
  });

  test("goes to the next replica when nobody listens, and the next request begins there", async () => {
    const { url, asked } = replica(() => Response.json({ revision: 1 }));
    const client = createAtlasClient({ urls: [DEAD, url] });
    expect(await client.request("/a", { schema })).toEqual({ revision: 1 });
    expect(await client.request("/b", { schema })).toEqual({ revision: 1 });
    expect(asked).toHaveLength(2);
  });

  test("does not go on when Atlas has answered, whatever it said", async () => {
    const first = replica(() => Response.json({ code: "unavailable", detail: "no store" }, { status: 503 }));
    const second = replica(() => Response.json({ revision: 1 }));
    const client = createAtlasClient({ urls: [first.url, second.url] });
    expect(await failure(client.request("/a", { schema }))).toMatchObject({ code: "unavailable", status: 503 });
    expect(second.asked).toHaveLength(0);
  });
});

describe("a failure", () => {
  test("is unreachable with every address when nobody answers", async () => {
    const error = await failure(createAtlasClient({ urls: [DEAD, "http://127.0.0.1:2"] }).request("/a", { schema }));
    expect(error).toMatchObject({
      code: "unreachable",
      message: `could not reach Atlas: ${DEAD}: nobody listens there; http://127.0.0.1:2: nobody listens there`,
    });
  });

  test("is unreachable at the timeout, and the next request begins with the next replica", async () => {
    const silent = replica(() => new Promise<Response>(() => undefined));
    const alive = replica(() => Response.json({ revision: 1 }));
    const client = createAtlasClient({ urls: [silent.url, alive.url] });
    const error = await failure(client.request("/a", { schema, timeoutMs: 50 }));
    expect(error).toMatchObject({ code: "unreachable", message: expect.stringContaining("no answer in time") });
    expect(await client.request("/a", { schema, timeoutMs: 2_000 })).toEqual({ revision: 1 });
  });

  test("is Atlas's own problem, with its fields as a hint and its members", async () => {
    const problem = {
      code: "invalid",
      detail: "2 fields",
      errors: [{ path: "healthcheck.path", message: "begins with /" }],
      pending: ["host001"],
    };
    const { url } = replica(() => Response.json(problem, { status: 400 }));
    expect(await failure(createAtlasClient({ urls: [url] }).request("/a", { schema }))).toMatchObject({
      code: "invalid",
      message: "Atlas refused GET /a: 2 fields",
      hint: "healthcheck.path: begins with /",
      body: { pending: ["host001"] },
    });
  });

  test("is told even when the answer is no problem document, or no JSON at all", async () => {
    const { url } = replica(() => new Response("<h1>Bad gateway</h1>", { status: 502 }));
    expect(await failure(createAtlasClient({ urls: [url] }).request("/a", { schema }))).toMatchObject({
      code: "internal",
      status: 502,
      message: "Atlas refused GET /a: status 502",
    });
  });

  test("is a bad answer when something else than Atlas answers, redirects included", async () => {
    const page = replica(() => new Response("<h1>hello</h1>"));
    expect(await failure(createAtlasClient({ urls: [page.url] }).request("/a", { schema }))).toMatchObject({
      code: "bad_answer",
    });
    const login = replica(() => Response.redirect("http://127.0.0.1:1/login"));
    expect(
      await failure(createAtlasClient({ urls: [login.url], token: "t0k3n" }).request("/a", { schema })),
    ).toMatchObject({
      status: 302,
    });
  });
});
