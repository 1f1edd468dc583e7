import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/** @default mode 0o644 */
export type AtomicFileOptions = {
  readonly mode?: number;
  /** Whose it will be. @default this process's */
  readonly owner?: { readonly uid: number; readonly gid: number };
  /** Also survive a power cut, not only a crash of the process. Costs two fsyncs. @default true */
  readonly durable?: boolean;
};

let sequence = 0;

/**
 * Replaces a file so that a reader, and the next boot, sees the old content or the new one, never a part: written
 * beside, synced, renamed over.
 * @param content pieces are written as they come; when they break off, so does this
 * @throws the file system's error (ENOSPC, EROFS, EACCES …); the old file is untouched and nothing is left beside it
 */
export async function writeFileAtomic(
  path: string,
  content: string | Uint8Array | AsyncIterable<Uint8Array>,
  options: AtomicFileOptions = {},
): Promise<void> {
  const { mode = 0o644, owner, durable = true } = options;
  sequence += 1;
  const temporary = `${path}.${process.pid}.${sequence}.tmp`;
  try {
    const file = await open(temporary, "w", mode);
    try {
      if (owner !== undefined) {
        await file.chown(owner.uid, owner.gid);
        // a umask may have taken something of the mode that was asked for
        await file.chmod(mode);
      }
      await file.writeFile(content);
      if (durable) await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    // what failed first is what the caller must hear, even when nothing can be removed either
    await rm(temporary, { force: true }).catch(() => undefined);
    throw error;
  }
  if (durable) await syncDirectory(dirname(path));
}

/** A rename is only on disk once its directory is. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
