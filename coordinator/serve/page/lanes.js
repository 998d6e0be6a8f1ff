// SPDX-License-Identifier: Apache-2.0
// The lanes: time runs to the right, stages lie beneath each other, and each step is a bar in each of them
// from the start to the end of its computing there. A line before a bar is the time it waited, a slanted
// one the hop to the next stage.  Where steps are too short to be seen, columns tell how busy a stage was.
'use strict';

const SPANS = [
    [5e6, '5 s'],
    [1e6, '1 s'],
    [2e5, '200 ms'],
    [5e4, '50 ms'],
    [1e4, '10 ms'],
];
const KEPT_US = 15e6,
    MOST_STEPS = 60000;
const BEHIND_US = 300e3; // time for news to come; a step is told when it has come home
const AXIS = 20,
    SENT = 14;
const HUES = 18;

const lanes = {
    steps: [], // in the order of their numbers
    names: [], // of stages
    span: 5e6,
    paused: false,
    behind: BEHIND_US, // shown so much later than it happens, so that all of it is there when it is due
    end: 0, // the right edge, in us of the coordinator's clock
    ahead: null, // us of that clock minus us of ours
    offsets: [],
    picked: null, // the step under the pointer or chosen by keys
    colours: null,
    frame: 0,
    running: false,
    last_draw: 0,

    // -- what comes in ------------------------------------------------------------------------------------

    take(s) {
        // The shortest way a message took tells how the clocks stand to each other.
        this.offsets.push(s.now_us - performance.now() * 1000);
        if (this.offsets.length > 40) this.offsets.shift();
        this.ahead = Math.max(...this.offsets);
        const names = s.stages.map(stage => stage_name(stage, s.stages.length));
        if (names.join('\n') !== this.names.join('\n')) {
            this.names = names;
            this.resize();
        }
        const newest = this.steps.length ? this.steps[this.steps.length - 1].n : 0;
        for (const step of s.steps || []) {
            if (step.n < newest - 1e6) this.steps = []; // the server began anew
            if (!this.steps.length || step.n > this.steps[this.steps.length - 1].n) this.steps.push(step);
        }
        let longest = 0;
        for (const step of this.steps.slice(-40)) longest = Math.max(longest, step.done - step.sent);
        this.due = BEHIND_US + Math.min(4e6, longest);
        if (!this.paused || this.steps.length > MOST_STEPS) this.trim(s.now_us - KEPT_US);
    },

    trim(before) {
        let n = Math.max(0, this.steps.length - MOST_STEPS);
        while (n < this.steps.length && this.steps[n].done < before) n++;
        if (n) this.steps = this.steps.slice(n);
    },

    // The server was started anew, or is another one.
    reset() {
        this.steps = [];
        this.offsets = [];
        this.picked = null;
    },

    now: () => performance.now() * 1000 + lanes.ahead,

    // -- the shape ----------------------------------------------------------------------------------------

    build() {
        this.canvas = $('lanes-canvas');
        this.ctx = this.canvas.getContext('2d');
        this.buttons = SPANS.map(([span, label]) =>
            el(
                'button',
                {
                    type: 'button',
                    'aria-pressed': String(span === this.span),
                    onclick: () => this.set_span(span),
                },
                label,
            ),
        );
        $('spans').append(...this.buttons);
        $('pause').addEventListener('click', () => this.set_paused(!this.paused));
        new ResizeObserver(() => this.resize()).observe($('lanes'));
        const c = this.canvas;
        c.addEventListener('pointermove', e => this.point(e));
        c.addEventListener('pointerdown', e => this.grab(e));
        c.addEventListener('pointerup', () => {
            this.held = null;
        });
        c.addEventListener('pointercancel', () => {
            this.held = null;
        });
        c.addEventListener('pointerleave', () => {
            if (!this.held) this.pick(null);
        });
        c.addEventListener('wheel', e => this.wheel(e), {passive: false});
        c.addEventListener('keydown', e => this.key(e));
        c.addEventListener('blur', () => this.pick(null));
    },

    resize() {
        if (!this.canvas) return;
        const width = Math.floor($('lanes').clientWidth),
            n = Math.max(1, this.names.length) + 1;
        if (!width) return;
        this.lane = n > 9 ? 26 : n > 5 ? 32 : width > 700 ? 52 : width > 600 ? 44 : 38;
        this.label = width < 480 ? 64 : 108;
        this.width = width;
        this.height = SENT + n * this.lane + AXIS;
        this.ratio = Math.min(3, window.devicePixelRatio || 1);
        this.canvas.width = width * this.ratio;
        this.canvas.height = this.height * this.ratio;
        this.canvas.style.height = this.height + 'px';
        this.draw();
    },

    set_span(span) {
        const middle = this.end - this.span / 2;
        this.span = span;
        if (this.paused) this.end = middle + span / 2;
        else if (span < 1e6) this.strobe();
        this.buttons.forEach((b, i) => b.setAttribute('aria-pressed', String(SPANS[i][0] === span)));
        this.note();
        this.pick(null);
        this.draw();
    },

    set_paused(paused) {
        this.paused = paused;
        $('pause').setAttribute('aria-pressed', String(paused));
        set_icon($('pause'), paused ? 'play' : 'pause', paused ? 'Go on' : 'Pause');
        this.note();
        if (!paused) this.pick(null);
        this.draw();
    },

    note() {
        $('legend').classList.toggle('columns', Boolean(this.columns));
        set_text(
            $('lanes-note'),
            this.paused
                ? 'Paused. Drag or use the arrow keys to move; the wheel zooms.'
                : this.span < 1e6
                  ? 'Too fast to follow: the picture is renewed once a second. Pause to look closer.'
                  : this.columns
                    ? 'Steps are too short to be seen: columns show the share at work. Choose a shorter time.'
                    : '',
        );
    },

    // -- time goes on -------------------------------------------------------------------------------------

    start() {
        if (this.running) return;
        this.running = true;
        this.still = matchMedia('(prefers-reduced-motion: reduce)');
        const turn = now => {
            if (!this.running) return;
            this.frame = requestAnimationFrame(turn);
            const strobe = this.span < 1e6,
                every = strobe ? 1000 : this.still.matches ? 500 : this.empty ? 200 : 30;
            if (this.paused || this.ahead === null || feed.stale || now - this.last_draw < every) return;
            this.last_draw = now;
            if (strobe) this.strobe();
            else this.end = this.now() - this.late();
            this.draw();
        };
        this.frame = requestAnimationFrame(turn);
    },

    stop() {
        this.running = false;
        cancelAnimationFrame(this.frame);
    },

    // Changes slowly: time may run a little faster or slower, but does not jump.
    late() {
        this.behind += ((this.due || BEHIND_US) - this.behind) * 0.03;
        return this.behind;
    },

    // A short time cannot be watched going by: it is shown as it was when the last step came home.
    strobe() {
        const last = this.steps[this.steps.length - 1];
        this.end = last ? last.done + this.span * 0.02 : this.now();
    },

    // -- drawing ------------------------------------------------------------------------------------------

    read_colours() {
        const probe = el('span', {hidden: true});
        $('lanes').append(probe);
        const get = name => {
            probe.style.color = 'var(--' + name + ')';
            return getComputedStyle(probe).color;
        };
        const c = {};
        for (const name of ['fg', 'muted', 'line', 'panel', 'accent', 'quiet', 'bar-text'])
            c[name] = get(name);
        probe.remove();
        const dark = getComputedStyle(document.documentElement).getPropertyValue('color-scheme').trim();
        c.dark = dark === 'dark' || (dark !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
        c.hue = Array.from(
            {length: HUES},
            (_, i) => 'oklch(' + (c.dark ? '0.74 0.11 ' : '0.79 0.11 ') + (i * 360) / HUES + ')',
        );
        c.edge = Array.from(
            {length: HUES},
            (_, i) => 'oklch(' + (c.dark ? '0.8 0.11 ' : '0.56 0.13 ') + (i * 360) / HUES + ')',
        );
        const tile = document.createElement('canvas'),
            t = tile.getContext('2d');
        tile.width = tile.height = 6;
        t.strokeStyle = c.dark ? 'rgba(0,0,0,.55)' : 'rgba(30,30,40,.5)';
        t.lineWidth = 1.4;
        t.beginPath();
        for (const x of [-6, 0, 6]) {
            t.moveTo(x, 6);
            t.lineTo(x + 6, 0);
        }
        t.stroke();
        c.hatch = this.ctx.createPattern(tile, 'repeat');
        this.colours = c;
    },

    draw() {
        if (!this.ctx || !this.width || !this.lane) return;
        if (!this.colours) this.read_colours();
        const ctx = this.ctx,
            c = this.colours,
            begin = this.end - this.span;
        ctx.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
        ctx.clearRect(0, 0, this.width, this.height);
        this.draw_frame(begin);
        if (this.ahead === null) return;
        ctx.save();
        ctx.beginPath();
        ctx.rect(this.label, 0, this.width - this.label, this.height - AXIS + 4);
        ctx.clip();
        const seen = this.seen(begin, this.end),
            wide = this.width - this.label;
        const columns = this.too_short(seen, wide);
        if (columns !== this.columns) {
            this.columns = columns;
            this.note();
        }
        if (columns) {
            this.draw_columns(seen, begin);
        } else {
            for (const step of seen)
                this.draw_step(step, begin, this.picked && this.picked !== step ? 0.3 : 1);
            if (this.picked && seen.includes(this.picked)) this.draw_step(this.picked, begin, 1, true);
        }
        ctx.restore();
        this.empty = !seen.length;
        if (this.empty) {
            ctx.fillStyle = c.muted;
            ctx.font = '12px system-ui, sans-serif';
            ctx.textAlign = 'center';
            ctx.fillText('no steps in this time', this.label + wide / 2, SENT + this.lane * 0.5 + 4);
        }
    },

    // Are steps so short that bars would be hairs?
    too_short(seen, wide) {
        let us = 0;
        for (const step of seen)
            us += step.stages.length ? step.stages[0][2] - step.stages[0][1] : step.done - step.home;
        return seen.length > wide / 8 && (us / seen.length / this.span) * wide < 2.5;
    },

    // Steps of which something lies between two times; steps go and come home in order.
    seen(begin, end) {
        let low = 0,
            high = this.steps.length;
        while (low < high) {
            const middle = (low + high) >> 1;
            if (this.steps[middle].done < begin) low = middle + 1;
            else high = middle;
        }
        let last = low;
        while (last < this.steps.length && this.steps[last].sent <= end) last++;
        return this.steps.slice(low, last);
    },

    x_of(us, begin) {
        return this.label + ((us - begin) / this.span) * (this.width - this.label);
    },
    y_of(i) {
        return SENT + i * this.lane;
    },

    draw_frame(begin) {
        const ctx = this.ctx,
            c = this.colours,
            n = this.names.length;
        ctx.textBaseline = 'middle';
        for (let i = 0; i <= n; i++) {
            const y = this.y_of(i);
            ctx.fillStyle = c.quiet;
            ctx.beginPath();
            ctx.roundRect(this.label, y + 3, this.width - this.label, this.lane - 6, 4);
            ctx.fill();
            ctx.fillStyle = c.fg;
            ctx.textAlign = 'left';
            ctx.font = '600 12px system-ui, sans-serif';
            ctx.fillText(
                this.fit(i < n ? this.names[i] : 'coordinator', this.label - 10),
                2,
                y + this.lane / 2,
            );
        }
        ctx.fillStyle = c.muted;
        ctx.font = '11px system-ui, sans-serif';
        ctx.fillText('sent', 2, SENT / 2 + 1);
        // Ticks move with time, not with the window, so that they do not flicker.
        const tick = this.span / 5,
            bottom = this.height - AXIS;
        ctx.textAlign = 'center';
        ctx.strokeStyle = c.line;
        ctx.lineWidth = 1;
        for (let i = 0; i <= 5; i++) {
            const x = this.x_of(begin + i * tick, begin);
            const ago = '−' + micros((5 - i) * tick).replace(/\.0+ /, ' ');
            const text = i < 5 ? ago : this.paused ? '' : 'latest';
            ctx.beginPath();
            ctx.moveTo(Math.round(x) + 0.5, SENT);
            ctx.lineTo(Math.round(x) + 0.5, bottom + 3);
            ctx.stroke();
            ctx.textAlign = i === 5 ? 'right' : i === 0 ? 'left' : 'center';
            ctx.fillText(text, i === 5 ? this.width - 1 : x, bottom + 12);
        }
    },

    fit(text, width) {
        if (this.ctx.measureText(text).width <= width) return text;
        while (text.length > 1 && this.ctx.measureText(text + '…').width > width) text = text.slice(0, -1);
        return text + '…';
    },

    // A bar: answers plain, prompts hatched, both one above the other.
    bar(x, y, w, h, step, hue) {
        const ctx = this.ctx,
            c = this.colours,
            r = Math.min(3, w / 2);
        ctx.fillStyle = w < 3 ? c.edge[hue] : c.hue[hue];
        ctx.beginPath();
        ctx.roundRect(x, y, w, h, r);
        ctx.fill();
        if (step.prompt > 0) {
            ctx.fillStyle = c.hatch;
            ctx.beginPath();
            ctx.roundRect(x, y, w, step.decode > 0 ? h / 2 : h, r);
            ctx.fill();
        }
        if (w > 3) {
            ctx.strokeStyle = c.edge[hue];
            ctx.lineWidth = 1;
            ctx.stroke();
        }
        if (w < 30) return;
        const rows =
            (step.prompt ? 'P' + step.prompt : '') +
            (step.prompt && step.decode ? ' ' : '') +
            (step.decode ? 'A' + step.decode : '');
        ctx.font = '600 11px ui-monospace, monospace';
        const full = '#' + step.n + ' ' + rows,
            text =
                ctx.measureText(full).width < w - 6 ? full : ctx.measureText(rows).width < w - 6 ? rows : '';
        if (!text) return;
        const size = ctx.measureText(text).width + 6;
        ctx.fillStyle = c.hue[hue];
        if (step.prompt) ctx.fillRect(x + 2, y + h / 2 - 7, size, 14);
        ctx.fillStyle = c['bar-text'];
        ctx.textAlign = 'left';
        ctx.fillText(text, x + 5, y + h / 2 + 0.5);
    },

    draw_step(step, begin, alpha, strong) {
        const ctx = this.ctx,
            c = this.colours,
            hue = (step.n * 7) % HUES,
            n = Math.min(this.names.length, step.stages.length);
        const h = this.lane - 12,
            line = c.edge[hue];
        ctx.globalAlpha = alpha;
        let from_x = this.x_of(step.sent, begin),
            from_y = SENT - 4;
        ctx.fillStyle = line;
        ctx.beginPath();
        ctx.moveTo(from_x - 3.5, 2);
        ctx.lineTo(from_x + 3.5, 2);
        ctx.lineTo(from_x, SENT - 3);
        ctx.fill();
        for (let i = 0; i <= n; i++) {
            const [came, start, end] = i < n ? step.stages[i] : [step.home, step.taken, step.done];
            if (!known(start) || !known(end)) continue;
            const y = this.y_of(i === n ? this.names.length : i) + 6,
                x = this.x_of(start, begin),
                in_x = this.x_of(came, begin);
            const w = Math.max(1.5, this.x_of(end, begin) - x);
            ctx.strokeStyle = line;
            ctx.lineWidth = strong ? 2 : 1;
            ctx.setLineDash([3, 2]);
            ctx.beginPath();
            ctx.moveTo(from_x, from_y);
            ctx.lineTo(in_x, y - 2);
            ctx.stroke();
            ctx.setLineDash([]);
            if (x - in_x > 1) {
                ctx.lineWidth = strong ? 3 : 2;
                ctx.beginPath();
                ctx.moveTo(in_x, y - 2);
                ctx.lineTo(x, y - 2);
                ctx.stroke();
            }
            this.bar(x, y, w, h, step, hue);
            if (strong) {
                ctx.strokeStyle = c.fg;
                ctx.lineWidth = 2;
                ctx.strokeRect(x - 1, y - 1, w + 2, h + 2);
            }
            from_x = x + w;
            from_y = y + h;
        }
        ctx.globalAlpha = 1;
    },

    // How much of each column's time every stage computed for prompts and for answers.
    draw_columns(seen, begin) {
        const wide = Math.floor(this.width - this.label),
            per = this.span / wide,
            n = this.names.length;
        const ctx = this.ctx,
            c = this.colours,
            h = this.lane - 10;
        for (let i = 0; i <= n; i++) {
            const prompt = new Float32Array(wide),
                answer = new Float32Array(wide),
                y = this.y_of(i) + 5;
            for (const step of seen) {
                const times = i < n ? step.stages[i] : [step.home, step.taken, step.done];
                if (times && known(times[1]))
                    add_share(
                        step.prompt > 0 ? prompt : answer,
                        (times[1] - begin) / per,
                        (times[2] - begin) / per,
                    );
            }
            ctx.fillStyle = c.accent;
            ctx.beginPath();
            for (let x = 0; x < wide; x++) {
                const a = Math.min(1, answer[x]) * h;
                if (a > 0) ctx.rect(this.label + x, y + h - a, 1, a);
            }
            ctx.fill();
            ctx.beginPath();
            for (let x = 0; x < wide; x++) {
                const a = Math.min(1, answer[x]) * h,
                    p = Math.min(1 - Math.min(1, answer[x]), prompt[x]) * h;
                if (p > 0) ctx.rect(this.label + x, y + h - a - p, 1, p);
            }
            ctx.fillStyle = c.hue[14];
            ctx.fill();
            ctx.fillStyle = c.hatch;
            ctx.fill();
        }
    },
};

function add_share(columns, from, to) {
    const first = Math.max(0, Math.floor(from)),
        last = Math.min(columns.length - 1, Math.floor(to));
    for (let x = first; x <= last; x++) columns[x] += Math.min(to, x + 1) - Math.max(from, x);
}
