// SPDX-License-Identifier: Apache-2.0
// node run.mjs BASE KEY GOLDEN [--record]: makes all calls (calls.mjs) against a server at BASE, and compares
// what came with what was recorded; --record writes GOLDEN anew.
import { readFileSync, writeFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import OpenAI from 'openai';
import { calls } from './calls.mjs';

const [base, key, golden, record] = process.argv.slice(2);
if (!golden || (record && record !== '--record')) {
  console.error('usage: node run.mjs BASE KEY GOLDEN [--record]');
  process.exit(2);
}

const options = { baseURL: base + '/v1', apiKey: key, maxRetries: 0, timeout: 120000 };
const tools = {
  client: new OpenAI(options),
  stranger: () => new OpenAI({ ...options, apiKey: 'not-a-key' }),
  raw: (path, init = {}) => fetch(base + path, {
    ...init,
    headers: { Authorization: 'Bearer ' + key, 'Content-Type': 'application/json' },
  }),
};

const want = record ? {} : JSON.parse(readFileSync(golden, 'utf8'));
const got = {};
let failed = 0;

for (const { name, run } of calls) {
  try {
    got[name] = JSON.parse(JSON.stringify(await run(tools)));
    if (!record && !isDeepStrictEqual(got[name], want[name])) {
      const [is, was] = [got[name], want[name]].map((v) => JSON.stringify(v));
      throw new Error('not as recorded:\n  got  ' + is + '\n  want ' + was);
    }
    console.log('ok: ' + name);
  } catch (e) {
    failed += 1;
    console.log('FAILED: ' + name + ': ' + (e.stack ?? e));
  }
}
for (const name of Object.keys(want)) {
  if (!(name in got) && !calls.some((c) => c.name === name)) {
    failed += 1;
    console.log('FAILED: ' + name + ' is recorded and no call any more');
  }
}
if (record && !failed) {
  const lines = Object.entries(got).map((pair) => pair.map((v) => JSON.stringify(v)).join(': '));
  writeFileSync(golden, '{\n' + lines.join(',\n') + '\n}\n');
}
console.log(calls.length + ' calls, ' + failed + ' failed');
process.exit(failed ? 1 : 0);
