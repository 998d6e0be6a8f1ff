// SPDX-License-Identifier: Apache-2.0
// Conversations and settings, and where they are kept: in this tab until it is closed, or, if the person
// asks for it, in this browser until they are deleted.  Nothing is ever kept by the server.
'use strict';

const MAX_IMPORT_BYTES = 32 << 20;

const saved = {
    conversations: [], // newest first: {id, title, system, messages: [{role, content, …}], changed}
    current: null,
    settings: {}, // of sampling, by name; a name that is not there is left to the server
    system: '', // what a new conversation begins with
    keep: false,

    storage() {
        try {
            return this.keep ? localStorage : sessionStorage;
        } catch (e) {
            return null;
        }
    },

    load() {
        try {
            this.keep = localStorage.getItem('tern.keep') === '1';
            const text = this.storage().getItem('tern.saved');
            const from = text ? JSON.parse(text) : {};
            this.conversations = read_conversations(from.conversations);
            this.settings = read_settings(from.settings);
            this.system = typeof from.system === 'string' ? from.system : '';
            this.current = this.conversations.find(c => c.id === from.current) || null;
        } catch (e) {
            /* nothing kept, or nothing that can be read */
        }
        if (!this.current) this.begin();
    },

    store() {
        const text = JSON.stringify({
            conversations: this.conversations,
            settings: this.settings,
            system: this.system,
            current: this.current && this.current.id,
        });
        try {
            const storage = this.storage();
            if (storage) storage.setItem('tern.saved', text);
        } catch (e) {
            toast('The browser has no room left to keep conversations; export what matters.');
        }
    },

    // Moves everything to where it is to be kept from now on.
    set_keep(keep) {
        try {
            this.storage().removeItem('tern.saved');
            this.keep = keep;
            if (keep) localStorage.setItem('tern.keep', '1');
            else localStorage.removeItem('tern.keep');
        } catch (e) {
            this.keep = false;
        }
        this.store();
    },

    begin() {
        const empty = this.conversations.find(c => c.messages.length === 0);
        this.current = empty || {
            id: new_id(),
            title: '',
            system: this.system,
            messages: [],
            changed: Date.now(),
        };
        if (empty) empty.system = this.system;
        else this.conversations.unshift(this.current);
        return this.current;
    },

    remove(c) {
        this.conversations = this.conversations.filter(other => other !== c);
        if (this.current === c) this.current = this.conversations[0] || null;
        if (!this.current) this.begin();
        this.store();
    },

    remove_all() {
        this.conversations = [];
        this.current = null;
        this.begin();
        this.store();
    },

    touched(c) {
        c.changed = Date.now();
        this.conversations = [c, ...this.conversations.filter(other => other !== c)];
        this.store();
    },
};

const new_id = () =>
    Array.from(crypto.getRandomValues(new Uint8Array(9)), b => b.toString(36).padStart(2, '0')).join('');

// What stands in a file or in the storage is as hostile as what comes over the network.
function read_conversations(list) {
    if (!Array.isArray(list)) return [];
    return list
        .slice(0, 5000)
        .map(c => {
            if (!c || typeof c !== 'object' || !Array.isArray(c.messages)) return null;
            const messages = c.messages
                .filter(
                    m => m && typeof m.content === 'string' && (m.role === 'user' || m.role === 'assistant'),
                )
                .map(m => ({
                    role: m.role,
                    content: m.content,
                    stats: read_stats(m.stats),
                    end: typeof m.end === 'string' ? m.end : undefined,
                }));
            return {
                id: typeof c.id === 'string' ? c.id.slice(0, 64) : new_id(),
                title: String(c.title || '').slice(0, 200),
                system: typeof c.system === 'string' ? c.system : '',
                messages,
                changed: known(c.changed) ? c.changed : 0,
            };
        })
        .filter(c => c !== null);
}

function read_stats(stats) {
    const out = {};
    for (const name of ['tokens', 'prompt', 'first_ms', 'per_s']) {
        if (stats && known(stats[name])) out[name] = stats[name];
    }
    return Object.keys(out).length ? out : undefined;
}

function export_conversations(list, name) {
    const text = JSON.stringify(
        {format: 'tern-conversations', version: 1, conversations: list.filter(c => c.messages.length)},
        null,
        1,
    );
    const url = URL.createObjectURL(new Blob([text], {type: 'application/json'}));
    const a = el('a', {href: url, download: name + '.json'});
    document.body.append(a);
    a.click();
    a.remove();
    setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function import_conversations(file) {
    if (file.size > MAX_IMPORT_BYTES) throw new Trouble('This file is too large to be one of conversations.');
    let from;
    try {
        from = JSON.parse(await file.text());
    } catch (e) {
        throw new Trouble('This file is not JSON.');
    }
    if (!from || from.format !== 'tern-conversations' || from.version !== 1) {
        throw new Trouble('This file does not hold conversations exported from here.');
    }
    const list = read_conversations(from.conversations).filter(c => c.messages.length);
    const ids = new Set(saved.conversations.map(c => c.id));
    for (const c of list) {
        if (ids.has(c.id)) c.id = new_id();
        ids.add(c.id);
    }
    saved.conversations = [...list, ...saved.conversations];
    if (list.length) saved.current = list[0];
    saved.store();
    return list.length;
}
