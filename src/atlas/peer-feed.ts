// What this replica tells the others: which acks came here, what is waited for here, whom an operator gave up.
import type { Cancel, Clock } from "../core/lib/clock.ts";
import { coalesce, type Coalesced } from "../core/lib/coalesce.ts";
import { ProblemFault } from "../core/lib/http.ts";
import { formatSse } from "../core/lib/sse.ts";
import type { HostAck } from "./ack-book.ts";
import type { Agents } from "./agents.ts";
import { FEED_HEARTBEAT_MS } from "./peer-messages.ts";
import type { Waits } from "./waits.ts";
import { Watcher } from "./watcher.ts";

/** The first ack leaves at once, those within this time after it share an event: a thousand agents ack the same change. */
const COALESCE_MS = 5;

const encoder = new TextEncoder();

export type PeerFeedOptions = {
  /** The name of this replica. */
  readonly replica: string;
  readonly agents: Agents;
  readonly waits: Waits;
  readonly clock: Clock;
};

export class PeerFeed {
  readonly #options: PeerFeedOptions;
  readonly #readers = new Set<Watcher>();
  readonly #flush: Coalesced;
  readonly #unsubscribe: () => void;
  #acks = new Map<string, HostAck>();
  #heartbeat: Cancel | undefined;
  #stopped = false;

  constructor(options: PeerFeedOptions) {
    const { agents, waits, clock } = options;
    this.#options = options;
    this.#flush = coalesce(clock, COALESCE_MS, () => {
      this.#send("acks", [...this.#acks.values()]);
      this.#acks = new Map();
    });
    this.#unsubscribe = agents.on((event) => {
      if (this.#readers.size === 0) return;
      if (event.kind === "acked" && event.news !== undefined) {
        this.#acks.set(event.host, event.news);
        this.#flush.request();
      } else if (event.kind === "forgotten") this.#send("forgotten", { host: event.host });
      else if (event.kind === "holds") this.#send("state", this.#state());
    });
    waits.onChange(() => {
      if (this.#readers.size > 0) this.#send("state", this.#state());
    });
    this.#beat();
  }

  /** Opens the stream of one peer. @throws ProblemFault `unavailable` when Atlas is stopping */
  open(): Watcher {
    if (this.#stopped) throw new ProblemFault("unavailable", "Atlas is stopping");
    const { replica, agents, clock } = this.#options;
    const hello = { replica, ...this.#state(), acks: agents.ownAcks() };
    const reader = new Watcher({
      clock,
      first: encode("hello", hello),
      onEnd: () => this.#readers.delete(reader),
    });
    this.#readers.add(reader);
    return reader;
  }

  stop(reason: string): void {
    this.#stopped = true;
    this.#unsubscribe();
    this.#flush.stop();
    this.#heartbeat?.();
    for (const reader of this.#readers) reader.end(reason);
  }

  #state() {
    const { waits, agents } = this.#options;
    return { waits: waits.open(), holds: agents.holds };
  }

  #send(event: string, data: unknown): void {
    const bytes = encode(event, data);
    for (const reader of this.#readers) reader.send(bytes);
  }

  #beat(): void {
    this.#heartbeat = this.#options.clock.after(FEED_HEARTBEAT_MS, () => {
      this.#send("heartbeat", {});
      this.#beat();
    });
  }
}

function encode(event: string, data: unknown): Uint8Array {
  return encoder.encode(formatSse({ event, data }));
}
