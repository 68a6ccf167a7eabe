// Node's `ws`: send() to each client, the way its documentation broadcasts.
import { WebSocketServer } from 'ws';

const options = Object.fromEntries(process.argv.slice(2).map((word) => word.slice(2).split('=')));
const rate = Number(options.rate ?? 1);
const burst = Number(options.burst ?? 1);
let version = 1;

const fields = (options.fields ?? '').split(',').filter((field) => field);
const wanted = (field) => fields.length === 0 || fields.includes(field);

const VALUES = {
  current_price: 175.92, change: 0.42, change_percent: 0.2393,
  last_updated: '2026-11-24T12:00:00.123456Z', volume: 50000300,
};
const ROW = [['current_price', 175.92], ['volume', 48300], ['last_updated', -148213]];

function micros() {
  return Math.round((performance.timeOrigin + performance.now()) * 1000);
}

function patch(symbol) {
  const operations = Object.entries(VALUES).filter(([field]) => wanted(field)).map(([field, value]) =>
    `{"op":"replace","path":"/quotes/${symbol}/${field}","value":${JSON.stringify(value)}}`);
  const since = fields.length ? `,"since":{"${symbol}":${version - 1}}` : '';
  return `{"type":"quotes_patch","ts":${micros()},"versions":{"${symbol}":${version}},` +
    `"operations":[${operations.join(',')}]${since}}`;
}

function row(symbol) {
  const sent = ROW.filter(([field]) => wanted(field)).map(([, value]) => value);
  const told = fields.length ? [version - 1, version] : version;
  return ['u', micros(), [[symbol, told, (1 << sent.length) - 1, ...sent]]];
}

// The types of MessagePack that a row needs: short arrays and strings, 16 to 64 bits.
function pack(value) {
  if (Array.isArray(value)) return Buffer.concat([Buffer.of(0x90 | value.length), ...value.map(pack)]);
  if (typeof value === 'string') return Buffer.concat([Buffer.of(0xa0 | value.length), Buffer.from(value)]);
  if (Number.isInteger(value) && value >= 0 && value < 128) return Buffer.of(value);
  const [type, size, write] = !Number.isInteger(value) ? [0xcb, 8, 'writeDoubleBE']
    : value < 0 ? [0xd2, 4, 'writeInt32BE'] : value < 2 ** 16 ? [0xcd, 2, 'writeUInt16BE']
      : value < 2 ** 32 ? [0xce, 4, 'writeUInt32BE'] : [0xcf, 8, 'writeBigUInt64BE'];
  const bytes = Buffer.alloc(1 + size, type);
  bytes[write](size === 8 && Number.isInteger(value) ? BigInt(value) : value, 1);
  return bytes;
}

const MAKERS = { json: patch, compact: (symbol) => JSON.stringify(row(symbol)), msgpack: (symbol) => pack(row(symbol)) };
const update = MAKERS[options.format ?? 'json'];

const symbols = Array.from({ length: burst }, (_, number) => `S${String(number).padStart(3, '0')}`);
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false, backlog: 4096 });
server.on('connection', (client) => symbols.forEach((symbol) => client.send(update(symbol))));
server.on('listening', () => console.log(`quotes ws://127.0.0.1:${server.address().port}/ws/quotes`));

let due = performance.now();
function round() {
  version += 1;
  for (const symbol of symbols) {
    const message = update(symbol);
    for (const client of server.clients) if (client.readyState === 1) client.send(message);
  }
  due = Math.max(due + 1000 / rate, performance.now());
  setTimeout(round, due - performance.now());
}
setTimeout(round, 1000 / rate);
