// SPDX-License-Identifier: Apache-2.0
// What the other scripts share: elements made without markup, words for numbers, requests, server-sent
// events.  Text from outside becomes text nodes and nothing else; the policy of the page forbids the rest.
'use strict';

const $ = id => document.getElementById(id);

// el('p', {class: 'note', title: '…', onclick: f}, 'text', child, …); null children are left out.
function el(tag, props, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(props || {})) {
        if (value === null || value === undefined || value === false) continue;
        if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
        else if (name === 'text') node.textContent = value;
        else node.setAttribute(name, value === true ? '' : value);
    }
    node.append(...children.flat().filter(c => c !== null && c !== undefined));
    return node;
}

function icon(name) {
    const svg = document.createElementNS('http://www.w3.org/2000/svg', 'svg');
    const use = document.createElementNS('http://www.w3.org/2000/svg', 'use');
    use.setAttribute('href', '#i-' + name);
    svg.setAttribute('aria-hidden', 'true');
    svg.append(use);
    return svg;
}

function icon_button(name, label, action, props) {
    return el(
        'button',
        {type: 'button', class: 'icon small', title: label, onclick: action, ...props},
        icon(name),
        el('span', {class: 'sr'}, label),
    );
}

function set_icon(button, name, label) {
    button.querySelector('use').setAttribute('href', '#i-' + name);
    button.querySelector('.sr').textContent = label;
    button.title = label;
}

// Changes the text of a node only if it differs: nothing is laid out again for nothing.
function set_text(node, text) {
    if (node.textContent !== text) node.textContent = text;
}

let toast_timer = 0;
function toast(text, label, action) {
    const box = $('toast'),
        hide = () => {
            box.hidden = true;
        };
    box.replaceChildren(text);
    if (action) {
        box.append(
            ' ',
            el(
                'button',
                {
                    type: 'button',
                    class: 'link',
                    onclick: () => {
                        hide();
                        action();
                    },
                },
                label,
            ),
        );
    }
    box.hidden = false;
    clearTimeout(toast_timer);
    toast_timer = setTimeout(hide, action ? 8000 : 4000);
}

async function copy_text(text, button) {
    let copied = false;
    try {
        await navigator.clipboard.writeText(text);
        copied = true;
    } catch (e) {
        // not a secure origin, or refused: the old way
        const area = el('textarea', {class: 'sr', 'aria-hidden': 'true'});
        area.value = text;
        ((button && button.closest('dialog')) || document.body).append(area);
        area.select();
        copied = document.execCommand('copy');
        area.remove();
        if (button) button.focus();
    }
    if (!copied) {
        toast('The browser did not let this be copied.');
    } else if (button) {
        const use = button.querySelector('use'),
            before = use.getAttribute('href');
        use.setAttribute('href', '#i-done');
        setTimeout(() => use.setAttribute('href', before === '#i-done' ? '#i-copy' : before), 1200);
        speak('Copied');
    }
}

// For those who listen: a few words, politely.
function speak(text) {
    if (!text) return;
    const box = $('spoken');
    while (box.childElementCount > 6) box.firstChild.remove();
    box.append(el('p', {text}));
}

// -- words for numbers ------------------------------------------------------------------------------------

const NONE = '–';
const known = x => typeof x === 'number' && isFinite(x);
const whole = new Intl.NumberFormat('en', {maximumFractionDigits: 0});

// Three significant digits at most, for figures that change while one reads them.
function number(x) {
    if (!known(x)) return NONE;
    const a = Math.abs(x);
    return a >= 100 ? whole.format(x) : a >= 10 ? x.toFixed(1) : a === 0 ? '0' : x.toFixed(2);
}
const count = x => (known(x) ? whole.format(x) : NONE);
const percent = x => (known(x) && x >= 0 ? Math.round(100 * x) + ' %' : NONE);
function bytes(x) {
    if (!known(x)) return NONE;
    const units = ['B', 'kB', 'MB', 'GB', 'TB'];
    let i = 0;
    while (x >= 1000 && i < 4) {
        x /= 1000;
        i++;
    }
    return (i === 0 ? String(Math.round(x)) : number(x)) + ' ' + units[i];
}
function micros(us) {
    if (!known(us)) return NONE;
    return us < 1000
        ? Math.round(us) + ' µs'
        : us < 1e6
          ? number(us / 1000) + ' ms'
          : number(us / 1e6) + ' s';
}
const millis = ms => (known(ms) ? micros(ms * 1000) : NONE);
function duration(s) {
    if (!known(s)) return NONE;
    if (s < 10) return s.toFixed(1) + ' s';
    if (s < 60) return Math.round(s) + ' s';
    if (s < 3600) return Math.floor(s / 60) + ' min';
    return s < 86400
        ? Math.floor(s / 3600) + ' h ' + (Math.floor(s / 60) % 60) + ' min'
        : Math.floor(s / 86400) + ' d ' + (Math.floor(s / 3600) % 24) + ' h';
}

