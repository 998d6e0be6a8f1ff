// SPDX-License-Identifier: Apache-2.0
// The live picture of the cluster: news from the server as long as somebody can see them, and the pipeline
// as cards with the hops between them.
'use strict';

const STALE_MS = 2500;

function stage_name(stage, n) {
    return stage.name === 'local' && n === 1 ? 'this process' : stage.name;
}

// -- news -------------------------------------------------------------------------------------------------

const feed = {
    abort: null,
    newest: 0, // number of the last step seen
    heard: 0, // when something came last, in ms of the page
    stale: false,
    last: null,
    polling: false,
    quiet_ms: 500, // before the next try

    // News are asked for only while the view is open and the page in sight: others cost the server nothing.
    update() {
        const wanted = !$('cluster').hidden && document.visibilityState === 'visible';
        if (wanted && !this.abort) {
            this.abort = new AbortController();
            this.follow(this.abort.signal);
            lanes.start();
        } else if (!wanted && this.abort) {
            this.abort.abort();
            this.abort = null;
            lanes.stop();
        }
    },

    async follow(signal) {
        let failures = 0;
        while (!signal.aborted) {
            try {
                if (this.polling) await this.poll(signal);
                else await this.listen(signal);
                failures = 0;
            } catch (e) {
                if (signal.aborted) return;
                failures++;
                // A server or something before it that cannot stream: ask again and again instead.
                if (e.status === 404 || e.status === 405 || (failures > 2 && !e.down && !e.key))
                    this.polling = true;
                this.trouble(e);
            }
            const quiet = this.polling && !failures ? 500 : Math.min(8000, 500 * 2 ** failures);
            await new Promise(resolve => {
                const timer = setTimeout(resolve, quiet);
                signal.addEventListener(
                    'abort',
                    () => {
                        clearTimeout(timer);
                        resolve();
                    },
                    {once: true},
                );
            });
        }
    },

    async listen(signal) {
        const response = await request('/tern/events', {signal});
        for await (const data of events_of(response)) this.take(JSON.parse(data));
        throw new Trouble('The stream of news ended.', {again: true});
    },

    async poll(signal) {
        this.take(await get_json('/tern/cluster?since=' + this.newest, signal));
    },

    take(s) {
        // Numbers that begin anew, or a clock that does: another process answers now.
        if (this.last && (s.now_us < this.last.now_us || s.uptime_s + 1 < this.last.uptime_s)) {
            lanes.reset();
            this.newest = 0;
        }
        this.last = s;
        this.heard = performance.now();
        const steps = s.steps || [];
        if (steps.length) this.newest = Math.max(this.newest, steps[steps.length - 1].n);
        this.set_stale(false);
        cluster.show(s);
    },

    trouble(e) {
        this.set_stale(true);
        if (e.loading) pill($('live'), 'wait', 'loading the model');
        else if (e.key) pill($('live'), 'bad', 'needs the API key');
        else pill($('live'), 'bad', e.down ? 'not connected' : 'interrupted');
    },

    set_stale(stale) {
        this.stale = stale;
        $('cluster-body').classList.toggle('stale', stale);
        if (!stale) pill($('live'), 'good', this.polling ? 'live, by asking' : 'live');
    },

    // Each half second: is what is shown still true?
    check() {
        if (!this.abort || !this.last) return;
        const age = performance.now() - this.heard;
        if (age > STALE_MS) {
            this.set_stale(true);
            pill($('live'), 'bad', 'as it was ' + duration(age / 1000) + ' ago');
        }
    },
};

function pill(node, state, text) {
    node.dataset.state = state;
    set_text(node.querySelector('span'), text);
}

// -- cards ------------------------------------------------------------------------------------------------

// A term and its value, the value to be changed later.
function pair(list, term) {
    const value = el('dd', {text: NONE});
    list.append(el('div', {}, el('dt', {text: term}), value));
    return value;
}

