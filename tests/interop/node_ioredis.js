// node node_ioredis.js SOCKET PARTITIONS: a command with the package `ioredis`, and its outcome.
import Redis from "ioredis";
import { command, partitionOf } from "./command.js";

const [socket, partitions] = process.argv.slice(2);
const client = new Redis(socket);
const asked = command("by-ioredis");
await client.xadd(
  `{shop-${partitionOf(asked.cart_id, partitions)}}:commands`, "*", "command", JSON.stringify(asked),
);
const [[, [[, [, outcome]]]]] = await client.xread(
  "COUNT", 1, "BLOCK", 30_000, "STREAMS", asked.reply_to, "0",
);
console.log(outcome);
client.disconnect();
