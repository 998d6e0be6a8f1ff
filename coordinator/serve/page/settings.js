// SPDX-License-Identifier: Apache-2.0
// The settings: how answers are chosen, what is kept, the key of the server, the look of the page.  A field
// that is empty is left to the server.
'use strict';

const SAMPLING = [
    {
        name: 'temperature',
        label: 'Temperature',
        min: 0,
        max: 5,
        step: 0.05,
        help: 'How daring the choice of words is. 0 takes the likeliest, 1 is the model’s own, 2 is wild.',
    },
    {
        name: 'top_p',
        label: 'Top-p',
        min: 0,
        max: 1,
        step: 0.01,
        help: 'Keeps the likeliest words that together have this share of all probability. 1 keeps all.',
    },
    {
        name: 'top_k',
        label: 'Top-k',
        min: 0,
        max: 100000,
        step: 1,
        whole: true,
        help: 'Keeps so many of the likeliest words. 0 keeps all.',
    },
    {
        name: 'min_p',
        label: 'Min-p',
        min: 0,
        max: 1,
        step: 0.01,
        help: 'Leaves out words less likely than this share of the likeliest one. 0 leaves out none.',
    },
    {
        name: 'repeat_penalty',
        label: 'Repeat penalty',
        min: 0.1,
        max: 10,
        step: 0.01,
        help: 'Above 1 makes words that have just been used less likely; 1 does nothing.',
    },
    {
        name: 'max_tokens',
        label: 'Longest answer',
        min: 1,
        max: 1000000,
        step: 1,
        whole: true,
        help: 'In tokens; an English word has some 1.3. Empty: until the model ends or the context is full.',
    },
    {
        name: 'seed',
        label: 'Seed',
        min: 0,
        max: 4294967295,
        step: 1,
        whole: true,
        help: 'With the same seed the same question has the same answer, however busy the cluster is.',
    },
    {
        name: 'stop',
        label: 'Stop texts',
        lines: true,
        help: 'One on each line. The answer ends before the first that appears.',
    },
];

const PRESETS = [
    ['Exact', {temperature: 0}],
    ['Calm', {temperature: 0.4, top_p: 0.9, min_p: 0.05}],
    ['Lively', {temperature: 0.9, top_p: 0.95, min_p: 0.03}],
    ['As the server says', {}],
];

// Settings from a file or the storage: only what the form could have made.
function read_settings(from) {
    const out = {};
    for (const s of SAMPLING) {
        const value = from && from[s.name];
        if (s.lines) {
            if (Array.isArray(value))
                out[s.name] = value.filter(v => typeof v === 'string' && v !== '').slice(0, 16);
            if (out[s.name] && !out[s.name].length) delete out[s.name];
        } else if (
            known(value) &&
            value >= s.min &&
            value <= s.max &&
            (!s.whole || Number.isInteger(value))
        ) {
            out[s.name] = value;
        }
    }
    return out;
}

