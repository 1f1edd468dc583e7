import { describe, expect, test } from "bun:test";
import { ask, atlas, problem, service, useAtlas } from "./fixture-http.ts";

useAtlas();

const NDJSON = { "content-type": "application/x-ndjson" };

async function download(query = ""): Promise<string> {
  const response = await fetch(new URL(`/v1/export${query}`, atlas.url));
  expect([response.status, response.headers.get("content-type")]).toEqual([200, "application/x-ndjson"]);
  return response.text();
}

describe("a backup over HTTP", () => {
  test("goes out and in again", async () => {
    await ask("PUT", `/v1/services/${service}/instances/host001:5000`, { port: 5000 });
    const text = await download();
    expect(
      text
        .trimEnd()
        .split("\n")
        .map((line) => (JSON.parse(line) as { kind: string }).kind),
    ).toEqual(["header", "definition", "instance", "audit", "audit", "end"]);
    expect(await download("?audit=false")).not.toContain('"kind":"audit"');
    await ask("DELETE", `/v1/services/${service}?force=true`);
    const { status, body } = await ask("POST", "/v1/import?reason=test", text, NDJSON);
    expect([status, body]).toEqual([
      200,
      expect.objectContaining({
        changed: true,
        dryRun: false,
        services: { total: 1, added: 1, changed: 0, removed: 0 },
      }),
    ]);
    const info = await ask("GET", "/v1/info");
    expect(info.body).toMatchObject({ generation: body.generation, revision: body.revision });
    const [entry] = (await ask("GET", "/v1/audit?limit=1")).body as unknown as readonly unknown[];
    expect(entry).toMatchObject({ kind: "registry.import", target: "local", reason: "test" });
  });

  test("is refused whole, each bad line by its number, and nothing is changed", async () => {
    for (const host of ["a", "b"]) await ask("PUT", `/v1/services/${service}/instances/${host}`, { port: 5000 });
    const before = (await ask("GET", "/v1/info")).body;
    const lines = (await download("?audit=false")).trimEnd().split("\n");
    const last = lines.findLastIndex((line) => line.includes('"kind":"instance"'));
    const bad = lines.with(last - 1, "{").with(last, lines[last]?.replace(/"port":\d+/, '"port":0') ?? "");
    const answer = await ask("POST", "/v1/import?replace=true", bad.join("\n"), NDJSON);
    expect(problem(answer)).toEqual([400, "invalid", `line ${last}`, `line ${last + 1}`]);
    expect(answer.body.detail).toContain("nothing was written");
    expect(problem(await ask("POST", "/v1/import?replace=true", lines.slice(0, -1).join("\n"), NDJSON))).toEqual([
      400,
      "invalid",
      "the file",
    ]);
    expect(problem(await ask("POST", "/v1/import", "", NDJSON))).toEqual([400, "invalid", "the file"]);
    expect(problem(await ask("POST", "/v1/import", "{}"))).toEqual([415, "wrong_type"]);
    const deep = `${"[".repeat(200)}${"]".repeat(200)}`;
    expect(problem(await ask("POST", "/v1/import", `${lines[0]}\n${deep}\n`, NDJSON))).toContain("line 2");
    expect(problem(await ask("POST", "/v1/import?replce=true", lines.join("\n"), NDJSON))).toEqual([
      400,
      "invalid",
      "replce",
    ]);
    expect((await ask("GET", "/v1/info")).body).toEqual(before);
  });

  test("that is larger than any other body is taken, and one line without an end is not", async () => {
    const head = (await download()).split("\n")[0] ?? "";
    const lines = [head];
    for (let count = 0; count < 8_000; count += 1) {
      const instance = `{"kind":"instance","service":"big","instance":"host${count}","port":1,"address":"h","enabled":true,"weight":1,"zone":"","version":"","agent":null,"healthy":null,"draining":false}`;
      lines.push(instance);
    }
    lines.push('{"kind":"definition","service":"big","definition":{}}', `{"kind":"end","lines":${lines.length + 2}}`);
    const text = lines.join("\n");
    expect(text.length).toBeGreaterThan(1_048_576);
    const { status, body } = await ask("POST", "/v1/import?dryRun=true", text, NDJSON);
    expect([status, body.dryRun, body.instances]).toEqual([
      200,
      true,
      expect.objectContaining({ total: 8_000, added: 8_000 }),
    ]);
    expect(problem(await ask("POST", "/v1/import", `"${"x".repeat(9_000_000)}`, NDJSON))).toEqual([413, "too_large"]);
  });
});
