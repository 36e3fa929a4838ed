// The partitions of some ids, as command.js computes them.
import { partitionOf } from "./command.js";

const [partitions, ...ids] = process.argv.slice(2);
console.log(ids.map((id) => partitionOf(id, partitions)).join(" "));
