import { afterEach, expect, test } from "bun:test";
import { createSmartClient } from "../client/index.ts";
import { adoptSurroundings } from "./surroundings.ts";

const before = { ...process.env };
afterEach(() => {
  for (const name of ["SMARTSTACK_REALM", "SMARTSTACK_ROUTER", "SMARTSTACK_SERVICE_IDENTITY"]) {
    delete process.env[name];
    if (before[name] !== undefined) process.env[name] = before[name];
  }
});

test("a service of another realm than local calls nobody around the router, whatever the variable of the realm says", async () => {
  process.env.SMARTSTACK_REALM = "local";
  process.env.SMARTSTACK_SERVICE_IDENTITY = "http://127.0.0.1:1";
  adoptSurroundings({ realm: "prod", router: "http://127.0.0.1:4100" });
  const urls: string[] = [];
  const fetch = async (url: string): Promise<Response> => {
    urls.push(url);
    return new Response("ok");
  };
  await createSmartClient({ fetch }).get("service://identity/x").text();
  expect(urls).toEqual(["http://127.0.0.1:4100/x"]);
});

test("a router that the owner has set stays", () => {
  process.env.SMARTSTACK_ROUTER = "http://127.0.0.1:4200";
  adoptSurroundings({ realm: "local", router: "http://127.0.0.1:4100" });
  expect(process.env.SMARTSTACK_ROUTER).toBe("http://127.0.0.1:4200");
});
