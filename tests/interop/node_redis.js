// node node_redis.js SOCKET PARTITIONS: a command with the package `redis`, and its outcome.
import { createClient } from "redis";
import { command, partitionOf } from "./command.js";

const [socket, partitions] = process.argv.slice(2);
const client = await createClient({ socket: { path: socket } }).connect();
const asked = command("by-redis");
await client.xAdd(`{shop-${partitionOf(asked.cart_id, partitions)}}:commands`, "*", {
  command: JSON.stringify(asked),
});
const [{ messages }] = await client.xRead(
  { key: asked.reply_to, id: "0" },
  { BLOCK: 30_000, COUNT: 1 },
);
console.log(messages[0].message.outcome);
await client.close();
