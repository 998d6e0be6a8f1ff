// SPDX-License-Identifier: Apache-2.0
// Pointing at the lanes, by a mouse, a finger or keys: which step that is, and what can be told of it.
'use strict';

Object.assign(lanes, {
    // The step at a place, or the nearest one in that lane within some pixels.
    at(x, y) {
        if (this.columns || x < this.label) return null;
        const begin = this.end - this.span,
            i = Math.floor((y - SENT) / this.lane);
        let best = null,
            near = 8;
        for (const step of this.seen(begin, this.end)) {
            const t =
                i < 0
                    ? [step.sent, step.sent, step.sent]
                    : i < step.stages.length
                      ? step.stages[i]
                      : [step.home, step.taken, step.done];
            const a = this.x_of(t[0], begin),
                b = Math.max(a + 1, this.x_of(t[2], begin)),
                inside = this.x_of(t[1], begin);
            const off = x < a ? a - x : x > b ? x - b : x < inside ? 1 : 0;
            if (off < near) {
                near = off;
                best = step;
            }
        }
        return best;
    },

    place(e) {
        const box = this.canvas.getBoundingClientRect();
        return [e.clientX - box.left, e.clientY - box.top];
    },

    point(e) {
        const [x, y] = this.place(e);
        if (this.held && this.paused) {
            this.end = this.held.end - ((x - this.held.x) / (this.width - this.label)) * this.span;
            this.draw();
            return;
        }
        this.pick(this.at(x, y), x, y);
    },

    grab(e) {
        const [x, y] = this.place(e);
        this.held = {x, end: this.end};
        if (this.paused) this.canvas.setPointerCapture(e.pointerId);
        if (e.pointerType !== 'mouse') this.pick(this.at(x, y), x, y);
    },

    wheel(e) {
        if (!this.paused || this.columns === undefined) return;
        e.preventDefault();
        const [x] = this.place(e),
            share = Math.max(0, (x - this.label) / (this.width - this.label));
        const at = this.end - this.span * (1 - share);
        this.span = Math.min(
            10e6,
            Math.max(2000, this.span * Math.exp(Math.max(-1, Math.min(1, e.deltaY / 300)))),
        );
        this.end = at + this.span * (1 - share);
        this.buttons.forEach((b, i) => b.setAttribute('aria-pressed', String(SPANS[i][0] === this.span)));
        this.draw();
    },

    key(e) {
        const seen = this.seen(this.end - this.span, this.end),
            at = seen.indexOf(this.picked);
        const go = i => {
            if (!this.paused) this.set_paused(true);
            if (!seen.length) return;
            const step = seen[Math.max(0, Math.min(seen.length - 1, i))];
            this.pick(
                step,
                this.x_of(step.stages[0] ? step.stages[0][1] : step.sent, this.end - this.span),
                this.lane,
            );
            set_text($('lanes-read'), step_words(step, this.names).join('. '));
        };
        if (e.key === 'ArrowLeft') go(at < 0 ? seen.length - 1 : at - 1);
        else if (e.key === 'ArrowRight') go(at < 0 ? 0 : at + 1);
        else if (e.key === 'Home') go(0);
        else if (e.key === 'End') go(seen.length - 1);
        else if (e.key === ' ') this.set_paused(!this.paused);
        else if (e.key === 'Escape' && this.picked) this.pick(null);
        else return;
        e.preventDefault();
        e.stopPropagation();
    },

    pick(step, x, y) {
        const tip = $('tip'),
            changed = step !== this.picked;
        this.picked = step;
        tip.hidden = !step;
        if (step) {
            if (changed)
                tip.replaceChildren(
                    ...step_words(step, this.names).map((text, i) => el(i ? 'p' : 'strong', {text})),
                );
            const width = tip.offsetWidth,
                left = x + 14 + width > this.width ? x - 14 - width : x + 14;
            tip.style.left = Math.max(0, left) + 'px';
            tip.style.top = Math.max(0, y + 14) + 'px';
        }
        if (changed) this.draw();
    },
});

// What can be told of a step, a line each.
function step_words(step, names) {
    const rows = [
        step.decode
            ? count(step.decode) + (step.decode === 1 ? ' row of an answer' : ' rows of answers')
            : '',
        step.prompt ? count(step.prompt) + ' of prompts' : '',
    ]
        .filter(t => t)
        .join(', ');
    const words = ['Step ' + step.n + ': ' + (rows || 'no rows')];
    let from = step.sent;
    step.stages.forEach(([came, start, end, size], i) => {
        if (!known(start)) return;
        words.push(
            (names[i] || 'stage ' + (i + 1)) +
                ': way ' +
                micros(came - from) +
                ', wait ' +
                micros(start - came) +
                ', work ' +
                micros(end - start) +
                (known(size) && size ? ', ' + bytes(size) : ''),
        );
        from = end;
    });
    words.push(
        'coordinator: way ' +
            micros(step.home - from) +
            ', wait ' +
            micros(step.taken - step.home) +
            ', head and choice ' +
            micros(step.done - step.taken),
    );
    words.push('all: ' + micros(step.done - step.sent));
    return words;
}
