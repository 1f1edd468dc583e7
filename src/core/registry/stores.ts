import type { LiveStore } from "./live-store.ts";
import type { MetaStore } from "./meta-store.ts";

/** The two halves of a registry. Both are opened before use, and closed together. */
export type Stores = { readonly live: LiveStore; readonly meta: MetaStore };
