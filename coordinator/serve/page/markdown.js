// SPDX-License-Identifier: Apache-2.0
// Markdown of a stranger to nodes of the document, while it is still being written.
//
// Safe by construction: what is made are elements of a fixed list, text nodes, and links to http and https
// only; nothing is parsed as HTML and nothing is fetched.  Cheap by construction: a block that can no longer
// change is made once and never looked at again; only the last one is made anew as it grows.
//
// The dialect is CommonMark's core with tables and strikethrough, with three differences on purpose: HTML is
// text, pictures are links, and a line break in a paragraph stays one.
'use strict';

// -- blocks -----------------------------------------------------------------------------------------------

const FENCE = /^( {0,3})(`{3,}|~{3,})([^\n]*)$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]|$)/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])( {1,4}|\t|$)/;
const TABLE_LINE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const BLANK = /^[ \t]*$/;

function fence_of(line) {
    const m = FENCE.exec(line);
    return m && !(m[2][0] === '`' && m[3].includes('`'))
        ? {indent: m[1].length, mark: m[2], info: m[3].trim()}
        : null;
}
function ends_fence(line, fence) {
    const m = FENCE.exec(line);
    return m !== null && m[2][0] === fence.mark[0] && m[2].length >= fence.mark.length && BLANK.test(m[3]);
}
const begins_table = (line, next) =>
    next !== undefined &&
    line.includes('|') &&
    next.includes('-') &&
    TABLE_LINE.test(next) &&
    cells_of(line).length === cells_of(next).length;
const begins_block = line =>
    fence_of(line) !== null ||
    HEADING.test(line) ||
    QUOTE.test(line) ||
    RULE.test(line) ||
    (ITEM.test(line) && !/^ {0,3}(?:[2-9]|\d\d+)[.)]/.test(line) && !/^ {0,3}\S+[ \t]*$/.test(line));

function cells_of(line) {
    const cells = [];
    let cell = '';
    const text = line.trim().replace(/^\|/, '');
    for (let i = 0; i < text.length; i++) {
        if (text[i] === '\\' && text[i + 1] === '|') {
            cell += '|';
            i++;
        } else if (text[i] === '|') {
            cells.push(cell.trim());
            cell = '';
        } else {
            cell += text[i];
        }
    }
    if (cell.trim() !== '' || cells.length === 0) cells.push(cell.trim());
    return cells;
}

function code_block(info) {
    const code = el('code', {});
    const language = info.split(/\s/)[0].slice(0, 24);
    const pre = el('pre', {tabindex: '0'}, code);
    const copy = icon_button('copy', 'Copy this code', () => copy_text(code.textContent, copy));
    return {
        node: el(
            'div',
            {class: 'code'},
            el('div', {class: 'code-head'}, el('span', {text: language || 'text'}), copy),
            pre,
        ),
        code,
    };
}

// The first block of lines[at…]: {kind, end}, end the first line behind it.  `sure`: no further line can
// change that it ends there.
function first_block(lines, at) {
    const line = lines[at],
        n = lines.length;
    const fence = fence_of(line);
    if (fence) {
        for (let i = at + 1; i < n; i++) {
            if (ends_fence(lines[i], fence)) return {kind: 'fence', fence, end: i + 1, body: i, sure: true};
        }
        return {kind: 'fence', fence, end: n, body: n, sure: false};
    }
    if (HEADING.test(line)) return {kind: 'heading', end: at + 1, sure: true};
    if (RULE.test(line)) return {kind: 'rule', end: at + 1, sure: true};
    if (QUOTE.test(line)) {
        let i = at + 1;
        while (i < n && (QUOTE.test(lines[i]) || (!BLANK.test(lines[i]) && !begins_block(lines[i])))) i++;
        return {kind: 'quote', end: i, sure: i < n};
    }
    if (ITEM.test(line)) return first_item(lines, at);
    if (begins_table(line, lines[at + 1])) {
        let i = at + 2;
        while (i < n && lines[i].includes('|') && !BLANK.test(lines[i])) i++;
        return {kind: 'table', end: i, sure: i < n};
    }
    if (/^ {4}|^\t/.test(line)) {
        let i = at + 1;
        while (i < n && (/^ {4}|^\t/.test(lines[i]) || BLANK.test(lines[i]))) i++;
        return {kind: 'indented', end: i, sure: i < n};
    }
    let i = at + 1;
    while (i < n && !BLANK.test(lines[i]) && !begins_block(lines[i]) && !begins_table(lines[i], lines[i + 1]))
        i++;
    return {kind: 'paragraph', end: i, sure: i < n};
}

// One item of a list; a list is the items that follow each other.
function first_item(lines, at) {
    const m = ITEM.exec(lines[at]),
        width = m[0].length < lines[at].length || m[3] ? m[0].length : m[0].length + 1;
    const ordered = /\d/.test(m[2]);
    let i = at + 1,
        blanks = 0;
    for (; i < lines.length; i++) {
        const line = lines[i];
        if (BLANK.test(line)) {
            blanks++;
            continue;
        }
        const indent = line.search(/\S/);
        const deep = line[0] === '\t' || indent >= Math.min(width, m[1].length + 2);
        if (deep) {
            blanks = 0;
            continue;
        }
        if (blanks || begins_block(line) || ITEM.test(line)) break;
    }
    return {
        kind: 'item',
        ordered,
        start: parseInt(m[2], 10),
        mark: m[2].slice(-1),
        width,
        end: i,
        sure: i < lines.length,
    };
}

function make_item(lines, block, at, deep, open) {
    const body = lines.slice(at, block.end).map((line, k) => {
        if (k === 0) return line.slice(Math.min(block.width, line.length));
        const indent = line.search(/\S/);
        return line[0] === '\t'
            ? line.slice(1)
            : line.slice(Math.min(block.width, indent < 0 ? line.length : indent));
    });
    while (body.length && BLANK.test(body[body.length - 1])) body.pop();
    const item = el('li', {});
    const task = body.length ? /^\[([ xX])\] /.exec(body[0]) : null;
    if (task) {
        body[0] = body[0].slice(4);
        item.className = 'task';
        item.append(el('span', {class: 'check', text: task[1] === ' ' ? '☐ ' : '☑ '}));
    }
    // An item of one paragraph is its text.
    const first = body.length && !BLANK.test(body[0]) ? first_block(body, 0) : null;
    if (first && first.kind === 'paragraph') {
        inline_into(item, paragraph_text(body, 0, first.end), {open: open && first.end === body.length});
        body.splice(0, first.end);
    }
    blocks_into(item, body, deep + 1, open);
    return item;
}

const paragraph_text = (lines, at, end) =>
    lines
        .slice(at, end)
        .map(line => line.trim())
        .join('\n')
        .replace(/\\\n/g, '\n');

function heading_text(text) {
    // without the marks that may stand behind it too
    const t = text.trim();
    let end = t.length;
    while (t[end - 1] === '#') end--;
    return end === 0 || t[end - 1] === ' ' || t[end - 1] === '\t' ? t.slice(0, end).trimEnd() : t;
}

function table_row(line, tag, align, open) {
    const cells = cells_of(line).slice(0, align.length);
    while (cells.length < align.length) cells.push('');
    return el(
        'tr',
        {},
        cells.map((text, i) => {
            const cell = el(tag, {class: align[i], scope: tag === 'th' ? 'col' : null});
            inline_into(cell, text, {open});
            return cell;
        }),
    );
}

// The head of a table; rows are put into `body`.
function make_table(lines, at) {
    const align = cells_of(lines[at + 1]).map(c =>
        !c.endsWith(':') ? null : c.startsWith(':') ? 'center' : 'right',
    );
    const body = el('tbody', {});
    const node = el(
        'div',
        {class: 'table', tabindex: '0', role: 'region', 'aria-label': 'Table'},
        el('table', {}, el('thead', {}, table_row(lines[at], 'th', align, false)), body),
    );
    return {node, body, align};
}

function make_block(lines, at, block, deep, open) {
    const node_of = {
        fence: () => {
            const made = code_block(block.fence.info);
            made.code.textContent = lines
                .slice(at + 1, block.body)
                .map(l => fence_line(l, block.fence))
                .join('\n');
            return made.node;
        },
        heading: () => {
            const m = HEADING.exec(lines[at]);
            const h = el('h' + Math.min(6, m[1].length + 2), {class: 'h' + m[1].length});
            inline_into(h, heading_text(lines[at].slice(m[0].length)), {open});
            return h;
        },
        rule: () => el('hr', {}),
        quote: () => {
            const quote = el('blockquote', {dir: direction(lines[at])});
            blocks_into(
                quote,
                lines.slice(at, block.end).map(line => line.replace(QUOTE, '')),
                deep + 1,
                open,
            );
            return quote;
        },
        table: () => {
            const made = make_table(lines, at);
            for (let i = at + 2; i < block.end; i++) {
                made.body.append(table_row(lines[i], 'td', made.align, open && i === block.end - 1));
            }
            return made.node;
        },
        indented: () => {
            const made = code_block('');
            made.code.textContent = lines
                .slice(at, block.end)
                .map(line => line.replace(/^(?: {4}|\t)/, ''))
                .join('\n')
                .replace(/\s+$/, '');
            return made.node;
        },
        paragraph: () => {
            const p = el('p', {});
            inline_into(p, paragraph_text(lines, at, block.end), {open});
            return p;
        },
    };
    return node_of[block.kind]();
}

// A line of code, without the indent of its fence.
function fence_line(line, fence) {
    let n = 0;
    while (n < fence.indent && line[n] === ' ') n++;
    return line.slice(n);
}

// Where what stands beside a text belongs: by its first letter that has a direction.
function direction(text) {
    const m = /([\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc])|\p{L}/u.exec(text);
    return m && m[1] ? 'rtl' : null;
}

// Puts the next item where it belongs: into the list before it if that is of its kind.
function put_item(parent, last, block, item) {
    const same = last && last.list_mark === block.mark;
    const list = same
        ? last
        : el(block.ordered ? 'ol' : 'ul', {
              start: block.ordered && block.start !== 1 ? block.start : null,
              dir: direction(item.textContent),
          });
    list.list_mark = block.mark;
    list.append(item);
    if (!same) parent.append(list);
    return list;
}

// put(block, at, last) for each block of these lines; last: it may go on in lines to come.
function each_block(lines, open, put) {
    for (let at = 0; at < lines.length;) {
        if (BLANK.test(lines[at])) {
            at++;
            continue;
        }
        const block = first_block(lines, at);
        put(block, at, open && block.end === lines.length);
        at = block.end;
    }
}

function blocks_into(parent, lines, deep, open) {
    if (deep > MD_DEEPEST) {
        if (lines.length) parent.append(el('p', {text: lines.join('\n')}));
        return;
    }
    let list = null;
    each_block(lines, open, (block, at, last) => {
        if (block.kind === 'item') {
            list = put_item(parent, list, block, make_item(lines, block, at, deep, last));
        } else {
            parent.append(make_block(lines, at, block, deep, last));
            list = null;
        }
    });
}

// -- a text that grows ------------------------------------------------------------------------------------

// Marks that say nothing yet of what the line will be: not shown before more has come.
const UNDECIDED = /^(?:[\s#>*+\-_`~|=:]{1,200}|\s{0,9}\d{1,9}[.)]?\s?)$/;

