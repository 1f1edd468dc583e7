// Files of config/ and fixtures/ that are part of the binary as text: import … with { type: "text" }.
declare module "*.service" {
  const text: string;
  export default text;
}
declare module "*.cfg" {
  const text: string;
  export default text;
}