// -- requests ---------------------------------------------------------------------------------------------

// The key of the server, if it asks for one: in this tab's memory only.
const api_key = {
    get value() {
        try {
            return sessionStorage.getItem('tern.key') || '';
        } catch (e) {
            return this.kept || '';
        }
    },
    set value(key) {
        this.kept = key;
        try {
            if (key) sessionStorage.setItem('tern.key', key);
            else sessionStorage.removeItem('tern.key');
        } catch (e) {
            /* kept in memory */
        }
    },
};

// What went wrong, in a sentence for a person; `key` when a key would help, `again` when trying again would.
class Trouble extends Error {
    constructor(message, more) {
        super(message);
        Object.assign(this, more);
    }
}

async function trouble_of(response) {
    let said = '',
        code = '';
    try {
        const body = await response.json();
        code = String((body.error && body.error.code) || '');
        said = String((body.error && body.error.message) || body.message || '').slice(0, 2000);
    } catch (e) {
        /* not JSON: the status says enough */
    }
    const wait = Number(response.headers.get('Retry-After')) || 0;
    const status = response.status,
        theirs = said ? ' The server says: ' + said : '';
    if (status === 401) {
        return new Trouble(
            api_key.value ? 'The server does not know this API key.' : 'This server wants an API key.',
            {status, key: true},
        );
    }
    if (status === 403) return new Trouble('The server does not answer this page.' + theirs, {status});
    if (code === 'model_loading' || said === 'Loading model') {
        return new Trouble('The model is still being loaded; this goes on by itself when it is there.', {
            status,
            again: true,
            loading: true,
        });
    }
    if (status === 429 || status === 503) {
        return new Trouble(
            (status === 429 || code === 'overloaded'
                ? 'The server has no room at the moment'
                : 'The server is not ready') +
                (wait ? '; it asks to come back in ' + wait + ' s.' : '.') +
                theirs,
            {status, again: true},
        );
    }
    if (status === 413) return new Trouble('This is more than the server reads at once.' + theirs, {status});
    if (status >= 500) return new Trouble('Something broke in the server.' + theirs, {status, again: true});
    return new Trouble(said || 'The server refused this with status ' + status + '.', {status});
}

// fetch() that throws Trouble.  An abort by the caller is passed on as it is.
async function request(path, options) {
    const headers = {...(options && options.headers)};
    if (api_key.value) headers.Authorization = 'Bearer ' + api_key.value;
    let response;
    try {
        response = await fetch(path, {...options, headers, cache: 'no-store', redirect: 'error'});
    } catch (e) {
        if (e.name === 'AbortError') throw e;
        throw new Trouble(
            'Tern does not answer at ' +
                location.host +
                '. It may have been stopped, or the network is down.',
            {again: true, down: true},
        );
    }
    if (!response.ok) throw await trouble_of(response);
    return response;
}
const get_json = async (path, signal) => (await request(path, {signal})).json();

// The events of an answer, each the text of its data lines.
const LONGEST_EVENT = 16 << 20;
async function* events_of(response) {
    const reader = response.body.getReader(),
        decoder = new TextDecoder();
    let rest = '',
        data = null;
    try {
        for (;;) {
            const {done, value} = await reader.read();
            if (done) return;
            const text = rest + decoder.decode(value, {stream: true});
            let from = 0;
            for (let end; (end = text.indexOf('\n', from)) >= 0; from = end + 1) {
                const line = text.slice(from, text[end - 1] === '\r' && end > from ? end - 1 : end);
                if (line === '') {
                    if (data !== null) yield data;
                    data = null;
                } else if (line.startsWith('data:')) {
                    const more = line.slice(line[5] === ' ' ? 6 : 5);
                    data = data === null ? more : data + '\n' + more;
                }
            }
            rest = text.slice(from);
            if (rest.length + (data || '').length > LONGEST_EVENT)
                throw new Trouble('An event of the server has no end.');
        }
    } finally {
        reader.cancel().catch(() => {});
    }
}