class StageCard {
    constructor(number_shown, coordinator) {
        this.title = el('h4', {});
        this.under = el('p', {class: 'note'});
        this.state = el('span', {class: 'state'});
        this.busy = el('meter', {min: 0, max: 1, value: 0});
        this.busy_text = el('span', {});
        const list = el('dl', {});
        const terms = coordinator
            ? ['Head, per step', 'Threads', 'Memory']
            : ['Per step', 'Tokens/s', 'Waits', 'Steps', 'Threads', 'Round trip'];
        this.values = terms.map(t => pair(list, t));
        this.memory = el('div', {class: 'memory'});
        this.memory_text = el('p', {class: 'note'});
        this.node = el(
            'li',
            {class: 'stage' + (coordinator ? ' coordinator' : '')},
            el(
                'div',
                {class: 'stage-head'},
                el('span', {class: 'badge', 'aria-hidden': 'true', text: number_shown}),
                el('div', {}, this.title, this.under),
                this.state,
            ),
            el('div', {class: 'busy'}, this.busy, this.busy_text),
            list,
            coordinator ? null : el('div', {}, this.memory, this.memory_text),
        );
        if (!coordinator) this.memory.append(...['weights', 'kv', 'rest'].map(k => el('i', {class: k})));
    }

    set_busy(idle) {
        const share = known(idle) && idle >= 0 ? 1 - idle : null;
        this.busy.value = share || 0;
        set_text(
            this.busy_text,
            share === null ? 'idle share not known' : 'busy ' + percent(share) + ', idle ' + percent(idle),
        );
        this.busy.setAttribute('aria-label', this.title.textContent + ' busy');
        return share;
    }

    set_state(state, text) {
        this.node.dataset.state = state;
        set_text(this.state, text);
    }

    show(stage, n) {
        set_text(this.title, stage_name(stage, n));
        const [first, last] = stage.layers || [];
        set_text(
            this.under,
            (first === last ? 'layer ' + first : 'layers ' + first + ' to ' + last) +
                (stage.cpu ? ' · ' + stage.cpu : '') +
                (stage.endpoint ? ' · ' + stage.endpoint : ''),
        );
        const share = this.set_busy(stage.idle_share);
        if (stage.suspect) this.set_state('silent', 'silent for ' + millis(stage.silent_ms));
        else if (stage.suspect === null) this.set_state('idle', 'not connected');
        else if (share > 0.002 || stage.tokens_per_s > 0) this.set_state('busy', 'working');
        else this.set_state('idle', 'idle');
        const link =
            known(stage.round_trip_us) && stage.round_trip_us > 0
                ? micros(stage.round_trip_us)
                : n === 1
                  ? 'in process'
                  : NONE;
        [
            millis(stage.ms_per_step),
            number(stage.tokens_per_s),
            millis(stage.queue_ms),
            count(stage.steps),
            count(stage.threads),
            link,
        ].forEach((text, i) => set_text(this.values[i], text));
        this.show_memory(stage);
    }

    show_memory(stage) {
        const w = stage.weight_bytes || 0,
            kv = stage.kv_bytes || 0,
            all = Math.max(stage.memory_bytes || 0, w + kv);
        const shares = [w, kv, all - w - kv];
        [...this.memory.children].forEach((part, i) => {
            part.style.flexGrow = all ? (shares[i] / all).toFixed(4) : 0;
        });
        set_text(
            this.memory_text,
            'weights ' +
                bytes(stage.weight_bytes) +
                ', KV up to ' +
                bytes(stage.kv_bytes) +
                (stage.memory_bytes ? ', resident ' + bytes(stage.memory_bytes) : '') +
                (stage.rejected ? ' · ' + count(stage.rejected) + ' rejected' : ''),
        );
    }

    show_coordinator(c) {
        set_text(this.title, 'coordinator');
        set_text(this.under, 'embedding, head, choice of words' + (c.cpu ? ' · ' + c.cpu : ''));
        const share = this.set_busy(c.idle_share);
        this.set_state(share > 0.002 ? 'busy' : 'idle', share > 0.002 ? 'working' : 'idle');
        [millis(c.head_ms_per_step), count(c.threads), bytes(c.memory_bytes)].forEach((text, i) =>
            set_text(this.values[i], text),
        );
    }
}

// A time that clocks are not good enough for was at most their error, and off by no more than that.
const hop_time = (hop, us) =>
    !known(us) && known(hop.within_us) ? '< ' + micros(2 * hop.within_us) : micros(us);

class HopRow {
    constructor() {
        this.text = el('span', {});
        this.sr = el('span', {class: 'sr'});
        this.node = el(
            'li',
            {class: 'hop'},
            el('i', {'aria-hidden': 'true'}),
            el('p', {}, this.sr, this.text),
        );
    }

