import { isMap, isScalar, LineCounter, parseDocument } from "yaml";

/** Something wrong in a file: `smartstack.yaml:3: port: must be …`. */
export type FileIssue = { readonly line: number; readonly key: string; readonly message: string };

/** A YAML file of keys and values, and the line of each key: a message without a line costs its reader minutes. */
export type YamlFile = {
  readonly values: Readonly<Record<string, unknown>>;
  /** The line of the innermost key of that path that exists. */
  lineOf(path: readonly PropertyKey[]): number;
  readonly issues: readonly FileIssue[];
};

export function parseYaml(text: string): YamlFile {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const issues: FileIssue[] = document.errors.map((error) => ({
    line: error.linePos?.[0].line ?? 1,
    key: "",
    message: error.message.split("\n")[0] ?? "is no YAML",
  }));
  if (issues.length === 0 && document.contents !== null && !isMap(document.contents))
    issues.push({ line: 1, key: "", message: "must hold keys and values, one a line" });
  const usable = issues.length === 0 && document.contents !== null;
  return {
    values: usable ? (document.toJS() as Record<string, unknown>) : {},
    issues,
    lineOf(path) {
      let node: unknown = document.contents;
      let line = 1;
      for (const key of path) {
        if (!isMap(node)) break;
        const pair = node.items.find((item) => isScalar(item.key) && item.key.value === key);
        if (pair === undefined) break;
        const offset = isScalar(pair.key) ? pair.key.range?.[0] : undefined;
        if (offset !== undefined) ({ line } = lines.linePos(offset));
        node = pair.value;
      }
      return line;
    },
  };
}
