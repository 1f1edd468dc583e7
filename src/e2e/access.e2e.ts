// Tokens, roles and TLS as operators meet them: the compiled binary, files that change under it, certificates from openssl.
import { describe, expect } from "bun:test";
import { appendFile, chmod, readFile, stat, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { send } from "./haproxy-kit.ts";
import { BINARY, eventually, flags, scenario, type World } from "./harness.ts";
import { startDynamoDb, startZooKeeper } from "./parts.ts";
import { startSidecar } from "./sidecar-kit.ts";
import { createAuthority, createTokens, replacePair, type SecureAtlas, startSecureAtlas } from "./tls-kit.ts";

const bearer = async (file: string): Promise<Record<string, string>> => ({
  authorization: `Bearer ${(await readFile(file, "utf8")).trim()}`,
});

/** Runs a command of the binary against that Atlas. */
function command(world: World, atlas: Pick<SecureAtlas, "url">, ...argv: string[]) {
  return world.run([BINARY, ...argv, "--atlas", atlas.url]);
}

/** A stream whose text grows until it ends. */
async function follow(world: World, url: string, headers: Record<string, string>, ca?: string) {
  const ending = new AbortController();
  world.defer(() => ending.abort());
  const tls = ca === undefined ? {} : { tls: { ca } };
  const response = await fetch(`${url}/v1/watch`, { headers, signal: ending.signal, ...tls });
  const { body } = response;
  if (!response.ok || body === null) throw new Error(`status ${response.status}`);
  const stream = { text: "", ended: false };
  void (async () => {
    const decoder = new TextDecoder();
    try {
      for await (const chunk of body) stream.text += decoder.decode(chunk, { stream: true });
    } catch (error) {
      stream.text += String(error);
    }
    stream.ended = true;
  })();
  await eventually("the snapshot", () => expect(stream.text).toContain("event: snapshot"));
  return stream;
}

/** The common name of the certificate that a new connection is shown. */
function subjectAt(port: number, ca: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connectTls({ port, host: "127.0.0.1", ca, servername: "localhost" }, () => {
      resolve(String(socket.getPeerCertificate().subject.CN));
      socket.end();
    });
    socket.on("error", reject);
  });
}

