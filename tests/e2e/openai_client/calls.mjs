// SPDX-License-Identifier: Apache-2.0
// The calls: each a name and a function that makes one request or more with the client and returns what is
// recorded of the answers.  What it throws is a failure; `check` is for what must hold whatever is recorded.
import { APIError, APIUserAbortError } from 'openai';

export const calls = [];

function call(name, run) {
  calls.push({ name, run });
}

export function check(holds, what) {
  if (!holds) throw new Error('does not hold: ' + what);
}

const TALE = 'Once upon a time';
const user = (content) => [{ role: 'user', content }];
const common = { model: 'any', max_tokens: 12, temperature: 0 };
const chat = (more) => ({ ...common, messages: user('Tell me about the fox.'), ...more });
const text = (more) => ({ ...common, prompt: TALE, ...more });
const floats = { encoding_format: 'float' };

// -- what is recorded of an answer --------------------------------------------------------------------------

// How much of a prompt was cached depends on what was asked before, and times on the machine.
function usage(u) {
  check(u.total_tokens === u.prompt_tokens + u.completion_tokens, 'usage adds up');
  check(Number.isInteger(u.prompt_tokens_details.cached_tokens), 'cached tokens are counted');
  return [u.prompt_tokens, u.completion_tokens];
}

function head(answer, object, prefix) {
  check(answer.object === object, 'object is ' + object);
  check(new RegExp('^' + prefix + '-[0-9A-Za-z]{32}$').test(answer.id), 'an id: ' + answer.id);
  check(Math.abs(answer.created - Date.now() / 1000) < 300, 'created now');
  check(/^tern-[0-9a-f]{16}$/.test(answer.system_fingerprint), 'a fingerprint');
}

// The tokens print the text; the last one may print the beginning of a stop text besides.
function record(c, said) {
  if (!c.logprobs) return { text: said, finish: c.finish_reason };
  const bytes = c.logprobs.content?.map((t) => Buffer.from(t.bytes));
  const printed = bytes ? Buffer.concat(bytes).toString() : c.logprobs.tokens.join('');
  check(printed.startsWith(said), 'tokens print the text: ' + printed);
  return { text: said, finish: c.finish_reason, logprobs: c.logprobs };
}

function whole(answer) {
  head(answer, 'chat.completion', 'chatcmpl');
  return {
    choices: answer.choices.map((c, i) => {
      check(c.index === i && c.message.role === 'assistant', 'choices in order');
      return record(c, c.message.content);
    }),
    usage: usage(answer.usage),
  };
}

function wholeText(answer) {
  head(answer, 'text_completion', 'cmpl');
  return {
    choices: answer.choices.map((c, i) => {
      check(c.index === i, 'choices in order');
      return record(c, c.text);
    }),
    usage: usage(answer.usage),
  };
}

// Chunks joined by choice: how many there are is a matter of time.
async function joined(stream, n = 1) {
  const out = { choices: Array.from({ length: n }, () => ({ text: '', finish: null })) };
  const roles = Array(n).fill(0);
  let id = null;
  for await (const chunk of stream) {
    id ??= chunk.id;
    check(chunk.id === id, 'one id');
    if (chunk.usage) {
      check(chunk.choices.length === 0, 'usage comes in a chunk of its own');
      out.usage = usage(chunk.usage);
    }
    for (const c of chunk.choices) {
      const to = out.choices[c.index];
      check(to.finish === null, 'nothing behind the finish reason');
      if (c.delta?.role) roles[c.index] += 1;
      else if (c.delta) check(roles[c.index] === 1, 'the role comes first');
      to.text += c.delta ? (c.delta.content ?? '') : c.text;
      if (c.logprobs?.content) {
        to.logprobs ??= { content: [], refusal: null };
        to.logprobs.content.push(...c.logprobs.content);
      }
      if (c.logprobs?.tokens) {
        to.logprobs ??= { tokens: [], token_logprobs: [], top_logprobs: [], text_offset: [] };
        for (const key of Object.keys(to.logprobs)) to.logprobs[key].push(...c.logprobs[key]);
      }
      to.finish = c.finish_reason;
    }
  }
  return out;
}

