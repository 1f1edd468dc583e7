// How the table is laid out: every kind of item with its keys, and nothing else. docs/storage.md has the same as a table.
import type { AttributeValue } from "@aws-sdk/client-dynamodb";
import { Fault } from "../lib/errors.ts";

export type Item = Record<string, AttributeValue>;
type Key = { readonly pk: AttributeValue; readonly sk: AttributeValue };

/** The shape of items that this program reads and writes. */
export const SCHEMA = 1;

/** The record that says whose table this is: `realm`, `schema`. Written last when a table is made. */
export const META_KEY: Item = { pk: { S: "smartstack" }, sk: { S: "smartstack" } };

/** DynamoDB's limit of one item, names and keys included. */
const ITEM_BYTES = 400 * 1_024;
/** What keys and the names of attributes may take of it. */
const ITEM_OVERHEAD = 1_024;

/** What is versioned: `definition` and `settings`. */
export type Versioned = "definition" | "settings";

export function versionsKey(kind: Versioned, service: string): string {
  return `${kind}#${service}`;
}

/** Numbers in sort keys have a fixed width, so that they sort as numbers. */
export function versionKey(kind: Versioned, service: string, version: number): Key {
  return { pk: { S: versionsKey(kind, service) }, sk: { S: String(version).padStart(10, "0") } };
}

/** Two items a reservation, written and deleted together: each is unique by being the item of its key. */
export const PORTS_KEY = "ports";
export const PORT_PREFIX = "port#";

export function portKey(port: number): Key {
  return { pk: { S: PORTS_KEY }, sk: { S: `${PORT_PREFIX}${String(port).padStart(5, "0")}` } };
}

export function portOfServiceKey(service: string): Key {
  return { pk: { S: PORTS_KEY }, sk: { S: `service#${service}` } };
}

/** A month of the trail is one partition: it ends, and the newest entries are found without knowing when they were. */
export function auditMonthKey(month: string): string {
  return `audit#${month}`;
}

/** `2026-11` of an ISO date. */
export function monthOf(at: string): string {
  return at.slice(0, 7);
}

/** The text of an attribute. @throws Fault `meta_unreadable` when there is none */
export function text(item: Item, name: string): string {
  const value = item[name]?.S;
  if (value === undefined) throw unreadable(`it has no text ${name}`);
  return value;
}

/** The number of an attribute. @throws Fault `meta_unreadable` when there is none */
export function number(item: Item, name: string): number {
  const value = Number(item[name]?.N);
  if (!Number.isFinite(value)) throw unreadable(`it has no number ${name}`);
  return value;
}

/** The number at the end of a version's sort key. */
export function versionOf(item: Item): number {
  return Number(text(item, "sk"));
}

function unreadable(why: string): Fault {
  return new Fault({
    code: "meta_unreadable",
    message: `an item of the table cannot be read: ${why}`,
    hint: "Somebody else wrote to the table. Restore it from a backup of DynamoDB.",
  });
}

/** @throws Fault `too_large` when no item can hold these texts */
export function checkSize(what: string, texts: readonly string[]): void {
  const bytes = texts.reduce((sum, one) => sum + Buffer.byteLength(one), 0);
  if (bytes <= ITEM_BYTES - ITEM_OVERHEAD) return;
  throw new Fault({
    code: "too_large",
    message: `${what} would take ${Math.ceil(bytes / 1_024)} KiB, and DynamoDB keeps at most 399 KiB of one version`,
    hint: "Keep large values elsewhere, and their address here.",
  });
}
