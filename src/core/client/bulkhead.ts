// Isolation: a service that hangs holds some of the process's requests, never all of them.

/** One service's compartment. */
export interface Compartment {
  readonly inFlight: number;
  readonly waiting: number;
  /**
   * Asks for a place.
   * @param limit how many of this service's calls may be in flight at once
   */
  enter(limit: number): Entry;
  /** Gives the place back. */
  readonly leave: () => void;
}

export type Entry =
  | { readonly kind: "in" }
  | { readonly kind: "full" }
  /** `ready` resolves with a place taken; `cancel` leaves the queue, or gives the place back. */
  | { readonly kind: "queued"; readonly ready: Promise<void>; cancel(): void };

export interface Bulkheads {
  compartment(): Compartment;
}

const IN: Entry = { kind: "in" };
const FULL: Entry = { kind: "full" };
/** Calls that wait for a place, per place: bounds memory when a service hangs. */
const QUEUE_PER_PLACE = 10;

type Waiter = { state: "waiting" | "in" | "gone"; readonly tryEnter: () => boolean };

/**
 * Compartments that share `places` places. A service may take one while it holds fewer than its limit **and** fewer than
 * are free: one hung service ends at its limit, two at a third of all, and there is always a place for the next one.
 * Source: dynamic thresholds, Choudhury and Hahne, "Dynamic queue length thresholds for shared-memory packet switches"
 * (IEEE/ACM ToN, 1998), with α = 1.
 * @param places how many requests the process may have in flight at all (Bun: 256 unless it was started with more)
 */
export function bulkheads(places: number): Bulkheads {
  let used = 0;
  const queues = new Set<Waiter[]>();

  /** Lets in whoever may enter, one queue after the other. */
  const wake = (): void => {
    for (const queue of queues) {
      while (queue[0]?.tryEnter()) queue.shift();
      if (queue.length === 0) queues.delete(queue);
    }
  };

  return {
    compartment() {
      let inFlight = 0;
      const queue: Waiter[] = [];
      const tryEnter = (limit: number): boolean => {
        if (inFlight >= limit || inFlight >= places - used) return false;
        inFlight += 1;
        used += 1;
        return true;
      };
      const leave = (): void => {
        inFlight -= 1;
        used -= 1;
        if (queues.size > 0) wake();
      };
      return {
        get inFlight() {
          return inFlight;
        },
        get waiting() {
          return queue.length;
        },
        leave,
        enter(limit) {
          if (queue.length === 0 && tryEnter(limit)) return IN;
          if (queue.length >= limit * QUEUE_PER_PLACE) return FULL;
          // not Promise.withResolvers: Node has it since 22
          let admit: () => void = () => undefined;
          const ready = new Promise<void>((resolve) => {
            admit = resolve;
          });
          const waiter: Waiter = {
            state: "waiting",
            tryEnter() {
              if (!tryEnter(limit)) return false;
              waiter.state = "in";
              admit();
              return true;
            },
          };
          queue.push(waiter);
          queues.add(queue);
          return {
            kind: "queued",
            ready,
            cancel() {
              if (waiter.state === "in") leave();
              else if (waiter.state === "waiting") queue.splice(queue.indexOf(waiter), 1);
              waiter.state = "gone";
            },
          };
        },
      };
    },
  };
}
