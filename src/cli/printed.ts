// What `print` prints. The files lie in config/ for readers of the repository and are part of the binary as text: a host
// holds nothing else of smartstack.
import atlasConfig from "../../config/atlas.yaml" with { type: "text" };
import serveConfig from "../../config/serve.yaml" with { type: "text" };
import sidecarConfig from "../../config/sidecar.yaml" with { type: "text" };
import atlasUnit from "../../config/systemd/smartstack-atlas.service" with { type: "text" };
import serveUnit from "../../config/systemd/smartstack-serve@.service" with { type: "text" };
import sidecarUnit from "../../config/systemd/smartstack-sidecar.service" with { type: "text" };
import exampleTemplate from "../../fixtures/haproxy/deck/haproxy.cfg" with { type: "text" };

export const units: Readonly<Record<string, string>> = { atlas: atlasUnit, sidecar: sidecarUnit, serve: serveUnit };

export const configurations: Readonly<Record<string, string>> = {
  atlas: atlasConfig,
  sidecar: sidecarConfig,
  serve: serveConfig,
};

/** What the sidecar makes of the four services of the deck, every line of it explained. */
export const template: string = exampleTemplate;