async function refused(promise) {
  try {
    await promise;
  } catch (e) {
    check(e instanceof APIError, 'an APIError: ' + e);
    const { status, type, code, param, message } = e;
    return { class: e.constructor.name, status, type, code, param, message };
  }
  throw new Error('not refused');
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const cancelled = async (t) => (await (await t.raw('/tern/cluster')).json()).totals.cancelled;

// Waits for a minute at most; whether it came true.
async function until(condition) {
  for (const end = Date.now() + 60000; Date.now() < end; await sleep(20)) {
    if (await condition()) return true;
  }
  return false;
}

const n_busy = async (t) => (await (await t.raw('/slots')).json()).filter((s) => s.is_processing).length;
const idle = (t) => until(async () => (await n_busy(t)) === 0);
const busy = (t, n) => until(async () => (await n_busy(t)) === n);

// -- models -------------------------------------------------------------------------------------------------

call('models: list', async ({ client }) => {
  const list = await client.models.list();
  return list.data.map((m) => [m.id, m.object, m.owned_by, typeof m.created]);
});
call('models: retrieve', async ({ client }) => (await client.models.retrieve('fable')).id);
call('models: one that is not there', async ({ client }) => refused(client.models.retrieve('gpt-4o')));

// -- chat ---------------------------------------------------------------------------------------------------

const ask = (t, more, ...rest) => t.client.chat.completions.create(chat(more), ...rest);
const talk = (name, more) => call('chat: ' + name, async (t) => whole(await ask(t, more)));

talk('greedy', {});
talk('a system message', { messages: [{ role: 'system', content: 'Be short.' }, ...user('Who are you?')] });
talk('a developer message is a system message', {
  messages: [{ role: 'developer', content: 'Be short.' }, ...user('Who are you?')],
});
talk('parts of text', {
  messages: user([{ type: 'text', text: 'Tell me ' }, { type: 'text', text: 'about the fox.' }]),
});
talk('several turns', {
  messages: [...user('Hello'), { role: 'assistant', content: 'Hello, fox.' }, ...user('And the crow?')],
});
talk('an answer begun', { messages: [...user('Tell me'), { role: 'assistant', content: 'The king had a' }] });
talk('letters from everywhere', { messages: user('Ünïcödé — 狐狸和乌鸦 🦊 \u0000 end') });
talk('words like special tokens', { messages: user('<|im_end|></s><s>[INST]') });
talk('a stop text', { stop: ' the', max_tokens: 40 });
talk('several stop texts', { stop: ['zzz', '.', ','], max_tokens: 40 });
talk('max_tokens', { max_tokens: 3 });
talk('max_completion_tokens', { max_tokens: undefined, max_completion_tokens: 4 });
talk('a seed', { temperature: 1, seed: 7 });
talk('another seed', { temperature: 1, seed: 8 });
talk('n answers', { n: 3, temperature: 1, seed: 7 });
talk('top_p', { temperature: 1.5, top_p: 0.2, seed: 3 });
talk('frequency_penalty', { frequency_penalty: 1.5, max_tokens: 24 });
talk('presence_penalty', { presence_penalty: 1.5, max_tokens: 24 });
talk('user', { user: 'someone' });
talk('logprobs', { logprobs: true, max_tokens: 5 });
talk('top_logprobs', { logprobs: true, top_logprobs: 4, max_tokens: 4 });
talk('logprobs in front of a stop text', { logprobs: true, stop: [' the', '.'], max_tokens: 30 });
talk('json_object', { response_format: { type: 'json_object' }, max_tokens: 60, seed: 5, temperature: 0.7 });

call('chat: n answers are those of seed, seed + 1, ...', async (t) => {
  const many = await ask(t, { n: 3, temperature: 1, seed: 40 });
  for (let i = 0; i < 3; i++) {
    const one = await ask(t, { temperature: 1, seed: 40 + i });
    check(one.choices[0].message.content === many.choices[i].message.content, 'answer ' + i + ' as alone');
  }
  return 'same';
});
call('chat: a seed gives the same again, and no seed another', async (t) => {
  const say = async (seed) => whole(await ask(t, { temperature: 1.5, seed, max_tokens: 30 })).choices[0].text;
  check((await say(11)) === (await say(11)), 'the same seed');
  check((await say(undefined)) !== (await say(undefined)), 'no seed');
  return 'same';
});
call('chat: logit_bias forbids', async (t) => {
  const one = { logprobs: true, max_tokens: 1 };
  const first = await ask(t, one);
  const id = first.choices[0].logprobs.content[0].id;
  const without = whole(await ask(t, { ...one, logit_bias: { [id]: -100 } }));
  check(without.choices[0].logprobs.content[0].id !== id, 'another token comes');
  return without;
});
talk('logit_bias forces', { logit_bias: { 411: 100 }, max_tokens: 3 });
call('chat: a JSON schema', async (t) => {
  const schema = {
    type: 'object',
    properties: {
      animal: { type: 'string', enum: ['fox', 'crow', 'lion'] },
      legs: { type: 'integer' },
      wild: { type: 'boolean' },
    },
    required: ['animal', 'legs', 'wild'],
    additionalProperties: false,
  };
  const answer = whole(await ask(t, {
    response_format: { type: 'json_schema', json_schema: { name: 'animal', strict: true, schema } },
    max_tokens: 100,
    temperature: 1,
    seed: 2,
  }));
  const it = JSON.parse(answer.choices[0].text);
  check(schema.properties.animal.enum.includes(it.animal), 'an animal');
  check(Number.isInteger(it.legs) && typeof it.wild === 'boolean', 'it validates');
  return answer;
});
call('chat: an array by a JSON schema', async (t) => {
  const schema = { type: 'array', items: { type: 'string', maxLength: 6 }, minItems: 2, maxItems: 3 };
  const answer = whole(await ask(t, {
    response_format: { type: 'json_schema', json_schema: { name: 'list', schema } },
    max_tokens: 100,
    temperature: 1,
    seed: 3,
  }));
  const it = JSON.parse(answer.choices[0].text);
  check(it.length >= 2 && it.length <= 3, 'as many as asked for');
  check(it.every((s) => typeof s === 'string' && [...s].length <= 6), 'short ones');
  return answer;
});
call('chat: withResponse', async (t) => {
  const { data, response } = await ask(t, {}).withResponse();
  check(response.status === 200, 'status 200');
  check(response.headers.get('content-type').startsWith('application/json'), 'JSON');
  return whole(data);
});

// -- chat, streamed -----------------------------------------------------------------------------------------

const streamed = { stream: true, stream_options: { include_usage: true } };
const same = (a, b) => check(JSON.stringify(a) === JSON.stringify(b), 'the same: ' + JSON.stringify(a));

const stream = (name, more, n) => call('stream: ' + name, async (t) => {
  const got = await joined(await ask(t, { ...more, ...streamed }), n);
  same(got, whole(await ask(t, more)));
  return got;
});

stream('greedy', {});
stream('a stop text', { stop: [' king', '.'], max_tokens: 40 });
stream('n answers', { n: 3, temperature: 1, seed: 9 }, 3);
stream('logprobs', { logprobs: true, top_logprobs: 2, max_tokens: 6 });
stream('letters from everywhere', { messages: user('é 狐 🦊'), temperature: 1, seed: 1, max_tokens: 30 });
stream('json_object', {
  response_format: { type: 'json_object' }, max_tokens: 40, temperature: 0.7, seed: 6,
});
stream('max_tokens', { max_tokens: 1 });

call('stream: without usage', async (t) => {
  const got = await joined(await ask(t, { stream: true }));
  check(got.usage === undefined, 'no usage unless asked for');
  return got;
});
call('stream: the helper', async ({ client }) => {
  const runner = client.chat.completions.stream(chat({}));
  let n = 0;
  runner.on('content', () => { n += 1; });
  const answer = await runner.finalChatCompletion();
  check(n > 0, 'events came');
  return { text: answer.choices[0].message.content, finish: answer.choices[0].finish_reason };
});
call('stream: [DONE] is the last line', async (t) => {
  const body = JSON.stringify(chat({ stream: true, max_tokens: 2 }));
  const r = await t.raw('/v1/chat/completions', { method: 'POST', body });
  const all = await r.text();
  check(r.headers.get('content-type').startsWith('text/event-stream'), 'SSE');
  check(all.endsWith('data: [DONE]\n\n'), 'ends: ' + all.slice(-40));
  check(all.split('\n\n').slice(0, -1).every((e) => e.startsWith('data: ')), 'data lines alone');
  return 'done';
});

// -- completions --------------------------------------------------------------------------------------------

const proceed = (t, more) => t.client.completions.create(text(more));
const complete = (name, more) => call('completion: ' + name, async (t) => wholeText(await proceed(t, more)));

complete('greedy', {});
complete('echo', { echo: true });
complete('several prompts', { prompt: [TALE, 'The fox', 'A crow'] });
complete('token ids', { prompt: [2091, 699, 258] });
complete('several lists of token ids', { prompt: [[2091, 699, 258], [258]] });
complete('n answers', { n: 2, temperature: 1, seed: 12 });
complete('best_of like n', { n: 2, best_of: 2, temperature: 1, seed: 12 });
complete('logprobs', { logprobs: 3, max_tokens: 5 });
complete('logprobs without others', { logprobs: 0, max_tokens: 3 });
complete('a stop text', { stop: '.', max_tokens: 60 });
complete('letters from everywhere', { prompt: 'Ünïcödé 狐 🦊', temperature: 1, seed: 4 });
complete('a long prompt', { prompt: 'The fox saw the crow. '.repeat(20) });
complete('a bias for a text', { logit_bias: { ' king': 50 }, max_tokens: 3 });
complete('a grammar', { grammar: 'root ::= ("fox" | "crow") " " [0-9]+ "."', max_tokens: 12 });
complete('no tokens', { max_tokens: 0 });

call('completion: streamed', async (t) => {
  const more = { n: 2, temperature: 1, seed: 5, logprobs: 2, echo: false };
  const got = await joined(await proceed(t, { ...more, ...streamed }), 2);
  same(got, wholeText(await proceed(t, more)));
  return got;
});
call('completion: streamed with echo', async (t) => {
  const got = await joined(await proceed(t, { stream: true, echo: true }));
  check(got.choices[0].text.startsWith(TALE), 'the prompt comes first');
  return got;
});

// -- embeddings ---------------------------------------------------------------------------------------------

const mean = { model: 'any', pooling: 'mean' };
const embed = (t, input, more) => t.client.embeddings.create({ ...mean, input, ...more });

call('embeddings: floats', async (t) => {
  const e = await embed(t, 'The fox', floats);
  const v = e.data[0].embedding;
  check(Math.abs(v.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-5, 'length 1');
  return { n: v.length, begin: v.slice(0, 4), usage: [e.usage.prompt_tokens, e.usage.total_tokens] };
});
call('embeddings: base64 is the same', async (t) => {
  const numbers = await embed(t, 'The fox', floats);
  const decoded = await embed(t, 'The fox'); // the client asks for base64 by itself
  const raw = await embed(t, 'The fox', { encoding_format: 'base64' });
  const bytes = Buffer.from(raw.data[0].embedding, 'base64');
  const want = Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
  same(numbers.data[0].embedding.map(Math.fround), want);
  same(Array.from(decoded.data[0].embedding), want);
  return want.length;
});
call('embeddings: several texts', async (t) => {
  const e = await embed(t, ['The fox', 'A crow', 'é 狐', 'The fox'], floats);
  check(e.data.every((d, i) => d.index === i && d.object === 'embedding'), 'in order');
  same(e.data[0].embedding, e.data[3].embedding);
  return e.data.map((d) => d.embedding.slice(0, 2));
});
call('embeddings: token ids', async (t) => {
  const e = await embed(t, [[2091, 699, 258], [258]], { ...floats, pooling: 'last' });
  return e.data.map((d) => d.embedding.slice(0, 2));
});
call('embeddings: more texts than slots', async (t) => {
  const input = Array.from({ length: 40 }, (_, i) => 'fox number ' + i);
  const e = await embed(t, input, floats);
  const alone = await embed(t, input[33], floats);
  same(e.data[33].embedding, alone.data[0].embedding);
  return e.data.length;
});
call('embeddings: other dimensions', async (t) => refused(embed(t, 'x', { dimensions: 7 })));
call('embeddings: no pooling known', async (t) => refused(embed(t, 'x', { pooling: undefined })));
call('embeddings: nothing', async (t) => refused(embed(t, [])));

// -- refusals -----------------------------------------------------------------------------------------------

const wrong = (name, more) => call('refused: ' + name, async (t) => refused(ask(t, more)));

wrong('a prompt that is too long', { messages: user('The fox saw the crow. '.repeat(300)) });
wrong('a temperature that is a text', { temperature: 'hot' });
wrong('top_p out of range', { top_p: 2 });
wrong('n out of range', { n: 1000 });
wrong('no messages', { messages: undefined });
wrong('empty messages', { messages: [] });
wrong('an image', {
  messages: user([{ type: 'image_url', image_url: { url: 'data:image/png;base64,AA==' } }]),
});
wrong('a role nobody has', { messages: [{ role: 'king', content: 'x' }] });
wrong('a tool message', { messages: [...user('x'), { role: 'tool', content: 'x', tool_call_id: '1' }] });
wrong('tools', { tools: [{ type: 'function', function: { name: 'f', parameters: {} } }] });
wrong('audio', { modalities: ['text', 'audio'], audio: { voice: 'alloy', format: 'wav' } });
wrong('top_logprobs without logprobs', { top_logprobs: 3 });
wrong('a response_format nobody knows', { response_format: { type: 'xml' } });
call('refused: a broken grammar', async (t) => {
  const { message, ...rest } = await refused(ask(t, { grammar: 'root ::= (' }));
  check(message.includes('line 1'), 'it says where: ' + message);
  return rest;
});
wrong('a bias for a token that is not there', { logit_bias: { 999999: 1 } });
wrong('stream_options without stream', { stream_options: { include_usage: true } });
wrong('in a stream, before it begins', { stream: true, temperature: 'hot' });

call('refused: suffix', async (t) => refused(proceed(t, { suffix: 'x' })));
call('refused: echo with logprobs', async (t) => refused(proceed(t, { echo: true, logprobs: 1 })));
call('refused: a wrong key', async (t) => refused(t.stranger().chat.completions.create(chat({}))));
call('refused: no such route', async (t) => refused(t.client.post('/images/generations', { body: {} })));
call('refused: a wrong method', async (t) => refused(t.client.get('/chat/completions')));
call('refused: broken JSON', async (t) => {
  const r = await t.raw('/v1/chat/completions', { method: 'POST', body: '{"messages": [' });
  return [r.status, await r.json()];
});

// -- cancelling ---------------------------------------------------------------------------------------------

const LONG = { max_tokens: 10000000, ignore_eos: true }; // its context is shifted

// What is given up leaves the slots, and was not simply through.
async function given_up(t, n, run) {
  const before = await cancelled(t);
  await run();
  check(await idle(t), 'the slots are free');
  const got = (await cancelled(t)) - before;
  check(got === n, n + ' jobs were cancelled, not ' + got);
  return 'idle';
}

call('cancel: break out of a stream', async (t) => given_up(t, 1, async () => {
  const s = await ask(t, { ...LONG, stream: true });
  let n = 0;
  for await (const chunk of s) {
    n += chunk.choices.length;
    if (n === 5) break;
  }
}));
call('cancel: abort a stream of several answers', async (t) => given_up(t, 3, async () => {
  const stop = new AbortController();
  const s = await ask(t, { ...LONG, stream: true, n: 3 }, { signal: stop.signal });
  try {
    for await (const chunk of s) if (chunk.choices[0]?.delta.content) stop.abort();
  } catch (e) {
    check(e instanceof APIUserAbortError, 'aborted: ' + e);
  }
}));
call('cancel: abort without a stream', async (t) => given_up(t, 2, async () => {
  const stop = new AbortController();
  const p = ask(t, { ...LONG, n: 2 }, { signal: stop.signal }).catch((e) => e);
  check(await busy(t, 2), 'it is being computed');
  stop.abort();
  check((await p) instanceof APIUserAbortError, 'aborted');
}));
call('cancel: the client runs out of time', async (t) => given_up(t, 4, async () => {
  const over = ask(t, { ...LONG, n: 4 }, { timeout: 1500, maxRetries: 0 }).catch((err) => err);
  check(await busy(t, 4), 'it is being computed');
  const e = await over;
  check(e.constructor.name === 'APIConnectionTimeoutError', 'a timeout: ' + e);
}));

// -- many at once -------------------------------------------------------------------------------------------

call('parallel: the same as alone', async (t) => {
  const asks = Array.from({ length: 16 }, (_, i) => ({
    messages: user('Tell me about fox ' + (i % 5)), temperature: 1, seed: i, max_tokens: 4 + i,
  }));
  const together = await Promise.all(asks.map((more) => ask(t, more)));
  const out = [];
  for (let i = 0; i < asks.length; i++) {
    const alone = whole(await ask(t, asks[i]));
    same(whole(together[i]), alone);
    out.push(alone.choices[0].text);
  }
  return out;
});
call('parallel: streams and others', async (t) => Promise.all([
  ask(t, { stream: true }).then((s) => joined(s)),
  ask(t, { temperature: 1, seed: 7 }).then(whole),
  embed(t, 'The fox', floats).then((e) => e.data[0].embedding.slice(0, 2)),
  proceed(t, { logprobs: 1, max_tokens: 4 }).then(wholeText),
]));