class Markdown {
    // Nodes go into `root`; said(text) is called with the text of each block that is final.
    constructor(root, said) {
        this.root = root;
        this.said = said || null;
        this.lines = []; // whole lines that are not final
        this.part = ''; // the line being written
        this.tail = []; // nodes of what is not final, made anew at each drawing
        this.list = null; // the final list that the next item may belong to
        this.table = null; // the final table that the next line may belong to: {body, align}
        this.fence = null; // the code block being written: {fence, node, code, begun}
        this.cost = this.drawn = this.frame = 0;
    }

    push(text) {
        const lines = text.split('\n');
        this.part += lines[0];
        for (let i = 1; i < lines.length; i++) {
            this.lines.push(this.part.endsWith('\r') ? this.part.slice(0, -1) : this.part);
            this.part = lines[i];
        }
        if (!this.frame) this.frame = requestAnimationFrame(now => this.tick(now));
    }

    // At most an eighth of the time goes into drawing, however long the last block becomes.
    tick(now) {
        this.frame = 0;
        if (now - this.drawn < 8 * this.cost) {
            this.frame = requestAnimationFrame(later => this.tick(later));
            return;
        }
        this.draw(true);
        this.drawn = now;
        this.cost = performance.now() - now;
    }

    end() {
        cancelAnimationFrame(this.frame);
        this.frame = 0;
        if (this.part !== '') this.lines.push(this.part);
        this.part = '';
        this.draw(false);
        this.tail.forEach(node => this.say(node));
        if (this.fence) this.say(this.fence.node);
        this.tail = [];
        this.lines = [];
        this.fence = this.list = this.table = null;
    }

