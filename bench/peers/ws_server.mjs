// Node's `ws`: send() to each client, the way its documentation broadcasts.
import { WebSocketServer } from 'ws';

const options = Object.fromEntries(process.argv.slice(2).map((word) => word.slice(2).split('=')));
const rate = Number(options.rate ?? 1);
const burst = Number(options.burst ?? 1);
let version = 1;

function update(symbol) {
  const ts = Math.round((performance.timeOrigin + performance.now()) * 1000);
  const field = (name, value) => `{"op":"replace","path":"/quotes/${symbol}/${name}","value":${value}}`;
  return `{"type":"quotes_patch","ts":${ts},"versions":{"${symbol}":${version}},"operations":[` +
    [field('current_price', 175.92), field('change', 0.42), field('change_percent', 0.2393),
      field('last_updated', '"2026-11-24T12:00:00.123456Z"'), field('volume', 50000300)].join(',') + ']}';
}

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
