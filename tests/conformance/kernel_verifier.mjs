// The Kernel's first verifier, as its contract describes it: reads rows (newest first) and a signers file, and walks
// the rows from the oldest as one chain. Needs nothing but Node. Standard input:
//   {"signers": [...], "rows": [{"id", "payload" (JSON text), "prev_hash", "hash", "signature", "signer_id", "created_at"}]}
// Prints the number of rows; exits 1 with the id of the first row that does not verify.
import { createHash, createPublicKey, verify } from "node:crypto";

const canonical = (value) => {
  if (Array.isArray(value)) return value.map(canonical);
  if (value === null || typeof value !== "object") return value;
  const sorted = {};
  for (const key of Object.keys(value).sort()) sorted[key] = canonical(value[key]);
  return sorted;
};

let text = "";
for await (const chunk of process.stdin) text += chunk;
const { signers, rows } = JSON.parse(text);
const keys = new Map(signers.map((s) => [s.signerId, s]));
const fail = (row, why) => {
  console.error(`${row.id}: ${why}`);
  process.exit(1);
};

let previous;
for (const row of rows.reverse()) {
  if (previous !== undefined) {
    if (row.prev_hash !== previous.hash) fail(row, "prev_hash is not the hash of the row before");
    if (!(row.created_at > previous.created_at)) fail(row, "created_at does not increase");
  }
  const parts = [Buffer.from(JSON.stringify(canonical(JSON.parse(row.payload))), "utf8")];
  if (row.prev_hash !== null) parts.push(Buffer.from(row.prev_hash, "hex"));
  const hash = createHash("sha256").update(Buffer.concat(parts)).digest();
  if (hash.toString("hex") !== row.hash) fail(row, "hash mismatch");
  const signer = keys.get(row.signer_id);
  if (signer === undefined || signer.algorithm !== "ed25519") fail(row, `unknown signer ${row.signer_id}`);
  const raw = Buffer.from(signer.publicKey, "base64");
  const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), raw]);
  for (const key of [createPublicKey({ key: der, format: "der", type: "spki" }), createPublicKey(signer.public_key_pem)]) {
    if (!verify(null, hash, key, Buffer.from(row.signature, "base64"))) fail(row, "bad signature");
  }
  previous = row;
}
console.log(rows.length);
