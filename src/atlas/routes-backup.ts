// The whole realm over HTTP: out as JSON lines, and in again.
import { z } from "zod";
import type { WrittenLine } from "../core/model/backup.ts";
import { readBackup } from "./backup-lines.ts";
import type { Imported } from "./backup.ts";
import { actorOf, type Parts, written } from "./parts.ts";
import { route, type Route } from "./router.ts";
import { exportQuery, importQuery, importWrittenSchema, noParams } from "./schemas.ts";

const NDJSON = "application/x-ndjson";
/** Lines are handed over in pieces of about this many characters. */
const PIECE = 65_536;

export function backupRoutes(parts: Parts): readonly Route[] {
  const { backups } = parts;
  return [
    route({
      method: "GET",
      path: "/v1/export",
      summary:
        "The whole realm at one revision, as JSON lines; the last line is kind end. With audit=false without the audit trail",
      needs: "admin",
      params: noParams,
      query: exportQuery,
      answers: { 200: { means: "header, then a line for everything, then end", schema: z.string(), type: NDJSON } },
      problems: ["invalid", "unavailable"],
      handle: async ({ query, request, peer }) => {
        const headers = { "content-type": NDJSON, "cache-control": "no-store" };
        if (request.method === "HEAD") return new Response(null, { headers });
        const lines = await backups.export({ audit: query.audit !== false });
        // a reader may be as slow as it likes
        const limitIdle = peer.noIdleLimit();
        return new Response(streamOf(lines, limitIdle), { headers });
      },
    }),
    route({
      method: "POST",
      path: "/v1/import",
      summary:
        "Make the realm what an export says, in a new generation. Checked as a whole before anything is written; replace=true for a registry that is not empty, dryRun=true to see what would change",
      needs: "admin",
      params: noParams,
      query: importQuery,
      upload: { means: "what GET /v1/export answered, 256 MiB at most", type: NDJSON },
      answers: { 200: { means: "so it is now; with dryRun, so it would be", schema: importWrittenSchema } },
      problems: ["invalid", "conflict", "too_large", "wrong_type", "not_applied", "unavailable"],
      handle: async (call) => {
        const limitIdle = call.peer.noIdleLimit();
        try {
          const backup = await readBackup(call.request);
          const { replace = false, dryRun = false, forceRealm = false } = call.query;
          return await written(
            parts,
            call,
            // no service in particular
            { service: "" },
            () => backups.import(backup, { replace, dryRun, forceRealm }, actorOf(call)),
            membersOf,
          );
        } finally {
          limitIdle();
        }
      },
    }),
  ];
}

function membersOf({ dryRun, realm, at, services, instances, intents, settings, ports, audit }: Imported) {
  return { dryRun, realm, at, services, instances, intents, settings, ports, audit };
}

function streamOf(lines: AsyncGenerator<WrittenLine>, onEnd: () => void): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      let piece = "";
      while (piece.length < PIECE) {
        const next = await lines.next();
        if (next.done === true) break;
        piece += `${JSON.stringify(next.value)}\n`;
      }
      if (piece !== "") controller.enqueue(encoder.encode(piece));
      else {
        onEnd();
        controller.close();
      }
    },
    async cancel() {
      onEnd();
      await lines.return(undefined);
    },
  });
}
