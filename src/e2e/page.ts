// A page of documentation as commands that can be run: its fenced blocks, who they are for, and what they print.

/** One thing to do on a host, in the page's order. */
export type Step =
  /** A whole block: has to end well. */
  | {
      readonly kind: "script";
      readonly line: number;
      readonly hosts: readonly string[];
      /** One host after the other, instead of all at once. */
      readonly inTurn: boolean;
      readonly script: string;
    }
  /** One command with what a person sees of it. */
  | {
      readonly kind: "example";
      readonly line: number;
      readonly host: string;
      readonly command: string;
      readonly output: string;
    };

/**
 * The steps of a page. Its blocks are of three kinds: `sh`, whose first line says where it is run (`# every host: why`,
 * `# host001, host002, one after the other: why`); `console`, with `HOST$ COMMAND` and below it what is printed; `text`, which holds no commands.
 * @param everyHost what `every host` means
 * @throws when a block is of none of them, so that nothing on the page goes without being run
 */
export function stepsOf(page: string, everyHost: readonly string[]): readonly Step[] {
  const steps: Step[] = [];
  for (const { kind, line, text } of blocksOf(page)) {
    if (kind === "sh") steps.push(scriptOf(text, line, everyHost));
    else if (kind === "console") steps.push(...examplesOf(text, line, everyHost));
    else if (kind !== "text" || /^\s*(?:\$ |smartstack |systemctl |curl )/m.test(text))
      throw new Error(`line ${line}: a block of kind "${kind}" would not be run; kinds are sh, console and text`);
  }
  return steps;
}

type Block = { readonly kind: string; readonly line: number; readonly text: string };

function blocksOf(page: string): readonly Block[] {
  const blocks: Block[] = [];
  let open: { readonly kind: string; readonly line: number; readonly lines: string[] } | undefined;
  for (const [index, text] of page.split("\n").entries()) {
    const fence = /^\s*(?:```|~~~)(.*)$/.exec(text);
    if (fence === null) open?.lines.push(text);
    else if (open === undefined) open = { kind: (fence[1] ?? "").trim(), line: index + 1, lines: [] };
    else {
      blocks.push({ kind: open.kind, line: open.line, text: open.lines.join("\n") });
      open = undefined;
    }
  }
  if (open !== undefined) throw new Error(`line ${open.line}: this block is not closed`);
  return blocks;
}

function scriptOf(script: string, line: number, everyHost: readonly string[]): Step {
  const [, where = "", turn] = /^# ([^:\n]+?)(, one after the other)?(?::|$)/m.exec(script) ?? [];
  const hosts = where === "every host" ? everyHost : where.split(", ");
  checkHosts(hosts, line, everyHost);
  return { kind: "script", line, hosts, inTurn: turn !== undefined, script };
}

function examplesOf(text: string, line: number, everyHost: readonly string[]): readonly Step[] {
  const prompt = /^([\w.-]+)\$ (.*)$/;
  const steps: { kind: "example"; line: number; host: string; command: string; output: string[] }[] = [];
  for (const [index, one] of text.split("\n").entries()) {
    const [, host, command] = prompt.exec(one) ?? [];
    const last = steps.at(-1);
    if (host !== undefined && command !== undefined) {
      checkHosts([host], line + index + 1, everyHost);
      steps.push({ kind: "example", line: line + index + 1, host, command, output: [] });
    } else if (last === undefined) throw new Error(`line ${line + index + 1}: output of no command`);
    else last.output.push(one);
  }
  return steps.map(({ kind, line, host, command, output }) => ({
    kind,
    line,
    host,
    command,
    output: output.join("\n"),
  }));
}

function checkHosts(hosts: readonly string[], line: number, everyHost: readonly string[]): void {
  const unknown = hosts.find((host) => !everyHost.includes(host));
  if (unknown !== undefined)
    throw new Error(`line ${line}: "${unknown}" is no host; hosts are ${everyHost.join(", ")}`);
}

/** What differs from run to run, made the same; so are the widths of columns. `…` stands for anything within a line. */
export function normal(output: string): string {
  return output
    .trim()
    .replaceAll(/\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?Z/g, "TIME")
    .replaceAll(/ · p99 \d+ ms/g, "")
    .replaceAll(/\b\d+ (ms|s|min|h)\b/g, "N $1")
    .replaceAll(/\b(revision|generation|lines?:?) \d+/g, "$1 N")
    .replaceAll(/\b\d+ lines\b/g, "N lines")
    .replaceAll(/^(host\d+ +\S+ +)\d+( +0)/gm, "$1N$2")
    .replaceAll(/ +/g, " ")
    .replaceAll(/ $/gm, "");
}

/** Whether a command printed what the page says. A line that is `…` alone stands for any number of lines. */
export function printed(expected: string, found: string): boolean {
  const pattern = normal(expected)
    .split("\n")
    .map((line) =>
      line === "…"
        ? "(?:.*\n)*"
        : `${line
            .split("…")
            .map((part) => RegExp.escape(part))
            .join(".*")}\n`,
    )
    .join("");
  return new RegExp(`^${pattern}$`).test(`${normal(found)}\n`);
}
