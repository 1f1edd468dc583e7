// completion: a few lines for the shell, which ask this program what could come next. So every shell offers the same, and
// always what this version has.
import { defineCommand } from "./command.ts";
import { EXIT } from "./exit-codes.ts";
import { print } from "./output.ts";

// The words up to the cursor go behind `--`; the answer is one candidate a line, `:files` or `:directories`.
const BASH = `# bash: put  eval "$(smartstack completion bash)"  into ~/.bashrc
_smartstack() {
  local IFS=$'\\n' word=\${COMP_WORDS[COMP_CWORD]} candidates
  [ "$word" = = ] && word=
  candidates=$("\${COMP_WORDS[0]}" completion bash -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  case $candidates in
  :files) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$word")) ;;
  :directories) compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$word")) ;;
  *) COMPREPLY=($(compgen -W "$candidates" -- "$word")) ;;
  esac
}
complete -F _smartstack smartstack`;

const ZSH = `#compdef smartstack
# zsh: put  eval "$(smartstack completion zsh)"  into ~/.zshrc, behind compinit
_smartstack() {
  local -a candidates
  candidates=("\${(@f)$("$words[1]" completion zsh -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  case $candidates[1] in
  :files) _files ;;
  :directories) _files -/ ;;
  ?*) _describe -V smartstack candidates ;;
  esac
}
compdef _smartstack smartstack`;

const FISH = `# fish: put  smartstack completion fish | source  into ~/.config/fish/config.fish
function __smartstack_complete
  set -l words (commandline -opc) (commandline -ct)
  set -l candidates ($words[1] completion fish -- $words[2..-1] 2>/dev/null)
  switch "$candidates[1]"
    case :files
      __fish_complete_path (commandline -ct)
    case :directories
      __fish_complete_directories (commandline -ct)
    case '*'
      string join \\n -- $candidates
  end
end
complete -c smartstack -f -a '(__smartstack_complete)'`;

const SCRIPTS: Readonly<Record<string, string>> = { bash: BASH, zsh: ZSH, fish: FISH };

export const completion = defineCommand({
  name: "completion",
  summary: "complete commands, flags and their values in bash, zsh or fish",
  arguments: [{ name: "SHELL", describe: "which one", choices: ["bash", "zsh", "fish"] }],
  acceptsRest: "WORDS, to see what could be the last of them",
  examples: ['eval "$(smartstack completion bash)"', "smartstack completion fish | source"],
  options: {},
  async run({ args: [shell = ""], rest }) {
    if (rest === undefined) {
      print(SCRIPTS[shell] ?? "");
      return EXIT.done;
    }
    const { commands } = await import("./commands.ts");
    const { complete } = await import("./complete.ts");
    // bash takes --store=embedded for three words, and replaces the last one only
    const words = shell === "bash" ? joined(rest) : rest;
    const found = complete(commands, words);
    if (typeof found === "string") print(`:${found}`);
    else print(found.map((candidate) => formatCandidate(shell, candidate, words.at(-1) ?? "")).join("\n"));
    return EXIT.done;
  },
});

function joined(words: readonly string[]): readonly string[] {
  const whole: string[] = [];
  for (const [index, word] of words.entries()) {
    const last = whole.pop();
    if (last === undefined) whole.push(word);
    else if (word === "=" || words[index - 1] === "=") whole.push(last + word);
    else whole.push(last, word);
  }
  return whole;
}

function formatCandidate(
  shell: string,
  { word, describe }: { readonly word: string; readonly describe: string },
  typed: string,
): string {
  switch (shell) {
    case "bash":
      return typed.includes("=") ? word.slice(typed.indexOf("=") + 1) : word;
    case "zsh":
      return `${word.replaceAll(":", "\\:")}:${describe}`;
    default:
      return `${word}\t${describe}`;
  }
}