describe("tokens", () => {
  scenario("each role does what it is for, and operators are told what else it needs", async (world) => {
    const tokens = createTokens(world);
    const [reader, agent, deployer, admin] = [
      await tokens.create("read", "reader"),
      await tokens.create("agent", "host001", "host001"),
      await tokens.create("deploy", "ann"),
      await tokens.create("admin", "root"),
    ];
    const atlas = await startSecureAtlas(world, { tokens });
    const run = (token: string, ...argv: string[]) => command(world, atlas, ...argv, "--token-file", token);

    expect(await command(world, atlas, "services")).toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/asks for a token, and none was sent\n--token-file/),
    });
    expect(await run(deployer, "define", "identity", "owner=core")).toMatchObject({ code: 0 });
    expect(await run(reader, "services")).toMatchObject({ code: 0, stdout: expect.stringContaining("identity") });
    expect(await run(reader, "define", "identity", "owner=me")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("the token reader has the role read"),
    });
    expect(await run(agent, "register", "identity", "host002:5000")).toMatchObject({ code: 1 });
    expect(await run(deployer, "register", "identity", "host002:5000")).toMatchObject({ code: 0 });
    expect(await run(agent, "disable", "identity", "host002:5000")).toMatchObject({ code: 1 });
    expect(await run(deployer, "disable", "identity", "host002:5000")).toMatchObject({ code: 0 });
    expect(await run(deployer, "agents", "forget", "host009")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("needs the role admin"),
    });
    expect(await run(admin, "agents", "forget", "host009")).toMatchObject({ code: 0 });
    const audit = await run(reader, "audit", "--json");
    expect(JSON.parse(audit.stdout).map(({ who }: { who: string }) => who)).toEqual(["ann", "ann", "ann"]);

    const wrong = join(world.directory, "wrong");
    await writeFile(wrong, "smst_nobody\n");
    expect(await run(wrong, "services")).toMatchObject({
      code: 1,
      stderr: expect.stringContaining("not known to this"),
    });
    expect(await run("/nowhere", "services")).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("token-file (flag --token-file): /nowhere cannot be read"),
    });
    for (const file of [reader, agent, deployer, admin]) {
      const secret = (await readFile(file, "utf8")).trim();
      expect(secret).toMatch(/^smst_[\w-]{43}$/);
      expect(atlas.process.output()).not.toContain(secret);
    }
  });

  scenario(
    "a rotated token is good at once, a revoked one ends with its streams, a bad file changes nothing",
    async (world) => {
      const tokens = createTokens(world);
      const old = await tokens.create("read", "old");
      const other = await tokens.create("admin", "other");
      const atlas = await startSecureAtlas(world, { tokens });
      const [revoked, staying] = [
        await follow(world, atlas.url, await bearer(old)),
        await follow(world, atlas.url, await bearer(other)),
      ];

      const fresh = await tokens.create("read", "new");
      expect(atlas.ask(fresh, "/v1/services")).rejects.toThrow("not known");
      await atlas.reload();
      await atlas.ask(fresh, "/v1/services");
      await atlas.ask(old, "/v1/services");

      await tokens.revoke("old");
      const good = await readFile(tokens.file, "utf8");
      await tokens.spoil();
      await atlas.reload();
      expect(atlas.process.output()).toContain(`${tokens.file}:3`);
      await atlas.ask(old, "/v1/services");
      expect(revoked.ended).toBe(false);

      await writeFile(tokens.file, good);
      await atlas.reload();
      await eventually("its stream ends", () => expect(revoked.ended).toBe(true));
      expect(revoked.text).toContain('event: end\ndata: {"reason":"the token that opened this stream');
      expect(atlas.ask(old, "/v1/services")).rejects.toThrow("not known");
      await atlas.ask(other, "/v1/services/identity", "PUT", {});
      await eventually("the other goes on", () => expect(staying.text).toContain('"identity"'));
      expect(staying.ended).toBe(false);
    },
  );

  scenario("files that are not usable end a start with exit code 2, every bad line named", async (world) => {
    const at = (name: string): string => join(world.directory, name);
    await writeFile(at("tokens"), "boss ann 00\n# fine\nadmin ann nohash\n");
    await writeFile(at("peers"), "short\n");
    await writeFile(at("empty"), "# nobody\n");
    await writeFile(at("no.pem"), "hello\n");
    const start = (...flags: string[]) => world.run([BINARY, "atlas", "--data-dir", "data", ...flags]);
    const bad = await start(
      ...flags({ "token-file": at("tokens"), "peer-token-file": at("peers") }),
      ...flags({ "tls-ca": at("no.pem"), "tls-cert": at("no.pem") }),
    );
    expect(bad.code).toBe(2);
    for (const part of [
      `token-file (${at("tokens")}:1): a line begins with a role`,
      `token-file (${at("tokens")}:3): the third word is the SHA-256`,
      "at least 32 characters",
      "holds no certificate in PEM",
      "--tls-cert and --tls-key go together",
    ])
      expect(bad.stderr).toContain(part);
    expect(await start("--token-file", at("empty"))).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("smartstack token create"),
    });
    expect(await start("--token-file", at("missing"))).toMatchObject({ code: 2 });
    const good = createTokens(world, "good");
    await good.create("admin", "root");
    const cluster = flags({ store: "cluster", zookeeper: "127.0.0.1:1", "token-file": good.file });
    expect(await start(...cluster)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining("give --peer-token-file too"),
    });
    expect(await start("--listen", "0.0.0.0:0")).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/--token-file.*--tls-cert.*--insecure/),
    });
  });

  scenario("token commands: shown once, kept as a hash, and every mistake told", async (world) => {
    const file = join(world.directory, "tokens");
    const token = (...argv: string[]) => world.run([BINARY, "token", ...argv]);
    const made = await token("create", "--file", file, "--role", "deploy", "--name", "ann");
    expect(made).toMatchObject({ code: 0, stderr: expect.stringContaining("systemctl reload smartstack-atlas") });
    const secret = made.stdout.trim();
    expect(secret).toMatch(/^smst_[\w-]{43}$/);
    const hash = new Bun.CryptoHasher("sha256").update(secret).digest("hex");
    expect(await readFile(file, "utf8")).toBe(`deploy ann ${hash}\n`);
    expect((await stat(file)).mode & 0o777).toBe(0o600);

    // the user of Atlas must still be able to read what was changed
    await chmod(file, 0o640);
    await appendFile(file, "# of host001");
    const out = join(world.directory, "host.token");
    const agent = ["create", "--file", file, "--role", "agent", "--name", "host001", "--out", out];
    expect(await token(...agent, "--host", "HOST001")).toMatchObject({ code: 0, stdout: "" });
    expect((await stat(file)).mode & 0o777).toBe(0o640);
    expect((await stat(out)).mode & 0o777).toBe(0o600);
    expect((await readFile(file, "utf8")).split("\n").slice(1)).toEqual([
      "# of host001",
      expect.stringMatching(/^agent host001 [0-9a-f]{64} host001$/),
      "",
    ]);
    expect(await token("list", "--file", file)).toMatchObject({
      code: 0,
      stdout: "NAME      ROLE     HOST\nann       deploy\nhost001   agent    host001\n",
    });
    expect(JSON.parse((await token("list", "--file", file, "--json")).stdout)).toEqual([
      { name: "ann", role: "deploy" },
      { name: "host001", role: "agent", host: "host001" },
    ]);

    const before = await readFile(file, "utf8");
    const create = ["create", "--file", file];
    for (const [argv, code, message] of [
      [["create", "--role", "read", "--name", "x"], 2, "missing --file"],
      [[...create, "--role", "read"], 2, "missing --name"],
      [[...create, "--name", "x"], 2, "missing --role"],
      [[...create, "--name", "x", "--role", "boss"], 2, "must be one of read, agent, deploy, admin"],
      [[...create, "--name", "a b", "--role", "read"], 2, "a token's name is"],
      [[...create, "--name", "atlas", "--role", "read"], 2, "are taken"],
      [[...create, "--name", "x", "--role", "agent"], 2, "an agent needs its --host"],
      [[...create, "--name", "x", "--role", "read", "--host", "h"], 2, "only an agent has a --host"],
      [[...create, "--name", "ann", "--role", "read"], 1, "has a token ann already"],
      [[...create, "--name", "x", "--role", "read", "--out", out], 1, "cannot write the token"],
      [["create", "--file", "/nowhere/t", "--name", "x", "--role", "read"], 1, "cannot write beside"],
      [["list"], 2, "missing --file"],
      [["list", "--file", "/nowhere"], 2, "cannot be read"],
      [["revoke", "--file", file], 2, "missing NAME"],
      [["revoke", "bob", "--file", file], 1, "has no token bob"],
    ] as const)
      expect([argv, await token(...argv)]).toEqual([
        argv,
        { code, stdout: "", stderr: expect.stringContaining(message) },
      ]);
    expect(await readFile(file, "utf8")).toBe(before);

    await writeFile(`${file}.lock`, "");
    expect(await token("revoke", "ann", "--file", file)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining(`remove ${file}.lock`),
    });
    await Bun.file(`${file}.lock`).delete();
    expect(await token("revoke", "ann", "--file", file)).toMatchObject({ code: 0 });
    expect(await readFile(file, "utf8")).toMatch(/^# of host001\nagent host001 \S+ host001\n$/);
    expect(await token("revoke", "host001", "--file", file)).toMatchObject({
      code: 0,
      stderr: expect.stringContaining("the last one"),
    });
    await writeFile(file, "nonsense\n");
    expect(await token("list", "--file", file)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining(`${file}:1`),
    });
  });
});

