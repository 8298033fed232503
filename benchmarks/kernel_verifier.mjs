// The Kernel's verifier as its contract describes it, to be timed: rows of one lane (newest first) and a signers file,
// walked from the oldest as one chain, the signer's key parsed anew for each row. Needs nothing but Node.
//
//   node kernel_verifier.mjs SIGNERS_FILE ROWS_FILE
//
// ROWS_FILE has one JSON array a line: id, payload (the text of the json column), prev_hash, hash, signature, signer_id,
// created_at. Prints {"rows", "seconds", "cpu_seconds"} of the walk; to get the rows out of Postgres is not counted, the
// payload's parsing is (a driver parses a json column when it hands the row over). Exits 1 at the first bad row.
import { createHash, createPublicKey, verify } from "node:crypto";
import { readFileSync } from "node:fs";

const canonical = (value) => {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const items = Object.keys(value).sort().map((key) => `${JSON.stringify(key)}:${canonical(value[key])}`);
  return `{${items.join(",")}}`;
};

const [signersFile, rowsFile] = process.argv.slice(2);
const signers = new Map(JSON.parse(readFileSync(signersFile, "utf8")).signers.map((s) => [s.signerId, s]));
const rows = readFileSync(rowsFile, "utf8").trimEnd().split("\n").map((line) => JSON.parse(line));
const fail = (id, why) => {
  console.error(`${id}: ${why}`);
  process.exit(1);
};

const began = process.hrtime.bigint();
const cpu = process.cpuUsage();
let previous = null;
for (const [id, payload, prevHash, hash, signature, signerId] of rows.reverse()) {
  if (previous !== null && prevHash !== previous) fail(id, "prev_hash is not the hash of the row before");
  const digest = createHash("sha256").update(canonical(JSON.parse(payload)), "utf8");
  if (prevHash !== null) digest.update(Buffer.from(prevHash, "hex"));
  const computed = digest.digest();
  if (computed.toString("hex") !== hash) fail(id, "hash mismatch");
  const signer = signers.get(signerId);
  if (signer === undefined) fail(id, `unknown signer ${signerId}`);
  const key = createPublicKey(signer.public_key_pem);
  if (!verify(null, computed, key, Buffer.from(signature, "base64"))) fail(id, "bad signature");
  previous = hash;
}
const used = process.cpuUsage(cpu);
const seconds = Number(process.hrtime.bigint() - began) / 1e9;
console.log(JSON.stringify({ rows: rows.length, seconds, cpu_seconds: (used.user + used.system) / 1e6 }));
