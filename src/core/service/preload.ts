// An entry of its own in the compiled binary: `smartstack test` hands its text to Bun's test runner, which runs it before the
// tests, so that services are tested with the modules they will be served with.
import { provideVirtualModules } from "./virtual-modules.ts";

provideVirtualModules();
