// node asyncapi.js: the official parser's opinion of a document on standard input.
import { readFileSync } from "node:fs";
import { Parser } from "@asyncapi/parser";

const { document, diagnostics } = await new Parser().parse(readFileSync(0, "utf8"));
for (const { severity, path, message } of diagnostics)
  if (severity <= 1) console.error(severity, path.join("."), message);
console.log(document?.messages().all().length ?? "no document");