describe("TLS", () => {
  scenario("a certificate is renewed under load: no request fails, no stream ends", async (world) => {
    const authority = await createAuthority(world);
    const pair = await authority.issue("first");
    const tokens = createTokens(world);
    const admin = await tokens.create("admin", "root");
    const atlas = await startSecureAtlas(world, { tokens, authority, pair });
    const [ca, headers] = [await readFile(authority.ca, "utf8"), await bearer(admin)];
    expect(await subjectAt(atlas.port, ca)).toBe("first");
    const stream = await follow(world, atlas.url, headers, ca);

    const load = { on: true, answered: 0, failures: [] as unknown[] };
    const workers = Array.from({ length: 8 }, async (_, worker) => {
      for (let round = 0; load.on; round += 1) {
        const path = `${atlas.url}/v1/services/load/instances/host${worker}`;
        const body = JSON.stringify({ port: 5000, weight: round % 200 });
        const init = { headers: { ...headers, "content-type": "application/json" }, tls: { ca } };
        try {
          const response = await fetch(path, { method: "PUT", body, ...init });
          await response.text();
          if (!response.ok) throw new Error(`status ${response.status}`);
          load.answered += 1;
        } catch (error) {
          load.failures.push(error);
        }
        await Bun.sleep(5);
      }
    });
    for (const name of ["second", "third"]) {
      await replacePair(pair, await authority.issue(name));
      await atlas.reload();
      await eventually("new connections get it", async () => expect(await subjectAt(atlas.port, ca)).toBe(name));
      // past the second in which both listeners share the port
      await Bun.sleep(1_500);
      expect(await subjectAt(atlas.port, ca)).toBe(name);
    }

    // bad ones are refused, and the third stays
    const good = { cert: await readFile(pair.cert), key: await readFile(pair.key) };
    const expired = await authority.issue("expired", { valid: ["20200101000000Z", "20200201000000Z"] });
    const stranger = await authority.issue("stranger");
    for (const [bad, message] of [
      [expired, "expired on"],
      [{ cert: stranger.cert, key: expired.key }, "the key is another certificate's"],
      [{ cert: tokens.file, key: stranger.key }, "is not usable PEM"],
    ] as const) {
      await replacePair(pair, bad);
      await atlas.reload();
      await eventually("it says why", () => expect(atlas.process.output()).toContain(message));
      expect(await subjectAt(atlas.port, ca)).toBe("third");
    }
    await writeFile(pair.cert, good.cert);
    await writeFile(pair.key, good.key);

    load.on = false;
    await Promise.all(workers);
    expect(load.failures).toEqual([]);
    expect(load.answered).toBeGreaterThan(500);
    expect(stream.ended).toBe(false);
    await atlas.ask(admin, "/v1/services/last", "PUT", {});
    await eventually("the stream from the first certificate goes on", () => expect(stream.text).toContain('"last"'));
    const metrics = await (await fetch(`${atlas.url}/metrics`, { headers, tls: { ca } })).text();
    expect(metrics).toMatch(/smartstack_atlas_certificate_expires_seconds \d{10}/);
    expect(await atlas.process.stop()).toBe(0);
  });

  scenario("commands say what is wrong with a certificate, and what to do", async (world) => {
    const [authority, other] = [await createAuthority(world), await createAuthority(world, "other")];
    const tokens = createTokens(world);
    const token = await tokens.create("read", "reader");
    const listening = async (name: string, options: Parameters<typeof authority.issue>[1]) => {
      const pair = await authority.issue(name, options);
      const [cert, key] = [await readFile(pair.cert, "utf8"), await readFile(pair.key, "utf8")];
      const fetch = () => Response.json([]);
      const server = Bun.serve({ port: 0, hostname: "127.0.0.1", development: false, tls: { cert, key }, fetch });
      world.defer(() => server.stop(true));
      return { url: `https://127.0.0.1:${server.port}` };
    };
    const atlas = await startSecureAtlas(world, { tokens, authority, pair: await authority.issue("atlas") });
    const services = (at: { readonly url: string }, ...flags: string[]) =>
      command(world, at, "services", "--token-file", token, ...flags);
    expect(await services(atlas, "--tls-ca", authority.ca)).toMatchObject({ code: 0 });
    const broken = join(world.directory, "broken.pem");
    await writeFile(broken, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    const [expired, elsewhere] = [
      await listening("expired", { valid: ["20200101000000Z", "20200201000000Z"] }),
      await listening("elsewhere", { names: ["DNS:atlas.example"] }),
    ];
    const plain = Bun.serve({ port: 0, hostname: "127.0.0.1", fetch: () => Response.json([]) });
    world.defer(() => plain.stop(true));
    for (const [at, flags, code, message] of [
      [atlas, [], 3, "name the right one with --tls-ca"],
      [atlas, ["--tls-ca", other.ca], 3, "name the right one with --tls-ca"],
      [expired, ["--tls-ca", authority.ca], 3, "its certificate has expired"],
      [elsewhere, ["--tls-ca", authority.ca], 3, "its certificate is for other names"],
      [{ url: `https://127.0.0.1:${plain.port}` }, ["--tls-ca", authority.ca], 3, "it speaks no TLS there"],
      [{ url: atlas.url.replace("https", "http") }, [], 3, "its address begins with https://"],
      [atlas, ["--tls-ca", broken], 2, "holds a certificate that is broken"],
      [atlas, ["--tls-ca", tokens.file], 2, "holds no certificate in PEM"],
      [atlas, ["--tls-ca", "/nowhere"], 2, "/nowhere cannot be read"],
    ] as const) {
      const done = await services(at, ...flags);
      expect([at.url, flags, done]).toEqual([
        at.url,
        flags,
        { code, stdout: "", stderr: expect.stringContaining(message) },
      ]);
    }
    // the stream, too, is trusted through the authority
    const watching = world.spawn(
      [BINARY, "watch", "--atlas", atlas.url, "--tls-ca", authority.ca, "--token-file", token],
      { name: "watch" },
    );
    await eventually("it follows", () => expect(watching.output()).toContain("realm local"));
  });

  scenario(
    "a head that never ends is closed after twelve seconds, TLS or not, and others do not notice",
    async (world) => {
      const authority = await createAuthority(world);
      const tokens = createTokens(world);
      const token = await tokens.create("read", "reader");
      const secure = await startSecureAtlas(world, { tokens, authority, pair: await authority.issue("atlas") });
      const open = await startSecureAtlas(world, { tokens });
      const ca = await readFile(authority.ca, "utf8");
      const began = performance.now();
      const closing = [
        () => connect(open.port, "127.0.0.1"),
        () => connect(secure.port, "127.0.0.1"),
        () => connectTls({ port: secure.port, host: "127.0.0.1", ca, servername: "localhost" }),
      ].flatMap((dial) =>
        ["", "GET /livez HTTP/1.1\r\nHost: a\r\n"].map(
          (head) =>
            new Promise<number>((resolve) => {
              const socket = dial();
              const drip = setInterval(() => socket.write(head === "" ? "" : "A: b\r\n"), 1_000);
              socket.on("error", () => undefined);
              socket.write(head);
              socket.on("close", () => {
                clearInterval(drip);
                resolve(performance.now() - began);
              });
            }),
        ),
      );
      await Bun.sleep(3_000);
      await open.ask(token, "/v1/services");
      await secure.ask(token, "/v1/services");
      for (const closed of await Promise.all(closing)) expect(closed).toBeLessThan(20_000);
      const huge = await fetch(`${open.url}/livez`, { headers: { filler: "x".repeat(20_000) } });
      expect(huge.status).toBe(431);
    },
  );
});

describe("a sidecar with token and TLS", () => {
  scenario("registers and routes; refused, it says so and HAProxy serves on; SIGHUP brings it back", async (world) => {
    const authority = await createAuthority(world);
    const tokens = createTokens(world);
    const [first, admin] = [await tokens.create("agent", "first", "host001"), await tokens.create("admin", "root")];
    const atlas = await startSecureAtlas(world, { tokens, authority, pair: await authority.issue("atlas") });
    const own = join(world.directory, "own.token");
    await writeFile(own, await readFile(first));
    const flags = ["--token-file", own, "--tls-ca", authority.ca];
    const sidecar = await startSidecar(world, atlas, { flags });
    const port = await world.port();
    const service = Bun.serve({
      port,
      hostname: "127.0.0.1",
      fetch: () => Response.json({ name: "identity" }),
    });
    world.defer(() => service.stop(true));
    const put = () => sidecar.client.put("identity", `host001:${port}`, { port, address: "127.0.0.1" });
    expect(await put()).toMatchObject({ registered: true });
    const routed = () => send(sidecar.bind, { "runscope-service": "identity" });
    await eventually("it is routed", async () => expect((await routed()).status).toBe(200));
    expect(await atlas.ask(admin, "/v1/audit?limit=1000")).toMatchObject({
      list: expect.arrayContaining([expect.objectContaining({ who: "first", kind: "instance.put" })]),
    });
    // an agent speaks for its own host alone
    expect(await sidecar.client.put("identity", `host002:${port}`, { port, address: "127.0.0.1" })).toMatchObject({
      registered: false,
      problem: expect.stringContaining("is not an instance of host001"),
    });

    await tokens.revoke("first");
    await atlas.reload();
    const readyz = async () => (await fetch(`${sidecar.admin}/readyz`)).json();
    await eventually("it says that it is refused", async () => {
      expect(await readyz()).toMatchObject({
        status: "ready",
        degraded: [expect.stringContaining("the token is not known to this Atlas")],
      });
    });
    expect((await sidecar.why("identity")).notes.join()).toContain("the token is not known to this Atlas");
    expect(sidecar.process.output()).toContain("--token-file");
    expect((await routed()).status).toBe(200);

    const second = await tokens.create("agent", "second", "HOST001");
    await atlas.reload();
    // a file that holds no token changes nothing
    await writeFile(own, "");
    sidecar.process.signal("SIGHUP");
    await eventually("it refuses the file", () => expect(sidecar.process.output()).toContain("is empty"));
    await writeFile(own, await readFile(second));
    sidecar.process.signal("SIGHUP");
    await eventually("it follows again", async () => expect(await readyz()).toMatchObject({ degraded: [] }), 3_000);
    await put();
    expect((await routed()).status).toBe(200);
    const secrets = await Promise.all([first, second].map((file) => readFile(file, "utf8")));
    for (const secret of secrets) expect(sidecar.process.output()).not.toContain(secret.trim());
  });

  scenario(
    "that trusts another authority routes from disk, and SIGHUP with the right one connects it",
    async (world) => {
      const [authority, other] = [await createAuthority(world), await createAuthority(world, "other")];
      const tokens = createTokens(world);
      const token = await tokens.create("agent", "first", "host001");
      const atlas = await startSecureAtlas(world, { tokens, authority, pair: await authority.issue("atlas") });
      const ca = join(world.directory, "trusted.pem");
      await writeFile(ca, await readFile(other.ca));
      const flags = ["--token-file", token, "--tls-ca", ca];
      const sidecar = await startSidecar(world, atlas, { flags, unready: true });
      await eventually("it says why", () =>
        expect(sidecar.process.output()).toContain("its certificate is from no authority that is known here"),
      );
      await writeFile(ca, await readFile(authority.ca));
      sidecar.process.signal("SIGHUP");
      await eventually("it is ready", async () => expect((await fetch(`${sidecar.admin}/readyz`)).status).toBe(200));
    },
  );
});

scenario(
  "replicas with TLS and a peers' token count each other's agents; a peer with another token is named, until it has the right one",
  async (world) => {
    const [{ address }, { endpoint }] = await Promise.all([startZooKeeper(world), startDynamoDb(world)]);
    const authority = await createAuthority(world);
    const tokens = createTokens(world);
    const [agent, admin] = [await tokens.create("agent", "host001", "host001"), await tokens.create("admin", "root")];
    const peerTokens = (name: string): string => join(world.directory, `${name}.peers`);
    const [right, wrong] = ["r", "w"].map((letter) => letter.repeat(40));
    const start = async (name: string, token = right) => {
      await writeFile(peerTokens(name), `${token}\n`);
      const store = { store: "cluster", zookeeper: address, "dynamodb-endpoint": endpoint };
      return startSecureAtlas(world, {
        tokens,
        authority,
        pair: await authority.issue(name),
        flags: [
          ...flags({ ...store, "peer-token-file": peerTokens(name), "tls-ca": authority.ca }),
          "--dynamodb-create-table",
        ],
        env: { AWS_ACCESS_KEY_ID: "local", AWS_SECRET_ACCESS_KEY: "local", AWS_REGION: "us-east-1" },
      });
    };
    const one = await start("one");
    const two = await start("two");
    await startSidecar(world, one, { flags: ["--token-file", agent, "--tls-ca", authority.ca] });
    const wait = (name: string) => two.ask(admin, `/v1/services/${name}?wait=applied&timeout=10s`, "PUT", {});
    await eventually("the agent is known to the other replica", async () => {
      expect(await two.ask(admin, "/v1/agents")).toMatchObject({ list: [{ host: "host001", connected: true }] });
    });
    expect(await wait("first")).toMatchObject({ applied: 1, total: 1 });
    // no token of people opens what is between replicas
    expect(two.ask(admin, "/v1/peer/feed")).rejects.toThrow("the peers' token");

    const three = await start("three", wrong);
    await eventually("it says whom it does not hear", async () => {
      const { degraded } = await three.ask(admin, "/v1/info");
      expect(String(degraded)).toContain("not the peers' token of this Atlas");
    });
    // what both replicas will say from now on: shown first, and taken; the old one is taken too
    await writeFile(peerTokens("three"), `${right}\n${wrong}\n`);
    await three.reload();
    await eventually("it hears them", async () => {
      expect(await three.ask(admin, "/v1/info")).not.toHaveProperty("degraded");
    });
    expect(await wait("second")).toMatchObject({ applied: 1, total: 1 });
  },
  120_000,
);
