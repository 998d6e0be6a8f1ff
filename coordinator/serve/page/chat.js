// SPDX-License-Identifier: Apache-2.0
// The conversation: what is shown of it, and the requests that make it go on.  Each conversation may have an
// answer on its way; looking at another one does not stop it.
'use strict';

const STARTS = {
    chat: [
        'Tell me a fairy tale in five sentences.',
        'Explain what a pipeline is, to a child and to an engineer.',
        'Write a table of three northern birds and where they winter.',
        'What is a ternary number?',
    ],
    plain: [
        'Once upon a time',
        'There was once a king who had three daughters, and',
        'The fox said to the goose:',
        'In the middle of the forest stood a little house, and in it',
    ],
};
// Browsers open some six connections to a server; one is for news of the cluster.
const MOST_RUNS = 4;
const ENDS = {
    length: 'It ends here because the longest answer or the context was reached.',
    stopped: 'You stopped it here.',
    broken: 'The connection ended before the answer did; this is what had come.',
};

const chat = {
    runs: new Map(), // conversation -> what is on its way
    troubles: new Map(), // conversation -> why its last request failed
    old: new WeakMap(), // messages -> nodes, of those that are not the last ones
    editing: false,
    pinned: true, // the newest text is kept in sight
    facts: {ctx: 0, plain: false, name: '', layers: 0, stages: 0},

    // -- showing ------------------------------------------------------------------------------------------

    show() {
        this.detach();
        this.edit_end();
        this.show_list();
        const c = saved.current,
            run = this.runs.get(c);
        const nodes = c.messages.map((m, i) =>
            i < c.messages.length - 2 ? this.old_node(m) : this.message_node(m, run, true),
        );
        if (!nodes.length) nodes.push(this.welcome());
        if (this.troubles.has(c)) nodes.push(this.trouble_node(c, this.troubles.get(c)));
        $('thread').replaceChildren(...nodes);
        this.pinned = true;
        this.follow();
        this.show_state();
        this.show_context();
    },

    show_list() {
        $('conversations').replaceChildren(
            ...saved.conversations.map(c => {
                const title = c.title || 'New conversation',
                    current = c === saved.current;
                return el(
                    'li',
                    {class: current ? 'current' : null},
                    el(
                        'button',
                        {
                            type: 'button',
                            class: 'pick',
                            'aria-current': current ? 'true' : null,
                            onclick: () => this.pick(c),
                        },
                        el('span', {class: 'title', dir: 'auto', text: title}),
                        this.runs.has(c) ? el('span', {class: 'writing', text: 'writing'}) : null,
                    ),
                    icon_button('delete', 'Delete “' + title + '”', () => this.remove(c)),
                );
            }),
        );
    },

    welcome() {
        const f = this.facts;
        const what = f.plain
            ? 'This model has learnt to go on with a text, not to answer. Write how it begins; it goes on.'
            : 'Write something below, and the model answers, layer by layer, machine by machine.';
        const where = f.name
            ? f.name +
              ': ' +
              count(f.layers) +
              ' layers ' +
              (f.stages > 1 ? 'on ' + f.stages + ' workers' : 'in one process') +
              ', ' +
              count(f.ctx) +
              ' tokens of context'
            : '';
        return el(
            'div',
            {class: 'welcome'},
            icon('tern'),
            el('h2', {text: f.plain ? 'How does it begin?' : 'What shall we talk about?'}),
            el('p', {text: what}),
            where ? el('p', {class: 'note', text: where}) : null,
            el(
                'div',
                {class: 'starts'},
                STARTS[f.plain ? 'plain' : 'chat'].map(text =>
                    el('button', {type: 'button', onclick: () => this.send(text)}, text),
                ),
            ),
        );
    },

    // Of a message that can no longer change: made once, however often a long conversation is shown.
    old_node(m) {
        if (!this.old.has(m)) this.old.set(m, this.message_node(m, null, false));
        return this.old.get(m);
    },

    message_node(m, its, recent) {
        const run = its && its.message === m ? its : null;
        const mine = m.role === 'user';
        const text = el('div', {class: 'text'}),
            foot = el('div', {class: 'foot'});
        const node = el(
            'article',
            {class: 'message ' + (mine ? 'mine' : 'theirs')},
            el('h2', {class: 'sr', text: mine ? 'You' : 'Answer'}),
            text,
            foot,
        );
        if (mine) {
            text.textContent = m.content;
            const c = saved.current;
            if (c.messages.at(-1) === m && !this.runs.has(c) && !this.troubles.has(c)) {
                foot.append(icon_button('again', 'Ask this again', () => this.again()));
            }
            if (recent) foot.append(icon_button('edit', 'Change this message', () => this.edit(m)));
            const copy = icon_button('copy', 'Copy this message', () => copy_text(m.content, copy));
            foot.append(copy);
        } else if (run) {
            run.view = {text, foot, markdown: new Markdown(text, words => speak(words))};
            run.view.figures = el('span', {class: 'stats'});
            foot.append(run.view.figures);
            if (m.content) run.view.markdown.push(m.content);
            else text.append((run.view.waiting = this.waiting_node()));
        } else {
            markdown_into(text, m.content);
            this.answer_foot(m, foot);
        }
        return node;
    },

    waiting_node: () =>
        el(
            'p',
            {class: 'waiting'},
            el(
                'span',
                {class: 'trits', 'aria-hidden': 'true'},
                ['−', '0', '+'].map(t => el('i', {text: t})),
            ),
            el('span', {class: 'note', text: 'reading, or waiting for a place'}),
        ),

    answer_foot(m, foot) {
        const c = saved.current,
            last = c.messages[c.messages.length - 1] === m;
        foot.replaceChildren();
        const copy = icon_button('copy', 'Copy this answer', () => copy_text(m.content, copy));
        foot.append(copy);
        if (last) foot.append(icon_button('again', 'Write this answer anew', () => this.again()));
        if (last && m.end && this.facts.plain)
            foot.append(icon_button('play', 'Go on from here', () => this.run(c, m)));
        foot.append(el('span', {class: 'stats', text: stats_text(m.stats)}));
        if (ENDS[m.end]) foot.append(el('span', {class: 'end note', text: ENDS[m.end]}));
    },

    trouble_node(c, trouble) {
        const retry = el('button', {type: 'button', onclick: () => this.run(c)}, 'Try again');
        const box = el('div', {class: 'trouble', role: 'alert'}, el('p', {text: trouble.message}));
        if (trouble.key) {
            const input = el('input', {
                type: 'password',
                id: 'trouble-key',
                autocomplete: 'off',
                spellcheck: 'false',
                placeholder: 'API key',
            });
            const use = () => {
                api_key.value = input.value.trim();
                start_over();
                this.run(c);
            };
            input.addEventListener('keydown', e => {
                if (e.key === 'Enter') use();
            });
            box.append(
                el(
                    'div',
                    {class: 'presets'},
                    el('label', {class: 'sr', for: 'trouble-key', text: 'API key'}),
                    input,
                    el('button', {type: 'button', onclick: use}, 'Use this key'),
                ),
                el('p', {
                    class: 'note',
                    text: 'It stays in this tab and is forgotten when the tab is closed.',
                }),
            );
        } else {
            box.append(el('div', {class: 'presets'}, retry));
        }
        return box;
    },

    // The button that sends is the one that stops.
    show_state() {
        const running = this.runs.has(saved.current);
        set_icon($('send'), running ? 'stop' : 'send', running ? 'Stop' : 'Send');
        $('send').classList.toggle('stops', running);
        document.title = (saved.current.title ? saved.current.title + ' · ' : '') + 'Tern';
    },

    show_context(live) {
        const c = saved.current,
            ctx = this.facts.ctx;
        const last = [...c.messages].reverse().find(m => m.role === 'assistant' && m.stats && m.stats.prompt);
        const used = live || (last ? last.stats.prompt + (last.stats.tokens || 0) : 0);
        $('context').hidden = !ctx;
        if (!ctx) return;
        $('context-meter').value = Math.min(1, used / ctx);
        set_text($('context-text'), count(used) + ' of ' + count(ctx) + ' tokens');
    },

    follow() {
        if (this.pinned) $('log').scrollTop = $('log').scrollHeight;
    },

    // -- doing --------------------------------------------------------------------------------------------

    pick(c) {
        const left = saved.current;
        saved.current = c;
        if (left !== c && !left.messages.length)
            saved.conversations = saved.conversations.filter(o => o !== left);
        saved.store();
        this.show();
        close_drawer();
        $('prompt').focus();
    },

    fresh() {
        saved.begin();
        saved.store();
        this.show();
        close_drawer();
        $('prompt').focus();
    },

    // What runs is no longer looked at, or will be looked at anew.
    detach() {
        for (const run of this.runs.values()) this.close_view(run);
    },

    close_view(run) {
        if (!run.view) return;
        run.view.markdown.said = null;
        run.view.markdown.end();
        run.view = null;
    },

    remove(c) {
        const at = saved.conversations.indexOf(c),
            was = saved.current;
        this.stop(c);
        saved.remove(c);
        this.show();
        if (!c.messages.length) return;
        toast('Deleted.', 'Undo', () => {
            saved.conversations.splice(at, 0, c);
            if (was === c) saved.current = c;
            saved.store();
            this.show();
        });
    },

    edit(m) {
        if (this.runs.has(saved.current)) this.stop(saved.current);
        this.editing = m;
        $('editing').hidden = false;
        $('prompt').value = m.content;
        fit_prompt();
        $('prompt').focus();
    },

    edit_end() {
        if (this.editing) $('prompt').value = '';
        this.editing = false;
        $('editing').hidden = true;
        fit_prompt();
    },

    submit() {
        const text = $('prompt').value;
        if (text.trim() === '' || this.runs.has(saved.current)) return;
        const c = saved.current;
        if (this.editing && c.messages.includes(this.editing))
            c.messages.length = c.messages.indexOf(this.editing);
        $('prompt').value = '';
        this.edit_end();
        this.send(text);
    },

    send(text) {
        const c = saved.current;
        c.messages.push({role: 'user', content: text});
        if (!c.title || c.messages.length === 1) c.title = title_of(text);
        this.run(c);
    },

    // The last answer once more: it and what failed after it are dropped.
    again() {
        const c = saved.current;
        if (this.runs.has(c)) return;
        while (c.messages.length && c.messages[c.messages.length - 1].role === 'assistant') c.messages.pop();
        if (c.messages.length) this.run(c);
    },

    stop(c) {
        const run = this.runs.get(c);
        if (run) run.abort.abort();
    },

    stop_all() {
        for (const c of [...this.runs.keys()]) this.stop(c);
    },

    body_of(c) {
        const body = {stream: true, stream_options: {include_usage: true}, ...saved.settings};
        if (this.facts.plain) {
            body.prompt = c.messages
                .map((m, i) => (m.role === 'user' && i > 0 ? '\n\n' : '') + m.content)
                .join('');
        } else {
            body.messages = c.messages.map(m => ({role: m.role, content: m.content}));
            if (c.system.trim()) body.messages.unshift({role: 'system', content: c.system});
        }
        return body;
    },

    // Asks for the next answer of c, or for more of `into`.
    async run(c, into) {
        if (this.runs.has(c)) return;
        this.troubles.delete(c);
        if (this.runs.size >= MOST_RUNS) {
            this.troubles.set(
                c,
                new Trouble(
                    'There are ' +
                        MOST_RUNS +
                        ' answers on their way to this page already; when one has come, try again.',
                ),
            );
            this.show();
            return;
        }
        const body = this.body_of(c);
        const message = into || {role: 'assistant', content: ''};
        if (!into) c.messages.push(message);
        message.end = undefined;
        this.old.delete(message);
        const run = {
            message,
            abort: new AbortController(),
            begun: performance.now(),
            first: 0,
            last: 0,
            pieces: 0,
            usage: null,
            end: null,
            view: null,
        };
        this.runs.set(c, run);
        saved.touched(c);
        if (saved.current === c) this.show();
        const timer = setInterval(() => this.show_figures(c, run), 250);
        try {
            await this.receive(c, run, body);
        } catch (e) {
            if (e.name === 'AbortError') run.end = 'stopped';
            else if (message.content && !(e instanceof Trouble)) run.end = 'broken';
            else
                this.troubles.set(
                    c,
                    e instanceof Trouble
                        ? e
                        : new Trouble('The answer could not be read: ' + e.message, {again: true}),
                );
        }
        clearInterval(timer);
        this.finish(c, run);
        const trouble = this.troubles.get(c);
        if (trouble && trouble.down) start_over();
        if (trouble && trouble.loading) start_over_in(1000);
    },

    async receive(c, run, body) {
        const response = await request(this.facts.plain ? '/v1/completions' : '/v1/chat/completions', {
            method: 'POST',
            headers: {'Content-Type': 'application/json'},
            body: JSON.stringify(body),
            signal: run.abort.signal,
        });
        let done = false;
        for await (const data of events_of(response)) {
            if (data === '[DONE]') {
                done = true; // and on to the end, so that the connection can be used again
                continue;
            }
            const event = JSON.parse(data);
            if (event.error)
                throw new Trouble(String(event.error.message || 'The server gave up on this answer.'), {
                    again: true,
                });
            if (event.usage) run.usage = event.usage;
            if (event.timings) run.timings = event.timings;
            const choice = event.choices && event.choices[0];
            if (!choice) continue;
            const text = choice.delta ? choice.delta.content : choice.text;
            if (typeof text === 'string' && text !== '') this.receive_text(c, run, text);
            if (choice.finish_reason) run.end = choice.finish_reason;
        }
        if (!done && !run.end) throw new Error('it has no end');
    },

    receive_text(c, run, text) {
        run.last = performance.now();
        if (!run.first) run.first = run.last;
        run.pieces++;
        run.message.content += text;
        if (!run.view) return;
        if (run.view.waiting) run.view.waiting.remove();
        run.view.waiting = null;
        run.view.markdown.push(text);
    },

    // The speed is the server's own figure, where it tells it: what the browser sees comes in bursts.
    stats_of(run) {
        const usage = run.usage || {};
        const tokens = known(usage.completion_tokens) ? usage.completion_tokens : run.pieces;
        const seconds = (run.last - run.first) / 1000;
        const told = run.timings && run.timings.predicted_per_second;
        return {
            tokens,
            prompt: known(usage.prompt_tokens) ? usage.prompt_tokens : undefined,
            first_ms: run.first ? run.first - run.begun : undefined,
            per_s: known(told) ? told : tokens > 1 && seconds > 0.1 ? (tokens - 1) / seconds : undefined,
        };
    },

    show_figures(c, run) {
        if (!run.view) return;
        set_text(
            run.view.figures,
            run.first
                ? stats_text(this.stats_of(run))
                : number((performance.now() - run.begun) / 1000) + ' s',
        );
    },

    finish(c, run) {
        const m = run.message;
        this.runs.delete(c);
        m.stats = this.stats_of(run);
        m.end = run.end === 'stop' ? undefined : run.end || undefined;
        if (m.content === '' && (this.troubles.has(c) || run.end === 'stopped'))
            c.messages = c.messages.filter(o => o !== m);
        if (saved.conversations.includes(c)) saved.store();
        if (saved.current === c) this.finish_view(c, run);
        this.show_list();
    },

    finish_view(c, run) {
        if (run.view && run.message.content && !this.troubles.has(c)) {
            run.view.markdown.end();
            this.answer_foot(run.message, run.view.foot);
            this.show_state();
            this.show_context();
            this.follow();
        } else {
            this.close_view(run);
            this.show();
        }
        speak(this.troubles.has(c) ? '' : run.end === 'stopped' ? 'Stopped.' : 'The answer is complete.');
    },
};

function title_of(text) {
    const line = text.trim().split('\n')[0];
    return line.length > 60 ? line.slice(0, 57) + '…' : line;
}

function stats_text(s) {
    if (!s) return '';
    const parts = [];
    if (known(s.tokens)) parts.push(count(s.tokens) + (s.tokens === 1 ? ' token' : ' tokens'));
    if (known(s.per_s)) parts.push(number(s.per_s) + ' per second');
    if (known(s.first_ms)) parts.push('the first after ' + millis(s.first_ms));
    return parts.join(' · ');
}

function fit_prompt() {
    const box = $('prompt');
    if (CSS.supports('field-sizing', 'content')) return;
    box.style.height = 'auto';
    box.style.height = Math.min(box.scrollHeight, 240) + 'px';
}
