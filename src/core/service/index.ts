// What services import from `smartstack` and `smartstack/service`.
export { smartClient } from "../client/index.ts";
export type { App, Context } from "./app.ts";
export type { ConfigOf, Defaults } from "./config.ts";
export type { Check, CheckAnswer, CheckOptions } from "./health.ts";
export {
  badRequest,
  conflict,
  forbidden,
  gone,
  HttpProblem,
  notFound,
  problem,
  type ProblemOptions,
  tooManyRequests,
  unauthorized,
  unavailable,
  unprocessable,
} from "./problems.ts";
export type { RouteSpec } from "./route.ts";
export { Secret, secret } from "./secret.ts";
export { type ServiceOptions, type SmartService, smartService } from "./smart-service.ts";
export { testService, type TestedService, type TestServiceOptions } from "./test-service.ts";
