// What a sidecar must know after its death: the registry as this host believed it, and its own instances. With it the next
// one routes while Atlas is down, and doubts a registry that shrank meanwhile.
import { readFile, rename } from "node:fs/promises";
import { z } from "zod";
import { writeFileAtomic } from "../core/lib/atomic-file.ts";
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { describeError, errorCode, Fault } from "../core/lib/errors.ts";
import type { Logger } from "../core/lib/logger.ts";
import { type Serial, serial } from "../core/lib/serial.ts";
import { instanceSchema } from "../core/model/instance.ts";
import { readDefinitionSchema } from "../core/model/service.ts";
import { snapshotSchema } from "../core/model/snapshot.ts";
import { unchecked } from "./health.ts";
import type { View } from "./hold.ts";
import type { LocalInstance } from "./local-instance.ts";

/** Least time between two writes, in ms, and how much of the time may at most go into writing. */
const INTERVAL_MS = 1_000;
const MAX_DUTY = 0.02;
/** A change is first applied, then written: it waits so long, in ms. */
const DELAY_MS = 100;
const RETRY_MS = 5_000;

/** What is kept. */
export type Kept = {
  /** Undefined: Atlas was never heard. */
  readonly view: View | undefined;
  readonly locals: ReadonlyMap<string, LocalInstance>;
  /** How many agents the realm had: HAProxy's checks depend on it, and a guess would cost a reload. */
  readonly agents: number;
  /** See `HostState.disabled`. */
  readonly disabled: ReadonlySet<string>;
};

const holdSchema = z.object({
  instance: instanceSchema,
  doubt: z.enum(["expired", "unexplained"]),
  since: z.number(),
});

const localSchema = z.object({
  id: z.string(),
  service: z.string(),
  instance: z.string(),
  spec: z.object({
    port: z.int(),
    address: z.string(),
    weight: z.int(),
    zone: z.string(),
    version: z.string(),
  }),
  unsent: z.boolean(),
  definition: readDefinitionSchema.optional(),
  ttlMs: z.int(),
  draining: z.boolean(),
  healthy: z.boolean().nullable(),
  left: z.enum(["deregistered", "expired"]).optional(),
});

const fileSchema = z.object({
  format: z.literal(1),
  snapshot: snapshotSchema.optional(),
  holds: z.array(holdSchema),
  remembered: z.record(z.string(), readDefinitionSchema),
  locals: z.array(localSchema),
  agents: z.int().min(0).default(1),
  disabled: z.array(z.string()).default([]),
});
type File = z.input<typeof fileSchema>;

function encode({ view, locals, agents, disabled }: Kept): string {
  const file: File = {
    format: 1,
    snapshot: view?.snapshot as File["snapshot"],
    holds: [...(view?.holds.values() ?? [])],
    remembered: view?.remembered ?? {},
    agents,
    disabled: [...disabled],
    locals: [...locals.values()].map(
      ({ id, service, instance, spec, unsent, definition, ttlMs, draining, health, left }) => {
        const { healthy } = health;
        return { id, service, instance, spec, unsent, definition, ttlMs, draining, healthy, left };
      },
    ),
  };
  return JSON.stringify(file);
}

/** Times start anew: nobody could speak, and nobody was probed, while no sidecar was there. */
function decode(text: string, realm: string, now: number): Kept {
  const file = fileSchema.parse(JSON.parse(text));
  if (file.snapshot !== undefined && file.snapshot.realm !== realm) {
    throw new Error(`it belongs to the realm ${file.snapshot.realm}, this sidecar to ${realm}`);
  }
  const holds = file.holds.map((hold) => ({ ...hold, failures: 0, passedAt: undefined }));
  const view = file.snapshot && {
    snapshot: file.snapshot,
    holds: new Map(holds.map((hold) => [hold.instance.id, hold])),
    remembered: file.remembered,
    obeyed: [],
  };
  const locals = file.locals.map(({ healthy, ...local }): LocalInstance => ({
    ...local,
    definition: local.definition,
    left: local.left,
    expiresAt: now + local.ttlMs,
    health: { ...unchecked, healthy, proven: healthy === true },
    written: undefined,
  }));
  return {
    view,
    locals: new Map(locals.map((local) => [local.id, local])),
    agents: file.agents,
    disabled: new Set(file.disabled),
  };
}

/**
 * Reads what the last sidecar left.
 * @returns undefined when there is nothing, or nothing usable: a corrupted file is kept aside, and said so in the log
 * @throws Fault `state_dir` when the file is there and cannot be read
 */
export async function readState(path: string, realm: string, clock: Clock, logger: Logger): Promise<Kept | undefined> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (errorCode(error) === "ENOENT") return undefined;
    throw new Fault({
      code: "state_dir",
      message: `the state of the last sidecar cannot be read`,
      hint: `Make ${path} readable for this user, or remove it: then Atlas is asked for everything.`,
      cause: error,
    });
  }
  try {
    return decode(text, realm, clock.now());
  } catch (error) {
    const aside = `${path}.unusable-${new Date(clock.now()).toISOString().replaceAll(":", "")}`;
    await rename(path, aside);
    const why = error instanceof z.ZodError ? z.prettifyError(error) : describeError(error);
    logger.error(
      { file: aside },
      `the state on disk is not usable and was kept aside; Atlas is asked for everything: ${why}`,
    );
    return undefined;
  }
}

export interface StateWriter {
  /** Something changed: it is written soon, together with what changes meanwhile. */
  request(): void;
  /** Writes now. @throws the file system's error */
  flush(): Promise<void>;
  /** Why the last write failed, or undefined. */
  readonly trouble: string | undefined;
  stop(): void;
}

export function createStateWriter(path: string, kept: () => Kept, clock: Clock, logger: Logger): StateWriter {
  const queue: Serial = serial();
  let pending: Cancel | undefined;
  let nextAt = 0;
  let trouble: string | undefined;
  let changed = false;
  let writing = false;
  let stopped = false;

  const write = (): Promise<void> =>
    queue.run(async () => {
      const started = clock.now();
      await writeFileAtomic(path, encode(kept()), { mode: 0o640 });
      nextAt = clock.now() + Math.max(INTERVAL_MS, (clock.now() - started) / MAX_DUTY);
      if (trouble !== undefined) logger.info("the state is on disk again");
      trouble = undefined;
    });

  // while one is being written nobody knows yet when the next may be: a slow disk would be asked again at once
  const plan = (): void => {
    if (!changed || writing || stopped || pending !== undefined) return;
    pending = clock.after(Math.max(DELAY_MS, nextAt - clock.now()), () => {
      pending = undefined;
      changed = false;
      writing = true;
      void write()
        .catch((error: unknown) => {
          // routing goes on from memory; only a restart without Atlas would suffer
          const message = describeError(error);
          if (trouble !== message) logger.error({ file: path }, `the state could not be written: ${message}`);
          trouble = message;
          changed = true;
          nextAt = clock.now() + RETRY_MS;
        })
        .finally(() => {
          writing = false;
          plan();
        });
    });
  };

  return {
    request() {
      changed = true;
      plan();
    },
    async flush() {
      pending?.();
      pending = undefined;
      changed = false;
      await write();
    },
    get trouble() {
      return trouble;
    },
    stop() {
      stopped = true;
      pending?.();
      pending = undefined;
    },
  };
}
