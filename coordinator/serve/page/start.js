// SPDX-License-Identifier: Apache-2.0
// Puts the parts together: what the server is, keys and buttons of the whole page, and the beginning.
'use strict';

// What a picture of the cluster tells the chat.
function learn(s) {
    const m = s.model || {},
        f = chat.facts;
    const before = JSON.stringify(f);
    f.name = m.name || '';
    f.layers = m.layers;
    f.ctx = m.ctx || 0;
    f.stages = s.stages.length;
    const words = f.name + (f.stages > 1 ? ' · ' + f.stages + ' workers' : '');
    set_text($('model'), words);
    $('model').title = [f.name, m.architecture, count(m.layers) + ' layers', bytes(m.file_bytes)].join(', ');
    pill($('health'), s.ready === false ? 'bad' : 'good', s.ready === false ? 'not ready' : 'ready');
    if (JSON.stringify(f) === before) return;
    chat.show_context();
    if (!saved.current.messages.length) chat.show();
}

// Asks once who answers; again after a while if nobody does.
let asking = 0;
function start_over_in(ms) {
    clearTimeout(asking);
    asking = setTimeout(start_over, ms);
}

async function start_over() {
    clearTimeout(asking);
    feed.polling = false;
    try {
        learn(await get_json('/tern/cluster'));
        const props = await get_json('/props').catch(() => ({}));
        settings.show_defaults((props.default_generation_settings || {}).params);
        // A model without a form for conversations goes on with texts.
        chat.facts.plain = props.chat_template === '' || props.chat_format === 'plain';
        $('prompt').placeholder = chat.facts.plain ? 'Write how it begins' : 'Write a message';
        if (!saved.current.messages.length) chat.show();
    } catch (e) {
        if (e.loading) pill($('health'), 'wait', 'loading the model');
        else pill($('health'), 'bad', e.key ? 'needs a key' : e.down ? 'not connected' : 'not ready');
        if (e.key && !saved.current.messages.length && !chat.troubles.size) ask_key();
        if (!e.key) start_over_in(e.loading ? 1000 : 4000);
        return;
    }
    // What was asked while the model was being loaded.
    for (const c of saved.conversations) {
        if (chat.troubles.has(c) && chat.troubles.get(c).loading) chat.run(c);
    }
}

function ask_key() {
    toast('This server wants an API key.', 'Enter it', () => {
        settings.open();
        settings.inputs.key.focus();
    });
}

function set_list(open) {
    if (open && (innerWidth < 1100 || $('app').classList.contains('wide')) && !$('cluster').hidden)
        cluster.set_open(false);
    $('app').classList.toggle('with-list', open);
    $('list-toggle').setAttribute('aria-expanded', String(open));
}

// On a narrow screen the list lies over the chat.
function close_drawer() {
    if (innerWidth < 820) set_list(false);
}

function keys(e) {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(e.target.tagName),
        dialog = $('settings').open;
    if (e.key === 'Escape' && !dialog) {
        if (chat.runs.has(saved.current)) chat.stop(saved.current);
        else if (chat.editing) chat.edit_end();
        else if (innerWidth < 820 && $('app').classList.contains('with-list')) set_list(false);
        else return;
        e.preventDefault();
    } else if (e.key === '/' && !typing && !dialog && !e.ctrlKey && !e.metaKey && !e.altKey) {
        e.preventDefault();
        $('prompt').focus();
    }
}

function wire() {
    $('composer').addEventListener('submit', e => {
        e.preventDefault();
        if (chat.runs.has(saved.current)) chat.stop(saved.current);
        else chat.submit();
    });
    $('prompt').addEventListener('keydown', e => {
        if (e.key !== 'Enter' || e.shiftKey || e.isComposing) return;
        e.preventDefault();
        chat.submit();
    });
    $('prompt').addEventListener('input', fit_prompt);
    $('editing-cancel').addEventListener('click', () => chat.edit_end());
    $('new').addEventListener('click', () => chat.fresh());
    $('list-toggle').addEventListener('click', () => set_list(!$('app').classList.contains('with-list')));
    $('settings-open').addEventListener('click', () => settings.open());
    $('settings').addEventListener('click', e => {
        if (e.target === $('settings')) $('settings').close();
    });
    $('settings-form').addEventListener('submit', e => {
        e.preventDefault();
        $('settings').close();
    });
    $('import-file').addEventListener('change', async () => {
        const file = $('import-file').files[0];
        $('import-file').value = '';
        if (!file) return;
        try {
            const n = await import_conversations(file);
            $('settings').close();
            chat.show();
            toast(n === 1 ? 'One conversation imported.' : n + ' conversations imported.');
        } catch (e) {
            $('settings').close();
            toast(e instanceof Trouble ? e.message : 'This file could not be read.');
        }
    });
    $('log').addEventListener(
        'scroll',
        () => {
            const log = $('log');
            chat.pinned = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
            $('newest').hidden = chat.pinned;
        },
        {passive: true},
    );
    $('newest').addEventListener('click', () => {
        chat.pinned = true;
        chat.follow();
    });
    new ResizeObserver(() => chat.follow()).observe($('thread'));
    // Beside the list that lies over the chat: away with it.
    document.addEventListener('pointerdown', e => {
        if (innerWidth < 820 && !e.target.closest('#list, .bar')) close_drawer();
    });
    // A window that gets narrow, a tablet that is turned: what lay beside the chat would cover it.
    matchMedia('(max-width: 819px)').addEventListener('change', close_drawer);
    document.addEventListener('keydown', keys);
    window.addEventListener('pagehide', () => saved.store());
}

saved.load();
load_theme();
settings.build();
cluster.build();
wire();
set_list(innerWidth >= 820);
show_keep();
chat.show();
start_over();
if (innerWidth >= 820) $('prompt').focus();
