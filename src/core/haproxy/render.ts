// The configuration as text. Pure, ordered, and commented for whoever reads it on a host at night; fixtures/haproxy holds
// what it makes of known snapshots.
import { formatAddress } from "../lib/address.ts";
import type { Backend, Layout, Server } from "./layout.ts";

/** What the configuration needs to know beside the layout. */
export type RenderContext = {
  /** `ADDRESS:PORT` of http-in. */
  readonly bind: string;
  /** The request header that names the service. */
  readonly header: string;
  readonly maxconn: number;
  readonly threads: number;
  /** Whether this HAProxy was built with the Prometheus exporter. */
  readonly prometheus: boolean;
  /** Absolute path of the socket that HAProxy's statistics are read from. */
  readonly metricsSocket: string;
};

/** Names of the files, all in one directory. */
export const FILES = {
  config: "haproxy.cfg",
  services: "services.map",
  unpinnable: "unpinnable.lst",
} as const;

/** How long HAProxy keeps an idle client connection, in ms: as long can an old worker serve one more request after a reload. */
export const KEEP_ALIVE_MS = 5_000;

export type Rendered = {
  readonly files: Readonly<Record<string, string>>;
  /** Service → first and last line of its backend in haproxy.cfg, to know whose fault a complaint of HAProxy is. */
  readonly lines: ReadonlyMap<string, readonly [number, number]>;
};

/** Identifies what only a reload can change. A running HAProxy tells it back: `show env SMARTSTACK_STRUCTURE`. */
export const STRUCTURE_VARIABLE = "SMARTSTACK_STRUCTURE";

/**
 * The files of a layout.
 * @param structure what `structureOf` said of it
 * @param foundDown `BACKEND/SERVER` that HAProxy itself found to be down: no request for them in the moments after a reload,
 * until it is told so
 */
export function render(
  layout: Layout,
  context: RenderContext,
  structure: Structure,
  foundDown: ReadonlySet<string> = NONE,
): Rendered {
  const frame = renderFrame(context, structure.id, layout.tcp);
  const backends = [...layout.backends.values()].map((backend) => renderBackend(backend, foundDown));
  return {
    files: {
      [FILES.services]: renderServices(layout),
      [FILES.unpinnable]: renderUnpinnable(layout),
      [FILES.config]: `${frame}${backends.join("")}`,
    },
    // only a complaint asks for them
    get lines() {
      return linesOf(layout, frame, backends);
    },
  };
}

function linesOf(layout: Layout, frame: string, backends: readonly string[]): Rendered["lines"] {
  const lines = new Map<string, readonly [number, number]>();
  let line = countLines(frame);
  for (const [index, service] of [...layout.backends.keys()].entries()) {
    const length = countLines(backends[index] ?? "");
    lines.set(service, [line + 1, line + length]);
    line += length;
  }
  return lines;
}

const NONE: ReadonlySet<string> = new Set();

/** The parts of a layout that only a reload can change, as the directives that make them. */
export type Structure = {
  /** Short name: equal structures have equal ids. */
  readonly id: string;
  readonly frame: string;
  /** Service → the directives of its backend, without comments and servers. */
  readonly backends: ReadonlyMap<string, string>;
};

/** The structure of a layout; `previous` itself when it is the same, so that a change of instances costs no hashing. */
export function structureOf(layout: Layout, context: RenderContext, previous?: Structure): Structure {
  const frame = renderFrame(context, "", []);
  const backends = new Map([...layout.backends].map(([service, backend]) => [service, directivesOf(backend)]));
  const same =
    previous?.frame === frame &&
    previous.backends.size === backends.size &&
    [...backends].every(([service, text]) => previous.backends.get(service) === text);
  if (same) return previous;
  const hash = new Bun.CryptoHasher("sha256").update(frame);
  for (const [service, text] of backends) hash.update(`\n${service}\n${text}`);
  return { id: hash.digest("hex").slice(0, 16), frame, backends };
}

/** The part of maxconn that one backend may hold: a hung service must leave room for the others. */
function backendCap(maxconn: number): number {
  return Math.max(1, Math.floor(maxconn / 4));
}

