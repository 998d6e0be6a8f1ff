// SPDX-License-Identifier: Apache-2.0
// What stands inside a paragraph of Markdown: emphasis, code, links.  Every search for the other end of
// something is made in one pass beforehand or is bounded, so that no text can make it quadratic.
'use strict';

const MD_DEEPEST = 12; // lists in quotes in lists…; deeper ones are plain text
const MD_LONGEST_LINK = 2000;

const is_word = c => c !== undefined && /[\p{L}\p{N}]/u.test(c);
const is_space = c => c === undefined || /\s/.test(c);
const is_punct = c => c !== undefined && /[\p{P}\p{S}]/u.test(c);

function safe_link(target) {
    if (target.length > MD_LONGEST_LINK) return null;
    try {
        const url = new URL(target);
        return url.protocol === 'http:' || url.protocol === 'https:' ? url.href : null;
    } catch (e) {
        return null;
    }
}

function link_node(href) {
    const a = document.createElement('a');
    a.href = href;
    a.rel = 'noopener noreferrer nofollow';
    a.target = '_blank';
    a.title = href;
    return a;
}

// Where each [ is closed, and where runs of backquotes of each length begin: in one pass, so that no text
// can make the search for the other end quadratic.
function scan_inline(text) {
    const closed = new Map(),
        ticks = new Map(),
        stack = [];
    for (let i = 0; i < text.length; i++) {
        const c = text[i];
        if (c === '\\') {
            i++;
        } else if (c === '[') {
            stack.push(i);
        } else if (c === ']') {
            if (stack.length) closed.set(stack.pop(), i);
        } else if (c === '`') {
            let end = i;
            while (text[end] === '`') end++;
            if (!ticks.has(end - i)) ticks.set(end - i, []);
            ticks.get(end - i).push(i);
            i = end - 1;
        }
    }
    return {closed, ticks};
}

function next_after(sorted, at) {
    let low = 0,
        high = sorted ? sorted.length : 0;
    while (low < high) {
        const middle = (low + high) >> 1;
        if (sorted[middle] > at) high = middle;
        else low = middle + 1;
    }
    return sorted && low < sorted.length ? sorted[low] : -1;
}