    say(node) {
        if (this.said) this.said(node.textContent.slice(0, 2000));
    }

    draw(open) {
        this.tail.forEach(node => node.remove());
        this.tail = [];
        this.settle();
        if (this.fence) {
            this.fence.part.data =
                open && !/^ {0,3}[`~]*$/.test(this.part) && this.part
                    ? (this.fence.begun ? '\n' : '') + this.part
                    : '';
            return;
        }
        let lines = this.lines;
        if (open && this.part !== '' && !UNDECIDED.test(this.part)) lines = [...lines, this.part];
        // What may be the head of a table waits for the line that says so.
        const last = lines.length - 1;
        if (
            open &&
            last >= 0 &&
            /^ {0,3}\|/.test(lines[last]) &&
            (last === 0 || !lines[last - 1].includes('|'))
        )
            lines = lines.slice(0, last);
        this.draw_tail(lines, open);
    }

    // Makes for good whatever no further line can change.
    settle() {
        let at = 0;
        const lines = this.lines;
        while (at < lines.length) {
            const line = lines[at];
            if (this.fence) {
                if (ends_fence(line, this.fence.fence)) this.end_fence();
                else this.code_line(line);
                at++;
            } else if (this.table && line.includes('|') && !BLANK.test(line)) {
                this.table.body.append(table_row(line, 'td', this.table.align, false));
                at++;
            } else if (BLANK.test(line)) {
                this.table = null;
                at++;
            } else {
                this.table = null;
                const block = first_block(lines, at);
                if (block.kind === 'fence') {
                    this.begin_fence(block.fence);
                    at++;
                } else if (block.kind === 'table') {
                    this.list = null;
                    this.table = make_table(lines, at);
                    this.root.append(this.table.node);
                    at += 2;
                } else if (!block.sure) {
                    break;
                } else {
                    this.put(lines, at, block);
                    at = block.end;
                }
            }
        }
        if (at) this.lines = lines.slice(at);
    }

    put(lines, at, block) {
        if (block.kind === 'item') {
            const item = make_item(lines, block, at, 0, false);
            this.list = put_item(this.root, this.list, block, item);
            this.say(item);
        } else {
            this.list = null;
            const node = make_block(lines, at, block, 0, false);
            this.root.append(node);
            this.say(node);
        }
    }

    begin_fence(fence) {
        this.list = null;
        const made = code_block(fence.info),
            part = document.createTextNode(''),
            text = document.createTextNode('');
        made.code.append(text, part);
        this.root.append(made.node);
        this.fence = {...made, fence, text, part, begun: false};
    }

    code_line(line) {
        const f = this.fence;
        f.text.appendData((f.begun ? '\n' : '') + fence_line(line, f.fence));
        f.begun = true;
    }

    end_fence() {
        this.fence.part.data = '';
        this.say(this.fence.node);
        this.fence = null;
    }

    draw_tail(lines, open) {
        let list = this.list;
        each_block(lines, open, (block, at, last) => {
            if (block.kind === 'item') {
                const item = make_item(lines, block, at, 0, last),
                    into = put_item(this.root, list, block, item);
                this.tail.push(into === list ? item : into);
                list = into;
            } else {
                const node = make_block(lines, at, block, 0, last);
                this.root.append(node);
                this.tail.push(node);
                list = null;
            }
        });
    }
}

// A text that is whole already.
function markdown_into(root, text) {
    const md = new Markdown(root);
    md.push(text);
    md.end();
}