function countLines(text: string): number {
  return text.split("\n").length - 1;
}

function renderServices(layout: Layout): string {
  const rows = [...layout.backends.values()].map(({ service, name }) => `${service} ${name}\n`);
  return `# service → backend, looked up for every request\n${rows.join("")}`;
}

/** Where a pinned request must not go, although HAProxy knows the server: `BACKEND/SERVER`. */
function renderUnpinnable(layout: Layout): string {
  const rows = [...layout.backends.values()].map(unpinnableOf);
  return `# servers that are down or leaving: a request pinned to one gets 503\n${rows.join("")}`;
}

const unpinnableCache = new WeakMap<Backend, string>();

function unpinnableOf(backend: Backend): string {
  const cached = unpinnableCache.get(backend);
  if (cached !== undefined) return cached;
  const down = backend.servers.filter(({ health }) => health === "down");
  const text = down.map((server) => `${backend.name}/${server.name}\n`).join("");
  unpinnableCache.set(backend, text);
  return text;
}

/** A problem document (RFC 9457) as one HAProxy log-format string; `detail` may hold %[…] expressions. */
function problem(status: number, code: string, title: string, detail: string): string {
  const requestId = "%[var(txn.id),json(utf8s)]";
  return `content-type application/problem+json lf-string '{"type":"about:blank","title":"${title}","status":${status},"detail":"${detail}","code":"${code}","requestId":"${requestId}"}' hdr X-Request-Id %[var(txn.id)] hdr X-Content-Type-Options nosniff`;
}

// the name as the caller wrote it, safe in JSON, and without the three characters that HTML would need
const ASKED = String.raw`%[var(txn.service),bytes(0,100),json(utf8s),regsub(<,\\\\u003c,g),regsub(>,\\\\u003e,g),regsub(&,\\\\u0026,g)]`;
// regsub must not stand in a defaults section: HAProxy 2.6 frees its expression and then crashes on it
const SERVICE = "%[var(txn.service),json(utf8s)]";
const MARK = "hdr Smartstack-Reply proxy";

/** One line of JSON per request; access-log.ts reads it. Numbers that HAProxy may print with a '+' stand in quotes. */
const LOG_FORMAT =
  '{"end":%[date(0,ms)],"id":"%[var(txn.id),json(utf8s)]","service":"%[var(txn.service),json(utf8s)]","instance":"%s","method":"%HM","path":"%[capture.req.uri,field(1,?),json(utf8s)]","status":%ST,"state":"%ts","retries":"%rc","queue":%Tw,"connect":%Tc,"response":%Tr,"total":%Ta,"sent":"%U","received":"%B"}';