const AFTER_LABEL = /\(\s{0,9}<?([^\s<>()]*(?:\([^\s()]*\)[^\s<>()]*)*)>?(?:\s{1,9}(?:"[^"]*"|'[^']*'))?\s{0,9}\)/y;
const BARE_LINK = /https?:\/\/[^\s<>"'`\\]{1,2000}/y;

// Splits text into pieces: strings, nodes, and runs of delimiters that may open or close emphasis.
function inline_pieces(text, options) {
    const {closed, ticks} = scan_inline(text);
    const pieces = [];
    let plain = '';
    const flush = () => {
        if (plain) pieces.push(plain);
        plain = '';
    };
    for (let i = 0; i < text.length; i++) {
        const c = text[i];
        if (c === '\\' && i + 1 < text.length && /[!-/:-@[-`{-~]/.test(text[i + 1])) {
            plain += text[++i];
        } else if (c === '`') {
            let n = 1;
            while (text[i + n] === '`') n++;
            let end = next_after(ticks.get(n), i),
                skip = n;
            if (end < 0 && options.open) {
                end = text.length; // it is still being written
                skip = 0;
            }
            if (end < 0) {
                plain += text.slice(i, i + n);
                i += n - 1;
                continue;
            }
            let inside = text.slice(i + n, end).replace(/\n/g, ' ');
            if (inside[0] === ' ' && inside.endsWith(' ') && inside.trim()) inside = inside.slice(1, -1);
            flush();
            pieces.push(el('code', {text: inside}));
            i = end + skip - 1;
        } else if ((c === '[' || (c === '!' && text[i + 1] === '[')) && !options.in_link) {
            const open = c === '!' ? i + 1 : i,
                end = closed.get(open);
            const made = end === undefined ? null : inline_link(text, open, end, c === '!', options);
            if (made) {
                flush();
                pieces.push(made.node);
                i = made.end - 1;
            } else {
                plain += c;
            }
        } else if (
            c === 'h' &&
            !options.in_link &&
            !is_word(text[i - 1]) &&
            (BARE_LINK.lastIndex = i) === i &&
            BARE_LINK.test(text)
        ) {
            const target = text.slice(i, end_of_link(text, i, BARE_LINK.lastIndex));
            const href = safe_link(target);
            if (href) {
                flush();
                const a = link_node(href);
                a.textContent = target;
                pieces.push(a);
                i += target.length - 1;
            } else {
                plain += c;
            }
        } else if (c === '*' || c === '_' || c === '~') {
            let n = 1;
            while (text[i + n] === c) n++;
            flush();
            pieces.push(delimiter(text, i, n));
            i += n - 1;
        } else {
            plain += c;
        }
    }
    flush();
    return pieces;
}

// A link in a sentence ends before the sentence's own marks.
function end_of_link(text, begin, end) {
    const paren = text.slice(begin, Math.min(end, begin + MD_LONGEST_LINK)).includes('(');
    while (end > begin && ('.,:;!?*_~'.includes(text[end - 1]) || (text[end - 1] === ')' && !paren))) end--;
    return end;
}

// [label](target "title"), or the same of a picture, which becomes a link to it.
function inline_link(text, open, end, picture, options) {
    const rest = text.slice(end + 1, end + 1 + 2 * MD_LONGEST_LINK);
    AFTER_LABEL.lastIndex = 0;
    const found = AFTER_LABEL.exec(rest);
    if (!found) return null;
    const label = text.slice(open + 1, end),
        href = safe_link(found[1]);
    if (!href) return null;
    const a = link_node(href);
    if (picture) {
        a.className = 'picture';
        a.textContent = 'picture: ' + (label || href);
    } else {
        inline_into(a, label || href, {...options, open: false, in_link: true});
    }
    return {node: a, end: end + 1 + found[0].length};
}

function delimiter(text, at, n) {
    const c = text[at],
        before = text[at - 1],
        after = text[at + n];
    const left = !is_space(after) && (!is_punct(after) || is_space(before) || is_punct(before));
    const right = !is_space(before) && (!is_punct(before) || is_space(after) || is_punct(after));
    const d = {c, n, left: n, opens: [], closes: []};
    d.can_open = left && (c !== '_' || !right || is_punct(before)) && (c !== '~' || n === 2);
    d.can_close = right && (c !== '_' || !left || is_punct(after)) && (c !== '~' || n === 2);
    return d;
}

// Pairs delimiters: each closer with the nearest opener of its kind; what stands between is dropped.  Every
// delimiter is pushed and popped once.
function pair_delimiters(pieces, open) {
    const stacks = {'*': [], _: [], '~': []};
    pieces.forEach((d, at) => {
        if (typeof d === 'string' || d instanceof Node) return;
        d.at = at;
        const stack = stacks[d.c];
        while (d.can_close && d.left > 0 && stack.length) {
            const o = stack[stack.length - 1];
            const n = d.c === '~' || (o.left >= 2 && d.left >= 2) ? 2 : 1;
            o.opens.push(n);
            d.closes.push(n);
            o.left -= n;
            d.left -= n;
            if (o.left === 0) stack.pop();
            for (const other of Object.values(stacks)) {
                while (other.length && other[other.length - 1].at > o.at) other.pop();
            }
        }
        if (d.can_open && d.left > 0) stack.push(d);
    });
    if (!open) return;
    // Still being written: bold that has begun is shown as bold.
    const waiting = Object.values(stacks)
        .flat()
        .sort((a, b) => b.at - a.at);
    for (const d of waiting.slice(0, MD_DEEPEST)) {
        if (d.left === 2 && d.at < pieces.length - 1) {
            d.opens.push(2);
            d.left = 0;
        }
    }
}

function inline_into(parent, text, options) {
    const pieces = inline_pieces(text, options);
    pair_delimiters(pieces, options.open);
    const path = [parent]; // where text goes
    let missing = 0; // elements left out at its end because they would be too deep
    const top = () => path[path.length - 1];
    for (const d of pieces) {
        if (typeof d === 'string' || d instanceof Node) {
            top().append(d);
            continue;
        }
        for (let i = 0; i < d.closes.length; i++) {
            if (missing) missing--;
            else path.pop();
        }
        if (d.left > 0) top().append(d.c.repeat(d.left));
        for (let i = d.opens.length - 1; i >= 0; i--) {
            if (path.length <= MD_DEEPEST) {
                const node = document.createElement(d.c === '~' ? 'del' : d.opens[i] === 2 ? 'strong' : 'em');
                top().append(node);
                path.push(node);
            } else {
                missing++;
            }
        }
    }
}
