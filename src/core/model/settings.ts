import { z } from "zod";
import { serviceName } from "./names.ts";

/** A service's configuration values in a realm: flat names, as they stand in `defaults.ts`. */
export const settingsValuesSchema = z.record(
  z.string().regex(/^[A-Za-z_][A-Za-z0-9_]{0,99}$/, "a setting's name is letters, digits and '_'"),
  z.json(),
);
export type SettingsValues = z.output<typeof settingsValuesSchema>;

/** One immutable version. Version 0 with no values: nobody has set anything. */
export const settingsSchema = z.object({ service: serviceName, version: z.int().min(0), values: settingsValuesSchema });
export type Settings = z.output<typeof settingsSchema>;
