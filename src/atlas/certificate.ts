// A certificate and its key as TLS takes them, checked before anybody relies on them.
import { createPrivateKey, type KeyObject, X509Certificate } from "node:crypto";
import { describeError, Fault } from "../core/lib/errors.ts";

/** PEM texts that belong together. The first certificate is Atlas's own, others lead to the authority. */
export type Certificate = { readonly cert: string; readonly key: string; readonly validTo: Date };

/**
 * @param now in ms since the epoch
 * @throws Fault `certificate` when one of them is no PEM, they do not belong together, or the certificate has expired
 */
export function readCertificate(cert: string, key: string, now: number): Certificate {
  const x509 = parsed("the certificate", () => new X509Certificate(cert));
  const privateKey: KeyObject = parsed("the key", () => createPrivateKey(key));
  if (!x509.checkPrivateKey(privateKey)) {
    throw unusable("the key is another certificate's", "Give the certificate and the key that it was made for.");
  }
  const validTo = new Date(x509.validTo);
  if (validTo.getTime() <= now) {
    throw unusable(`the certificate expired on ${x509.validTo}`, "Give a renewed one.");
  }
  return { cert, key, validTo };
}

export function sameCertificate(a: Certificate, b: Certificate | undefined): boolean {
  return a.cert === b?.cert && a.key === b.key;
}

function parsed<T>(what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw unusable(`${what} is not usable PEM: ${describeError(error)}`, "Is it the right file, without a passphrase?");
  }
}

function unusable(message: string, hint: string): Fault {
  return new Fault({ code: "certificate", message, hint });
}
