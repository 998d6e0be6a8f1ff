// SPDX-License-Identifier: Apache-2.0
// Figures of the service: a number with its unit, a line beneath, and either the last half minute or a meter.
'use strict';

const SPARK_POINTS = 120;

class Figure {
    constructor(label, kind) {
        this.value = el('span', {class: 'value', text: NONE});
        this.unit = el('span', {class: 'unit'});
        this.under = el('span', {class: 'under'});
        this.points = [];
        this.node = el(
            'div',
            {class: 'figure'},
            el('dt', {text: label}),
            el('dd', {}, this.value, this.unit, this.under),
        );
        if (kind === 'spark') {
            const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
            for (const [name, value] of [
                ['class', 'spark'],
                ['viewBox', '0 0 120 28'],
                ['preserveAspectRatio', 'none'],
                ['aria-hidden', 'true'],
            ])
                svg.setAttribute(name, value);
            this.area = document.createElementNS('http://www.w3.org/2000/svg', 'path');
            this.line = document.createElementNS('http://www.w3.org/2000/svg', 'polyline');
            svg.append(this.area, this.line);
            this.node.append(svg);
        } else if (kind === 'meter') {
            this.meter = el('meter', {min: 0, max: 1, value: 0, 'aria-label': label});
            this.node.append(this.meter);
        }
    }

    set(value, unit, under) {
        set_text(this.value, value);
        set_text(this.unit, unit || '');
        set_text(this.under, under || '');
    }

    add_point(value) {
        this.points.push(known(value) ? value : 0);
        if (this.points.length > SPARK_POINTS) this.points.shift();
        const most = Math.max(1e-9, ...this.points),
            n = this.points.length;
        const at = this.points.map(
            (v, i) => (120 - n + 1 + i).toFixed(0) + ',' + (26 - (24 * v) / most).toFixed(1),
        );
        this.line.setAttribute('points', at.join(' '));
        this.area.setAttribute('d', 'M' + (120 - n + 1) + ',28 L' + at.join(' L') + ' L120,28 Z');
    }
}

const figures = {
    build() {
        this.answers = new Figure('Answers', 'spark');
        this.prompts = new Figure('Prompts', 'spark');
        this.first = new Figure('First token');
        this.between = new Figure('Between tokens');
        this.requests = new Figure('Requests');
        this.flight = new Figure('Steps in flight');
        this.pages = new Figure('KV cache', 'meter');
        this.prefix = new Figure('Prefix cache', 'meter');
        $('figures').append(
            ...['answers', 'prompts', 'first', 'between', 'requests', 'flight', 'pages', 'prefix'].map(
                k => this[k].node,
            ),
        );
    },

    show(s) {
        const q = s.scheduler,
            rates = s.rates || {},
            latency = s.latency || {},
            totals = s.totals || {};
        this.answers.set(number(rates.answer_per_s), 'tokens/s', count(totals.answer_tokens) + ' so far');
        this.answers.add_point(rates.answer_per_s);
        this.prompts.set(number(rates.prompt_per_s), 'tokens/s', count(totals.prompt_tokens) + ' so far');
        this.prompts.add_point(rates.prompt_per_s);
        const times = (figure, l) =>
            figure.set(l ? millis(l.p50) : NONE, '', l && known(l.p99) ? 'median; p99 ' + millis(l.p99) : '');
        times(this.first, latency.first_token_ms);
        times(this.between, latency.between_tokens_ms);
        this.requests.set(
            count(q.running),
            'of ' + count(q.parallel) + ' places',
            count(q.waiting) +
                ' waiting of ' +
                count(q.max_queue) +
                (totals.refused ? ', ' + count(totals.refused) + ' refused' : ''),
        );
        this.flight.set(
            count(q.in_flight),
            'of ' + count(q.max_in_flight),
            'chunk ' + count(q.chunk) + ', share ' + count(q.share),
        );
        // What is kept for prefixes makes room when it is needed: it fills nothing.
        const p = q.pages || {},
            used = p.total - p.free - p.cached;
        this.pages.set(
            count(used),
            'of ' + count(p.total) + ' pages',
            count(p.cached) + ' more kept for prefixes',
        );
        this.pages.meter.value = p.total ? used / p.total : 0;
        const x = q.prefix || {},
            rate = x.lookups ? x.hits / x.lookups : null;
        this.prefix.set(percent(rate), 'hits', count(x.tokens) + ' tokens saved');
        this.prefix.meter.value = rate || 0;
    },
};
