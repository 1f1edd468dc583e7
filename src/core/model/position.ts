import { z } from "zod";

/**
 * Names a state of the registry. The same pair means the same state on every replica. Revisions only grow within a
 * generation; a new generation (a wiped, restored or imported store) is a resync, whatever its revision.
 */
export type Position = { readonly generation: number; readonly revision: number };

export const positionSchema = z.object({ generation: z.int().min(0), revision: z.int().min(0) });

/** `generation.revision`: the id of watch events, and the value of Last-Event-ID and `?since=`. */
export function formatPosition(position: Position): string {
  return `${position.generation}.${position.revision}`;
}

/** Undefined when malformed: the reader then gets a snapshot, never an error. */
export function parsePosition(text: string): Position | undefined {
  const match = /^(\d{1,15})\.(\d{1,16})$/.exec(text);
  if (match === null) return undefined;
  const position = { generation: Number(match[1]), revision: Number(match[2]) };
  return Number.isSafeInteger(position.revision) ? position : undefined;
}

/** Negative when `a` is the older one. */
export function comparePositions(a: Position, b: Position): number {
  return a.generation - b.generation || a.revision - b.revision;
}