function renderFrame(context: RenderContext, structure: string, tcp: readonly string[]): string {
  const { bind, header, maxconn, threads, prometheus, metricsSocket } = context;
  return `# Written by the smartstack sidecar, which overwrites every edit. Routes come from Atlas: \`smartstack status\` shows them.
# Servers also change while HAProxy runs; this file always says what a restart would make. What runs tells the socket
# beside it: echo '@1 show servers state' | socat master.sock -

global
    # the other files named here lie beside this one
    default-path config
    # from the file limit: a request holds two sockets, one to its client and one to its instance
    maxconn ${maxconn}
    # too low a limit costs connections, not the start of HAProxy
    no strict-limits
    nbthread ${threads}
    # checks of many servers do not fall into one moment
    spread-checks 10
    # standard output is a pipe that the sidecar reads; when nobody reads, lines are dropped and traffic goes on
    log stdout len 4096 format raw daemon
    # tells the next sidecar what this process was loaded with
    setenv ${STRUCTURE_VARIABLE} ${structure === "" ? "-" : structure}

defaults common
    mode http
    log global
    # connections that never send a request are not worth a line
    option dontlognull
    # a reload lets idle clients send their last request instead of cutting them off
    option idle-close-on-response
    timeout client 60s
    timeout http-request 10s
    # also the longest time an old process serves idle clients after a reload
    timeout http-keep-alive ${KEEP_ALIVE_MS}ms
    timeout connect 300ms
    timeout server 30s
    # once a connection was upgraded (WebSocket)
    timeout tunnel 1h
    # Answers of HAProxy itself. The mark Smartstack-Reply says that no instance has seen the request, so it may be sent
    # again: true of 404 and 503, and never of 502 and 504.
    http-error status 400 ${problem(400, "invalid", "invalid", "the request is not valid HTTP")}
    http-error status 408 ${problem(408, "timeout", "request timeout", "the request did not arrive in time")}
    http-error status 500 ${problem(500, "internal", "internal", "an error inside HAProxy")}
    http-error status 502 ${problem(502, "bad_gateway", "bad gateway", `an instance of ${SERVICE} took the request and gave no valid answer`)}
    http-error status 503 ${problem(503, "unavailable", "unavailable", `no instance of ${SERVICE} took the request; nothing was sent`)} ${MARK}
    http-error status 504 ${problem(504, "gateway_timeout", "gateway timeout", `an instance of ${SERVICE} took the request and did not answer in time`)}

frontend http-in from common
    bind ${bind}
    log-format '${LOG_FORMAT}'
    # every request has an id, its caller's or a new one
    http-request set-header X-Request-Id %[uuid] unless { req.hdr(X-Request-Id) -m found }
    http-request set-var(txn.id) req.hdr(X-Request-Id),bytes(0,128)
    # the service: the header ${header}, else a host of the form NAME.service
    http-request set-header ${header} %[req.hdr(Host),host_only,field(1,.)] if !{ req.hdr(${header}) -m found } { req.hdr(Host),host_only,lower -m end .service } !{ req.hdr(Host),host_only,field(3,.) -m found }
    http-request set-var(txn.service) req.hdr(${header}),lower
    http-request return status 400 ${problem(400, "invalid", "invalid", `${header} and Smartstack-Instance take one value each`)} if { req.hdr_cnt(${header}) gt 1 } || { req.hdr_cnt(Smartstack-Instance) gt 1 }
    http-request set-var(txn.backend) var(txn.service),map_str(${FILES.services})
    # Smartstack-Instance pins a request to one instance, a drained one too; one that is unknown or down: 503, never another
    http-request set-var(txn.pin) req.hdr(Smartstack-Instance),regsub([][],_,g) if { req.hdr(Smartstack-Instance) -m found }
    http-request set-var(txn.pinned) var(txn.backend),concat(/,txn.pin) if { var(txn.pin) -m found }
    acl pinned var(txn.pinned) -m found
    acl known-server var(txn.pinned),srv_queue -m found
    acl unpinnable var(txn.pinned) -m str -f ${FILES.unpinnable}
    http-request return status 503 ${problem(503, "unavailable", "unavailable", `the instance that Smartstack-Instance names is no instance of ${SERVICE}, or is down`)} ${MARK} if pinned !known-server || pinned unpinnable
    # what HAProxy says of itself, no instance may say
    http-response del-header Smartstack-Reply
    use_backend %[var(txn.backend)]
    default_backend unknown-service

backend unknown-service from common
    http-request return status 404 ${problem(404, "not_found", "not found", `unknown service: ${ASKED}`)} ${MARK} if { var(txn.service) -m found }
    http-request return status 404 ${problem(404, "not_found", "not found", `no service is named: send the header ${header}, or a Host of the form NAME.service`)} ${MARK}
${prometheus ? renderMetrics(metricsSocket) : ""}
# What all services share.
defaults service from common
    # a hung service may hold a quarter of all connections, so that the others keep the rest
    http-request return status 503 ${problem(503, "unavailable", "unavailable", `${SERVICE} has too many requests under way on this host; nothing was sent`)} ${MARK} if { be_conn gt ${backendCap(maxconn)} }
    # another try only while nothing was sent, and then on another instance
    retry-on conn-failure
    option redispatch 1
    option httpchk
    # weights below are relative: those of the registry, reduced to small numbers of the same ratio
${tcp.length === 0 ? "" : `\n# Services of protocol tcp have ports of their own and are not routed by this process: ${tcp.join(", ")}\n`}`;
}

