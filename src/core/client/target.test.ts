import { describe, expect, test } from "bun:test";
import { SmartClientError } from "./error.ts";
import { type Query, redirectTarget, type Target, targetOf } from "./target.ts";

const router = "http://127.0.0.1:4000";
const nowhere = (): undefined => undefined;
const aim = (url: string, base?: string, query?: Query): Target => targetOf(url, base, query, router, nowhere);

describe("where a URL leads", () => {
  const cases: [string, string][] = [
    ["service://identity/teams", `${router}/teams`],
    ["service://identity", `${router}/`],
    ["service://identity/", `${router}/`],
    ["service://identity?a=1", `${router}/?a=1`],
    ["service://identity/teams?a=1#part", `${router}/teams?a=1`],
    ["service://my-service-2/a%20b", `${router}/a%20b`],
    // a path that would be another host if it were resolved like a link
    ["service://identity//evil.example/x", `${router}//evil.example/x`],
    ["service://identity/@evil.example", `${router}/@evil.example`],
  ];
  for (const [url, expected] of cases) {
    test(url, () => {
      const target = aim(url);
      expect(target).toMatchObject({ via: "router", url: expected });
      expect(new URL(target.url).origin).toBe(router);
    });
  }

  test("http:// and https:// go straight out, with the host as the key of the policies", () => {
    expect(aim("https://api.example:8443/x?y#z")).toEqual({
      service: "api.example:8443",
      via: "direct",
      url: "https://api.example:8443/x?y",
    });
  });

  test("a service with an address of its own is called there", () => {
    const target = targetOf("service://identity/teams", undefined, undefined, router, () => "http://localhost:5000/");
    expect(target).toEqual({ service: "identity", via: "address", url: "http://localhost:5000/teams" });
  });

  test("a path is relative to the client's service; a URL is not", () => {
    const base = "service://identity";
    expect(["/teams", "teams", "?a=1", ""].map((path) => aim(path, base).url)).toEqual([
      `${router}/teams`,
      `${router}/teams`,
      `${router}/?a=1`,
      `${router}/`,
    ]);
    expect(aim("service://billing/x", base).service).toBe("billing");
  });

  test("a query is encoded and follows one that is there", () => {
    const query = { q: "a b&c", n: 1, list: ["x", "y"], gone: undefined };
    expect(aim("service://identity/x?z=0", undefined, query).url).toBe(`${router}/x?z=0&q=a+b%26c&n=1&list=x&list=y`);
  });
});

describe("what is refused before anything is sent", () => {
  const cases: [string, RegExp][] = [
    ["teams", /no scheme/],
    ["/teams", /no scheme/],
    ["", /no scheme/],
    ["ftp://identity/x", /scheme ftp: is not known/],
    ["file:///etc/passwd", /scheme file: is not known/],
    ["service://Identity/x", /"Identity" is not a service name/],
    ["service://1st/x", /"1st" is not a service name/],
    ["service://", /"" is not a service name/],
    ["service:///x", /"" is not a service name/],
    ["service://identity:80/x", /"identity:80" is not a service name/],
    ["service://user@identity/x", /not a service name/],
    [`service://${"a".repeat(64)}/x`, /not a service name/],
    ["service:identity/x", /is not a URL of a service/],
    ["service://identity/a\r\nRunscope-Service: billing", /control character/],
    ["service://identity/a\u0000", /control character/],
    ["http://user:secret@host/x", /user name or password/],
    ["http://", /is not a URL/],
  ];
  for (const [url, message] of cases) {
    test(JSON.stringify(url), () => {
      expect(() => aim(url)).toThrow(message);
      expect(() => aim(url)).toThrow(SmartClientError);
    });
  }

  test("a password in a URL is not repeated in the message", () => {
    expect(() => aim("http://user:secret@host/x")).toThrow(/^(?!.*secret)/);
  });
});

describe("where a redirect may lead", () => {
  const from = aim("service://identity/teams/1?a=1");
  const cases: [string, string | undefined][] = [
    ["/teams/2", `${router}/teams/2`],
    ["2", `${router}/teams/2`],
    ["?b=2", `${router}/teams/1?b=2`],
    [`${router}/other`, `${router}/other`],
    ["service://identity/other", `${router}/other`],
    ["http://identity.service/other?x", `${router}/other?x`],
    ["service://identity-2/other", undefined],
    ["service://billing/other", undefined],
    ["http://billing.service/other", undefined],
    ["//evil.example/x", undefined],
    ["https://127.0.0.1:4000/x", undefined],
    ["http://127.0.0.1:4001/x", undefined],
    ["javascript:alert(1)", undefined],
  ];
  for (const [location, expected] of cases) {
    test(location, () => expect(redirectTarget(from, location)?.url).toBe(expected as string));
  }

  test("an http:// target stays within its origin, and service:// means nothing to it", () => {
    const direct = aim("http://api.example/x");
    expect(redirectTarget(direct, "/y")?.url).toBe("http://api.example/y");
    expect(redirectTarget(direct, "http://other.example/y")).toBeUndefined();
    expect(redirectTarget(direct, "service://api/y")).toBeUndefined();
  });
});