    show(hop) {
        set_text(this.sr, 'From ' + hop.from + ' to ' + hop.to + ': ');
        const time =
            known(hop.p50_us) || known(hop.within_us)
                ? 'p50 ' + hop_time(hop, hop.p50_us) + ' · p99 ' + hop_time(hop, hop.p99_us)
                : 'no hop measured yet';
        set_text(this.text, time + ' · ' + bytes(hop.bytes_per_s) + '/s · ' + bytes(hop.bytes) + ' in all');
        const flow = hop.bytes_per_s > 1e6 ? 3 : hop.bytes_per_s > 1e4 ? 2 : hop.bytes_per_s > 0 ? 1 : 0;
        if (this.node.dataset.flow !== String(flow)) this.node.dataset.flow = flow;
    }
}

const cluster = {
    stages: [],
    hops: [],
    tables_at: 0,

    build() {
        figures.build();
        lanes.build();
        this.head = new StageCard('↓', true);
        $('cluster-toggle').addEventListener('click', () => this.set_open($('cluster').hidden));
        $('skip-cluster').addEventListener('click', () => this.set_open(true));
        $('cluster-close').addEventListener('click', () => {
            this.set_open(false);
            $('cluster-toggle').focus();
        });
        $('cluster-wide').addEventListener('click', () => {
            const wide = $('app').classList.toggle('wide');
            $('cluster-wide').setAttribute('aria-pressed', String(wide));
        });
        $('tables').addEventListener('toggle', () => {
            this.tables_at = 0;
            if (feed.last) this.show_tables(feed.last);
        });
        document.addEventListener('visibilitychange', () => feed.update());
        setInterval(() => feed.check(), 500);
    },

    set_open(open) {
        $('cluster').hidden = !open;
        $('app').classList.toggle('with-cluster', open);
        $('cluster-toggle').setAttribute('aria-expanded', String(open));
        if (open && innerWidth < 1500) set_list(false);
        if (!open) $('app').classList.remove('wide');
        $('cluster-wide').setAttribute('aria-pressed', 'false');
        lanes.resize();
        feed.update();
    },

    show(s) {
        learn(s);
        if (s.stages.length !== this.stages.length) this.rebuild(s);
        lanes.take(s);
        figures.show(s);
        this.head.show_coordinator(s.coordinator || {});
        s.stages.forEach((stage, i) => this.stages[i].show(stage, s.stages.length));
        (s.hops || []).forEach((hop, i) => {
            if (this.hops[i]) this.hops[i].show(hop);
        });
        set_text(
            $('pipe-note'),
            s.ready === false
                ? 'not ready: ' + (s.why || 'no reason told')
                : 'up for ' +
                      duration(s.uptime_s) +
                      (s.totals && s.totals.reopened
                          ? ', opened again ' + count(s.totals.reopened) + ' times'
                          : ''),
        );
        this.show_map(s);
        this.show_slots(s);
        this.show_tables(s);
    },

    rebuild(s) {
        this.stages = s.stages.map((_, i) => new StageCard(String(i + 1), false));
        this.hops = (s.hops || []).map(() => new HopRow());
        const rows = [this.head.node];
        this.stages.forEach((stage, i) => rows.push(this.hops[i] && this.hops[i].node, stage.node));
        const home = this.hops[this.stages.length];
        if (home)
            rows.push(
                home.node,
                el(
                    'li',
                    {class: 'home'},
                    el('span', {class: 'badge', 'aria-hidden': 'true', text: '↑'}),
                    'home to the coordinator',
                ),
            );
        $('pipe').replaceChildren(...rows.filter(r => r));
        this.map = s.stages.map(() => {
            const fill = el('b', {}),
                name = el('span', {}),
                layers = el('small', {});
            return {fill, name, layers, node: el('div', {}, fill, name, layers)};
        });
        $('layer-map').classList.toggle('many', s.stages.length > 8);
        $('layer-map').replaceChildren(...this.map.map(m => m.node));
        lanes.reset();
    },

    show_map(s) {
        s.stages.forEach((stage, i) => {
            const m = this.map[i],
                [first, last] = stage.layers || [0, 0];
            m.node.style.flexGrow = last - first + 1;
            m.fill.style.height =
                known(stage.idle_share) && stage.idle_share >= 0 ? 100 * (1 - stage.idle_share) + '%' : '0';
            set_text(m.name, s.stages.length > 8 ? String(i + 1) : stage_name(stage, s.stages.length));
            set_text(m.layers, first === last ? String(first) : first + '–' + last);
        });
    },

    show_slots(s) {
        const slots = s.slots || [],
            list = $('slots');
        while (list.childElementCount > Math.max(1, slots.length)) list.lastChild.remove();
        while (list.childElementCount < Math.max(1, slots.length))
            list.append(el('li', {}, el('span', {}), el('progress', {max: 1, value: 0})));
        if (!slots.length) {
            set_text(list.firstChild.firstChild, 'Nothing. Ask something, and it appears here.');
            list.firstChild.lastChild.hidden = true;
            return;
        }
        slots.forEach((slot, i) => {
            const [text, bar] = list.children[i].children;
            set_text(
                text,
                'Request ' +
                    slot.job +
                    (slot.prompting
                        ? ': reading its prompt, ' +
                          count(slot.prompt_done) +
                          ' of ' +
                          count(slot.prompt) +
                          ' tokens'
                        : ': writing, ' +
                          count(slot.tokens) +
                          ' tokens in ' +
                          duration(slot.seconds) +
                          '; context ' +
                          count(slot.prompt + slot.tokens) +
                          ' of ' +
                          count(slot.ctx)) +
                    (slot.cached ? ', ' + count(slot.cached) + ' from the prefix cache' : ''),
            );
            bar.hidden = false;
            bar.value = slot.prompting
                ? slot.prompt_done / Math.max(1, slot.prompt)
                : (slot.prompt + slot.tokens) / Math.max(1, slot.ctx);
            bar.setAttribute('aria-label', slot.prompting ? 'Prompt read' : 'Context in use');
        });
    },

    // Once a second at most, and only when somebody looks.
    show_tables(s) {
        const now = performance.now();
        if (!$('tables').open || now - this.tables_at < 1000) return;
        this.tables_at = now;
        const n = s.stages.length,
            recent = lanes.steps.slice(-12).reverse();
        $('tables-body').replaceChildren(
            table_of(
                'Stages',
                ['Stage', 'Layers', 'Threads', 'ms per step', 'Tokens/s', 'Idle', 'Weights', 'KV', 'Memory'],
                s.stages.map(t => [
                    stage_name(t, n),
                    (t.layers || []).join(' to '),
                    count(t.threads),
                    number(t.ms_per_step),
                    number(t.tokens_per_s),
                    percent(t.idle_share),
                    bytes(t.weight_bytes),
                    bytes(t.kv_bytes),
                    bytes(t.memory_bytes),
                ]),
            ),
            table_of(
                'Hops',
                ['From', 'To', 'p50', 'p99', 'Bytes/s', 'Bytes'],
                (s.hops || []).map(h => [
                    h.from,
                    h.to,
                    hop_time(h, h.p50_us),
                    hop_time(h, h.p99_us),
                    bytes(h.bytes_per_s),
                    bytes(h.bytes),
                ]),
            ),
            table_of(
                'Last steps',
                ['Step', 'Answer rows', 'Prompt rows', 'On the way', ...s.stages.map(t => stage_name(t, n))],
                recent.map(t => [
                    String(t.n),
                    count(t.decode),
                    count(t.prompt),
                    micros(t.done - t.sent),
                    ...t.stages.map(([, a, b]) => micros(b - a)),
                ]),
            ),
        );
    },
};

function table_of(caption, head, rows) {
    return el(
        'div',
        {class: 'table', tabindex: '0', role: 'region', 'aria-label': caption},
        el(
            'table',
            {},
            el('caption', {text: caption}),
            el(
                'thead',
                {},
                el(
                    'tr',
                    {},
                    head.map(text => el('th', {scope: 'col', text})),
                ),
            ),
            el(
                'tbody',
                {},
                rows.map(row =>
                    el(
                        'tr',
                        {},
                        row.map((text, i) => el(i ? 'td' : 'th', {scope: i ? null : 'row', text})),
                    ),
                ),
            ),
        ),
    );
}