const settings = {
    inputs: {},

    open() {
        this.fill();
        $('settings').showModal();
        // The first field, not the button that closes: that is what one came for.
        this.inputs.system.focus();
    },

    build() {
        const body = $('settings-body');
        const group = (title, ...children) => el('section', {}, el('h3', {text: title}), ...children);
        const system = (this.inputs.system = el('textarea', {
            id: 'set-system',
            rows: '3',
            onchange: () => this.system_changed(),
        }));
        body.append(
            group(
                'Instructions',
                this.field(
                    'set-system',
                    'For this conversation and new ones',
                    system,
                    'What the model is told before the first message: who it is, how it is to answer.',
                ),
            ),
            group(
                'How words are chosen',
                el(
                    'div',
                    {class: 'presets', role: 'group', 'aria-label': 'Ready-made settings'},
                    PRESETS.map(([label, values]) =>
                        el('button', {type: 'button', onclick: () => this.preset(values)}, label),
                    ),
                ),
                el(
                    'div',
                    {class: 'fields'},
                    SAMPLING.map(s => this.sampling_field(s)),
                ),
            ),
            group('Conversations', this.keep_field(), this.transfer()),
            group('This server', this.address_field(), this.key_field()),
        );
    },

    field(id, label, input, help) {
        input.setAttribute('aria-describedby', id + '-help');
        return el(
            'div',
            {class: 'setting'},
            el('label', {for: id, text: label}),
            input,
            el('p', {class: 'note', id: id + '-help', text: help}),
        );
    },

    sampling_field(s) {
        const id = 'set-' + s.name;
        const input = s.lines
            ? el('textarea', {id, rows: '2'})
            : el('input', {
                  id,
                  type: 'number',
                  min: s.min,
                  max: s.max,
                  step: s.whole ? 1 : 'any',
                  inputmode: s.whole ? 'numeric' : 'decimal',
                  placeholder: 'server’s choice',
              });
        input.addEventListener('change', () => this.sampling_changed());
        this.inputs[s.name] = input;
        return this.field(id, s.label, input, s.help);
    },

    // What the server does where a field is empty: shown in it.
    show_defaults(params) {
        for (const s of SAMPLING) {
            const value = params && params[s.name];
            if (s.lines || !known(value)) continue;
            const none = {seed: 'random', max_tokens: 'no limit'}[s.name];
            this.inputs[s.name].placeholder =
                none && (value < 0 || value === 4294967295) ? none : String(Math.round(value * 1e4) / 1e4);
        }
    },

    sampling_changed() {
        const values = {};
        for (const s of SAMPLING) {
            const input = this.inputs[s.name],
                text = input.value;
            if (s.lines) values[s.name] = text.split('\n').filter(line => line !== '');
            else if (text.trim() !== '') values[s.name] = Number(text);
        }
        const good = (saved.settings = read_settings(values));
        for (const s of SAMPLING) {
            if (!s.lines)
                this.inputs[s.name].setAttribute(
                    'aria-invalid',
                    String(s.name in values && !(s.name in good)),
                );
        }
        saved.store();
    },

    preset(values) {
        for (const name of ['temperature', 'top_p', 'top_k', 'min_p', 'repeat_penalty']) {
            this.inputs[name].value = name in values ? values[name] : '';
        }
        this.sampling_changed();
    },

    system_changed() {
        saved.system = saved.current.system = this.inputs.system.value;
        saved.store();
    },

    keep_field() {
        const box = (this.inputs.keep = el('input', {
            type: 'checkbox',
            id: 'set-keep',
            onchange: () => {
                saved.set_keep(box.checked);
                show_keep();
            },
        }));
        return el(
            'div',
            {class: 'setting'},
            el('label', {class: 'check', for: 'set-keep'}, box, 'Keep conversations in this browser'),
            el('p', {
                class: 'note',
                text: 'Otherwise they are forgotten when this tab is closed. The server keeps none.',
            }),
        );
    },

    transfer() {
        return el(
            'div',
            {class: 'presets'},
            el(
                'button',
                {type: 'button', onclick: () => export_conversations([saved.current], 'tern-conversation')},
                'Export this one',
            ),
            el(
                'button',
                {
                    type: 'button',
                    onclick: () => export_conversations(saved.conversations, 'tern-conversations'),
                },
                'Export all',
            ),
            el('button', {type: 'button', onclick: () => $('import-file').click()}, 'Import'),
            el(
                'button',
                {
                    type: 'button',
                    class: 'danger',
                    onclick: () => {
                        if (!confirm('Delete all conversations?')) return;
                        chat.stop_all();
                        saved.remove_all();
                        chat.show();
                    },
                },
                'Delete all',
            ),
        );
    },

    // For programs that speak OpenAI's API.
    address_field() {
        const input = el('input', {id: 'set-address', readonly: true, value: location.origin + '/v1'});
        const copy = icon_button('copy', 'Copy the address', () => copy_text(input.value, copy));
        const field = this.field(
            'set-address',
            'Address for programs',
            el('div', {class: 'row'}, input, copy),
            'What OpenAI clients call base URL. llama-server’s routes are there too, without /v1.',
        );
        input.setAttribute('aria-describedby', 'set-address-help');
        return field;
    },

    key_field() {
        const input = (this.inputs.key = el('input', {
            type: 'password',
            id: 'set-key',
            autocomplete: 'off',
            spellcheck: 'false',
            onchange: () => {
                api_key.value = input.value.trim();
                start_over();
            },
        }));
        return this.field(
            'set-key',
            'API key',
            input,
            'Only for servers that ask for one. It is forgotten when this tab is closed.',
        );
    },

    fill() {
        this.inputs.system.value = saved.current.system;
        for (const s of SAMPLING) {
            const value = saved.settings[s.name];
            this.inputs[s.name].value = value === undefined ? '' : s.lines ? value.join('\n') : value;
        }
        this.inputs.keep.checked = saved.keep;
        this.inputs.key.value = api_key.value;
    },
};

function show_keep() {
    set_text(
        $('keep-note'),
        saved.keep
            ? 'Kept in this browser until you delete them.'
            : 'Kept in this tab only; see Settings to keep them longer.',
    );
}

// -- light and dark ---------------------------------------------------------------------------------------

const THEMES = ['auto', 'light', 'dark'];
const THEME_NAMES = {auto: 'Theme: as the system', light: 'Theme: light', dark: 'Theme: dark'};

function apply_theme(theme) {
    document.documentElement.dataset.theme = theme;
    set_icon($('theme'), theme, THEME_NAMES[theme]);
    lanes.colours = null;
}

function load_theme() {
    let theme = null;
    try {
        theme = localStorage.getItem('tern.theme');
    } catch (e) {
        /* not kept */
    }
    apply_theme(THEMES.includes(theme) ? theme : 'auto');
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => {
        lanes.colours = null;
    });
    $('theme').addEventListener('click', () => {
        const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3];
        apply_theme(next);
        speak(THEME_NAMES[next]);
        try {
            localStorage.setItem('tern.theme', next);
        } catch (e) {
            /* not kept */
        }
    });
}
