// Where a command's answer goes. Messages about failures go to standard error, in index.ts.

/** One answer: text for people, or JSON for programs (indented, since people read that too). */
export function answer(json: boolean, value: unknown, text: () => string): void {
  print(json ? JSON.stringify(value, null, 2) : text());
}

/** Text and a line end, to standard output. Nothing at all when there is no text. */
export function print(text: string): void {
  if (text !== "") process.stdout.write(`${text}\n`);
}
