// argv → cli, nothing else. One thing must come before any other module runs: with HTTP_PROXY set, Bun's fetch sends even
// 127.0.0.1 to the proxy, and it reads NO_PROXY when it is first used.
for (const name of ["NO_PROXY", "no_proxy"]) {
  process.env[name] = [process.env[name], "localhost,127.0.0.1,::1"].filter(Boolean).join(",");
}
const { run } = await import("./cli/index.ts");
process.exitCode = await run(process.argv.slice(2));
