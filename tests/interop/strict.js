// node strict.js SCHEMA.json…: compile each with ajv at its strictest. Then, of JSON lines on
// standard input, print for each whether the first schema allows it.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import addFormats from "ajv-formats";
import Ajv2020 from "ajv/dist/2020.js";

const compiled = process.argv.slice(2).map((file) => {
  const ajv = new Ajv2020.default({ strict: true });
  addFormats.default(ajv);
  return ajv.compile(JSON.parse(readFileSync(file)));
});
for await (const line of createInterface({ input: process.stdin }))
  console.log(compiled[0](JSON.parse(line)));