function renderMetrics(socket: string): string {
  return `
# HAProxy's own statistics, for the sidecar's /metrics
frontend metrics from common
    bind unix@${socket} mode 600
    no log
    http-request use-service prometheus-exporter
`;
}

const directivesCache = new WeakMap<Backend, string>();

/** What a backend says beside its servers; a change of it needs a reload. */
function directivesOf(backend: Backend): string {
  const cached = directivesCache.get(backend);
  if (cached !== undefined) return cached;
  const { service, definition, checks } = backend;
  const { healthcheck, timeouts, balance, retries } = definition;
  const text = [
    `balance ${balance}`,
    `retries ${retries}`,
    `timeout connect ${timeouts.connectMs}ms`,
    `timeout queue ${timeouts.queueMs}ms`,
    `timeout server ${timeouts.requestMs}ms`,
    `timeout check ${healthcheck.timeoutMs}ms`,
    `http-check send meth GET uri '${healthcheck.path}' ver HTTP/1.1 hdr Host ${service}.service hdr User-Agent smartstack-haproxy`,
    // persist: the pin holds on a drained server, and a failed connection is not redispatched to another
    "force-persist if { var(txn.pin) -m found }",
    "use-server %[var(txn.pin)] if { var(txn.pin) -m found }",
    `default-server ${serverOptions(definition, checks)}`,
  ]
    .map((line) => `    ${line}\n`)
    .join("");
  directivesCache.set(backend, text);
  return text;
}

/** The options of a server line; a server added at run time gets the same, since it knows no `default-server`. */
export function serverOptions(definition: Backend["definition"], checks: Backend["checks"]): string {
  const { healthcheck, protocol, slowStartMs, maxConnections } = definition;
  return [
    `check inter ${checks.steadyMs}ms fastinter ${checks.hastyMs}ms downinter ${checks.hastyMs}ms`,
    `rise ${healthcheck.rise} fall ${healthcheck.fall} observe layer4`,
    ...(slowStartMs === undefined ? [] : [`slowstart ${slowStartMs}ms`]),
    ...(maxConnections === undefined ? [] : [`maxconn ${maxConnections}`]),
    ...(protocol === "h2c" ? ["proto h2"] : []),
  ].join(" ");
}

const backendCache = new WeakMap<Backend, string>();

function renderBackend(backend: Backend, foundDown: ReadonlySet<string>): string {
  const cached = foundDown.size === 0 ? backendCache.get(backend) : undefined;
  if (cached !== undefined) return cached;
  const { definition, service, servers } = backend;
  const about = [definition.description, definition.owner === "" ? "" : `owner: ${definition.owner}`]
    .filter((part) => part !== "")
    .join("; ");
  // HAProxy refuses lines of more than 2,048 bytes, comments too
  const comment = about === "" ? service : `${service}: ${about.slice(0, 400).toWellFormed()}`;
  const rows = servers.map(
    (server) => `    ${renderServer(server, foundDown.has(`${backend.name}/${server.name}`))}\n`,
  );
  const text = `\n# ${comment}\nbackend ${backend.name} from service\n${directivesOf(backend)}${rows.join("")}`;
  if (foundDown.size === 0) backendCache.set(backend, text);
  return text;
}

function renderServer(server: Server, foundDown: boolean): string {
  // a file cannot say "drain" or "down"; without weight nothing goes there until the sidecar has said it at run time
  const down = server.health === "down" || foundDown;
  const held = server.drain || down;
  const why = [server.drain ? "drain" : "", down ? "down" : ""].filter((word) => word !== "");
  const note = held ? ` # ${why.join(", ")}; weight ${server.share}` : "";
  return `server ${server.name} ${socketAddress(server)} weight ${held ? 0 : server.share}${note}`;
}

/** `10.0.0.1:5000`, `[::1]:5000`. */
export function socketAddress({ address, port }: Pick<Server, "address" | "port">): string {
  return formatAddress({ host: address, port });
}
