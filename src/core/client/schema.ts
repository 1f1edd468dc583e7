// Standard Schema, version 1 (standardschema.dev): the part of it that a client needs. zod, valibot, arktype and others
// have it, so `.json(schema)` binds nobody to one of them.

export type Schema<T> = {
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => SchemaResult<T> | Promise<SchemaResult<T>>;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
  };
};

type SchemaResult<T> = { readonly value: T; readonly issues?: undefined } | { readonly issues: readonly SchemaIssue[] };

type SchemaIssue = {
  readonly message: string;
  readonly path?: readonly (PropertyKey | { readonly key: PropertyKey })[] | undefined;
};

/** What of `value` is not as the schema says, in one line; or the value as the schema makes it. */
export async function validate<T>(
  schema: Schema<T>,
  value: unknown,
): Promise<{ readonly ok: true; readonly value: T } | { readonly ok: false; readonly issues: string }> {
  const result = await schema["~standard"].validate(value);
  if (result.issues === undefined) return { ok: true, value: result.value };
  return { ok: false, issues: result.issues.map(formatIssue).join("; ") };
}

function formatIssue({ message, path = [] }: SchemaIssue): string {
  const keys = path.map((part) => String(typeof part === "object" ? part.key : part));
  return keys.length === 0 ? message : `${keys.join(".")}: ${message}`;
}
