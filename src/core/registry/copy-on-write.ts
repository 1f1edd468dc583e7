// States are immutable, and most changes touch one of their maps.

/** A map that is copied when it is first written. */
export class CopyOnWrite<V> {
  now: ReadonlyMap<string, V>;
  #own: Map<string, V> | undefined;

  constructor(base: ReadonlyMap<string, V>) {
    this.now = base;
  }

  edit(): Map<string, V> {
    if (this.#own === undefined) {
      this.#own = new Map(this.now);
      this.now = this.#own;
    }
    return this.#own;
  }

  /** Without `value` the key goes. Copies nothing when it says so already. */
  set(key: string, value: V | undefined): void {
    if (value === undefined) {
      if (this.now.has(key)) this.edit().delete(key);
    } else if (this.now.get(key) !== value) this.edit().set(key, value);
  }

  /** Hands it out: it never changes again, the next edit makes another. */
  share(): ReadonlyMap<string, V> {
    this.#own = undefined;
    return this.now;
  }

  replace(map: ReadonlyMap<string, V>): void {
    this.#own = undefined;
    this.now = map;
  }
}
