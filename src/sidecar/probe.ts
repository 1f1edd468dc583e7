// One look at an instance: does it answer? Used for the checks of this host's own instances and for what is held.
import { connect } from "node:net";
import { describeError } from "../core/lib/errors.ts";
import { instanceName } from "../core/model/names.ts";
import type { Definition } from "../core/model/service.ts";

type ProbeTarget = {
  readonly address: string;
  readonly port: number;
  /** How: protocol, path and timeout are the service's. */
  readonly definition: Pick<Definition, "protocol" | "healthcheck">;
};

/** `detail` in words: `check 200, 3 ms`, `connection refused`. */
export type ProbeResult = { readonly passed: boolean; readonly detail: string };

export type Probe = (target: ProbeTarget) => Promise<ProbeResult>;

/**
 * Asks once, within the definition's timeout: a service of protocol http with GET (HTTP/1.1, Host; 2xx and 3xx pass, as in
 * HAProxy's own checks), the others by connecting. Never throws.
 */
export const probe: Probe = async (target) => {
  const started = performance.now();
  try {
    const what = target.definition.protocol === "http" ? await askHttp(target) : await askTcp(target);
    return { passed: what.passed, detail: `check ${what.detail}, ${Math.round(performance.now() - started)} ms` };
  } catch (error) {
    return { passed: false, detail: `check failed: ${describeError(error)}` };
  }
};

async function askHttp({ address, port, definition }: ProbeTarget): Promise<ProbeResult> {
  const { path, timeoutMs } = definition.healthcheck;
  const response = await fetch(`http://${instanceName(address, port)}${path}`, {
    signal: AbortSignal.timeout(timeoutMs),
    redirect: "manual",
    // a kept connection would be asked again after its server was replaced, and say nothing about the new one
    keepalive: false,
    headers: { "user-agent": "smartstack-check", connection: "close" },
  });
  await response.body?.cancel();
  return { passed: response.status >= 200 && response.status < 400, detail: String(response.status) };
}

function askTcp({ address, port, definition }: ProbeTarget): Promise<ProbeResult> {
  const { timeoutMs } = definition.healthcheck;
  return new Promise((resolve, reject) => {
    const socket = connect({ host: address, port });
    const timer = setTimeout(() => finish(() => reject(new Error(`no connection within ${timeoutMs} ms`))), timeoutMs);
    const finish = (tell: () => void): void => {
      clearTimeout(timer);
      socket.destroy();
      tell();
    };
    socket.once("connect", () => finish(() => resolve({ passed: true, detail: "connected" })));
    socket.once("error", (error) => finish(() => reject(error)));
  });
}
