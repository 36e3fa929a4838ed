// What both clients send, and where: CRC-32 as zlib has it, of the id's UTF-8 bytes.
const table = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export function partitionOf(id, partitions) {
  const counts = id.match(/^[^{]*\{([^}]+)\}/)?.[1] ?? id; // what is between { and }, if anything
  let crc = 0xffffffff;
  for (const byte of new TextEncoder().encode(counts)) crc = table[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ((crc ^ 0xffffffff) >>> 0) % partitions;
}

export const command = (id) => ({
  type: "AddProduct", command_id: id, cart_id: `{käthe}/cärt ${id}`, product_id: "milk",
  quantity: 2, unit_price_cents: 89, reply_to: `shop:replies:${id}`,
});
